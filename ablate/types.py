"""The vocabulary of the laboratory: read this file first.

A *problem* is attempted by *trajectories*; a trajectory is a sequence of *steps*, each written by one
author (the policy, a prompt, a marker). Trajectories that share a prefix form a *group*: one baseline; a
group without a token to learn from is there for recovery alone. A strategy turns problems into credited
groups and sees the rest of the laboratory only through `Lab`.

Everything here is immutable; `dataclasses.replace` makes changed copies. No heavy imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, Protocol, TypeAlias


class UserError(Exception):
    """A mistake of the user's: shown as one line, without a traceback."""


@dataclass(frozen=True)
class Problem:
    """One problem of a task, a pure function of (seed, split, index)."""

    id: str  # unique within the task
    prompt: str  # what the model reads
    answer: Mapping[str, Any] = field(default_factory=dict, hash=False)  # what the verifier needs
    cluster: str = ""  # problems of one cluster are statistically dependent (Countdown: same multiset)
    difficulty: float | None = None  # task-defined; Countdown: chance that a random attempt hits
    stratum: str = ""  # difficulty class for reports: "easy" | "medium" | "hard"
    tokens: tuple[int, ...] = ()  # the prompt in the policy's tokens, set by the lab


@dataclass(frozen=True)
class Step:
    """Consecutive tokens by one author."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None  # None: not sampled by the policy -> masked in the loss
    value: float | None = None  # estimated chance of success after this step
    weight: float = 1.0  # factor on this step's advantage, e.g. a visit share
    imitate: float = 0.0  # weight of a likelihood term on these tokens where the policy did not sample them

    def masked(self) -> Step:
        """The same tokens, out of the loss."""
        return replace(self, logprobs=None)


@dataclass(frozen=True)
class Trajectory:
    """A (possibly unfinished) answer to a problem."""

    problem: Problem
    steps: tuple[Step, ...] = ()  # paths of a tree share Steps
    solved: bool | None = None  # set by the core's verifier only
    reward: float | None = None  # default: solved; a strategy may shape it (SCoRe)
    parent: Trajectory | None = None  # what a correction started from
    advantages: tuple[float, ...] = ()  # per step; set by credit only

    @property
    def completion(self) -> tuple[int, ...]:
        """Tokens after the prompt."""
        return tuple(token for step in self.steps for token in step.tokens)

    @property
    def length(self) -> int:
        """Number of tokens after the prompt."""
        return sum(len(step.tokens) for step in self.steps)

    @property
    def outcome(self) -> float:
        """The reward that credit is computed from: `reward` if a strategy shaped it, else `solved`."""
        if self.reward is not None:
            return self.reward
        if self.solved is None:
            raise ValueError(f"trajectory for {self.problem.id} was not verified")
        return float(self.solved)

    def then(self, *steps: Step) -> Trajectory:
        """The unverified trajectory that goes on with `steps`."""
        return replace(self, steps=self.steps + steps, solved=None, reward=None, advantages=())


Group: TypeAlias = list[Trajectory]  # trajectories that share a prefix: one baseline
Verdict: TypeAlias = float | Literal["failed", "malformed"]  # P(yes), or why there is none


class Lab(Protocol):
    """All that a strategy may touch; everything is metered."""

    batch: int  # number of the batch, from 0
    rng: Random  # a fresh stream per batch, a function of the sampling seed
    cap: int  # most tokens after the prompt, the same in every arm
    step_boundary: str  # the string that ends a step
    marker: tuple[int, ...]  # the task's correction marker in the policy's tokens, () where it has none

    @property
    def budget_fraction(self) -> float:
        """Share of the budget spent so far, in [0, 1]."""
        ...

    def sample(
        self, prefixes: Sequence[Trajectory], n: int, stop: Sequence[str] = (), purpose: str = "rollout"
    ) -> list[list[Step]]:
        """Draw `n` continuations of each prefix: `result[i][j]` is one Step.

        A continuation ends with the end token, with a stop string (included), or at the cap on tokens
        after the prompt, whichever comes first. purpose: the ledger's account, "rollout" or "label".
        """
        ...

    def score(self, prefixes: Sequence[Trajectory], reference: bool = False) -> list[list[float]]:
        """Log-probability of every token after the prompt, by the policy as it is or as it was at the start
        (`reference`); charged as "score"."""
        ...

    def oracle(self, prefixes: Sequence[Trajectory]) -> list[float]:
        """The task's exact step oracle at the end of each prefix; free, and so no ground for a verdict."""
        ...

    def grade(self, trajectories: Sequence[Trajectory]) -> list[float]:
        """What each answer counts for in the comparison, as it stands: its score where the task has one
        (`task.score`), else its outcome."""
        ...

    def parts(self, trajectories: Sequence[Trajectory]) -> list[float]:
        """The share of its parts that the verifier finds right in each answer as it stands (`task.parts`)."""
        ...

    def demonstrate(self, problems: Sequence[Problem], n: int) -> list[list[tuple[int, ...]]]:
        """`n` demonstrations of each problem by the task's demonstrator, as tokens with the end token, at
        most `cap` of them; free of charge."""
        ...

    def value_model(self, name: str, make: Callable[..., ValueModel]) -> ValueModel:
        """The auxiliary model of this name: made at first use, by make(policy, ledger, seed), and kept over
        batches, checkpoints included."""
        ...

    def judge(self, name: str, make: Callable[..., JudgeModel], questions: Sequence[str]) -> list[Verdict]:
        """What the judge of this name says to each question: made at first use, by make(policy, ledger), and
        kept over batches; charged as "judge"."""
        ...

    def verify(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Copies with `solved` set. Truncated answers are not solved."""
        ...

    def finished(self, trajectory: Trajectory) -> bool:
        """Ends with the end token, or has no room left under the cap."""
        ...

    def truncated(self, trajectory: Trajectory) -> bool:
        """Stopped by the cap instead of the end token."""
        ...

    def split(self, trajectory: Trajectory) -> Trajectory:
        """The same tokens with each Step cut at the task's step boundaries."""
        ...

    def unended(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory without its end token."""
        ...

    def text(self, trajectory: Trajectory) -> str:
        """The tokens after the prompt as text, end token removed."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Text in the policy's tokens, no special tokens added."""
        ...

    def log(self, name: str, value: float) -> None:
        """Record a diagnostic of this batch; repeated values are averaged."""
        ...


class ValueModel(Protocol):
    """An auxiliary model that estimates the chance of success from a prefix. It charges the ledger itself."""

    def predict(self, prefixes: Sequence[Trajectory]) -> list[float]:
        """One value in [0, 1] per prefix."""
        ...

    def fit(self, prefixes: Sequence[Trajectory], targets: Sequence[float]) -> float:
        """Train on targets in [0, 1], one per prefix; returns the mean loss before it, in nats."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors that a resumed run needs, by name."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back `state_dict()`."""
        ...


class JudgeModel(Protocol):
    """A language model that is asked questions to answer with yes or no. It charges the ledger itself and
    keeps nothing that a resumed run would need."""

    def ask(self, questions: Sequence[str]) -> list[Verdict]:
        """One verdict per question; does not raise for what a model answers or fails to answer."""
        ...


class Scorer(Protocol):
    """Who judges a prefix.

    Like a strategy's parts, it may have `check(task)`, which raises UserError before anything is loaded, for
    a task that it cannot serve. It may have `ends(answers, lab)`, the values of finished answers where these
    are not their outcomes.
    """

    def values(self, prefixes: Sequence[Trajectory], lab: Lab) -> list[float]:
        """One value in [0, 1] per (unfinished) prefix."""
        ...


Source: TypeAlias = Callable[[Sequence[Problem], Lab], list[Group]]
Recovery: TypeAlias = Callable[[list[Group], Lab], list[Group]]
Credit: TypeAlias = Callable[[list[Group], Lab], list[Group]]


class Task(Protocol):
    """Problems and the verifier that judges answers, in text. Splits: train, tuning, heldout.

    A task whose answers can be right in part may also have `score(problem, completion) -> float`, the share
    of an answer that is right (in [0, 1], 1 if it is solved; like `verify` it never raises), and
    `metric: str`, the name of it. Evaluation then records the score of every answer as far as the cap lets it
    come, ended or not, and the report compares arms by its mean instead of by the share of solved answers
    (pass@1).

    A task whose verifier judges part by part may have `parts(problem, completion) -> list[bool]`, which of an
    answer's parts are right as it stands, ended or not: what `scorer=verified` pays for.
    """

    name: str

    def size(self, split: str) -> int:
        """Number of distinct problems in a split."""
        ...

    def problem(self, seed: int, split: str, index: int) -> Problem:
        """A pure function; heldout ignores the seed, so every arm and seed is judged on the same set."""
        ...

    def verify(self, problem: Problem, completion: str) -> bool:
        """Is this finished answer right? Never raises on any text."""
        ...

    def answer(self, problem: Problem, completion: str) -> str:
        """The final answer in a form in which equal answers are equal: what majority votes count."""
        ...

    step_boundary: str  # the string that ends a step

    def behaviours(self, problem: Problem, completion: str) -> dict[str, float]:
        """Counts that describe how an answer was reached (attempts, restarts, self-checks, ...)."""
        ...
