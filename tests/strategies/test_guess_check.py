"""Guess + check: advantages against independent formulas, and the rollout with a laboratory of paper."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.strategy import Strategy
from ablate.types import Problem, Step, Trajectory
from strategies.guess_check import NoRecovery, Outcome, Sample

PROBLEM = Problem("p", "1 2 : 3", tokens=(1, 2))


def group_of(rewards, steps=1):
    """Rewards in {0, 1} as verdicts, others as a strategy's shaped reward."""
    parts = tuple(Step((3 + i,), (-0.1,)) for i in range(steps))
    return [
        Trajectory(PROBLEM, parts, solved=bool(r), reward=None if r in (0.0, 1.0) else r) for r in rewards
    ]


def advantages(rewards, **choices):
    (group,) = Outcome(**choices)([group_of(rewards, steps=3)], lab=None)
    assert all(len(set(t.advantages)) == 1 and len(t.advantages) == 3 for t in group)
    return np.array([t.advantages[0] for t in group])


rewards = st.one_of(
    st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=16),
    st.lists(st.floats(-4, 4, width=16), min_size=2, max_size=16),
)


@given(rewards)
@settings(deadline=None)
def test_grpo(rewards):
    """As in TRL: the standard deviation of a sample, torch's default, plus 1e-4."""
    values = torch.tensor(rewards, dtype=torch.float64)
    expected = (values - values.mean()) / (values.std() + 1e-4)
    np.testing.assert_allclose(advantages(rewards), expected, atol=1e-9)


@given(rewards)
@settings(deadline=None)
def test_without_division(rewards):
    np.testing.assert_allclose(
        advantages(rewards, scale="none"), np.array(rewards) - np.mean(rewards), atol=1e-12
    )


@given(rewards)
@settings(deadline=None)
def test_leave_one_out_is_the_mean_of_the_others(rewards):
    expected = [r - np.mean(rewards[:i] + rewards[i + 1 :]) for i, r in enumerate(rewards)]
    np.testing.assert_allclose(
        advantages(rewards, scale="none", baseline="leave_one_out"), expected, atol=1e-12
    )
    spread = np.std(rewards, ddof=1) + 1e-4
    np.testing.assert_allclose(
        advantages(rewards, baseline="leave_one_out"), np.array(expected) / spread, atol=1e-8
    )


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["std", "none"])
@given(rewards)
@settings(deadline=None)
def test_advantages_sum_to_zero_and_keep_the_order(scale, baseline, rewards):
    found = advantages(rewards, scale=scale, baseline=baseline)
    assert abs(found.sum()) < 1e-8
    order = np.argsort(rewards, kind="stable")
    assert (np.diff(found[order]) >= -1e-12).all()
    if len(set(rewards)) == 1:
        np.testing.assert_allclose(found, 0.0, atol=1e-9)
    # the group is a baseline of its own: another one beside it changes nothing
    groups = Outcome(scale, baseline)([group_of([1.0, 0.0, 0.0]), group_of(rewards)], lab=None)
    assert [t.advantages[0] for t in groups[1]] == found.tolist()


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("choices", [{}, {"scale": "none"}, {"baseline": "leave_one_out"}])
def test_a_group_of_one_has_no_baseline(reward, choices):
    assert advantages([reward], **choices).tolist() == [0.0]


@pytest.mark.parametrize("verdicts", [[True] * 8, [False] * 8, [True] * 3])
def test_equal_outcomes_carry_no_signal(verdicts):
    """Exactly zero: the learner drops such rows before the forward pass."""
    for choices in ({}, {"scale": "none"}, {"baseline": "leave_one_out"}):
        assert advantages([float(v) for v in verdicts], **choices).tolist() == [0.0] * len(verdicts)


def test_a_shaped_reward_replaces_the_verdict():
    solved = Trajectory(PROBLEM, (Step((3,)),), solved=True)
    shaped = Trajectory(PROBLEM, (Step((4,)),), solved=True, reward=0.25)
    (group,) = Outcome(scale="none")([[solved, shaped]], lab=None)
    assert [t.advantages for t in group] == [(0.375,), (-0.375,)]
    with pytest.raises(ValueError, match="not verified"):
        Outcome()([[Trajectory(PROBLEM), solved]], lab=None)


class PaperLab:
    """Draws 10, 11, 12, ... and calls even tokens right."""

    def __init__(self):
        self.asked, self.judged = [], 0

    def sample(self, prefixes, n, stop=()):
        self.asked.append((list(prefixes), n, stop))
        return [[Step((10 * i + j,), (-1.0,)) for j in range(n)] for i, _ in enumerate(prefixes, start=1)]

    def verify(self, trajectories):
        from dataclasses import replace

        self.judged += len(trajectories)
        return [replace(t, solved=t.completion[-1] % 2 == 0) for t in trajectories]


def test_the_rollout_samples_judges_once_and_credits():
    problems = [Problem(str(i), "", tokens=(i,)) for i in range(3)]
    lab = PaperLab()
    groups = Strategy(Sample(4), NoRecovery(), Outcome(scale="none")).rollout(problems, lab)
    assert lab.asked == [([Trajectory(problem) for problem in problems], 4, ())] and lab.judged == 12
    for i, (problem, group) in enumerate(zip(problems, groups, strict=True), start=1):
        assert [t.problem for t in group] == [problem] * 4
        assert [t.completion for t in group] == [(10 * i + j,) for j in range(4)]
        assert [t.advantages for t in group] == [(0.5,), (-0.5,), (0.5,), (-0.5,)]
        assert all(t.parent is None and t.steps[0].logprobs == (-1.0,) for t in group)
