"""The laboratory as a strategy sees it: sampling, verifying, splitting, all metered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from ablate.randomness import hash64
from ablate.types import Group, Problem, Step, Task, Trajectory

if TYPE_CHECKING:
    from ablate.engines.hf import HFEngine
    from ablate.ledger import Ledger
    from ablate.models.policy import Policy


class Laboratory:
    """Implements `types.Lab` for one run. `begin(batch)` starts each batch's own random streams."""

    def __init__(
        self,
        task: Task,
        policy: Policy,
        engine: HFEngine,
        ledger: Ledger,
        cap: int,
        temperature: float,
        sampling_seed: int,
    ) -> None:
        self._task, self._policy, self._engine, self._ledger = task, policy, engine, ledger
        self._temperature, self._seed = temperature, sampling_seed
        self.cap = cap
        self.begin(0)

    def begin(self, batch: int) -> None:
        """Start batch number `batch`: every draw is a function of (sampling seed, batch, call, row)."""
        self._batch, self._calls = batch, 0
        self._logged: dict[str, list[float]] = defaultdict(list)
        self.rng = Random(hash64(self._seed, "strategy", batch))

    def problem(self, problem: Problem) -> Problem:
        """The problem with its prompt in the policy's tokens."""
        return replace(problem, tokens=self._policy.prompt(problem.prompt))

    # -- types.Lab ------------------------------------------------------------------------------------------

    @property
    def budget_fraction(self) -> float:
        """Share of the budget spent so far."""
        return self._ledger.fraction

    def sample(self, prefixes: Sequence[Trajectory], n: int, stop: Sequence[str] = ()) -> list[list[Step]]:
        """Draw `n` continuations of each prefix; see `types.Lab`."""
        if not prefixes:
            return []
        self._calls += 1
        return self._engine.generate(
            [prefix.problem.tokens + prefix.completion for prefix in prefixes],
            n,
            [self.cap - prefix.length for prefix in prefixes],
            key=hash64(self._seed, "rollout", self._batch, self._calls),
            purpose="rollout",
            temperature=self._temperature,
            stop=frozenset().union(*(self._policy.stop_tokens(text) for text in stop)),
        )

    def verify(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Judge answers; one that does not end with the end token is not solved."""
        texts = self._policy.decode([trajectory.completion for trajectory in trajectories])
        return [
            replace(t, solved=self._ended(t) and t.length <= self.cap and self._task.verify(t.problem, text))
            for t, text in zip(trajectories, texts, strict=True)
        ]

    def _ended(self, trajectory: Trajectory) -> bool:
        last = next((step.tokens[-1] for step in reversed(trajectory.steps) if step.tokens), None)
        return last == self._policy.eos

    def finished(self, trajectory: Trajectory) -> bool:
        """Ends with the end token, or has no room left under the cap."""
        return self._ended(trajectory) or trajectory.length >= self.cap

    def truncated(self, trajectory: Trajectory) -> bool:
        """Stopped by the cap instead of the end token."""
        return trajectory.length >= self.cap and not self._ended(trajectory)

    def split(self, trajectory: Trajectory) -> Trajectory:
        """The same tokens, cut after each token that completes a step; the end token joins the last step."""
        boundary = self._policy.stop_tokens(self._task.step_boundary)
        steps: list[Step] = []
        for step in trajectory.steps:
            start = 0
            for i, token in enumerate(step.tokens):
                follows = step.tokens[i + 1] if i + 1 < len(step.tokens) else None
                if follows is None or (token in boundary and follows != self._policy.eos):
                    logprobs = None if step.logprobs is None else step.logprobs[start : i + 1]
                    steps.append(replace(step, tokens=step.tokens[start : i + 1], logprobs=logprobs))
                    start = i + 1
        return replace(trajectory, steps=tuple(steps), advantages=())

    def text(self, trajectory: Trajectory) -> str:
        """The answer as text."""
        return self._policy.decode([trajectory.completion])[0]

    def encode(self, text: str) -> tuple[int, ...]:
        """Text in the policy's tokens."""
        return self._policy.encode(text)

    def log(self, name: str, value: float) -> None:
        """Record a diagnostic of this batch."""
        self._logged[name].append(value)

    # -- diagnostics ----------------------------------------------------------------------------------------

    def report(self, groups: Sequence[Group]) -> dict[str, float]:
        """Figures of a credited batch: reward, length, truncation, signal, behaviour, logged diagnostics."""
        trajectories = [t for group in groups for t in group]
        texts = self._policy.decode([t.completion for t in trajectories])
        counts: dict[str, float] = defaultdict(float)
        for trajectory, text in zip(trajectories, texts, strict=True):
            for name, value in self._task.behaviours(trajectory.problem, text).items():
                counts[name] += value
        n = len(trajectories)
        mixed = sum(len({t.outcome for t in group}) > 1 for group in groups)
        return {
            "solved": sum(bool(t.solved) for t in trajectories) / n,
            "reward": sum(t.outcome for t in trajectories) / n,
            "length": sum(t.length for t in trajectories) / n,
            "truncated": sum(map(self.truncated, trajectories)) / n,
            "groups_with_signal": mixed / len(groups),
            **{f"behaviour/{name}": total / n for name, total in counts.items()},
            **{name: sum(values) / len(values) for name, values in self._logged.items()},
        }
