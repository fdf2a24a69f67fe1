"""What a run costs in FLOPs and on disk: as runs like it did, else as rehearsed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ablate.config import build
from ablate.evaluate import KL_ANSWERS, heldout_problems
from ablate.ledger import milestones
from ablate.models.flops import PassCost
from ablate.plan.rehearsal import Spent, Stage, count_tokens, rehearse
from ablate.plan.stand_in import Manner, Unforeseen
from ablate.strategy import AXES, Strategy
from ablate.types import UserError

if TYPE_CHECKING:
    from ablate.plan.design import Cell
    from ablate.plan.records import Recorded
    from ablate.types import Problem, Task

LONG = 1.2  # mean length of an answer decoded to the longer cap, over one under the cap
ROUGH = 100  # batches that a budget in seconds is rehearsed for
DEMONSTRATIONS = 300  # whose mean length is taken

# bytes: weights and AdamW's two moments are float32; the rest as a run of the default leaves it
WEIGHT, OPTIMIZER = 4.0, 8.0
CHECKPOINT, POLICY, FIGURES, STEP, EVALUATION, ROW = 25e3, 8e3, 160e3, 1e3, 4e3, 5.0


@dataclass(frozen=True)
class Subject:
    """What all arms share: task, model, cost of a pass, how long things are."""

    task: Task
    model: Any
    cost: PassCost
    manner: Manner
    prompt: float  # mean tokens
    problems: list[Problem]  # judged on

    @classmethod
    def of(cls, cell: Cell, length: float | None, steps: float | None) -> Subject:
        """Raises UserError if the model does not tell what a pass costs before it is loaded."""
        config = cell.config
        task, model = build(config.task), build(config.model)
        if not hasattr(model, "cost"):
            raise UserError(
                f"model={type(model).__name__} does not tell what a pass costs before it is loaded: its "
                "FLOPs cannot be planned (it needs a method cost(task), as ablate/models/tiny.py has one)"
            )
        judged = heldout_problems(task, config.evaluate, config.seed)
        prompt = fmean(count_tokens(task, problem.prompt) for problem in judged[:200]) + 1
        manner = Manner.of(config.sampling.cap, length, steps)
        return cls(task, model, model.cost(task), manner, prompt, judged)

    @property
    def parameters(self) -> float:
        """Weights of linear layers and of the head, which most models share with the embedding."""
        return float(self.cost.linear + self.cost.head)


@dataclass(frozen=True)
class Bill:
    """What one run of an arm spends. spent: None if a part is unforeseen. rehearsed: is it an estimate, whose
    passes and rows are known?"""

    spent: Spent | None
    rehearsed: bool
    source: str


def bill(cell: Cell, subject: Subject, records: Sequence[Recorded]) -> Bill:
    """One run's compute against its budget; a budget in seconds is billed for `ROUGH` batches. Raises
    UserError."""
    unit, amount = cell.budget
    own = [run for run in records if run.is_of(cell.values)]
    same = [run for run in own if run.summary["budget"]["unit"] == unit]
    same = [run for run in same if abs(run.summary["budget"]["declared"] / amount - 1) < 1e-9] or own
    if same:
        factors = [amount / run.amount(unit) for run in same]
        purposes = dict.fromkeys(purpose for run in same for purpose in run.flops)
        spent = Spent(
            {
                p: fmean(f * run.flops.get(p, 0.0) for f, run in zip(factors, same, strict=True))
                for p in purposes
            },
            fmean(f * run.summary["totals"]["tokens"] for f, run in zip(factors, same, strict=True)),
            fmean(f * run.summary["steps"] for f, run in zip(factors, same, strict=True)),
        )
        scaled = "" if max(abs(f - 1) for f in factors) < 0.1 else ", scaled from another budget"
        return Bill(spent, False, f"measured on {_count(same)}{scaled}")
    try:
        return Bill(estimate(cell, subject), True, "estimated")
    except Unforeseen as error:
        return Bill(None, True, f"not known: {error} is not known before a first run")


def estimate(cell: Cell, subject: Subject) -> Spent:
    """What is rehearsed for the budget. Raises Unforeseen, and UserError."""
    config = cell.config
    strategy = Strategy(**{axis: build(getattr(config.strategy, axis)) for axis in AXES})
    stage = Stage(config, subject.task, strategy, subject.cost, subject.manner)
    unit, amount = cell.budget
    if unit == "seconds":
        unit, amount = "flops", ROUGH * stage.batch(0.5, 1e9).amount("flops")
    return rehearse(stage, unit, amount)


def _count(runs: Sequence[Recorded]) -> str:
    folders = dict.fromkeys(str(run.folder.parent) for run in runs)
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''} in {', '.join(folders)}"


@dataclass(frozen=True)
class Evaluations:
    """Of one run: FLOPs, passes of decoding and the rows in them."""

    flops: float
    passes: float
    rows: float


def evaluations(cell: Cell, subject: Subject, records: Sequence[Recorded]) -> Evaluations:
    """All milestones of one run, its start included."""
    config, cost, manner, prompt = cell.config, subject.cost, subject.manner, subject.prompt
    problems, k, count = (
        len(subject.problems),
        config.evaluate.samples,
        len(milestones(config.budget.milestones)),
    )
    longer = config.evaluate.long_cap_factor > 1
    lengths = [manner.after(0), *[manner.length] * (count - 1), manner.length * (LONG if longer else 1.0)]
    judged = min(KL_ANSWERS, problems * k)
    flops = 0.0
    for length in lengths:
        flops += problems * cost.forward(0, round(prompt), 1)
        flops += problems * k * cost.forward(round(prompt), round(length), round(length))
        whole = round(prompt + min(length, manner.length))
        flops += 2 * judged * cost.forward(0, whole, whole - round(prompt))
    most = getattr(config.engine, "max_rows", 1024)
    caps = [
        manner.cap * (config.evaluate.long_cap_factor if i in (0, count) else 1) for i in range(count + 1)
    ]
    passes = sum(caps) * -(-problems * k // most)
    rows = problems * k * sum(lengths)
    settings = {key: value for key, value in cell.values["evaluate"].items() if key != "workers"}
    same = [
        run
        for run in records
        if run.is_of(cell.values)
        and {key: value for key, value in run.config["evaluate"].items() if key != "workers"} == settings
        and run.config["budget"]["milestones"] == config.budget.milestones
    ]
    measured = [found for run in same if (found := run.account("evaluate"))]
    return Evaluations(fmean(measured) if measured else flops, passes, rows)


@dataclass(frozen=True)
class Start:
    """Warm starts of all seeds: those that are needed and not in the cache, FLOPs of one. made: seconds that
    one took, where the cache or a record tells."""

    missing: frozenset[int]
    flops: float
    source: str
    made: float | None


def warm_starts(
    cell: Cell, subject: Subject, seeds: Iterable[int], left: Container[int], records: Sequence[Recorded]
) -> Start | None:
    """None for a model that has none. left: the seeds of which a run is left."""
    spec = getattr(subject.model, "warm_start", None)
    if spec is None:
        return None
    from ablate.models.warm_start import cache_key
    from ablate.record import read_json

    cache = Path(cell.config.paths.cache) / "warm_start"
    files = {seed: cache / cache_key(subject.model, subject.task, seed) / "warm_start.json" for seed in seeds}
    missing = frozenset(seed for seed, file in files.items() if seed in left and not file.exists())
    same = [run for run in records if run.is_of(cell.values, ("task", "model"))]
    cached = [read_json(file) for file in files.values() if file.exists()]
    flops = [float(info["account"]["flops"]) for info in cached] or [
        found for run in same if (found := run.account("warm_start"))
    ]
    took = [float(info["seconds"]) for info in cached] or [
        float(start["seconds"])
        for run in same
        if (start := run.summary.get("start") or run.summary.get("warm_start"))  # as it was called
    ]
    made = sorted(took)[len(took) // 2] if took else None
    if flops:
        return Start(missing, fmean(flops), "measured", made)
    return Start(missing, _demonstrated(subject, spec), "estimated", None)


def _demonstrated(subject: Subject, spec: Any) -> float:
    """FLOPs of a warm start, from the lengths of some demonstrations."""
    task: Any = subject.task
    pairs = task.demonstrations(
        0,
        min(DEMONSTRATIONS, spec.demonstrations),
        skill=spec.skill,
        persistence=spec.persistence,
        bail=spec.bail,
        longest=spec.length,
    )
    rows = [count_tokens(task, problem.prompt) + count_tokens(task, text) + 2 for problem, text in pairs]
    fitting = [length for length in rows if length <= spec.length]
    if not fitting:
        raise UserError(f"model.warm_start.length={spec.length} is shorter than every demonstration")
    return spec.steps * spec.batch * fmean(subject.cost.train(length, length) for length in fitting)


def folder_bytes(cell: Cell, subject: Subject, updates: float | None) -> float:
    """A finished run's folder: checkpoints, policy, outcomes per problem, the rest of its record."""
    config, weights = cell.config, subject.parameters
    kept = config.checkpoint.keep
    if updates is not None:
        kept = min(kept, 1 + int(updates / config.checkpoint.every_steps))
    checkpoints = kept * ((WEIGHT + OPTIMIZER) * weights + CHECKPOINT)
    rows = len(subject.problems) * config.evaluate.samples
    outcomes = (config.budget.milestones + 1) * (EVALUATION + ROW * rows)
    return checkpoints + WEIGHT * weights + POLICY + outcomes + FIGURES + STEP * (updates or 0.0)
