"""From folders to content: what was put into the outcomes comes out as verdicts."""

import json

import numpy as np
import pytest
from synthetic_results import BUDGET, curve, write_arms, write_run

from ablate.report.assemble import assemble
from ablate.report.claim_tables import accounts
from ablate.report.content import Control, ControlClaim
from ablate.report.loading import load
from ablate.report.wording import design


def told(root, margin=0.05, controls=()):
    return assemble(load(root), margin, controls)


SEARCH_HELPS = Control(
    "tree", "Countdown", "pass@1", 0.02, "flops", BUDGET,
    (ControlClaim("Search", ("search",), "guess + check", "helps", 0.1, (0.05, 0.15), 8, 120, {}),),
)  # fmt: skip


def words(claims):
    return {(claim.suspect, claim.on): claim.word for claim in claims}


def test_known_effects_are_found(tmp_path):
    root = write_arms(
        tmp_path / "suspects",
        {"guess_check": 0.5, "process_rewards": 0.5, "mcts": 0.65, "learn_to_correct": 0.42, "full": 0.42},
    )
    report = told(root)
    assert words(report.claims) == {
        ("process", "guess + check"): "not needed",
        ("search", "guess + check"): "helps",
        ("correct", "guess + check"): "harmful",
        ("full", "the essay's recipe"): "not needed",
    }
    process, search, correct, _ = report.claims
    assert search.effect.estimate.value == pytest.approx(0.15, abs=0.03)
    assert search.effect.seeds == tuple(range(6)) and search.effect.family == 3
    low, high = search.effect.interval
    assert low < search.effect.alone[0] < search.effect.alone[1] < high
    # a benefit that is seen shows that it can be
    assert search.caveats == ("needed not tested: no base run at 4x the budget",)
    assert process.caveats == correct.caveats == ()
    assert report.seen == ("search",)
    # the base never gets as far: worth more than the budget, which is all it had
    assert (search.worth.value, search.worth.beyond) == (None, "more")
    assert search.worth.most == pytest.approx(1.004)
    assert correct.worth.value == pytest.approx(2**-1.6, rel=0.4)
    assert 0.5 < process.power <= 1.0
    arms = {arm.name: arm for arm in report.arms}
    assert report.arms[0].name == "guess_check"
    assert arms["mcts"].against_base == search.effect
    assert arms["mcts"].after - arms["guess_check"].after == pytest.approx(search.effect.estimate.value)
    assert arms["mcts"].before == pytest.approx(0.3, abs=0.02)
    assert arms["mcts"].shares == {"rollout": 0.4, "update": 0.6}
    assert arms["mcts"].tokens == pytest.approx(1e6) and arms["mcts"].logical == pytest.approx(1.02)
    assert arms["full"].against_base.family == 1


def test_other_accounts_budgets_and_difficulties_stand_beside_a_claim(tmp_path):
    root = tmp_path / "arms"
    for seed in range(3):
        wobble = 0.01 * seed
        write_run(root, "guess_check", seed, curve(0.5 + wobble), logical=1.0)
        write_run(root, "mcts", seed, curve(0.7), logical=4.0)  # a tree reads its prefixes again
    (claim,) = told(root).claims
    by_axis = {each.effect.axis: each.effect for each in claim.accounts}
    assert {each.extended for each in claim.accounts} == {None}
    assert set(by_axis) == {"logical_flops", "updates"}
    assert by_axis["logical_flops"].level == BUDGET
    # with four times the logical FLOPs for the same, search has half of the way (two of four doublings) left
    assert by_axis["logical_flops"].estimate.value == pytest.approx(0.5 - 0.51, abs=0.03)
    assert by_axis["updates"].level == 100
    assert [share for share, _ in claim.by_budget] == [0.25, 0.5, 1.0]
    assert claim.by_budget[-1][1].estimate.value == pytest.approx(claim.effect.estimate.value)
    assert [name for name, _ in claim.by_difficulty] == ["easy", "medium", "hard"]
    weighted = np.mean([effect.estimate.value for _, effect in claim.by_difficulty])
    assert weighted == pytest.approx(claim.effect.estimate.value)


