"""What an arm spends, before there is a model: its strategy, rehearsed on a stand-in for the policy.

The strategy, the laboratory and the ledger are those of a run; what the policy would write is made up. An
answer is a row of steps. After every attempt of some steps it ends right, with a chance that differs between
problems, or is given up, or goes on until the cap: what outcome rewards teach the default to do. The
constants were read off its runs (`python tests/benchmarks/plan.py` holds the rehearsal against them, purpose
by purpose); for a task that is answered in another way this is an estimate, to be replaced by a first run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

from ablate.lab import Laboratory
from ablate.ledger import Account, Ledger, PrefixIndex
from ablate.models.flops import BACKWARD, PassCost
from ablate.randomness import hash64
from ablate.types import Step, UserError

if TYPE_CHECKING:
    from ablate.config import Config
    from ablate.types import Problem, Task, Trajectory, Verdict

LENGTH = 0.61  # mean tokens of an answer after training, as a share of the cap
START = 0.5  # and before it, as a share of that
GROWTH = 14  # updates in which the difference shrinks to 1 / e
STEPS = 16.0  # mean steps of such an answer, where they have ...
STEP = 4.9  # ... at least so many tokens each
ATTEMPTS = 4.0  # mean attempts of such an answer
CHOICES = (4, 3, 1, 2)  # of equally likely next steps, for each step of an attempt: how soon two answers part
SPREAD = 0.55  # of the chance that an attempt is right, over problems: exponent of exponential quantiles
CLASSES = 32  # of problems by that chance
GOLDEN = 0.5 * (5**0.5 - 1)  # its multiples fill [0, 1) evenly from the start
GIVEN_UP = 0.2  # answers given up for one that ends right, after training
FIRST_GIVEN_UP = 2.3  # and before it
LAST = 0.5  # chance to give up where the cap leaves no room for another attempt

EOS, BOUNDARY, RIGHT, LAST_STEP, FIRST = 0, 1, 2, 3, 4
WORDS = 10**6  # tokens of given texts begin here: nothing in them is a step's end


class Unforeseen(Exception):
    """What a part of the strategy costs is not known before it has run."""


@dataclass(frozen=True)
class Manner:
    """How the stand-in answers once it is trained: mean tokens and mean steps of an answer; the cap."""

    length: float
    steps: float
    cap: int

    @classmethod
    def of(cls, cap: int, length: float | None = None, steps: float | None = None) -> Manner:
        """As on the default where not told. Raises UserError for what cannot be."""
        length = LENGTH * cap if length is None else length
        manner = cls(length, max(1.0, min(STEPS, length / STEP)) if steps is None else steps, cap)
        if manner.step < 3:
            raise UserError(
                f"length={manner.length:g} is too short for steps={manner.steps:g}, a step needs 3 tokens; "
                f"nearest: steps={max(1, int(manner.length / 3))}"
            )
        if manner.length > 0.95 * cap:
            raise UserError(
                f"length={manner.length:g} does not fit under sampling.cap={cap}: the largest mean is "
                f"{0.95 * cap:g}"
            )
        return manner

    @property
    def step(self) -> float:
        """Mean tokens of a step."""
        return self.length / self.steps

    @property
    def attempt(self) -> int:
        """Steps of an attempt."""
        return max(1, round(self.steps / ATTEMPTS))

    def after(self, updates: float) -> float:
        """Mean length of an answer after so many updates."""
        return self.length * (1 - (1 - START) * math.exp(-updates / GROWTH))

    def chances(self, updates: float) -> tuple[list[float], float]:
        """(of a right end after an attempt, by class of problems; of giving up) after so many updates."""
        length = self.after(updates)
        given_up = GIVEN_UP + (FIRST_GIVEN_UP - GIVEN_UP) * math.exp(-updates / GROWTH)
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            longer = self._mean(*_chances(middle, given_up)) > length
            low, high = (middle, high) if longer else (low, middle)
        return _chances(low, given_up)

    def _mean(self, right: list[float], given_up: float) -> float:
        attempt = self.attempt * self.step
        most = int((self.cap - 1) / attempt)
        total = 0.0
        for chance in right:
            stay = max(0.0, 1 - chance - given_up)
            total += attempt * sum(stay**k for k in range(most))
            cut = stay**most * (1 - LAST)
            total += cut * (self.cap - most * attempt) + (1 - cut)  # the end token
        return total / len(right)


def _chances(mean: float, given_up: float) -> tuple[list[float], float]:
    """Quantiles of a Weibull distribution: most problems are hard, a few easy. given_up: for one that ends
    right."""
    quantiles = [(-math.log(1 - (i + 0.5) / CLASSES)) ** SPREAD for i in range(CLASSES)]
    scale = mean * CLASSES / sum(quantiles)
    return [min(1.0, scale * each) for each in quantiles], given_up * mean


class Policy:
    """In the place of a model's policy: texts are as long as they would be, their words are made up."""

    eos = EOS
    ends = frozenset({EOS})

    def __init__(self, cost: PassCost, count: Callable[[str], int]) -> None:
        """count: tokens of a text."""
        self.cost, self._count = cost, count

    def encode(self, text: str) -> tuple[int, ...]:
        """As many tokens as the text has."""
        start = WORDS + hash64(text) % WORDS * WORDS
        return tuple(range(start, start + self._count(text)))

    def prompt(self, text: str, number: int = 0) -> tuple[int, ...]:
        """The same after a token that tells the class of problem `number`: few problems have all of them."""
        return (-1 - int(CLASSES * (number * GOLDEN % 1.0)), *self.encode(text))

    def decode(self, tokens: Sequence[tuple[int, ...]]) -> list[str]:
        """A word per token."""
        return [" ".join(["w"] * len(row)) for row in tokens]

    answers = decode

    def stop_tokens(self, stop: str) -> frozenset[int]:
        """Where steps end."""
        return frozenset({BOUNDARY})


