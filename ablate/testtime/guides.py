"""Who tells good paths from bad ones at test time.

A guide gives one value in [0, 1] per path, open or finished. It is *privileged* if it asks the task's
verifier or its step oracle about the very problem that is to be solved: what it finds is an upper bound, as
pass@k is.

    oracle        the task's exact step oracle, and the verifier on finished answers; free        privileged
    monte_carlo   share of M rollouts from the path that the verifier accepts; a finished answer  privileged
                  has the value of the path before its last step
    verifier      the verifier's verdict on finished answers (best-of-n alone: pass@k)            privileged
    learned       a step scorer on a copy of the policy, fitted at the start
    value         a value head on the policy's own states, fitted at the start
    judge         a language model that is asked about the last step

The two that are fitted learn from outcomes: the policy answers *training* problems, and the end of every
step of an answer is labelled with whether the answer came out right (the token-level verifier of Cobbe et
al. 2021, arXiv:2110.14168, with labels at steps, as Math-Shepherd's with one completion each).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal, Protocol

from ablate.ledger import BUDGETED
from ablate.models.lora import LoRA
from ablate.randomness import hash64
from ablate.schema import limited
from ablate.scorers.judge import Judge
from ablate.scorers.monte_carlo import MonteCarlo
from ablate.scorers.oracle import Oracle
from ablate.testtime.bench import Bench
from ablate.types import Trajectory, ValueModel

PRIVILEGED = ("oracle", "monte_carlo", "verifier")
FITTED = ("learned", "value")
NAMES = ("oracle", "monte_carlo", "verifier", "learned", "value", "judge")
HEAD_PREFIXES = 4096  # most that a value head is fitted on: each needs a pass of its own


@dataclass
class Fitting:
    """What the fitted guides learn from and how. problems, samples: training problems, answers to each.

    lr, epochs, batch, train, lora: of the step scorer, as in `scorers.learned`. head_lr, head_steps: of the
    value head.
    """

    problems: int = limited(256, at_least=1)
    samples: int = limited(8, at_least=1)
    lr: float = limited(1e-3, above=0)
    epochs: int = limited(3, at_least=1)
    batch: int = limited(16, at_least=1)
    train: Literal["all", "lora"] = "all"
    lora: LoRA = field(default_factory=lambda: LoRA(rank=32))
    head_lr: float = limited(2e-3, above=0)
    head_steps: int = limited(200, at_least=1)


class Guide(Protocol):
    """`values` of paths that are not truncated. fit_flops: what it cost to make it."""

    fit_flops: float

    def values(self, paths: Sequence[Trajectory], bench: Bench) -> list[float]:
        """One in [0, 1] per path."""
        ...

    def begin(self) -> None:
        """A new measurement: nothing has been read yet."""
        ...


class _Unfitted:
    fit_flops = 0.0

    def begin(self) -> None:
        """Nothing is kept."""


class OracleGuide(_Unfitted):
    """Reachability; of finished answers the verdict."""

    def values(self, paths: Sequence[Trajectory], bench: Bench) -> list[float]:
        """See `Guide`."""
        ends = iter(bench.judged([path for path in paths if bench.finished(path)]))
        inner = iter(Oracle().values([path for path in paths if not bench.finished(path)], bench))
        return [float(next(ends)) if bench.finished(path) else next(inner) for path in paths]


class VerifierGuide(_Unfitted):
    """The verdict on finished answers."""

    def values(self, paths: Sequence[Trajectory], bench: Bench) -> list[float]:
        """See `Guide`."""
        return [float(right) for right in bench.judged(paths)]


@dataclass
class MonteCarloGuide(_Unfitted):
    """The policy's own chance to come out right from here."""

    rollouts: int

    def values(self, paths: Sequence[Trajectory], bench: Bench) -> list[float]:
        """See `Guide`."""
        before = [_without_last(path, bench) if bench.finished(path) else path for path in paths]
        distinct = {(path.problem.id, path.completion): path for path in before}
        asked = list(distinct.values())

        def ask(paths: list[Trajectory]) -> list[float]:
            return MonteCarlo(self.rollouts).values(paths, bench)

        judged = hasattr(bench.task, "judge_all")  # who verifies the rollouts must be paid
        found = _by_problem(asked, bench, ask) if judged else ask(asked)
        value = dict(zip(distinct, found, strict=True))
        return [value[path.problem.id, path.completion] for path in before]


