"""Command lines to runs and arms, and what is on disk of them."""

import pytest

from ablate.config import run_folder
from ablate.plan.design import design
from ablate.record import Record, write_json


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_sweep_is_arms_times_seeds():
    plan = design(["experiment=suspects"])
    assert len(plan.runs) == 21 and len(plan.cells) == 7 and plan.jobs == 2
    assert [cell.name for cell in plan.cells][:3] == ["guess_check", "process_rewards", "mcts"]
    assert all(cell.seeds == (0, 1, 2) and not cell.settings for cell in plan.cells)
    # seed by seed, as the sweeper takes them
    assert [run.config.seed for run in plan.runs[:8]] == [0] * 7 + [1]
    assert [cell.budget for cell in plan.cells[:2]] == [("flops", 1.2e13), ("flops", 3e12)]
    assert len({run.folder for run in plan.runs}) == 21


def test_arms_of_one_strategy_are_told_apart_by_what_differs():
    plan = design(["-m", "seed=0,1", "learner.lr=1e-3,3e-4", "strategy=guess_check,mcts"][1:])
    assert len(plan.runs) == 8
    assert [(cell.name, cell.settings) for cell in plan.cells] == [
        ("guess_check", {"learner.lr": "0.001"}),
        ("mcts", {"learner.lr": "0.001"}),
        ("guess_check", {"learner.lr": "0.0003"}),
        ("mcts", {"learner.lr": "0.0003"}),
    ]


def test_a_run_that_is_asked_for_twice_is_one():
    assert len(design(["seed=1,1", "sampling_seed=null,1"]).runs) == 1


def test_what_is_on_disk_is_not_left():
    names = ["experiment=smoke", "seed=0,1,2"]
    first, second, third = (run.config for run in design(names).runs)
    record = Record(run_folder(first))
    record.finish({}, "done")
    Record(run_folder(second)).write_config({"seed": 1})
    folder = run_folder(third)
    folder.mkdir(parents=True)
    write_json(folder / "failure.json", {"message": "x"})
    runs = design(names).runs
    assert [run.state for run in runs] == ["finished", "unfinished", "failed"]
    assert [run.left for run in runs] == [False, True, True]
