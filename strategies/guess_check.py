"""Guess + check: sample whole answers, verify them, reinforce by outcome. The base of all arms.

For each problem, n answers o_1..o_n are drawn from the policy and judged, r_i in {0, 1}. Every token of o_i
gets the group-relative advantage (Shao et al. 2024, arXiv:2402.03300, eq. 3)

    A_i = (r_i - mean(r)) / (std(r) + 1e-4),

without the division in Dr. GRPO (Liu et al. 2025, arXiv:2503.20783), and with the mean of the *other* answers
as baseline in RLOO (Ahmadian et al. 2024, arXiv:2402.14740).

Two kinds of group come from other strategies and have baselines of their own, never divided: continuations
of one cut are few, so each is compared with the others (RLOO); siblings in a tree are weighted, as is their
mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal

from ablate.types import Group, Lab, Problem, Trajectory


@dataclass
class Sample:
    """n independent answers to each problem: one group per problem."""

    n: int = 8

    def __call__(self, problems: Sequence[Problem], lab: Lab) -> list[Group]:
        """Groups of unverified trajectories, one Step each."""
        starts = [Trajectory(problem) for problem in problems]
        return [
            [start.then(step) for step in steps]
            for start, steps in zip(starts, lab.sample(starts, self.n), strict=True)
        ]


@dataclass
class NoRecovery:
    """Failures are left as they are."""

    def __call__(self, groups: list[Group], lab: Lab) -> list[Group]:
        """The groups, unchanged."""
        return groups


@dataclass
class Outcome:
    """One advantage for the whole answer.

    scale: "std" divides by the group's standard deviation, "none" does not. baseline: "mean" of the group, or
    "leave_one_out", the mean of the others.
    """

    scale: Literal["std", "none"] = "std"
    baseline: Literal["mean", "leave_one_out"] = "mean"

    def __call__(self, groups: list[Group], lab: Lab) -> list[Group]:
        """The groups with an advantage for every step."""
        return [
            [
                replace(t, advantages=(a,) * len(t.steps))
                for t, a in zip(group, self.advantages(group), strict=True)
            ]
            for group in groups
        ]

    def advantages(self, group: Group) -> list[float]:
        """One number per trajectory; zero for a group of one, which has no baseline."""
        rewards = [trajectory.outcome for trajectory in group]
        n = len(rewards)
        if min(rewards) == max(rewards):  # a group of one included; rounding must not make a signal
            return [0.0] * n
        weights = [trajectory.steps[-1].weight if trajectory.steps else 1.0 for trajectory in group]
        parent, weighted = group[0].parent, any(weight != 1.0 for weight in weights)
        continued = parent is not None and all(t.parent is parent for t in group)
        mean = fmean(rewards, weights if weighted else None)
        centred = [reward - mean for reward in rewards]
        if weighted:
            return centred
        if self.baseline == "leave_one_out" or continued:
            centred = [a * n / (n - 1) for a in centred]  # r_i - mean of the others
        if self.scale == "none" or continued:
            return centred
        spread = stdev(rewards) + 1e-4
        return [a / spread for a in centred]