@pytest.mark.parametrize("long_end, word", [(0.55, "needed"), (0.75, "helps")])
def test_needed_is_said_if_four_times_the_budget_does_not_make_up_for_it(tmp_path, long_end, word):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.7})
    for seed in range(6):
        write_run(root, "guess_check", seed, curve(long_end, 0.3), budget=4 * BUDGET)
    report = told(root)
    (claim,) = report.claims
    assert claim.word == word
    assert claim.extended.estimate.value == pytest.approx(0.7 - long_end, abs=0.03)
    assert claim.worth.most == pytest.approx(4.016)
    assert claim.caveats == (() if word == "needed" else (f"{SHORT} the budget may be as good",))
    if word == "helps":
        assert claim.worth.interval[0] < claim.worth.value < 4
    # on other accounts, too, where the longer runs reach four times what all have spent there
    by_axis = {each.effect.axis: each for each in claim.accounts}
    assert {axis: each.word for axis, each in by_axis.items()} == {"logical_flops": word, "updates": word}
    assert by_axis["updates"].effect.level == 100
    assert by_axis["updates"].extended.estimate.value == pytest.approx(0.7 - long_end, abs=0.03)
    if word == "helps":
        assert by_axis["updates"].caveats == (f"{SHORT} the updates may be as good",)
    base = report.arms[0]
    assert [curve.declared for curve in base.curves] == [BUDGET, 4 * BUDGET]
    assert base.tokens == pytest.approx(1e6) and base.seconds == 120.0
    assert report.hours == pytest.approx(18 * 120 / 3600)


SHORT = "needed not shown: the base with 4x"


@pytest.mark.parametrize(
    "seeds, word, caveat",
    [
        ((0,), "helps", "needed not tested: 4x the budget on one seed only"),
        ((0, 2, 3), "needed", "the base ran to 4x the budget on 3 of 6 seeds"),
    ],
)
def test_needed_says_on_how_many_seeds_it_rests(tmp_path, seeds, word, caveat):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.7})
    for seed in seeds:
        write_run(root, "guess_check", seed, curve(0.55, 0.3), budget=4 * BUDGET)
    (claim,) = told(root).claims
    assert (claim.word, claim.caveats) == (word, (caveat,))


def test_a_long_base_alone_serves_for_both(tmp_path):
    """One run per seed, with four times the budget, is base and extended base in one."""
    root = write_arms(tmp_path / "arms", {"mcts": 0.7})
    longer = (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0)
    for seed in range(6):
        write_run(root, "guess_check", seed, curve(0.55, shares=longer), 4 * BUDGET, longer)
    report = told(root)
    (claim,) = report.claims
    assert report.budget == BUDGET and claim.word == "needed"
    assert [share for share, _ in claim.by_budget] == [0.25, 0.5, 1.0]


def test_replicates_of_the_base_change_nothing_in_its_comparisons(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.7})
    for seed in range(6):
        write_run(root, "guess_check", seed, curve(0.55, 0.3), budget=4 * BUDGET)
    before = told(root).claims
    for seed in range(6):
        short = (0.0, 0.125, 1.0)
        write_run(root, "guess_check", seed, curve(0.5, shares=short), shares=short, sampling_seed=7)
    report = told(root)
    assert report.claims == before and len(report.replicates) == 1