class Engine:
    """In the place of an engine: draws answers and charges for them as `engines.hf` does.

    passes, rows: forward passes of decoding, and how many rows went through them in all. read: FLOPs of
    reading the distinct prefixes before it, which an engine does at every call.
    """

    def __init__(self, policy: Policy, ledger: Ledger, manner: Manner, most_rows: int) -> None:
        self._policy, self._ledger, self._most_rows = policy, ledger, most_rows
        self._manner = manner
        ends = [round(k * manner.step) for k in range(int(manner.cap / manner.step) + 3)]
        self._sizes = [max(3, after - before) for before, after in pairwise(ends)]
        self._places = manner.attempt
        self.attempt = round(manner.attempt * manner.step)
        self.learn(0.0)
        self.forget()

    def forget(self) -> None:
        """Count from nothing."""
        self.passes, self.rows, self.read = 0, 0, 0.0

    def learn(self, updates: float) -> None:
        """Answer from now on as after so many updates."""
        self._right, self._given_up = self._manner.chances(updates)

    def generate(
        self,
        prefixes: Sequence[tuple[int, ...]],
        n: int,
        max_new: Sequence[int],
        *,
        key: int,
        purpose: str,
        stop: frozenset[int],
        temperature: float = 1.0,
    ) -> list[list[Step]]:
        """See `engines.hf`."""
        rng = Random(key)
        out: list[list[Step]] = []
        for prefix, room in zip(prefixes, max_new, strict=True):
            right = self._right[-1 - prefix[0]]
            drawn = [self._answer(prefix, room, right, bool(stop), rng) for _ in range(n)]
            out.append([Step(tokens, (0.0,) * len(tokens)) for tokens in drawn])
            self._ledger.charge_generation(purpose, self._policy.cost, prefix, drawn)
        lengths = [len(step.tokens) for steps in out for step in steps]
        batches = range(0, len(lengths), self._most_rows)
        self.passes += sum(max(lengths[i : i + self._most_rows]) for i in batches)
        self.rows += sum(lengths)
        self.read += sum(self._policy.cost.forward(0, len(prefix), 1) for prefix in set(prefixes))
        return out

    def _answer(
        self, prefix: tuple[int, ...], room: int, chance: float, one_step: bool, rng: Random
    ) -> tuple[int, ...]:
        if prefix[-1] == BOUNDARY and prefix[-2] == LAST_STEP:
            return (EOS,)
        done = prefix.count(BOUNDARY)
        out: list[int] = []
        right = RIGHT in prefix[-self.attempt :]
        while len(out) < room:
            size = self._sizes[min(done, len(self._sizes) - 1)]
            place = done % self._places
            word = FIRST + int(rng.random() * CHOICES[place % len(CHOICES)])
            step = [word] * (size - 1) + [BOUNDARY]
            done, ended = done + 1, False
            if place == (self._places - 1) // 2:  # half-way it is decided whether the attempt is right
                right = rng.random() < chance
                step[0] = RIGHT if right else word
            if place + 1 == self._places:
                # of those that are not right; the chances are of all
                given_up = rng.random() < self._given_up / max(1e-9, 1 - chance)
                cramped = room - len(out) - size < self.attempt and rng.random() < LAST
                ended = right or given_up or cramped
                step[-2] = LAST_STEP if ended else step[-2]
                right = False
            out += step
            if one_step:
                break
            if ended:
                out.append(EOS)
                break
        return tuple(out[:room])

    def score(
        self,
        prefixes: Sequence[tuple[int, ...]],
        continuations: Sequence[tuple[int, ...]],
        *,
        purpose: str,
        temperature: float = 1.0,
        policy: Any = None,
    ) -> list[tuple[float, ...]]:
        """See `engines.hf`."""
        index = None if policy is self._policy else PrefixIndex()
        for prefix, tokens in zip(prefixes, continuations, strict=True):
            self._ledger.charge_scoring(purpose, self._policy.cost, prefix, tokens, len(tokens), index)
        return [(0.0,) * len(tokens) for tokens in continuations]


