"""A laboratory that watches the strategy in it: what left the engine, and what ran past it.

For `ablate.check`. Everything is real but the verdicts, which can be drawn or given.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablate import config as configuration
from ablate.engines.base import Engine
from ablate.engines.hf import HFEngine
from ablate.lab import Laboratory
from ablate.ledger import UNITS, Ledger
from ablate.models.tiny import TinyModel
from ablate.randomness import hash64
from ablate.refusals import check_task
from ablate.schema import one_line
from ablate.strategy import AXES, Strategy
from ablate.types import (
    Group,
    JudgeModel,
    Problem,
    Step,
    Task,
    Trajectory,
    UserError,
    ValueModel,
    Verdict,
)

if TYPE_CHECKING:
    from ablate.config import Config
    from ablate.models.policy import Policy

PROBLEMS = 4  # per batch
CAP = 64  # with the small model
SMALL = TinyModel(hidden=32, layers=2, heads=2, feedforward=64, init=0.3)

# verifier: the task's own; drawn: a fair coin for every answer that ended; all, none: of what is asked about
Verdicts = Literal["verifier", "drawn", "all", "none"]


class Crash(Exception):
    """The strategy raised something, or returned no groups."""


@dataclass
class Setup:
    """What the benches of a check share."""

    config: Config
    task: Task
    policy: Policy
    reference: Callable[[], Policy]  # loads the policy as it was at the start
    cap: int
    verdicts: Verdicts

    @property
    def seed(self) -> int:
        """The sampling seed."""
        config = self.config
        return config.seed if config.sampling_seed is None else config.sampling_seed

    @staticmethod
    def of(config: Config, start: bool) -> Setup:
        """start: the model that a run would start from, instead of a small random one. Raises UserError."""
        task = configuration.build(config.task)
        check_task(task)
        _ask(_strategy(config), "check", task)
        if not start:
            cap = min(config.sampling.cap, CAP)
            # the reference is another model: log-ratios to it are not zero, as in the middle of a run
            return Setup(config, task, small_policy(task, 0), lambda: small_policy(task, 1), cap, "drawn")
        from ablate.refusals import check_model
        from ablate.run import load_policy

        model = configuration.build(config.model)
        check_model(config, task, model)

        def load() -> Policy:
            return load_policy(config, task, model, config.progress)[0]

        return Setup(config, task, load(), load, config.sampling.cap, "verifier")


def _strategy(config: Config) -> Strategy:
    return Strategy(**{axis: configuration.build(getattr(config.strategy, axis)) for axis in AXES})


def _ask(strategy: Strategy, hook: str, about: Any) -> None:
    """Call what the parts may have: `check(task)`, `ready(lab)`, which raise UserError."""
    for axis in AXES:
        if method := getattr(getattr(strategy, axis), hook, None):
            method(about)


def small_policy(task: Any, seed: int) -> Policy:
    """A random model with the task's words, far from uniform, whose answers have steps and often end."""
    if not hasattr(task, "vocabulary"):
        raise UserError(
            f"task={task.name} has no vocabulary to make a small model of: --start takes model=..."
        )
    policy = SMALL.untrained(task, hash64("check", seed) % 2**31)
    likely = sorted({policy.eos, *policy.stop_tokens(task.step_boundary)})
    policy.model.get_output_embeddings().weight.data[likely] *= 2.0
    return policy


