"""The laboratory as a strategy sees it: sampling, verifying, splitting, all metered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ablate import ranks
from ablate.randomness import hash64
from ablate.types import Group, JudgeModel, Problem, Step, Task, Trajectory, ValueModel, Verdict
from ablate.verdicts import verdicts

if TYPE_CHECKING:
    from ablate.engines.base import Engine
    from ablate.ledger import Ledger
    from ablate.models.policy import Policy


class Laboratory:
    """Implements `types.Lab` for one run. `begin(batch)` starts each batch's own random streams."""

    def __init__(
        self,
        task: Task,
        policy: Policy,
        engine: Engine,
        ledger: Ledger,
        cap: int,
        temperature: float,
        sampling_seed: int,
        start: Callable[[], Policy] | None = None,
    ) -> None:
        """start: loads the policy as it was before training, for `score(reference=True)`."""
        self._task, self._policy, self._engine, self._ledger = task, policy, engine, ledger
        self._temperature, self._seed = temperature, sampling_seed
        self._start = start
        self._reference: Policy | None = None  # the start, once asked for
        self._models: dict[str, ValueModel] = {}
        self._judges: dict[str, JudgeModel] = {}
        self._restored: Mapping[str, Mapping[str, Any]] = {}  # states of value models not made again yet
        self.cap = cap
        self.step_boundary = task.step_boundary
        self.marker = policy.encode(getattr(task, "correction", ""))
        self.begin(0)

    def begin(self, batch: int) -> None:
        """Start batch number `batch`: every draw is a function of (sampling seed, batch, call, row)."""
        self.batch, self._calls = batch, 0
        self._logged: dict[str, list[float]] = defaultdict(list)
        self.rng = Random(hash64(self._seed, "strategy", batch, *ranks.key()))
        # ranks that know only their own charges of the batch must not decide differently
        self._fraction = ranks.agreed(self._ledger.fraction) if ranks.count() > 1 else None

    def problem(self, problem: Problem) -> Problem:
        """The problem with its prompt in the policy's tokens."""
        return replace(problem, tokens=self._policy.prompt(problem.prompt))

    # -- types.Lab ------------------------------------------------------------------------------------------

    @property
    def budget_fraction(self) -> float:
        """Share of the budget spent so far; with several ranks, up to this batch."""
        return self._ledger.fraction if self._fraction is None else self._fraction

    def sample(
        self, prefixes: Sequence[Trajectory], n: int, stop: Sequence[str] = (), purpose: str = "rollout"
    ) -> list[list[Step]]:
        """Draw `n` continuations of each prefix; see `types.Lab`."""
        if not prefixes:
            return []
        self._calls += 1
        return self._engine.generate(
            [prefix.problem.tokens + prefix.completion for prefix in prefixes],
            n,
            [self.cap - prefix.length for prefix in prefixes],
            key=hash64(self._seed, "rollout", self.batch, self._calls, *ranks.key()),
            purpose=purpose,
            temperature=self._temperature,
            stop=frozenset().union(*(self._policy.stop_tokens(text) for text in stop)),
        )

    def score(self, prefixes: Sequence[Trajectory], reference: bool = False) -> list[list[float]]:
        """Log-probabilities of the tokens after the prompt; see `types.Lab`."""
        return [
            list(row)
            for row in self._engine.score(
                [prefix.problem.tokens for prefix in prefixes],
                [prefix.completion for prefix in prefixes],
                purpose="score",
                temperature=self._temperature,
                policy=self.reference() if reference else self._policy,
            )
        ]

    def reference(self) -> Policy:
        """The policy as it was before training; loaded at first use, where the policy does not hold it."""
        if self._reference is None:
            self._reference = self._policy.start()
        if self._reference is None:
            if self._start is None:
                raise ValueError("this laboratory was not told what the policy started from")
            self._reference = self._start()
            self._reference.model.to(self._policy.device)
            self._reference.bf16 = self._policy.bf16
        return self._reference

    def oracle(self, prefixes: Sequence[Trajectory]) -> list[float]:
        """The task's exact step oracle, free of charge."""
        judge = self._task.oracle  # type: ignore[attr-defined]  # scorers check that the task has one
        return self._judged(prefixes, judge)

    def grade(self, trajectories: Sequence[Trajectory]) -> list[float]:
        """Scores, else outcomes; see `types.Lab`."""
        score = getattr(self._task, "score", None)
        if score is None:
            return [trajectory.outcome for trajectory in trajectories]
        return self._judged(trajectories, score)

    def parts(self, trajectories: Sequence[Trajectory]) -> list[float]:
        """Shares of right parts; see `types.Lab`."""
        judge = self._task.parts  # type: ignore[attr-defined]  # scorers check that the task has them
        return [fmean(found) for found in self._judged(trajectories, judge)]

    def demonstrate(self, problems: Sequence[Problem], n: int) -> list[list[tuple[int, ...]]]:
        """The task's demonstrations of these problems; see `types.Lab`."""
        demonstrate = self._task.demonstrate  # type: ignore[attr-defined]  # sources check that the task has it

        def one(problem: Problem, i: int) -> tuple[int, ...]:
            rng = Random(hash64(self._seed, "demonstration", self.batch, problem.id, i))
            return (*self._policy.encode(demonstrate(problem, rng)), self._policy.eos)[: self.cap]

        return [[one(problem, i) for i in range(n)] for problem in problems]

    def value_model(self, name: str, make: Callable[..., ValueModel]) -> ValueModel:
        """The auxiliary model of this name, made at first use."""
        if name not in self._models:
            model = make(self._policy, self._ledger, hash64(self._seed, "auxiliary", name) % 2**31)
            if name in self._restored:
                model.load_state_dict(self._restored[name])
            self._models[name] = model
        return self._models[name]

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Tensors of every auxiliary model."""
        return {
            **self._restored,  # type: ignore[dict-item]
            **{name: model.state_dict() for name, model in self._models.items()},
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take back `state_dict()`."""
        self._restored = state

    def judge(self, name: str, make: Callable[..., JudgeModel], questions: Sequence[str]) -> list[Verdict]:
        """Verdicts of the judge of this name, made at first use."""
        if name not in self._judges:
            self._judges[name] = make(self._policy, self._ledger)
        return self._judges[name].ask(questions)

    def verify(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Judge answers; one that does not end with the end token is not solved."""
        whole = [self._ended(t) and t.length <= self.cap for t in trajectories]
        answers = [t for t, ended in zip(trajectories, whole, strict=True) if ended]
        texts = self._policy.answers([t.completion for t in answers])
        found = iter(verdicts(self._task, [t.problem for t in answers], texts, self.judge, self.log))
        return [
            replace(t, solved=ended and next(found)) for t, ended in zip(trajectories, whole, strict=True)
        ]

    def examine(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> tuple[list[bool], dict[str, float]]:
        """Verdicts on finished answers of an evaluation, and what is known of a judge's errors in them. A
        judge is charged as "evaluate"."""
        figures: dict[str, float] = {}
        with self._ledger.judge_as("evaluate"):
            found = verdicts(self._task, problems, completions, self.judge, figures.__setitem__)
        return found, figures

    def _judged(self, prefixes: Sequence[Trajectory], judge: Callable[[Problem, str], Any]) -> list[Any]:
        texts = self._policy.decode([prefix.completion for prefix in prefixes])
        return [judge(prefix.problem, text) for prefix, text in zip(prefixes, texts, strict=True)]

    def _ended(self, trajectory: Trajectory) -> bool:
        last = next((step.tokens[-1] for step in reversed(trajectory.steps) if step.tokens), None)
        return last in self._policy.ends

    def finished(self, trajectory: Trajectory) -> bool:
        """Ends with the end token, or has no room left under the cap."""
        return self._ended(trajectory) or trajectory.length >= self.cap

    def truncated(self, trajectory: Trajectory) -> bool:
        """Stopped by the cap instead of the end token."""
        return trajectory.length >= self.cap and not self._ended(trajectory)

    def split(self, trajectory: Trajectory) -> Trajectory:
        """The same tokens, cut after each token that completes a step; the end token joins the last step."""
        boundary, ends = self._policy.stop_tokens(self._task.step_boundary), self._policy.ends
        steps: list[Step] = []
        for step in trajectory.steps:
            start = 0
            for i, token in enumerate(step.tokens):
                follows = step.tokens[i + 1] if i + 1 < len(step.tokens) else None
                if follows is None or (token in boundary and follows not in ends):
                    logprobs = None if step.logprobs is None else step.logprobs[start : i + 1]
                    steps.append(replace(step, tokens=step.tokens[start : i + 1], logprobs=logprobs))
                    start = i + 1
        return replace(trajectory, steps=tuple(steps), advantages=())

    def unended(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory without its end token."""
        steps = list(trajectory.steps)
        while steps and not steps[-1].tokens:
            steps.pop()
        if steps and steps[-1].tokens[-1] in self._policy.ends:
            logprobs = steps[-1].logprobs
            steps[-1] = replace(
                steps[-1], tokens=steps[-1].tokens[:-1], logprobs=None if logprobs is None else logprobs[:-1]
            )
        return replace(trajectory, steps=tuple(steps), solved=None, reward=None, advantages=())

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
        """Figures of a credited batch: reward, length, truncation, signal, overlap, behaviour, logged
        diagnostics."""
        trajectories = [t for group in groups for t in group]
        texts = self._policy.decode([t.completion for t in trajectories])
        counts: dict[str, float] = defaultdict(float)
        for trajectory, text in zip(trajectories, texts, strict=True):
            for name, value in self._task.behaviours(trajectory.problem, text).items():
                counts[name] += value
        n = max(1, len(trajectories))
        ended = [t for t in trajectories if self.finished(t)]
        mixed = sum(len({t.outcome for t in group}) > 1 for group in groups)
        return {
            "solved": sum(bool(t.solved) for t in ended) / max(1, len(ended)),
            "reward": sum(t.outcome for t in trajectories) / n,
            "length": sum(t.length for t in trajectories) / n,
            "truncated": sum(map(self.truncated, trajectories)) / n,
            "groups_with_signal": mixed / max(1, len(groups)),
            "overlap": overlap(groups),
            **{f"behaviour/{name}": total / n for name, total in counts.items()},
            **{name: sum(values) / len(values) for name, values in self._logged.items()},
        }


def overlap(groups: Sequence[Group]) -> float:
    """Share of the policy's own tokens that several trajectories of a group have in common.

    A token of a completion is shared if another trajectory of its group has the same tokens up to and
    including it. Tokens that were not sampled (the path in a tree, the prefix of a continuation) are compared
    but not counted: share = shared sampled tokens / sampled tokens, over all groups. It is 0 without any.

    Group-relative advantages give such a prefix the mean of its trajectories' advantages, which makes outcome
    rewards a Monte Carlo process reward (Sullivan 2025, arXiv:2509.21154); this says for how many tokens.
    """
    shared = sampled = 0
    for group in groups:
        # in lexicographic order, the longest prefix in common with any other is one with a neighbour
        ordered = sorted(((t.completion, t) for t in group), key=lambda pair: pair[0])
        common = [0, *(_common(a, b) for (a, _), (b, _) in pairwise(ordered)), 0]
        for i, (_, trajectory) in enumerate(ordered):
            left = max(common[i], common[i + 1])
            for step in trajectory.steps:
                if step.logprobs is not None:
                    sampled += len(step.tokens)
                    shared += min(left, len(step.tokens))
                left = max(0, left - len(step.tokens))
    return shared / max(1, sampled)


def _common(one: tuple[int, ...], two: tuple[int, ...]) -> int:
    """Length of the longest common prefix."""
    for i, (a, b) in enumerate(zip(one, two, strict=False)):
        if a != b:
            return i
    return min(len(one), len(two))
