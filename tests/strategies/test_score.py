"""SCoRe: the two stages' returns against the paper's formulas, written down again."""

from statistics import fmean

import pytest
from paper import MARKER, PaperLab, answer

from ablate.strategy import verified
from ablate.types import UserError
from strategies.guess_check import Outcome
from strategies.score import SecondTurn, Turns, outcomes

WINS = {(0, 1, 1), (1, 1, 1)}


class ScoringLab(PaperLab):
    """With a starting policy that gave every token a log-probability of -0.9 (the policy: -0.7)."""

    def score(self, prefixes, reference=False):
        assert reference
        return [[-0.9] * t.length for t in prefixes]


@pytest.fixture
def lab():
    return ScoringLab(lambda digits: digits in WINS, depth=3, probabilities=(0.3, 0.7), cap=9)


@pytest.fixture
def turns(lab):
    """Three first turns: right, wrong, cut off."""
    first = [answer(lab, 0, 1, 1), answer(lab, 0, 0, 1), answer(lab, *[0, 1, 0] * 3, end=False)]
    return first, verified(SecondTurn()([first], lab), lab)


def test_every_ended_answer_gets_a_second_turn(turns):
    first, (group,) = turns
    assert [t.parent for t in group] == [first[0], first[1], None]
    for t, start in zip(group[:2], first, strict=False):
        one, marker, two = t.steps
        assert one.tokens == start.completion[:-1] and one.logprobs is not None
        assert marker.tokens == (MARKER,) and marker.logprobs is None and two.logprobs is not None
    assert group[2] is first[2]
    assert outcomes(group[2]) == (0.0, 0.0)


@pytest.mark.parametrize("stage", [1, 2])
def test_advantages_are_the_papers_returns_less_their_mean(lab, turns, stage):
    first, groups = turns
    lab.budget_fraction = 0.1 if stage == 1 else 0.5
    alpha, one, two = 2.0, 0.3, 0.05
    (credited,) = Turns(alpha=alpha, beta_one=one, beta_two=two, stage_one=0.3)(groups, lab)
    firsts, seconds = [], []
    for t, start in zip(groups[0], first, strict=True):
        r1, r2 = float(start.solved), float(t.solved)
        tokens = [len(step.tokens) for step in t.steps]
        kl1, kl2 = 0.2 * tokens[0], 0.2 * tokens[-1] if len(tokens) > 1 else 0.0
        if stage == 1:
            firsts.append(r2 - one * kl1)
            second = r2
        else:
            second = r2 + alpha * (r2 - r1) - two * kl2
            firsts.append(r1 + second - two * kl1)
        if len(tokens) > 1:
            seconds.append(second)
    for i, t in enumerate(credited):
        expected = [firsts[i] - fmean(firsts)]
        if i < 2:
            expected += [seconds[i] - fmean(seconds)] * 2
        assert t.advantages == pytest.approx(tuple(expected))


def test_what_the_turns_achieve_is_reported(lab, turns):
    _, groups = turns
    Turns()(groups, lab)
    shown = {name: lab.logged[f"score/{name}"] for name in ("turn_1", "turn_2", "difference")}
    assert shown["turn_1"] == pytest.approx(1 / 3)
    assert shown["difference"] == pytest.approx(shown["turn_2"] - shown["turn_1"])
    moved = lab.logged["score/incorrect_to_correct"] - lab.logged["score/correct_to_incorrect"]
    assert moved == pytest.approx(shown["difference"])


def test_the_outcome_of_second_turns_does_not_depend_on_their_order(lab, turns):
    """Those that were cut off have no first turn, and are in the group all the same."""
    _, (group,) = turns
    found = [Outcome().advantages(order) for order in (group, group[::-1])]
    assert {t.parent is None for t in group} == {False, True} and found[0] == pytest.approx(found[1][::-1])


def test_shares_and_weights_have_limits():
    with pytest.raises(UserError, match="stage_one=2"):
        Turns(stage_one=2)
    with pytest.raises(UserError, match="alpha=-1"):
        Turns(alpha=-1)
