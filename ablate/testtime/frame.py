"""What every method is given: problems, the bench, and answers that several methods share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ablate.testtime.bench import Bench
from ablate.types import Problem, Step, Trajectory


class Pool:
    """Answers to each problem, by cap, drawn as far as they are asked for.

    Sample j of a problem is the same however many are drawn. Drawing is on nobody's account: a method pays
    for what it uses (`Frame.replay`).
    """

    def __init__(self, bench: Bench, problems: Sequence[Problem]) -> None:
        self._bench, self._problems = bench, problems
        self._drawn: dict[int, list[list[Step]]] = {}

    def answers(self, n: int, cap: int) -> list[list[Step]]:
        """`n` answers to each problem of at most `cap` tokens."""
        if len(self._drawn.get(cap, [[]])[0]) < n:
            self._bench.begin_on(self._problems)
            with self._bench.room(cap):
                self._drawn[cap] = self._bench.sample([Trajectory(p) for p in self._problems], n)
        return [steps[:n] for steps in self._drawn[cap]]

    def sets(self, n: int, cap: int, total: int) -> Iterator[list[list[Step]]]:
        """Disjoint sets of n of some `total` answers to each problem; at least one."""
        drawn = self.answers(max(n, total // n * n), cap)
        for start in range(0, len(drawn[0]), n):
            yield [steps[start : start + n] for steps in drawn]


@dataclass
class Frame:
    """longest: tokens that an answer may have where its length is the subject. marker: what makes the
    policy go on after an answer, as tokens."""

    bench: Bench
    problems: list[Problem]
    longest: int
    marker: tuple[int, ...]
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = Pool(self.bench, self.problems)

    def replay(self, drawn: Sequence[Sequence[Step]]) -> None:
        """Start a measurement with these answers of the pool, charged as if drawn for it."""
        self.bench.begin_on(self.problems)
        self.bench.replay(self.problems, drawn)
