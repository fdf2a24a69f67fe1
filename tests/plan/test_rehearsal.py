"""The rehearsal against what finished runs spent, and against the budget."""

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytest

from ablate.compose import compose
from ablate.config import build
from ablate.ledger import BUDGETED
from ablate.plan.records import finished
from ablate.plan.rehearsal import NOTHING, Stage, count_tokens, rehearse
from ablate.plan.stand_in import Manner
from ablate.strategy import AXES, Strategy
from ablate.types import UserError

RESULTS = Path(__file__).parents[2] / "results"


def stage(*overrides, strategy=None):
    config = compose(overrides)
    task = build(config.task)
    parts = {axis: build(getattr(config.strategy, axis)) for axis in AXES}
    cost = build(config.model).cost(task)
    return Stage(config, task, strategy or Strategy(**parts), cost, Manner.of(config.sampling.cap))


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the results are in the repository, not in the package")
@pytest.mark.parametrize(
    ("arm", "folder", "shares", "updates"),
    [
        # points of the budget, and updates: how near the rehearsal comes; these runs booked the output head
        # on masked tokens, too, 1 % of an update
        ("guess_check", "arms", 1.0, 0.05),
        ("learn_to_correct", "arms", 1.5, 0.15),
        ("process_rewards", "arms", 2.0, 0.15),
        ("mcts", "countdown", 6.0, 0.15),
        ("full_minus_process", "countdown_whole", 5.0, 0.1),
    ],
)
def test_it_spends_as_finished_runs_did(arm, folder, shares, updates):
    runs = [run for run in finished([RESULTS / folder])[0] if run.summary["strategy"] == arm]
    spent = rehearse(stage(f"strategy={arm}"), "flops", 3e12)
    assert len(runs) >= 3 and spent.amount("flops") == pytest.approx(3e12)
    for purpose in BUDGETED:
        measured = fmean(run.flops.get(purpose, 0.0) / run.amount("flops") for run in runs)
        assert 100 * spent.flops.get(purpose, 0.0) / 3e12 == pytest.approx(100 * measured, abs=shares)
    assert spent.updates == pytest.approx(fmean(run.summary["steps"] for run in runs), rel=updates)
    assert spent.tokens == pytest.approx(fmean(run.summary["totals"]["tokens"] for run in runs), rel=0.1)


def test_a_budget_is_spent_to_the_last_token_or_flop():
    spent = rehearse(stage("experiment=smoke"), "tokens", 4e4)
    assert spent.tokens == pytest.approx(4e4) and spent.amount("tokens") == spent.tokens
    with pytest.raises(UserError, match=r"budget\.tokens=40000 can never be spent"):
        rehearse(stage("experiment=smoke", "strategy=more_demonstrations"), "tokens", 4e4)


def test_process_rewards_that_end_early_are_paid_for_early():
    whole, early = (
        rehearse(stage("experiment=smoke", "strategy=process_rewards", *more), "flops", 1e10)
        for more in ((), ("strategy.credit.until=0.25",))
    )
    assert early.flops["label"] == pytest.approx(0.25 * whole.flops["label"], rel=0.15)
    assert early.updates > 2 * whole.updates


def test_a_batch_that_is_used_twice_is_charged_twice():
    once, twice = (
        stage("experiment=smoke", f"learner.iterations={count}").batch(0.5, 100.0) for count in (1, 2)
    )
    assert twice.flops["update"] == pytest.approx(2 * once.flops["update"])
    assert twice.flops["rollout"] == once.flops["rollout"] and twice.updates == 2


@pytest.mark.parametrize(
    "strategy",
    sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "strategy").glob("*.yaml")),
)
def test_every_strategy_can_be_rehearsed(strategy):
    task = ["task=chain", "sampling.cap=64"] if strategy == "process_verified" else ["experiment=smoke"]
    spent = rehearse(stage(*task, f"strategy={strategy}"), "flops", 5e9)
    assert spent.amount("flops") == pytest.approx(5e9) and spent.flops["update"] > 0
    assert set(spent.flops) <= set(BUDGETED)


def test_few_problems_stand_for_many():
    """A batch of a million tokens is not drawn in full, and costs per problem what a small one costs."""
    large, small = (
        rehearse(stage("sampling.cap=1024", f"learner.problems={count}"), "flops", 1e15)
        for count in (512, 32)
    )
    assert large.updates == pytest.approx(small.updates / 16, rel=0.1)
    assert large.flops["rollout"] == pytest.approx(small.flops["rollout"], rel=0.1)


def test_a_strategy_of_ones_own_is_rehearsed_as_it_is():
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from strategies.guess_check import NoRecovery, Outcome, Sample

    @dataclass
    class Twice(Sample):
        """Answers everything twice and keeps the second."""

        def __call__(self, problems, lab):
            super().__call__(problems, lab)
            return super().__call__(problems, lab)

    plain, twice = (
        stage("experiment=smoke", strategy=Strategy(source, NoRecovery(), Outcome())).batch(0.5, 100.0)
        for source in (Sample(4), Twice(4))
    )
    assert 1.3 < twice.flops["rollout"] / plain.flops["rollout"] < 2.0  # what was drawn before is cached
    assert twice.tokens == pytest.approx(2 * plain.tokens, rel=0.2)
    assert twice.rows == pytest.approx(2 * plain.rows, rel=0.2) and twice.passes > plain.passes


def test_sums():
    one = stage("experiment=smoke").batch(0.5, 1.0)
    both = NOTHING + one + one
    assert both == one * 2 and both.amount("tokens") == 2 * one.tokens


def test_tokens_of_a_text():
    class Words:
        def vocabulary(self):
            return []

    assert count_tokens(Words(), "2 7 9 : 45 \n ") == 6
    assert count_tokens(object(), "What is 17 + 4?") == 4
