import json

import pytest
from synthetic_results import BUDGET, curve, write_arms, write_run

from ablate.report.loading import load
from ablate.types import UserError


@pytest.fixture
def folder(tmp_path):
    return write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.52}, range(2))


def refusal(folder):
    with pytest.raises(UserError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_all_finished_runs_are_found(folder):
    found = load(folder)
    assert found.name == "arms" and found.arms == ["guess_check", "mcts"]
    assert (found.unit, found.budget) == ("flops", BUDGET)
    assert len(found.runs) == 4 and found.left_out == [] and found.notes == []
    assert len(found.problems.ids) == 120 and len(set(found.problems.clusters)) == 30
    assert {run.seed for run in load(folder, frozenset({1})).runs} == {1}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"task.numbers": 4}, "task.numbers is 3 in guess_check-s0"),
        ({"model.hidden": 32}, "model.hidden is 64"),
        ({"sampling.cap": 128}, "sampling.cap is 96"),
        ({"evaluate.split": "tuning"}, "evaluate.split is heldout"),
        ({"budget": 2 * BUDGET}, "process_rewards and guess_check have different budgets: 2e+12 and 1e+12"),
        ({"ids": "q"}, "evaluated on other problems"),
        ({"scored": True}, "evaluated by pass@1 and process_rewards-s0-0-1e+12 by links right"),
    ],
)
def test_arms_that_differ_in_what_must_be_equal_are_refused(folder, changes, words):
    write_run(folder, "process_rewards", 0, curve(0.5), **changes)
    assert words in refusal(folder)


def test_arms_with_budgets_in_different_units_are_refused(folder):
    run = write_run(folder, "process_rewards", 0, curve(0.5))
    summary = json.loads((run / "summary.json").read_text())
    summary["budget"]["unit"] = "tokens"
    (run / "summary.json").write_text(json.dumps(summary))
    assert "budget.unit is flops in guess_check-s0" in refusal(folder)


def test_two_runs_for_one_place_are_refused(folder):
    twin = write_run(folder, "mcts", 0, curve(0.5), **{"learner.lr": 1e-3, "sampling_seed": 7})
    # another sampling seed is another place, but an arm has one learner
    assert "mcts ran with two settings: learner.lr is 0.0006 in mcts-s0" in refusal(folder)
    config = twin / "config.yaml"
    config.write_text(config.read_text().replace("sampling_seed: 7", "sampling_seed: 0"))
    assert "two runs of mcts with seed 0" in refusal(folder) and "learner.lr" in refusal(folder)


def test_arms_may_differ_in_the_learner_and_it_is_named(folder):
    write_run(folder, "process_rewards", 0, curve(0.5), **{"learner.lr": 1e-3})
    assert load(folder).notes == [
        "learner.lr differs: 0.0006 (guess_check s0 s1, mcts s0 s1); 0.001 (process_rewards s0)"
    ]


def test_one_name_for_two_strategies_is_refused(folder):
    write_run(folder, "mcts", 2, curve(0.5), **{"strategy.credit.scorer": "learned"})
    assert "mcts ran with two settings: strategy.credit.scorer is monte_carlo" in refusal(folder)


def test_other_differences_are_named(folder):
    write_run(folder, "mcts", 2, curve(0.5), revision="def", **{"engine.max_rows": 8, "evaluate.workers": 9})
    assert load(folder).notes == [
        "engine.max_rows differs: 1024 (guess_check s0 s1, mcts s0 s1); 8 (mcts s2)",
        "code revisions differ: abc (guess_check s0 s1, mcts s0 s1); def (mcts s2)",
    ]


def test_a_key_that_an_older_run_did_not_know_yet_is_no_difference(folder):
    write_run(folder, "mcts", 2, curve(0.5), **{"learner.kl": 0.0, "learner.sharding": "none"})
    assert load(folder).notes == []
    write_run(folder, "mcts", 3, curve(0.5), **{"learner.sharding": "full"})
    assert load(folder).notes == [
        "learner.sharding differs: none (guess_check s0 s1, mcts s0 s1 s2); full (mcts s3)"
    ]