def test_where_curves_cross(tmp_path):
    root = tmp_path / "arms"
    for seed in range(4):
        wobble = 0.002 * seed
        write_run(root, "guess_check", seed, [0.3, 0.5 + wobble, 0.55, 0.6])
        write_run(root, "mcts", seed, [0.3, 0.4, 0.5 + wobble, 0.7])
    (claim,) = told(root).claims
    (crossing,) = claim.crossings
    # -.05 at half of the budget, +.1 at all of it: a third of the way on the logarithm
    assert crossing.share == pytest.approx(0.5 * 2 ** (1 / 3), rel=0.1) and crossing.gains
    low, high = crossing.interval
    assert 0.5 < low < crossing.share < high < 1
    assert told(write_arms(tmp_path / "flat", {"guess_check": 0.3, "mcts": 0.7})).claims[0].crossings == ()
    (alone,) = assemble(load(root, frozenset({0})), 0.05, ()).claims[0].crossings
    assert alone.share == pytest.approx(0.5 * 2 ** (1 / 3), rel=0.1) and alone.interval == (None, None)


def test_a_suspect_that_ends_below_its_start_is_worth_nothing(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.6, "mcts": 0.05, "process_rewards": 0.35})
    process, search = told(root).claims
    assert (search.word, search.worth.value, search.worth.beyond) == ("harmful", 0.0, "less")
    assert (process.worth.value, process.worth.beyond) == (None, "less")
    assert process.worth.least == pytest.approx(0.251)


def test_a_search_that_was_not_seen_to_help_says_whether_it_could_have_been(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.5, "mcts_uniform": 0.4})
    report = told(root)
    assert report.claims[0].caveats == report.placebos[0].caveats == ("sensitivity to search not shown",)
    report = told(root, controls=[SEARCH_HELPS])
    assert report.claims[0].caveats == report.placebos[0].caveats == ()
    assert report.seen == ("search",) and report.controls == (SEARCH_HELPS,)


def test_a_task_with_a_score_of_its_own_is_judged_by_it(tmp_path):
    root = write_arms(tmp_path / "chain", {"guess_check": 0.5, "process_rewards": 0.7}, scored=True)
    report = told(root)
    assert report.metric == "links right"
    assert report.claims[0].effect.estimate.value == pytest.approx(0.2, abs=0.02)
    base = report.arms[0]
    assert base.before == pytest.approx(0.3, abs=0.02) and base.after == pytest.approx(0.5, abs=0.02)
    assert base.curves[0].accuracy[-1] == pytest.approx(0.5, abs=0.02)
    assert base.curves[0].metrics["pass@1"] == (0.01,) * 4
    assert any("links right" in note for note in report.notes)


def test_a_batch_that_takes_much_of_the_budget_is_told(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5}, range(2))
    spent = {"unit": "flops", "declared": BUDGET, "spent": 1.03 * BUDGET, "largest_batch": 0.05}
    write_run(root, "mcts", 0, curve(0.5), summary={"budget": spent}, **{"learner.problems": 32})
    arm = {arm.name: arm for arm in told(root).arms}["mcts"]
    assert (arm.largest_batch, arm.overshoot) == (0.05, pytest.approx(0.03))
    (note,) = [note for note in told(root).notes if "one batch" in note]
    assert note.startswith("mcts: one batch took up to 5.00 % of the budget") and "problems=12" in note


def test_a_run_that_cannot_be_read_at_the_budget_is_named(tmp_path):
    for seed in range(3):
        for arm in ("guess_check", "process_rewards"):
            run = write_run(tmp_path, arm, seed, curve(0.5), overshoot=0.1)
    (run / "evaluations" / "000050.parquet").unlink()  # what lies before the budget
    report = assemble(load(tmp_path), 0.02)
    assert report.claims[0].effect.seeds == (0, 1)
    assert any("process_rewards, seed 2, cannot be read at the budget" in note for note in report.notes)


