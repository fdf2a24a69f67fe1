"""Scorers side by side: who is on the ladder, in which order, and what is said of each."""

import json

import pytest
from synthetic_results import curve, write_arms, write_run

from ablate.report.assemble import assemble
from ablate.report.loading import load
from ablate.report.tables import tables

ENDS = {
    "process_oracle": ("oracle", 0.7),
    "process_rewards": ("monte_carlo", 0.6),
    "process_judge": ("judge", 0.5),
}
COMPUTE = {name: {"flops": value} for name, value in (("rollout", 1e11), ("update", 1e11), ("label", 6e11))}
JUDGED = {"scorer": {"calibration": 0.05, "judge_failed": 0.01}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = write_arms(tmp_path_factory.mktemp("ladder"), {"guess_check": 0.5}, range(3))
    for name, (scorer, end) in ENDS.items():
        summary = JUDGED if scorer == "judge" else {"compute": COMPUTE} if scorer == "monte_carlo" else {}
        for seed in range(3):
            settings = {"strategy.credit.scorer": scorer}
            folder = write_run(root, name, seed, curve(end), summary=summary, **settings)
            if scorer == "monte_carlo":  # an early summary, whose steps were kept
                rows = [{"step": 1, "train/scorer/error": 0.1 * seed}, {"step": 2, "train/solved": 1.0}]
                (folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed in range(3):
        naive = {"strategy.credit.scorer": "oracle", "strategy.credit.form": "difference"}
        write_run(root, "process_naive", seed, curve(0.1), **naive)
        write_run(root, "process_shuffled", seed, curve(0.4), **{"strategy.credit.shuffle": True})
    return root


def test_rungs_are_the_arms_that_differ_in_the_scorer_alone(root):
    report = assemble(load(root), 0.02)
    assert [claim.suspect for claim in report.claims] == [
        "process"
    ]  # the others are no suspects of their own
    oracle, own, judge = report.ladder
    assert [rung.arm for rung in (oracle, own, judge)] == list(ENDS)
    assert [rung.scorer for rung in (oracle, own, judge)] == ["oracle", "monte_carlo", "judge"]
    assert oracle.at_budget.estimate.value == pytest.approx(0.2, abs=0.02)
    assert own.at_budget.family == 1 and own.at_updates.axis == "updates" and own.at_updates.level == 100
    assert judge.at_updates.estimate.value == pytest.approx(0.0, abs=0.02)
    assert (oracle.price, own.price) == (0.0, pytest.approx(0.75))
    assert oracle.quality == {} and own.quality == {"error": pytest.approx(0.1)}
    assert (oracle.word, oracle.caveats) == ("no verdict", ("an upper bound",))
    # a word is the headline's, whose interval holds together with its family's
    assert (own.word, own.caveats) == (
        report.claims[0].word,
        report.claims[0].caveats,
    ) and own.word == "helps"
    assert (judge.word, judge.caveats) == ("no verdict", ("no headline",))
    assert judge.quality == pytest.approx(JUDGED["scorer"])


def test_the_ladder_is_a_table(root):
    (table,) = [each for each in tables(assemble(load(root), 0.02)) if each.key == "ladder"]
    assert table.head[-3:] == ("error", "calibration", "judge failed")
    assert [row[1] for row in table.rows] == ["oracle", "Monte Carlo", "judge"]
    assert [row[5] for row in table.rows] == ["0.0", "75.0", "0.0"]
    assert [row[6:] for row in table.rows] == [("–",) * 3, ("0.1", "–", "–"), ("–", "0.05", "0.01")]


def test_one_scorer_is_no_ladder(tmp_path):
    arms = write_arms(tmp_path / "arms", {"guess_check": 0.5, "process_rewards": 0.6}, range(2))
    assert assemble(load(arms), 0.02).ladder == ()
    write_arms(tmp_path / "other", {"process_rewards": 0.6}, range(2))
    write_run(tmp_path / "other", "process_oracle", 0, curve(0.7), **{"strategy.credit.scorer": "oracle"})
    assert assemble(load(tmp_path / "other"), 0.02).ladder == ()  # nothing to compare with