def test_a_run_outside_a_checkout_has_no_revision(folder):
    run = write_run(folder, "mcts", 2, curve(0.5))
    meta = json.loads((run / "meta.json").read_text())
    (run / "meta.json").write_text(json.dumps({**meta, "git": None}))
    assert load(folder).notes == [
        "code revisions differ: abc (guess_check s0 s1, mcts s0 s1); None (mcts s2)"
    ]


def damage_cut_config(run):
    (run / "config.yaml").write_text("strategy:\n  na")


def damage_no_outcomes(run):
    (run / "evaluations" / "000100.parquet").unlink()


def damage_broken_outcomes(run):
    path = run / "evaluations" / "000100.parquet"
    path.write_bytes(path.read_bytes()[:200])


def damage_cut_summary(run):
    path = run / "summary.json"
    path.write_bytes(path.read_bytes()[:50])


def damage_empty_config(run):
    (run / "config.yaml").write_text("")


def damage_cut_stream(run):
    path = run / "evaluations.jsonl"
    path.write_text(path.read_text()[:20])


def damage_cut_rows(run):
    path = run / "evaluations.jsonl"
    path.write_bytes(path.read_bytes()[:-50])  # the last row's line is half a line


def damage_cut_figures(run):
    path = run / "evaluations.jsonl"
    path.write_text(path.read_text().replace("heldout/length", "heldout/other"))


def damage_old_summary(run):
    summary = json.loads((run / "summary.json").read_text())
    del summary["compute"]
    (run / "summary.json").write_text(json.dumps(summary))


def damage_unfinished(run):
    (run / "summary.json").unlink()


def damage_failed(run):
    (run / "summary.json").unlink()
    (run / "failure.json").write_text(json.dumps({"message": "the disk is full\nmore"}))


def damage_short(run):
    summary = json.loads((run / "summary.json").read_text())
    summary["budget"]["spent"] = 0.4 * BUDGET
    (run / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (damage_cut_config, "cut off"),
        (damage_empty_config, "config.yaml holds no settings"),
        (damage_no_outcomes, "evaluations/000100.parquet"),
        (damage_broken_outcomes, "cannot read the evaluation evaluations/000100.parquet"),
        (damage_cut_summary, "cannot read summary.json"),
        (damage_cut_stream, "cut off"),
        (damage_cut_rows, "cut off: evaluations.jsonl ends at 50 % of its budget"),
        (damage_cut_figures, "cut off: evaluations.jsonl lacks heldout/length"),
        (damage_old_summary, "cut off: its files lack 'compute'"),
        (damage_unfinished, "not finished"),
        (damage_failed, "failed: the disk is full"),
        (damage_short, "ended at 40 % of its budget"),
    ],
)
def test_a_run_that_is_cut_off_is_left_out_and_named(folder, damage, reason):
    run = write_run(folder, "process_rewards", 0, curve(0.5))
    damage(run)
    found = load(folder)
    ((name, why),) = found.left_out
    assert name == run.name and reason in why and "\n" not in why
    assert found.arms == ["guess_check", "mcts"]


def test_a_folder_without_runs_says_what_is_there(folder, tmp_path):
    assert "experiments in it: arms" in refusal(tmp_path)
    assert "did you mean arms?" in refusal(tmp_path / "arm")
    run = next(folder.iterdir())
    assert f"give the folder of its experiment: {folder}" in refusal(run)
    with pytest.raises(UserError, match="no finished run with seed 9"):
        load(folder, frozenset({9}))


def test_only_a_base_may_go_on_to_a_larger_budget(folder):
    write_run(folder, "guess_check", 0, curve(0.6), budget=4 * BUDGET)
    found = load(folder)
    assert found.budget == BUDGET
    assert found.notes == ["runs of a base that go on: 4x the budget (guess_check s0)"]
