"""The laboratory at test time: a trained policy on held-out problems, everything metered by problem.

What a problem's samples are depends on the seed, the problem, and how often it was sampled from before, never
on the other problems of the batch: the answers are the same alone and together, up to the last bits of a
pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.lab import Laboratory
from ablate.randomness import hash64
from ablate.testtime.tally import GENERATED, Tally
from ablate.types import Problem, Step, Task, Trajectory

if TYPE_CHECKING:
    from ablate.engines.base import Engine
    from ablate.models.policy import Policy


class Bench(Laboratory):
    """`Laboratory` with a `Tally`; `begin_on(problems)` starts a measurement."""

    def __init__(
        self, task: Task, policy: Policy, engine: Engine, cap: int, temperature: float, seed: int
    ) -> None:
        self.tally, self.seed = Tally(), seed
        self._turns: Counter[str] = Counter()
        self._places: dict[str, int] = {}
        super().__init__(task, policy, engine, self.tally, cap, temperature, sampling_seed=seed)
        engine.start(policy, self.tally)

    @property
    def task(self) -> Task:
        """The task."""
        return self._task

    @property
    def policy(self) -> Policy:
        """The policy."""
        return self._policy

    def begin_on(self, problems: Sequence[Problem]) -> None:
        """Nothing is spent, drawn or cached yet. Without problems, only totals are kept."""
        self.begin(0)
        self._turns.clear()
        self._places = {problem.id: i for i, problem in enumerate(problems)}
        self.tally.begin([problem.tokens for problem in problems])

    def sample(
        self,
        prefixes: Sequence[Trajectory],
        n: int | Sequence[int],
        stop: Sequence[str] = (),
        purpose: str = "rollout",
    ) -> list[list[Step]]:
        """See `types.Lab`; n: of each, or one number per prefix."""
        if not prefixes:
            return []
        self._turns.update({prefix.problem.id for prefix in prefixes})
        seen: Counter[str] = Counter()
        streams = []
        for prefix in prefixes:
            name = prefix.problem.id
            streams.append(hash64(self.seed, "test", name, self._turns[name], seen[name]))
            seen[name] += 1
        return self._engine.generate(
            [prefix.problem.tokens + prefix.completion for prefix in prefixes],
            n,
            [self.cap - prefix.length for prefix in prefixes],
            key=streams,
            purpose=purpose,
            temperature=self._temperature,
            stop=frozenset().union(*(self._policy.stop_tokens(text) for text in stop)),
        )

    def replay(self, problems: Sequence[Problem], drawn: Sequence[Sequence[Step]]) -> None:
        """Charge answers that were drawn before as if they were drawn now."""
        self._engine.charge("rollout", [problem.tokens for problem in problems], drawn)

    @contextmanager
    def room(self, cap: int) -> Iterator[None]:
        """Answers may have `cap` tokens in here."""
        before, self.cap = self.cap, cap
        try:
            yield
        finally:
            self.cap = before

    def about(self, problem: Problem) -> Any:
        """A context whose charges are all for this problem."""
        return self.tally.on(self._places[problem.id])

    def judged(self, answers: Sequence[Trajectory]) -> list[bool]:
        """Is each answer right? What the experimenter asks is on nobody's account."""
        with self.tally.judge_as("evaluate"):
            return [bool(answer.solved) for answer in self.verify(answers)]

    def costs(self) -> dict[str, Any]:
        """What was spent on each problem since `begin_on`: arrays of one entry per problem.

        tokens: generated. flops, logical_flops: all purposes, under the cached and the logical convention.
        compute: cached FLOPs by purpose.
        """
        spent = [self.tally.spent_on(i) for i in range(len(self._places))]
        purposes = sorted({purpose for accounts in spent for purpose in accounts})
        compute = {
            purpose: np.array([a[purpose].flops if purpose in a else 0.0 for a in spent])
            for purpose in purposes
        }
        return {
            "tokens": np.array([sum(a[p].tokens for p in GENERATED if p in a) for a in spent], dtype=float),
            "flops": np.array([sum(account.flops for account in a.values()) for a in spent]),
            "logical_flops": np.array([sum(account.logical_flops for account in a.values()) for a in spent]),
            "compute": compute,
        }
