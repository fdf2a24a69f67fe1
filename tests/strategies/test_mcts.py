"""Search in training: the rows are sibling steps, with AlphaZero's targets or the tree's own values."""

from collections import Counter
from statistics import fmean

import pytest
from paper import MARKER, PaperLab, problem

from ablate.scorers.value_head import ValueHead
from ablate.strategy import Strategy
from ablate.types import UserError
from strategies.guess_check import NoRecovery, Outcome
from strategies.learn_to_correct import Correct
from strategies.mcts import Tree
from strategies.process_rewards import Process

WINS = {(0, 1, 1), (1, 1, 1), (1, 0, 0)}


class ExactHead(ValueHead):
    """In the place of the value head: the policy's exact values; keeps what it was taught."""

    def values(self, prefixes, lab):
        return [lab.value(lab.digits(p.completion)) for p in prefixes]

    def learn(self, prefixes, outcomes, lab):
        self.taught = list(zip(prefixes, outcomes, strict=True))


def searched(seed=0, count=3, wins=WINS, **settings):
    lab = PaperLab(lambda digits: digits in wins, depth=3, probabilities=(0.3, 0.7), seed=seed)
    source = Tree(**{"simulations": 24, "value_head": ExactHead(), **settings})
    groups = source([problem(f"p{i}") for i in range(count)], lab)
    return lab, source, [lab.verify(group) for group in groups if sampled(group)]


def sampled(group):
    """Has the policy's own tokens to learn from: not a group of rollouts."""
    return any(step.logprobs is not None for t in group for step in t.steps)


@pytest.mark.parametrize("seed", range(5))
def test_outcome_credit_is_visit_share_minus_prior(seed):
    _, _, groups = searched(seed)
    assert groups
    for group in groups:
        priors = [t.steps[-1].weight for t in group]
        assert sum(priors) == pytest.approx(1.0)
        shares = [t.reward * p for t, p in zip(group, priors, strict=True)]  # visits / all visits
        assert sum(shares) == pytest.approx(1.0)
        for scale in ("std", "none"):
            (credited,) = Outcome(scale=scale)([group], None)
            for t, share, prior in zip(credited, shares, priors, strict=True):
                assert t.advantages[-1] * t.steps[-1].weight == pytest.approx(share - prior)


def test_process_credit_is_the_childs_value_minus_the_parents():
    lab, _, groups = searched()
    for group in Process()(groups, lab):
        for t in group:
            assert t.advantages[-1] == pytest.approx(t.steps[-1].value - t.steps[-2].value)
            assert not any(t.advantages[:-1])
    assert not lab.asked.get("label")  # the tree's values serve; no scorer is asked


def test_a_step_that_the_search_never_tried_gets_no_process_credit():
    lab, _, groups = searched(simulations=4, parallel=1, min_visits=1, c_puct=0.01)
    credited = [t for group in Process()(groups, lab) for t in group]
    untried = [t for t in credited if t.reward == 0.0]
    assert untried and not any(t.advantages[-1] for t in untried)
    assert any(t.advantages[-1] for t in credited)


def test_the_placebo_permutes_the_values_of_siblings():
    lab, _, groups = searched()
    real, placebo = Process()(groups, lab), Process(shuffle=True)(groups, lab)
    ends = [[[t.advantages[-1] for t in group] for group in each] for each in (real, placebo)]
    assert ends[0] != ends[1] and [sorted(group) for group in ends[0]] == [sorted(group) for group in ends[1]]


def test_rows_are_sibling_steps_once_each_behind_a_masked_path():
    lab, _, groups = searched()
    rows = Counter((t.problem.id, t.completion) for group in groups for t in group)
    assert max(rows.values()) == 1
    for group in groups:
        paths = {(t.problem.id, tuple(x for s in t.steps[:-1] for x in s.tokens)) for t in group}
        assert len(paths) == 1
        for t in group:
            assert all(step.logprobs is None for step in t.steps[:-1])
            assert t.steps[-1].logprobs is not None
            assert len(t.steps[-1].tokens) == 1 or lab.finished(t)


