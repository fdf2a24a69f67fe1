"""Seconds: schedules, GPUs, memories of finished runs, and the benchmark of this machine."""

import json
from pathlib import Path
from statistics import median

import pytest

from ablate.plan import benchmark
from ablate.plan.benchmark import Speed
from ablate.plan.design import design
from ablate.plan.gpus import GPUS, find
from ablate.plan.records import finished, this_machine
from ablate.plan.rehearsal import Spent
from ablate.plan.speed import OWN, Recollection, described, on_gpu, schedule, wall
from ablate.types import UserError

RESULTS = Path(__file__).parents[2] / "results"


def test_the_next_run_starts_when_one_ends():
    assert schedule([3.0, 1.0, 1.0, 1.0, 5.0], 2) == 8.0
    assert schedule([1.0] * 8, 8) == 1.0 and schedule([2.0, 3.0], 1) == 5.0
    assert wall([2.0, 3.0], 2) == (3.0, 5.0) and wall([2.0, None], 2) is None and wall([], 2) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["H100", "h100", "nvidia h-100", "RTX 4090", "rtx4090", "4090", "h100-pcie"])
def test_gpus_are_found_by_any_spelling(name):
    assert find(name).peak > 1e14


def test_an_unknown_gpu_is_told_the_nearest():
    with pytest.raises(UserError, match=r"unknown gpu=H10O; did you mean H100\?; choices: A10, A100"):
        find("H10O")


def test_the_table_is_of_dense_figures_with_a_source():
    peaks = {gpu.name: gpu.peak for gpu in GPUS}
    assert len(peaks) == len(GPUS) and all(gpu.source for gpu in GPUS)
    assert peaks["H100"] == peaks["H200"] == 989e12 and peaks["A100"] == 312e12
    for gpu in GPUS:  # where the sheet has the figure with sparsity alone, it is twice this one
        if "with sparsity" in gpu.source:
            stated = float(gpu.source.split("(")[1].split(" ")[0].replace(",", ""))
            assert gpu.peak / 1e12 == pytest.approx(stated / 2, rel=0.001)


def test_a_gpu_takes_flops_over_peak_times_utilisation():
    clock = on_gpu(find("A100"), 0.5, evaluate=312e12)
    assert clock.flop * 156e12 == pytest.approx(1.0) and clock.evaluate == pytest.approx(2.0)


@pytest.mark.skipif(not RESULTS.is_dir(), reason="not in the package")
def test_runs_of_this_machine_are_remembered_and_others_are_not():
    every = finished([RESULTS / "arms", RESULTS / "countdown"])[0]
    records = [run for run in every if not run.summary["strategy"].startswith("full")]
    there = {"cpu": "AMD EPYC", "cores": 2, "gpus": []}
    memory = Recollection(records, there)
    own, full, other = (design([f"strategy={name}"]).cells[0] for name in ("mcts", "full", "process_learned"))
    clock = memory.clock(own, 1e12)
    undisturbed = [r for r in records if r.summary["strategy"] == "mcts" and not r.meta.get("resumed")]
    rates = [r.summary["seconds"]["train"] / r.amount("flops") for r in undisturbed]
    assert clock.source == OWN and clock.flop == pytest.approx(median(rates))
    assert memory.clock(full, 1e12).source == "as arms with its source"
    assert memory.clock(other, 1e12).source == "as arms with its source and credit"
    assert memory.clock(design(["model.hidden=128"]).cells[0], 1e12) is None
    for elsewhere in ({**there, "cores": 64}, {**there, "cpu": "x"}, {**there, "gpus": ["H100"]}):
        assert Recollection(records, elsewhere).clock(own, 1e12) is None


def test_seconds_by_passes_rows_flops_and_updates():
    speed = Speed(1e-3, 1e-5, 1e-11, 0.1, None, 0.0, 0.0)
    spent = Spent({"rollout": 5e11, "update": 2e12}, 1e6, 10.0, passes=100.0, rows=1e5, read=1e10)
    assert speed.training(spent) == pytest.approx(0.1 + 1.0 + 0.1 + 20.0 + 1.0)
    assert len(described(speed, 2)) == 1
    busy = described(Speed(1e-3, 1e-5, 1e-11, 0.1, None, 0.0, 3.0), 2)
    assert "about 3.0 processes were at work on its 2 cores" in busy[1]


def test_this_machine_is_measured_by_its_own_engine_and_learner(tmp_path, capsys):
    """Two processes of a real model, then from the cache."""
    cell = design(["experiment=smoke", "learner.kl=0.05", f"paths.cache={tmp_path}"]).cells[0]
    speed = benchmark.measure(cell.config, cell.values, this_machine(), 2, again=False)
    assert "measuring this machine's speed" in capsys.readouterr().err
    # a small model on any machine: a pass takes a tenth of a millisecond to a tenth of a second
    assert 1e-4 < speed.one_pass < 1e-1 and 0 <= speed.row < 1e-3
    assert 1e-13 < speed.flop < 1e-7 and 0 <= speed.update < 5 and 1e-13 < speed.warm_flop < 1e-7
    assert benchmark.measure(cell.config, cell.values, this_machine(), 2, again=False) == speed
    assert capsys.readouterr().err == ""
    assert len(list((tmp_path / "speed").glob("*.json"))) == 1


def test_a_benchmark_that_fails_says_so_in_one_line(tmp_path):
    cell = design(["experiment=smoke", f"paths.cache={tmp_path}"]).cells[0]
    broken = json.loads(json.dumps(cell.values)) | {"seed": "x"}
    with pytest.raises(UserError, match=r"the speed cannot be measured \(.*seed=x is not a whole number"):
        benchmark.measure(cell.config, broken, this_machine(), 1, again=True)