class Rehearsal(Laboratory):
    """The laboratory over the stand-ins. fraction: of the budget spent."""

    fraction = 0.0

    def __init__(self, config: Config, task: Task, policy: Policy, engine: Engine, ledger: Ledger) -> None:
        self._config = config
        super().__init__(
            task,
            policy,  # type: ignore[arg-type]
            engine,  # type: ignore[arg-type]
            ledger,
            cap=config.sampling.cap,
            temperature=config.sampling.temperature,
            sampling_seed=0,
        )

    @property
    def budget_fraction(self) -> float:
        """As told."""
        return self.fraction

    def verify(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """As the stand-in drew it."""
        attempt = self._engine.attempt  # type: ignore[attr-defined]
        return [
            replace(t, solved=self._ended(t) and t.length <= self.cap and RIGHT in t.completion[-attempt:])
            for t in trajectories
        ]

    def oracle(self, prefixes: Sequence[Trajectory]) -> list[float]:
        """Any answer: it is free."""
        return [float(self.rng.random() < 0.5) for _ in prefixes]

    def reference(self) -> Any:
        """A model of the same size that shares no cache."""
        return Policy(self._policy.cost, len)

    def demonstrate(self, problems: Sequence[Problem], n: int) -> list[list[tuple[int, ...]]]:
        """The task's own demonstrations, at their length and with their verdict."""

        def one(problem: Problem, i: int) -> tuple[int, ...]:
            text = self._task.demonstrate(problem, Random(hash64(self.batch, problem.id, i)))  # type: ignore[attr-defined]
            verdict = RIGHT if self._task.verify(problem, text) else FIRST
            return (*self._policy.encode(text)[1:], verdict, EOS)[-self.cap :]

        return [[one(problem, i) for i in range(n)] for problem in problems]

    def value_model(self, name: str, make: Callable[..., Any]) -> Any:
        """One that charges like the model of this kind."""
        from ablate.models.value_models import HeadModel, StepModel

        kind, settings = getattr(make, "func", make), getattr(make, "keywords", {})
        if name not in self._models:
            if kind is HeadModel:
                width = getattr(self._config.model, "hidden", None) or _width(self._policy.cost)
                self._models[name] = _Head(self._policy, self._ledger, width, settings["steps"])
            elif kind is StepModel:
                self._models[name] = _StepScorer(self._policy, self._ledger, settings["epochs"])
            else:
                raise Unforeseen(f"what the auxiliary model {name} costs")
        return self._models[name]

    def judge(self, name: str, make: Callable[..., Any], questions: Sequence[str]) -> list[Verdict]:
        """Charged like a yes or no of the policy's, or of an endpoint's; another model's cost is unknown."""
        from ablate.models.endpoint import EndpointJudge
        from ablate.models.judges import policy_judge

        kind, settings = getattr(make, "func", make), getattr(make, "keywords", {})
        for question in questions:
            tokens = self._policy.prompt(question)
            if kind is policy_judge:
                self._ledger.charge_scoring("judge", self._policy.cost, (), tokens, 2)
            elif kind is EndpointJudge:
                count = len(tokens) + settings["endpoint"].max_tokens
                flops = 2.0 * (settings["endpoint"].parameters or 0.0) * count
                self._ledger.charge_account("judge", Account(flops, flops, count, count, count))
            else:
                raise Unforeseen("what a pass through a local judge costs")
        return [self.rng.random() for _ in questions]


def _width(cost: PassCost) -> int:
    """Hidden size, as near as the sizes of a pass tell: about 12 weights per layer and squared width."""
    return max(1, round(cost.linear / (12 * max(1, cost.attention))))


class _Stateless:
    """Nothing to keep."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class _Head(_Stateless):
    """Charges like `models.value_models.HeadModel`."""

    def __init__(self, policy: Any, ledger: Ledger, width: int, steps: int) -> None:
        self._policy, self._ledger, self._steps = policy, ledger, steps
        self._flops = 2.0 * (width * width + width)
        self._read: set[tuple[int, ...]] = set()
        self._version = ledger.version

    def _charge(self, prefixes: Sequence[Trajectory]) -> None:
        if self._version != self._ledger.version:
            self._read.clear()
            self._version = self._ledger.version
        for row in dict.fromkeys(each.problem.tokens + each.completion for each in prefixes):
            if row not in self._read:
                self._read.add(row)
                self._ledger.charge_scoring("score", self._policy.cost, row, (), heads=0)

    def predict(self, prefixes: Sequence[Trajectory]) -> list[float]:
        self._charge(prefixes)
        self._ledger.charge("score", self._flops * len(prefixes))
        return [0.5] * len(prefixes)

    def fit(self, prefixes: Sequence[Trajectory], targets: Sequence[float]) -> float:
        self._charge(prefixes)
        self._ledger.charge("auxiliary_update", (1.0 + BACKWARD) * self._flops * len(prefixes) * self._steps)
        self._read.clear()
        return 0.0


class _StepScorer(_Stateless):
    """Charges like `models.value_models.StepModel`."""

    def __init__(self, policy: Any, ledger: Ledger, epochs: int) -> None:
        size = policy.cost
        self._cost, self._ledger, self._epochs = PassCost(size.linear, size.attention, 0), ledger, epochs

    def predict(self, prefixes: Sequence[Trajectory]) -> list[float]:
        index = PrefixIndex()
        for row in self._whole(prefixes):
            self._ledger.charge_scoring("score", self._cost, (), row, heads=0, index=index)
        return [0.5] * len(prefixes)

    def fit(self, prefixes: Sequence[Trajectory], targets: Sequence[float]) -> float:
        for row in self._whole(prefixes):
            self._ledger.charge_training("auxiliary_update", self._cost, len(row), 0, rows=self._epochs)
        return 0.0

    def _whole(self, prefixes: Sequence[Trajectory]) -> list[tuple[int, ...]]:
        from ablate.models.value_models import maximal

        return maximal([each.problem.tokens + each.completion for each in prefixes])[0]