def _by_problem(
    paths: Sequence[Trajectory], bench: Bench, values: Callable[[list[Trajectory]], Sequence[float]]
) -> list[float]:
    """Values of paths, asked for problem by problem, so that each pays for its own questions."""
    out = [0.0] * len(paths)
    places: dict[str, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        places[path.problem.id].append(i)
    for where in places.values():
        with bench.about(paths[where[0]].problem):
            found = values([paths[i] for i in where])
        for i, value in zip(where, found, strict=True):
            out[i] = value
    return out


def _without_last(answer: Trajectory, bench: Bench) -> Trajectory:
    steps = bench.split(answer).steps
    return replace(answer, steps=steps[:-1], solved=None)


@dataclass
class JudgeGuide(_Unfitted):
    """A language model's opinion of the last step. It is asked problem by problem, so that each pays for its
    own questions."""

    judge: Judge

    def values(self, paths: Sequence[Trajectory], bench: Bench) -> list[float]:
        """See `Guide`."""
        return _by_problem(
            paths, bench, lambda own: self.judge.values([bench.split(path) for path in own], bench)
        )


class FittedGuide:
    """A model that was fitted on the policy's answers to training problems."""

    def __init__(self, model: ValueModel, fit_flops: float) -> None:
        self._model, self.fit_flops = model, fit_flops

    def begin(self) -> None:
        """Its caches are empty."""
        self._model.forget()  # type: ignore[attr-defined]  # both models of `fit` have it

    def values(self, paths: Sequence[Trajectory], bench: Bench) -> list[float]:
        """See `Guide`."""
        return self._model.predict(paths)


@dataclass(frozen=True)
class Examples:
    """Paths of answers to training problems, and whether each answer came out right. flops: the answers'."""

    paths: list[Trajectory]
    outcomes: list[float]
    flops: float


def examples(bench: Bench, fitting: Fitting) -> Examples:
    """Let the policy answer training problems; every step's end is an example."""
    bench.begin_on([])
    stream = hash64("testtime", bench.seed) % 2**63
    count = min(fitting.problems, bench.task.size("train"))
    problems = [bench.problem(bench.task.problem(stream, "train", i)) for i in range(count)]
    drawn = bench.sample([Trajectory(problem) for problem in problems], fitting.samples)
    answers = [Trajectory(p, (step,)) for p, steps in zip(problems, drawn, strict=True) for step in steps]
    paths: list[Trajectory] = []
    outcomes: list[float] = []
    for answer in bench.verify(answers):  # a judge's verdicts are part of what fitting costs
        steps = bench.split(answer).steps
        truncated = bench.truncated(answer)  # at its end there is nothing left to judge
        ends = range(1, len(steps) + (not truncated))
        paths += [Trajectory(answer.problem, steps[:t]) for t in ends]
        outcomes += [float(bool(answer.solved))] * len(ends)
    return Examples(paths, outcomes, _total(bench))


def fit(name: str, bench: Bench, found: Examples, fitting: Fitting) -> FittedGuide:
    """A guide of FITTED, fitted on the examples."""
    from ablate.models.value_models import HeadModel, StepModel

    bench.begin_on([])
    seed = hash64(bench.seed, "testtime", name) % 2**31
    model: HeadModel | StepModel
    if name == "learned":
        lora = fitting.lora if fitting.train == "lora" else None
        model = StepModel(
            bench.policy, bench.tally, seed, fitting.lr, fitting.epochs, fitting.batch, lora, keep=True
        )
        model.fit(found.paths, found.outcomes)
    else:
        model = HeadModel(bench.policy, bench.tally, seed, fitting.head_lr, fitting.head_steps)
        chosen = Random(seed).sample(range(len(found.paths)), min(HEAD_PREFIXES, len(found.paths)))
        model.fit([found.paths[i] for i in chosen], [found.outcomes[i] for i in chosen])
    return FittedGuide(model, found.flops + _total(bench))


def _total(bench: Bench) -> float:
    return sum(bench.tally.accounts[purpose].flops for purpose in BUDGETED)


def valued(paths: Sequence[Trajectory], guide: Guide, bench: Bench) -> list[float]:
    """Values of any paths, each distinct one judged once. A truncated answer is no answer: 0."""
    asked: dict[tuple[str, tuple[int, ...]], Trajectory] = {}
    keys = []
    for path in paths:
        key = None if bench.truncated(path) else (path.problem.id, path.completion)
        keys.append(key)
        if key is not None:
            asked.setdefault(key, path)
    found = dict(zip(asked, guide.values(list(asked.values()), bench) if asked else [], strict=True))
    return [0.0 if key is None else found[key] for key in keys]