def test_an_account_before_the_first_evaluation_is_not_read_and_said_so(tmp_path):
    """A dear batch: the suspect has made a fifth of the updates when its budget ends."""
    for seed in range(3):
        write_run(tmp_path, "guess_check", seed, curve(0.5), overshoot=0.0)
        run = write_run(tmp_path, "process_rewards", seed, curve(0.4), overshoot=0.0)
        rows = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
        for row in rows:
            (old := run / "evaluations" / f"{row['step']:06d}.parquet").rename(
                old.with_name(f"{row['step'] // 5:06d}.parquet")
            )
            row["step"] //= 5
        (run / "evaluations.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    report = assemble(load(tmp_path), 0.02)
    assert {each.effect.axis for each in report.claims[0].accounts} == {"logical_flops"}
    (note,) = [note for note in accounts(report).notes if note.startswith("Not read")]
    assert "Process rewards on guess + check at equal updates" in note


def test_what_was_due_before_all_were_evaluated_is_read_where_they_were(tmp_path):
    """A batch of one arm takes .32 of the budget: its first evaluation is due at .25 and comes after that."""
    late = (0.0, 0.32, 0.5, 1.0)
    for seed in range(3):
        write_run(tmp_path, "guess_check", seed, curve(0.5))
        run = write_run(tmp_path, "mcts", seed, curve(0.7, shares=late), shares=late)
        rows = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
        rows[1]["milestone"] = 0.25
        (run / "evaluations.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (claim,) = told(tmp_path).claims
    first = 0.32 * 1.004
    assert [share for share, _ in claim.by_budget] == pytest.approx([first, 0.5, 1.0])
    truth = (0.7 - 0.5) * (1 + np.log2(first) / 4)
    assert claim.by_budget[0][1].estimate.value == pytest.approx(truth, abs=0.03)
    assert claim.slope.estimate.value == pytest.approx(0.2 / 4, abs=0.02)


def test_uneven_tuning_is_named(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5}, range(2))
    for seed in range(2):
        account = {"rollout": {"flops": 4e11}, "tuning": {"flops": (6e12, 1.5e13)[seed]}}
        write_run(root, "mcts", seed, curve(0.5), summary={"compute": account})
    report = told(root)
    arms = {arm.name: arm for arm in report.arms}
    assert arms["mcts"].tuning == (6e12, 1.5e13) and arms["guess_check"].tuning == (0.0,)
    assert "guess_check was not tuned itself" in report.notes
    assert any(
        note.startswith("tuning was uneven by what the runs recorded: from 6e12 to 1.5e13")
        for note in report.notes
    )
    assert ("tuning", f"{TRIALS}: guess_check none, mcts 6e12 or 1.5e13") in design(report)


TRIALS = "FLOPs of trials, spent once for an arm and not charged"


def test_final_outcomes_alone_give_the_verdict_but_no_multiple_of_compute(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.65})
    for step in (0, 25, 50):
        for path in root.glob(f"*/evaluations/{step:06d}.parquet"):
            path.unlink()
    (claim,) = told(root).claims
    assert claim.word == "helps" and claim.worth is None
    assert [share for share, _ in claim.by_budget] == [1.0]
    assert claim.accounts[-1].effect.axis == "updates" and claim.crossings == ()


def test_seeds_are_paired_where_both_arms_have_them(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5}, range(5))
    write_arms(root, {"mcts": 0.5}, (1, 2, 4, 7))
    report = told(root)
    assert report.claims[0].effect.seeds == (1, 2, 4)
    assert "mcts lacks seed 0, 3: paired on the seeds that both arms have" in report.notes
    assert "guess_check lacks seed 7: paired on the seeds that both arms have" in report.notes


def test_one_seed_gives_no_verdict_and_none_in_common_no_effect(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.6}, [3])
    report = told(root)
    (claim,) = report.claims
    assert claim.word == "no verdict" and claim.effect.interval is None and claim.worth is None
    assert claim.caveats[0].startswith("one seed")
    assert any(note.startswith("one seed: no verdict") for note in report.notes)
    write_run(root, "process_rewards", 4, curve(0.5))
    lonely = told(root).claims[0]
    assert lonely.effect is None and "no seed that its arms have in common" in lonely.caveats


