"""The final answer, from several: by score or by vote, never by who came first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ablate.testtime.bench import Bench
from ablate.types import Trajectory


@dataclass(frozen=True)
class Candidate:
    """An answer with its score, and how many samples gave it."""

    answer: Trajectory
    score: float
    count: int = 1

    @property
    def likelihood(self) -> float:
        """Mean log-probability of the tokens that the policy drew: what tells equal scores apart."""
        drawn = [p for step in self.answer.steps if step.logprobs is not None for p in step.logprobs]
        return sum(drawn) / len(drawn) if drawn else float("-inf")


def best(candidates: Sequence[Candidate], bench: Bench) -> Trajectory:
    """The finished answer with the highest score; of equal ones the likeliest. A truncated one only where
    there is no other."""
    return max(candidates, key=lambda c: (not bench.truncated(c.answer), c.score, c.likelihood)).answer


def vote(candidates: Sequence[Candidate], bench: Bench) -> Trajectory:
    """The likeliest of those finished answers whose equals have the largest sum of scores.

    Which answers are equal says the task (`Task.answer`). Equal sums are told apart by the likeliest answer
    of each side. What holds no answer has no vote; where there is nothing else, the likeliest is taken, of
    those that are not truncated if there are any.
    """
    finished = [c for c in candidates if not bench.truncated(c.answer)]
    if not finished:
        return max(candidates, key=lambda c: c.likelihood).answer
    texts = bench.policy.answers([c.answer.completion for c in finished])
    sides: dict[str, list[Candidate]] = defaultdict(list)
    for candidate, text in zip(finished, texts, strict=True):
        sides[bench.task.answer(candidate.answer.problem, text)].append(candidate)

    def strength(side: list[Candidate]) -> tuple[float, float]:
        return sum(c.score * c.count for c in side), max(c.likelihood for c in side)

    answered = [side for answer, side in sides.items() if answer]
    winner = max(answered or list(sides.values()), key=strength)
    return max(winner, key=lambda c: c.likelihood).answer
