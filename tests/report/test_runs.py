import numpy as np
import pytest
from synthetic_results import BUDGET, PROBLEMS, curve, write_run

from ablate.report.loading import load

STEPS = [0.0, 0.25, 0.5, 1.0]  # exact shares of right answers with four samples


@pytest.fixture
def root(tmp_path):
    return tmp_path / "arms"


def one(root, **changes):
    write_run(root, "guess_check", 0, STEPS, **changes)
    return load(root).runs[0]


def test_accuracy_is_interpolated_in_the_logarithm_of_the_compute(root):
    run = one(root, overshoot=0.0)
    for level, accuracy in [
        (0.25, 0.25),
        (2**-1.5, 0.375),
        (2**-0.5, 0.75),
        (1.0, 1.0),
    ]:
        found = run.at("budget", level * BUDGET)
        assert found == pytest.approx(np.full(PROBLEMS, accuracy))
        assert run.at("logical_flops", 1.02 * level * BUDGET) == pytest.approx(found)
        assert run.figure("heldout/pass@1", "budget", level * BUDGET) == pytest.approx(accuracy)
    assert run.at("updates", 50) == pytest.approx(np.full(PROBLEMS, 0.5))


def test_nothing_is_read_between_the_start_and_the_first_milestone(root):
    """Most is learned there: a straight line would say little of it."""
    run = one(root, overshoot=0.0)
    assert run.at("budget", 0.2 * BUDGET) is None and run.at("updates", 20) is None
    assert run.at("budget", 0.248 * BUDGET) is not None  # as near as a batch comes
    assert run.at("budget", 0.0) == pytest.approx(np.zeros(PROBLEMS))


def test_overshoot_is_taken_back(root):
    run = one(root, overshoot=0.1)
    weight = np.log(1 / 0.55) / np.log(2)
    assert run.at("budget", BUDGET) == pytest.approx(np.full(PROBLEMS, 0.5 + 0.5 * weight))


def test_nothing_is_read_beyond_the_end(root):
    run = one(root)
    assert run.at("budget", 1.5 * BUDGET) is None
    assert run.at("budget", 1.01 * BUDGET) is not None  # within what one batch may overshoot


def test_without_outcomes_of_milestones_the_final_ones_serve_at_the_budget(root):
    run = one(root, overshoot=0.01)
    for step in (0, 25, 50):
        (run.folder / "evaluations" / f"{step:06d}.parquet").unlink()
    assert run.at("budget", BUDGET) == pytest.approx(np.ones(PROBLEMS))
    assert run.at("budget", 0.5 * BUDGET) is None


def test_a_longer_run_stands_in_for_a_shorter_one(root):
    write_run(root, "mcts", 0, curve(0.5))
    write_run(root, "guess_check", 0, STEPS, budget=4 * BUDGET, overshoot=0.0)
    write_run(root, "guess_check", 1, STEPS, budget=4 * BUDGET, overshoot=0.0)
    write_run(root, "guess_check", 1, [0.0, 0.25, 0.25, 0.75], overshoot=0.0)
    found = load(root)

    def read(seed, level):
        return found.read("guess_check", (seed, seed), "budget", level * BUDGET).mean()

    assert read(0, 1) == pytest.approx(0.25)
    assert read(1, 1) == pytest.approx(0.75)  # its own run comes first
    assert read(1, 2) == pytest.approx(0.5)
    assert found.read("mcts", (0, 0), "budget", 4 * BUDGET) is None


def test_a_schedule_over_the_budget_forbids_that(root):
    write_run(root, "mcts", 0, curve(0.5), **{"learner.schedule": "linear"})
    write_run(root, "guess_check", 0, STEPS, budget=4 * BUDGET, **{"learner.schedule": "linear"})
    found = load(root)
    assert found.read("guess_check", (0, 0), "budget", BUDGET) is None
    assert found.read("guess_check", (0, 0), "budget", 4 * BUDGET) is not None
