"""A strategy is one choice from each of three axes: source -> recovery -> credit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.types import Credit, Group, Lab, Problem, Recovery, Source

AXES = ("source", "recovery", "credit")


@dataclass
class Strategy:
    """The whole rollout of one arm; the verifier judges after every stage that makes new answers."""

    source: Source
    recovery: Recovery
    credit: Credit

    def rollout(self, problems: Sequence[Problem], lab: Lab) -> list[Group]:
        """Credited groups for a batch of problems.

        A group without a token to learn from, sampled by the policy or to imitate, is there for recovery
        alone: it gets no credit and no place in the loss.
        """
        groups = verified(self.source(problems, lab), lab)
        groups = verified(self.recovery(groups, lab), lab)
        return self.credit([group for group in groups if _teaches(group)], lab)


def verified(groups: list[Group], lab: Lab) -> list[Group]:
    """The same groups with every trajectory judged, those judged before left as they are."""
    open_ones = [t for group in groups for t in group if t.solved is None]
    if not open_ones:
        return groups
    judged = iter(lab.verify(open_ones))
    return [[next(judged) if t.solved is None else t for t in group] for group in groups]


def _teaches(group: Group) -> bool:
    return any(step.logprobs is not None or step.imitate > 0.0 for t in group for step in t.steps)