class Watch:
    """An independent count of what the engine gives out, beside the ledger's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.tokens: Counter[str] = Counter()  # that left the engine or an auxiliary model, by purpose
        self.sampled: set[int] = set()  # see `places`: every token that was sampled where it stands
        self.strays = 0  # passes of the policy that nobody answers for
        self._inside = 0
        self._passes = 0  # of the policy, whoever made them

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Passes of the policy are someone's business in here."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @contextmanager
    def auxiliary(self) -> Iterator[None]:
        """A model that charges the ledger itself at work; it must do so for passes of the policy."""
        tokens, spent = self._on_the_ledger()
        passes = self._passes
        with self.allowed():
            yield
        after, spent_after = self._on_the_ledger()
        self.tokens.update(after - tokens)
        if self._passes > passes and spent_after == spent:
            self.strays += self._passes - passes

    def _on_the_ledger(self) -> tuple[Counter[str], float]:
        accounts = self._ledger.accounts
        return (
            Counter({name: account.tokens for name, account in accounts.items()}),
            sum(account.logical_flops for account in accounts.values()),
        )

    def passed(self, *_: Any) -> None:
        """The policy has been run: a hook."""
        self._passes += 1
        self.strays += not self._inside


def places(prefix: Sequence[int], tokens: Sequence[int]) -> Iterator[int]:
    """A hash for each of `tokens` that stands for it and all that comes before it."""
    state = 0
    for token in prefix:
        state = hash((state, token))
    for token in tokens:
        state = hash((state, token))
        yield state


class WatchedEngine:
    """An engine, with everything that it gives out counted."""

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self._engine, self._watch = engine, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, prefixes: Sequence[tuple[int, ...]], *args: Any, **options: Any) -> list[list[Step]]:
        """As `Engine.generate`."""
        with self._watch.allowed():
            drawn = self._engine.generate(prefixes, *args, **options)
        for prefix, steps in zip(prefixes, drawn, strict=True):
            for step in steps:
                self._watch.tokens[options["purpose"]] += len(step.tokens)
                self._watch.sampled.update(places(prefix, step.tokens))
        return drawn

    def score(self, *args: Any, **options: Any) -> list[tuple[float, ...]]:
        """As `Engine.score`."""
        with self._watch.allowed():
            out = self._engine.score(*args, **options)
        self._watch.tokens[options["purpose"]] += sum(map(len, out))
        return out


class _WatchedModel:
    """A value model at work under a watch."""

    def __init__(self, model: ValueModel, watch: Watch) -> None:
        self._model, self._watch = model, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, prefixes: Sequence[Trajectory]) -> list[float]:
        with self._watch.auxiliary():
            return self._model.predict(prefixes)

    def fit(self, prefixes: Sequence[Trajectory], targets: Sequence[float]) -> float:
        with self._watch.auxiliary():
            return self._model.fit(prefixes, targets)


class WatchedLab(Laboratory):
    """The laboratory, with verdicts of choice and watched value models."""

    def watch(self, watch: Watch, verdicts: Verdicts) -> None:
        """To be called once, before any use."""
        self._watch, self._verdicts = watch, verdicts

    def verify(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """As `Laboratory.verify`, with these verdicts."""
        if self._verdicts == "verifier":
            return super().verify(trajectories)
        return [replace(t, solved=self._verdict(t)) for t in trajectories]

    def _verdict(self, trajectory: Trajectory) -> bool:
        if self._verdicts == "drawn":
            right = hash64("coin", trajectory.problem.id, trajectory.completion) % 2 == 0
            return right and self._ended(trajectory) and trajectory.length <= self.cap
        return self._verdicts == "all"

    def value_model(self, name: str, make: Callable[..., ValueModel]) -> ValueModel:
        """As `Laboratory.value_model`."""
        return _WatchedModel(super().value_model(name, make), self._watch)

    def judge(self, name: str, make: Callable[..., JudgeModel], questions: Sequence[str]) -> list[Verdict]:
        """As `Laboratory.judge`."""
        with self._watch.auxiliary():
            return super().judge(name, make, questions)


class Bench:
    """A laboratory of its own with a ledger, a watch and a new strategy, to roll out batches in.

    What another bench's strategy has kept to itself is lost, as when a run is killed.
    """

    def __init__(
        self,
        setup: Setup,
        seed: int | None = None,
        verdicts: Verdicts | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """seed, verdicts: others than the setup's. state: of another bench, to go on from as a resumed
        run does."""
        self._setup, self._strategy = setup, _strategy(setup.config)
        self._ready = False
        config = setup.config
        unit, amount = next((u, a) for u in UNITS if (a := getattr(config.budget, u)) is not None)
        self.ledger = Ledger(unit, amount)
        self.watch = Watch(self.ledger)
        engine = HFEngine()
        engine.start(setup.policy, self.ledger)
        watched: Any = WatchedEngine(engine, self.watch)
        self.lab = WatchedLab(
            setup.task,
            setup.policy,
            watched,
            self.ledger,
            cap=setup.cap,
            temperature=config.sampling.temperature,
            sampling_seed=setup.seed if seed is None else seed,
            start=setup.reference,
        )
        self.lab.watch(self.watch, verdicts or setup.verdicts)
        if state:
            self.lab.load_state_dict(state["lab"])
            self.ledger.load_state_dict(state["ledger"])

    def state(self) -> dict[str, Any]:
        """All that a checkpoint keeps of the laboratory."""
        return {"lab": self.lab.state_dict(), "ledger": self.ledger.state_dict()}

    def problems(self, batch: int) -> list[Problem]:
        """The batch's problems, with tokens."""
        stream = range(batch * PROBLEMS, (batch + 1) * PROBLEMS)
        seed = self._setup.config.seed
        return [self.lab.problem(self._setup.task.problem(seed, "train", i)) for i in stream]

    def rollout(self, batch: int) -> list[Group]:
        """The strategy's groups for a batch. Raises Crash if it fails, UserError as it does itself."""
        self.ledger.new_policy_version()
        self.lab.begin(batch)
        hook = self._setup.policy.backbone.register_forward_pre_hook(self.watch.passed)
        try:
            if not self._ready:
                _ask(self._strategy, "ready", self.lab)
                self._ready = True
            groups = self._strategy.rollout(self.problems(batch), self.lab)
        except UserError:
            raise
        except Exception as error:
            raise Crash(
                f"batch {batch}: {type(error).__name__}: {one_line(error)} ({_place(error)})"
            ) from error
        finally:
            hook.remove()
        _need_groups(groups)
        return groups


def _need_groups(groups: Any) -> None:
    if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
        kinds = sorted({type(group).__name__ for group in groups}) if isinstance(groups, list) else []
        what = f"list of {', '.join(kinds)}" if kinds else type(groups).__name__
        raise Crash(f"the rollout returned a {what} instead of a list of lists of trajectories")
    strangers = {type(t).__name__ for group in groups for t in group if not isinstance(t, Trajectory)}
    if strangers:
        raise Crash(f"a group holds {', '.join(sorted(strangers))} instead of trajectories")
    strangers = {
        type(s).__name__ for group in groups for t in group for s in t.steps if not isinstance(s, Step)
    }
    if strangers:
        raise Crash(f"a trajectory holds {', '.join(sorted(strangers))} instead of steps")


def _place(error: Exception) -> str:
    """Where the user's own code was when it failed: the last line outside this package and installed ones."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parent)
    own = [f for f in frames if not f.filename.startswith(package) and "site-packages" not in f.filename]
    frame = (own or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}"
