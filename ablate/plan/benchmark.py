"""The speed of this machine, in some seconds of the engine and the learner that a run would use.

The model is the run's own in size, with random weights where it can be made without a download; answers have
the lengths that a run would have. Measured are what a pass of decoding costs, by itself and per row in it,
what a FLOP of an update and what an update by itself cost, and what a FLOP of the warm start costs. It runs
in processes of its own, as many at a time as runs would, and its result is kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from ablate.record import read_json, write_json
from ablate.types import UserError

if TYPE_CHECKING:
    from ablate.config import Config
    from ablate.plan.rehearsal import Spent

FLOPS = 2e10  # of each part at most, where a FLOP takes a tenth of a nanosecond; a GPU gets more
PATIENCE = 600.0  # seconds for all of it
STEPS = 3  # timed updates, after one that warms up
FEW = 8  # rows of the small batch


@dataclass(frozen=True)
class Speed:
    """Seconds: of a decoding pass by itself and per row; of an update's FLOP and of an update by itself; of a
    warm start's FLOP (None without one). measured: when, seconds since the epoch; load: processes that were
    at work on the machine just before."""

    one_pass: float
    row: float
    flop: float
    update: float
    warm_flop: float | None
    measured: float
    load: float

    def decoding(self, passes: float, rows: float) -> float:
        """Seconds."""
        return passes * self.one_pass + rows * self.row

    def training(self, spent: Spent) -> float:
        """Seconds of what was rehearsed."""
        decoded = sum(spent.flops.get(purpose, 0.0) for purpose in ("rollout", "label"))
        others = sum(spent.flops.values()) - decoded
        read = spent.read * self.flop
        return (
            self.decoding(spent.passes, spent.rows) + read + others * self.flop + spent.updates * self.update
        )


def measure(
    config: Config, values: Mapping[str, Any], machine: Mapping[str, Any], side_by_side: int, again: bool
) -> Speed:
    """The speed with so many runs at a time, from the cache unless `again`. values: of the configuration.
    Raises UserError if it cannot be measured."""
    path = Path(config.paths.cache) / "speed" / f"{_key(values, machine, side_by_side)}.json"
    if path.exists() and not again:
        return Speed(**read_json(path))
    print(
        "measuring this machine's speed: half a minute, once (measure=false leaves it out) ...",
        file=sys.stderr,
        flush=True,
    )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    command = [sys.executable, "-m", "ablate.plan.benchmark"]
    pipes: Any = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    processes = [subprocess.Popen(command, **pipes) for _ in range(side_by_side)]
    try:
        for process in processes:  # all of them are to begin at the same time
            assert process.stdin is not None
            process.stdin.write(json.dumps(values, default=str))
            process.stdin.flush()
        speeds = [_result(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    speed = Speed(
        **{field.name: _mean(getattr(each, field.name) for each in speeds) for field in fields(Speed)}
    )
    speed = replace(speed, load=load)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"paths.cache={config.paths.cache} cannot be written: {error.strerror}") from error
    write_json(path, asdict(speed))
    return speed


def _result(process: Any) -> Speed:
    try:
        out, error = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise UserError(f"measuring the speed took more than {PATIENCE:.0f} s: measure=false") from None
    if process.returncode:
        reason = (error.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"the speed cannot be measured ({reason}): measure=false, or gpu=...")
    return Speed(**json.loads(out.strip().splitlines()[-1]))


def _mean(values: Iterable[float | None]) -> Any:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _key(values: Mapping[str, Any], machine: Mapping[str, Any], side_by_side: int) -> str:
    from importlib.metadata import version

    decides = {key: values[key] for key in ("task", "model", "engine", "sampling", "learner", "threads")}
    parts = [decides, machine, side_by_side, version("torch"), version("transformers"), version("trl")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


# -- in the process that measures ----------------------------------------------------------------------------


def main() -> int:
    """Measure the configuration on standard input; prints a Speed as JSON."""
    from omegaconf import OmegaConf

    from ablate import runtime
    from ablate.compose import enter_working_directory
    from ablate.config import build, validate

    enter_working_directory()
    config = validate(OmegaConf.create(json.loads(sys.stdin.read())))
    runtime.quiet_libraries()
    runtime.set_threads(config.threads)
    runtime.keep_memory()
    task, model = build(config.task), build(config.model)
    if hasattr(model, "untrained"):
        policy = model.untrained(task, 0)
    else:
        policy, _ = model.load(task, config.seed, Path(config.paths.cache), False)
    policy.model.to(runtime.device())
    with tempfile.TemporaryDirectory() as folder:
        one_pass, row, groups = _decoding(config, policy, task)
        flop, update = _updates(config, policy, groups, Path(folder))
        warm = _warm_start(model, task, Path(folder)) if hasattr(model, "warm_start") else None
    print(json.dumps(asdict(Speed(one_pass, row, flop, update, warm, time.time(), 0.0))))
    return 0


def _decoding(config: Config, policy: Any, task: Any) -> tuple[float, float, list[Any]]:
    """(seconds of a pass, of a row in it, groups with a signal to train on): a line through a large batch and
    a small one."""
    from ablate.config import build
    from ablate.ledger import Ledger
    from ablate.plan.stand_in import Manner
    from ablate.types import Trajectory

    engine = build(config.engine)
    engine.start(policy, Ledger())
    few = FLOPS * (1 if policy.device.type == "cpu" else 1000)
    length = max(1, round(Manner.of(config.sampling.cap).length))
    answers = getattr(config.strategy.source, "n", None) or 8
    most = int(min(config.learner.problems * answers, few / (length * policy.cost.forward(length, 1, 1))))
    problems = [task.problem(0, "train", i) for i in range(max(1, most // answers))]
    problems = [replace(problem, tokens=policy.prompt(problem.prompt)) for problem in problems]

    def timed(rows: int, room: int, key: int) -> tuple[float, int, int, list[Any]]:
        chosen = problems[: max(1, rows // answers)]
        count = min(answers, rows)
        begun = time.perf_counter()
        drawn = engine.generate(
            [problem.tokens for problem in chosen], count, [room] * len(chosen), key=key, purpose="rollout"
        )
        took = time.perf_counter() - begun
        lengths = [len(step.tokens) for steps in drawn for step in steps]
        groups = [
            [
                replace(Trajectory(problem, (step,)), advantages=((-1.0) ** i,), solved=False)
                for i, step in enumerate(steps)
            ]
            for problem, steps in zip(chosen, drawn, strict=True)
        ]
        return took, max(lengths), sum(lengths), groups

    timed(FEW, 4, 0)  # imports, first allocations
    large = [timed(most, length, key) for key in (1, 2)]
    small = [timed(FEW, length, key) for key in (3, 4)]
    t, p, r = (fmean(column) for column in list(zip(*large, strict=True))[:3])
    u, q, s = (fmean(column) for column in list(zip(*small, strict=True))[:3])
    row = max(0.0, (t / p - u / q) / max(1e-9, r / p - s / q))
    return max(0.0, u / q - row * s / q), row, large[0][3]


def _updates(config: Config, policy: Any, groups: list[Any], folder: Path) -> tuple[float, float]:
    """(seconds of a FLOP, seconds of an update by itself), from all rows and from a few."""
    from omegaconf import OmegaConf
    from transformers import TrainerCallback

    from ablate.config import LearnerConfig
    from ablate.learner import Learner
    from ablate.ledger import Ledger

    few = groups[: max(1, len(groups) // 8)]

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            took.append((ledger.accounts["update"].flops, time.perf_counter() - self.begun))

    took: list[tuple[float, float]] = []
    ledger = Ledger()
    plain: Any = OmegaConf.to_container(cast(Any, config.learner))
    settings = replace(LearnerConfig(**plain), max_steps=1 + 2 * STEPS, iterations=1, kl=0.0)
    learner = Learner(
        policy,
        settings,
        config.sampling,
        ledger,
        folder / "learner",
        rollout=lambda batch: groups if batch <= STEPS else few,
        callbacks=[Clock()],
    )
    learner.train()
    flops = [after - before for (before, _), (after, _) in pairwise(took)]
    seconds = [each for _, each in took[1:]]
    large, small = sum(flops[:STEPS]), sum(flops[STEPS:])
    t, u = sum(seconds[:STEPS]), sum(seconds[STEPS:])
    flop = max(0.0, (t - u) / max(1.0, large - small)) or t / large
    return flop, max(0.0, u - flop * small) / STEPS


def _warm_start(model: Any, task: Any, folder: Path) -> float:
    """Seconds of a FLOP."""
    from ablate.models.warm_start import encode_demonstrations, make_trainer

    spec = replace(model.warm_start, steps=30)
    policy = model.untrained(task, 0)
    pairs = task.demonstrations(0, 600, spec.skill, spec.persistence, spec.bail, spec.length)
    rows = encode_demonstrations(policy, list(pairs), spec.length)
    trainer = make_trainer(policy, rows, spec, 0, folder / "warm")
    trainer.train()  # the first time warms up
    trainer = make_trainer(policy, rows, spec, 0, folder / "warm")
    begun = time.perf_counter()
    trainer.train()
    took = time.perf_counter() - begun
    mean = fmean(policy.cost.train(len(row["input_ids"]), len(row["input_ids"])) for row in rows)
    return took / (spec.steps * spec.batch * mean)


if __name__ == "__main__":
    sys.exit(main())