def test_visits_follow_value_and_the_placebo_ignores_it():
    """Where only strings that begin with 1 win, 1 gains at the root, beyond its share of the samples."""
    wins = {(1, 1, 1), (1, 1, 0)}

    def gain(**settings):
        total = 0.0
        for seed in range(20):
            _, _, groups = searched(seed, count=4, wins=wins, noise_share=0.0, simulations=40, **settings)
            for group in groups:
                if len(group[0].completion) == 1 and len(group) == 2:
                    right = next(t for t in group if t.completion == (1,))
                    total += (right.reward - 1.0) * right.steps[-1].weight
        return total / 80

    assert gain() > 0.1
    assert abs(gain(select="uniform")) < 0.05


def test_the_head_learns_from_rollouts_and_the_weight_decides_what_is_asked():
    lab, source, _ = searched(rollout_weight=0.5)
    assert lab.asked["rollout"] > 0 and {o for _, o in source.value_head.taught} == {0.0, 1.0}
    lab, source, _ = searched(rollout_weight=1.0)
    assert not hasattr(source.value_head, "taught")
    with_rollouts = lab.asked["rollout"]
    lab, source, _ = searched(rollout_weight=0.0)
    assert lab.asked["rollout"] < with_rollouts
    # of what ended inside the tree, every state on the way
    assert {len(prefix.steps) for prefix, _ in source.value_head.taught} == {0, 1, 2}
    for prefix, solved in source.value_head.taught:
        assert lab.value(lab.digits(prefix.completion)) != 1.0 - solved  # nothing wins from a lost state


def test_failed_rollouts_are_continued_and_nothing_else_is_learned_from_them():
    def rollout(recovery):
        lab = PaperLab(lambda digits: digits in WINS, probabilities=(0.3, 0.7), cap=9)
        source = Tree(simulations=24, value_head=ExactHead())
        groups = Strategy(source, recovery, Outcome()).rollout([problem(f"p{i}") for i in range(3)], lab)
        return lab, source.value_head.taught, groups

    lab, taught, rows = rollout(NoRecovery())
    assert all(sampled(group) for group in rows)  # the rollouts themselves are out of the loss

    corrected, again, groups = rollout(Correct(n=2))
    assert taught == again and groups[: len(rows)] == rows  # the same trees
    continued = groups[len(rows) :]
    ended = [t for group in rows for t in group if lab.finished(t) and not lab.truncated(t)]
    failures = sum(not solved for _, solved in taught) + sum(not t.solved for t in ended)
    assert len(continued) == failures > 0
    assert corrected.asked["rollout"] == lab.asked["rollout"] + 2 * failures
    per_problem = Counter(group[0].problem.id for group in continued)
    assert len(per_problem) == 3
    for group in continued:
        assert [t.steps[-2].tokens for t in group] == [(MARKER,)] * 2
        assert all(step.logprobs is None for t in group for step in t.steps[:-1])


@pytest.mark.parametrize("rollout_weight", [0.0, 0.5])
def test_what_a_tree_found_is_the_share_of_right_among_all_answers_that_were_judged(rollout_weight):
    """The alarm holds what the tree believes against it; answers of rollouts are most of them."""

    class Watched(PaperLab):
        def verify(self, trajectories):
            found = super().verify(trajectories)
            verdicts.extend(t.solved for t in found)
            return found

    verdicts = []
    lab = Watched(lambda digits: digits in WINS, probabilities=(0.3, 0.7))
    Tree(value_head=ExactHead(), rollout_weight=rollout_weight)([problem(f"p{i}") for i in range(3)], lab)
    assert lab.logged["tree/solved"] == pytest.approx(fmean(verdicts)) and set(verdicts) == {True, False}


def test_without_rollouts_there_are_none_to_hand_on():
    lab = PaperLab(lambda digits: digits in WINS, probabilities=(0.3, 0.7))
    groups = Tree(simulations=24, value_head=ExactHead(), rollout_weight=0.0)([problem("p")], lab)
    assert groups and all(sampled(group) for group in groups)


def test_one_tree_gives_what_its_seed_gives():
    assert searched(3)[2] == searched(3)[2]
    assert searched(3)[2] != searched(4)[2]


@pytest.mark.parametrize("setting", ["simulations=1", "width=1", "rollout_weight=1.5", "c_puct=0.0"])
def test_sizes_that_make_no_tree(setting):
    name, value = setting.split("=")
    with pytest.raises(UserError, match=setting):
        Tree(**{name: float(value) if "." in value else int(value)})
