"""FLOPs of runs, of evaluations, of warm starts; bytes of folders; records that are matched."""

from pathlib import Path
from statistics import fmean

import pytest

from ablate.plan.cost import Subject, bill, evaluations, folder_bytes, warm_starts
from ablate.plan.design import design
from ablate.plan.records import finished

ROOT = Path(__file__).parents[2]
ARMS, TUNED = ROOT / "results" / "arms", ROOT / "results" / "countdown"
needs_results = pytest.mark.skipif(not ARMS.is_dir(), reason="not in the package")


def cell(*overrides):
    return design(list(overrides)).cells[0]


def subject(own):
    return Subject.of(own, None, None)


@pytest.fixture(scope="module")
def records():
    return finished([ARMS, TUNED])[0]


@needs_results
def test_an_arm_that_ran_before_costs_what_it_cost(records):
    own = cell("strategy=mcts", "budget.milestones=3", "seed=7")
    found = bill(own, subject(own), records)
    steps = [r.summary["steps"] for r in records if r.summary["strategy"] == "mcts"]
    assert found.source == f"measured on {len(steps)} runs in {TUNED}" and not found.rehearsed
    assert found.spent.updates == pytest.approx(fmean(steps), rel=0.01)
    assert found.spent.amount("flops") == pytest.approx(3e12)
    # another budget: the same shares
    large = cell("strategy=mcts", "budget.flops=6e12")
    scaled = bill(large, subject(large), records)
    assert scaled.source.endswith("scaled from another budget")
    assert scaled.spent.flops["rollout"] == pytest.approx(2 * found.spent.flops["rollout"])
    # another strategy by the same name, and another task, are not it
    for change in ("strategy.source.simulations=8", "task.largest=19", "learner.lr=1e-3"):
        other = cell("strategy=mcts", change)
        assert bill(other, subject(other), records).source == "estimated"


@needs_results
def test_records_from_before_a_key_existed_are_matched_by_its_default(records):
    own = cell("strategy=guess_check")
    run = next(run for run in records if run.summary["strategy"] == "guess_check")
    old = type(run)(run.folder, run.summary)
    del old.config["learner"]["importance"]
    assert old.is_of(own.values)
    assert not old.is_of(cell("strategy=guess_check", "learner.importance=sequence").values)


@needs_results
def test_evaluation_and_warm_start_are_estimated_as_they_were_measured(records, tmp_path):
    own = cell("budget.milestones=3", f"paths.cache={tmp_path}")
    measured = evaluations(own, subject(own), records).flops
    assert evaluations(own, subject(own), []).flops == pytest.approx(measured, rel=0.15)
    more = cell("budget.milestones=5")
    assert evaluations(more, subject(more), records).flops == pytest.approx(
        1.5 * evaluations(own, subject(own), []).flops, rel=0.1
    )
    start = warm_starts(own, subject(own), (0, 1, 2), {0, 1}, [])
    measured = warm_starts(own, subject(own), (0,), {0}, records)
    assert start.missing == {0, 1} and start.source == "estimated" and start.made is None
    assert measured.source == "measured" and measured.made > 60
    assert start.flops == pytest.approx(measured.flops, rel=0.06)


def test_more_checkpoints_and_parameters_take_more_room():
    own = cell()
    size = folder_bytes(own, subject(own), 100)
    # a default run's folder: two checkpoints, policy, six evaluations of 10,096 answers, figures
    assert 4e6 < size < 7e6
    kept = cell("checkpoint.keep=4")
    weights = subject(own).parameters
    assert folder_bytes(kept, subject(kept), 100) - size == pytest.approx(2 * (12 * weights + 25e3))
    assert folder_bytes(kept, subject(kept), 10) < size  # it ends before a second checkpoint


def test_a_record_that_is_broken_is_left_out_by_name(tmp_path):
    (tmp_path / "run-a").mkdir()
    (tmp_path / "run-a" / "summary.json").write_text('{"finished": true}')
    (tmp_path / "run-b").mkdir()
    (tmp_path / "run-b" / "summary.json").write_text("{")
    (tmp_path / "figures").mkdir()
    found, notes = finished([tmp_path, tmp_path / "nowhere"])
    assert found == [] and len(notes) == 2 and "run-a is left out" in notes[0]
