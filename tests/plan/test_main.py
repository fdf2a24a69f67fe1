"""The command as a user meets it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.plan.__main__ import main
from ablate.plan.content import SCHEMA
from ablate.plan.text import WIDTH, _bytes, _short, _size, _span

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No results, no cache: everything is estimated."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))


def run(capsys, *arguments):
    code = main(arguments)
    out, error = capsys.readouterr()
    assert code == 0, error
    return out


def test_the_screen(capsys):
    out = run(capsys, "experiment=suspects", "measure=false")
    assert out.startswith("suspects: 21 runs of 7 arms on 3 seeds\n")
    assert max(map(len, out.splitlines())) <= WIDTH + 4
    assert "FLOPs of a run" in out and "warm start: 5." in out and "3 to be made" in out
    assert "not known" in out and "measure=false" in out
    assert "assumed, no experiment measured them" in out
    assert '"needed" cannot be said' not in out  # guess + check runs to four times the budget
    for arm in ("guess_check", "process_rewards", "mcts", "learn_to_correct", "full_minus_search", "full"):
        assert re.search(rf"^{arm} +3/3 +\d+ ", out, re.M), arm
    for suspect in ("Process rewards", "Search", "Learning to correct", "All suspects at once"):
        assert re.search(rf"^  {suspect} +3 +9\.6 points +6 % +15 +15$", out, re.M), suspect


def test_what_machines_read(capsys, tmp_path):
    arguments = ("experiment=suspects", "seed=0,1", "gpu=H100", "gpus=8", "utilisation=0.2")
    found = json.loads(run(capsys, *arguments, "json=true"))
    assert found["schema"] == SCHEMA and found["states"] == {"new": 14} and len(found["arms"]) == 7
    for arm in found["arms"]:
        assert sum(arm["flops"].values()) == pytest.approx(arm["budget"])
        assert arm["left"] == arm["runs"] == 2 and arm["source"] == "estimated"
    # all of it is the sum of its parts
    parts = sum(2 * (sum(arm["flops"].values()) + arm["evaluate"]) for arm in found["arms"])
    starts = found["warm_starts"]
    assert starts["needed"] == starts["missing"] == 2
    assert sum(found["flops"].values()) == pytest.approx(parts + 2 * starts["flops"])
    assert found["time"]["at_a_time"] == 8
    assert found["time"]["work"] == pytest.approx(sum(found["flops"].values()) / (0.2 * 989e12))
    assert found["time"]["work"] / 8 < found["time"]["wall"] < found["time"]["work"]
    path = tmp_path / "plan.json"
    text = run(capsys, *arguments, f"json={path}")
    assert "8 x H100" in text and json.loads(path.read_text())["arms"] == found["arms"]


def test_a_budget_in_tokens_or_seconds(capsys):
    tokens = json.loads(run(capsys, "budget.tokens=2e6", "measure=false", "json=true"))["arms"][0]
    assert tokens["tokens"] == pytest.approx(2e6) and tokens["unit"] == "tokens"
    assert 2e12 < sum(tokens["flops"].values()) < 4e12
    unknown = json.loads(run(capsys, "budget.seconds=60", "measure=false", "json=true"))["arms"][0]
    assert unknown["flops"] is None and unknown["seconds"] is None
    known = json.loads(run(capsys, "budget.seconds=60", "gpu=A100", "utilisation=0.5", "json=true"))["arms"][
        0
    ]
    assert sum(known["flops"].values()) == pytest.approx(60 * 156e12) and known["seconds"][0] == 60


def test_one_seed_gives_no_verdict_and_many_do(capsys):
    out = run(capsys, "strategy=guess_check,mcts", "measure=false")
    assert "one seed: no verdict is possible" in out and re.search(r"Search +1 +- +- +11 +10", out)
    assert '"needed" cannot be said' in out
    out = run(capsys, "-m", "strategy=guess_check,mcts", "seed=range(0,12)", "measure=false")
    assert "one seed" not in out and re.search(r"Search +12 +1\.\d points +8\d %", out)
    assert "no arm is tuned" in out
    out = run(capsys, "-m", "strategy=guess_check,mcts", "seed=0,1", "tuned=countdown", "measure=false")
    assert "no arm is tuned" not in out
    assert "no suspect" in run(capsys, "measure=false")
    tuned = run(capsys, "learner.lr=1e-3,3e-4", "seed=0,1", "measure=false")
    assert "guess_check runs with several settings: no verdict" in tuned
    assert re.search(r"^guess_check lr=0\.001 +2/2", tuned, re.M)


def test_a_base_with_four_times_the_budget_is_not_an_arm_of_its_own(capsys, tmp_path):
    found = json.loads(
        run(capsys, "budget.flops=3e12,1.2e13", "strategy=guess_check,mcts", "measure=false", "json=true")
    )
    budgets = [(arm["name"], arm["settings"]["budget.flops"]) for arm in found["arms"]]
    assert budgets == [(n, b) for b in ("3e+12", "1.2e+13") for n in ("guess_check", "mcts")]
    assert len(found["contrasts"]) == 1 and not any("cannot be said" in note for note in found["notes"])
    refused = [note for note in found["notes"] if "the report refuses" in note]
    assert len(refused) == 1 and refused[0].startswith("mcts goes beyond the smallest budget")


def test_unforeseen_costs_are_not_made_up(capsys, tmp_path):
    judge = tmp_path / "judge"
    judge.mkdir()
    (judge / "config.json").write_text("{}")
    (judge / "model.safetensors").write_text("")
    arguments = ["strategy.credit.scorer=judge", "strategy.credit.judge.who=local"]
    arguments += [f"strategy.credit.judge.path={judge}", "strategy=process_rewards", "measure=false"]
    out = run(capsys, *arguments)
    assert "a local judge costs is not known before a first run" in out
    found = json.loads(run(capsys, *arguments, "json=true"))
    assert found["arms"][0]["flops"] is None and found["flops"]["unknown"] == 3e12


BAD = [
    (["gpu=H1000"], "unknown gpu=H1000; did you mean H100?"),
    (["utilization=0.3"], "unknown key utilization; did you mean utilisation?"),
    (["gpu=H100", "utilisation=30"], "utilisation=30 must be above 0 and at most 1; did you mean 0.3?"),
    (["gpus=8"], "gpus=8 says nothing without a GPU: add gpu=H100"),
    (["gpu=H100", "gpus=1.5"], "gpus=1.5 is not a whole number"),
    (["margin=2"], "margin=2 must be above 0 and at most 1; did you mean 0.02?"),
    (["measure=maybe"], "measure=maybe is not a choice; choices: auto, false, true"),
    (["json="], "json= has no value"),
    (["json=/nowhere/x.json", "measure=false"], "json=/nowhere/x.json: there is no folder /nowhere"),
    (["budget.flops=1e9"], "budget.flops=1e+09 is less than one batch can cost"),
    (["budget.tokens=1000"], "the smallest that works is 3.28e+04"),
    (["length=200"], "length=200 does not fit under sampling.cap=128"),
    (["steps=0"], "steps=0 must be at least 1"),
    (["pilot=nowhere"], "nowhere is not a folder"),
    (["strategy=gues_check"], "unknown strategy gues_check; did you mean guess_check?"),
    (["lerner.lr=1"], "unknown key lerner.lr; did you mean learner.lr?"),
    (["--gpu=H100"], "unknown option --gpu=H100; keys are written without dashes: gpu=H100"),
    (["learner.lr=interval(1e-4,1e-3)"], "lists no values"),
    (["task.numbers=3,4"], "task differs between runs"),
    (["evaluate.samples=4,8"], "evaluate differs between runs"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and message in error and error.count("\n") == 1


def test_no_torch_is_loaded_for_it():
    code = """
import sys
from ablate.plan.__main__ import main
code = main(["experiment=suspects", "measure=false", "json=true"])
loaded = {"torch", "transformers", "trl", "mlflow", "vllm"} & set(sys.modules)
print(*sorted(loaded), file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.strip() == "" and json.loads(done.stdout)["arms"]


def test_help(capsys):
    out = run(capsys, "--help")
    assert "RTX 4090" in out and max(map(len, out.splitlines())) <= 110


def test_numbers_read_well():
    assert [_short(v) for v in (0.0, 7.16e11, 9.99e12, 120.0)] == ["-", "7.2e11", "1.0e13", "120"]
    assert [_span(v) for v in (0.2, 45, 200, 1000, 8000, 3e5)] == [
        *("< 1 s", "45 s", "3.3 min", "17 min", "2.2 h", "3.5 days")
    ]
    assert [_size(v) for v in (21504, 164352, 1.5e9)] == ["21,504", "0.16M", "1.5B"]
    assert [_bytes(v) for v in (876e3, 5.2e6, 1.1e9)] == ["876 kB", "5.2 MB", "1.1 GB"]
