import shlex
from itertools import product
from types import SimpleNamespace

import pytest

from ablate.report.provenance import commands, design, provenance, sweeps


def words(line):
    return tuple(shlex.split(line))


def test_runs_of_a_sweep_are_one_command():
    runs = [
        words(f"experiment=suspects seed={seed} strategy={arm}")
        for arm, seed in product(("guess_check", "mcts"), range(3))
    ]
    assert sweeps(runs) == ["python -m ablate -m experiment=suspects seed=0,1,2 strategy=guess_check,mcts"]
    # a seed that one arm lacks, and the base with four times the budget
    more = [*runs[:-1], words("strategy=guess_check seed=0 budget.flops=1.2e13")]
    assert sweeps(more) == [
        "python -m ablate -m experiment=suspects seed=0,1,2 strategy=guess_check",
        "python -m ablate -m experiment=suspects seed=0,1 strategy=mcts",
        "python -m ablate strategy=guess_check seed=0 budget.flops=1.2e13",
    ]


def test_cells_of_a_factorial_are_one_command():
    cells = product(("sample", "tree"), ("none", "correct"), range(2))
    runs = [words(f"strategy/source={a} strategy/recovery={b} seed={c}") for a, b, c in cells]
    assert sweeps(runs) == [
        "python -m ablate -m strategy/source=sample,tree strategy/recovery=none,correct seed=0,1"
    ]


def test_single_runs_and_strange_values_stay_as_they_are():
    assert sweeps([words("seed=3")]) == ["python -m ablate seed=3"]
    assert sweeps([words("seed=3"), words("seed=3")]) == ["python -m ablate seed=3"]
    assert sweeps([words("'note=a b' seed=1"), ()]) == [
        "python -m ablate 'note=a b' seed=1",
        "python -m ablate",
    ]


@pytest.mark.parametrize("command", ["", "python -m joblib.backend LokyProcess-1", "torchrun 'x", "ablate"])
def test_what_cannot_be_repeated_is_counted(command):
    meta = [
        {"command": "python3.11 -m ablate seed=1 paths.results=/here ++paths.cache=/there"},
        {"command": command},
        {},
    ]
    runs = [SimpleNamespace(meta=each, config={"name": "single"}) for each in meta]
    assert commands(runs, "single") == (("python -m ablate seed=1",), 2)


def test_runs_of_another_name_are_repeated_under_the_experiments():
    lines = ("python -m ablate seed=1", "python -m ablate name=other seed=2")
    runs = [SimpleNamespace(meta={"command": line}, config={"name": "other"}) for line in lines]
    found, _ = commands(runs, "mine")
    assert set(found) == {"python -m ablate seed=1 name=mine", "python -m ablate name=mine seed=2"}


def test_a_design_of_the_experiments_name_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert design("suspects") == "python -m ablate -m experiment=suspects" and design("mine") is None
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").touch()
    assert design("mine") == "python -m ablate -m experiment=mine"


def test_facts_are_counted_by_value():
    meta = {"git": {"revision": "abc"}, "libraries": {"torch": "2.13"}, "machine": {"gpus": ["H100", "H100"]}}
    runs = [SimpleNamespace(meta=each) for each in (meta, meta, {"git": None, "libraries": {}})]
    found = provenance(runs)
    assert found["revision"] == {"abc": 2} and found["torch"] == {"2.13": 2}
    assert found["gpu"] == {"H100, H100": 2} and found["cpu"] == {}