def test_arms_that_solve_nothing_get_no_verdict(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.0, "mcts": 0.0}, range(3), wobble=0.0, start=0.0)
    (claim,) = told(root).claims
    assert claim.word == "no verdict" and claim.caveats[0].startswith("nothing varied")


def test_an_inconclusive_claim_says_how_many_seeds_would_settle_it(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5}, range(4))
    for seed in range(4):
        write_run(root, "mcts", seed, curve(0.45 if seed % 2 else 0.55))
    (claim,) = told(root).claims
    assert claim.word == "inconclusive" and claim.seeds_to_settle > 4


def test_upper_bounds_and_the_unranked_get_no_claim(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "score": 0.5}, range(2))
    write_arms(root, {"process_oracle": 0.8}, range(2), **{"strategy.credit.scorer": "oracle"})
    report = told(root)
    assert report.claims == ()
    arms = {arm.name: arm for arm in report.arms}
    assert arms["process_oracle"].role == "upper bound"
    assert arms["process_oracle"].against_base.estimate.value == pytest.approx(0.3, abs=0.05)
    assert arms["score"].role == "outside" and arms["score"].against_base is None


def test_placebos(tmp_path):
    root = write_arms(tmp_path / "arms", {"mcts": 0.7, "mcts_uniform": 0.5}, range(4))
    (claim,) = told(root).placebos
    assert claim.on == "its placebo mcts_uniform" and claim.word == "helps"
    assert not any("needed" in caveat for caveat in claim.caveats)
    assert any(note.startswith("guess_check did not run") for note in told(root).notes)


def test_another_sampling_seed_is_averaged_in_pairs_and_alone_makes_an_a_a(tmp_path):
    root = write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.6}, range(4))
    plain = told(root).claims[0].effect.estimate.value
    for seed in range(4):
        write_run(root, "guess_check", seed, curve(0.5), sampling_seed=10 + seed)
    report = told(root)
    # mcts has no such run: nothing to pair it with
    assert report.claims[0].effect.estimate.value == plain
    (replicate,) = report.replicates
    assert replicate.effect.seeds == (0, 1, 2, 3) and replicate.word in ("not needed", "inconclusive")
    for seed in range(4):
        write_run(root, "mcts", seed, curve(0.8), sampling_seed=10 + seed)
    assert told(root).claims[0].effect.estimate.value == pytest.approx((plain + 0.3) / 2, abs=0.02)
    assert told(root).claims[0].effect.seeds == (0, 1, 2, 3)  # seeds are what varies, not runs


def test_factorial_with_all_cells_and_with_one_missing(tmp_path):
    ends = {
        f"{source}+{recovery}+{credit}": 0.4 + 0.1 * (credit == "process")
        for source in ("sample", "tree")
        for recovery in ("none", "correct")
        for credit in ("outcome", "process")
    }
    root = write_arms(tmp_path / "factorial", ends, range(3))
    factorial = told(root).factorial
    main = {claim.suspect: claim for claim in factorial.main}
    assert main["process"].effect.estimate.value == pytest.approx(0.1, abs=0.02)
    assert main["process"].word == "helps" and main["search"].effect.family == 3
    assert main["process"].caveats == ("needed not tested: no single arm stands without it",)
    assert main["search"].caveats == ("sensitivity to search not shown",)
    assert len(factorial.simple) == 12 and len(factorial.interactions) == 3
    # a headline's pair must not get another word from a larger family
    assert {claim.word for claim in factorial.simple + factorial.interactions} == {"no verdict"}
    assert {claim.effect.family for claim in factorial.simple} == {12}

    for seed in range(3):
        (root / f"tree+correct+process-s{seed}-{seed}-1e+12").rename(tmp_path / f"away{seed}")
    factorial = told(root).factorial
    assert factorial.missing == ("full or tree+correct+process",)
    assert factorial.main == factorial.interactions == () and len(factorial.simple) == 9
