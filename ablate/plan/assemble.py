"""From a command line to everything that the plan says."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.config import build
from ablate.plan import benchmark, power
from ablate.plan.content import SCHEMA, Arm, Outline, Time, WarmStarts
from ablate.plan.cost import Bill, Evaluations, Start, Subject, bill, evaluations, folder_bytes, warm_starts
from ablate.plan.design import Cell, Design, Run, design
from ablate.plan.gpus import GPU
from ablate.plan.records import Recorded, finished, this_machine
from ablate.plan.speed import OWN, Clock, Recollection, described, from_benchmark, on_gpu, wall
from ablate.refusals import check_budget, check_problems
from ablate.report import contrasts
from ablate.report.loading import BASES
from ablate.report.looks import Looks
from ablate.report.verdict import LONGER
from ablate.strategy import AXES, Strategy
from ablate.types import UserError

DEFAULT_PILOT = Path("results/countdown")  # of the embedded task
EQUAL = ("task", "model", "sampling", "evaluate")  # in all arms of an experiment
LARGE_BATCH = 0.02  # share of the budget: above it results at equal spend get coarse
SMALL = 5e7  # parameters, below which a GPU waits for the next kernel most of the time
FEW_SEEDS = 5  # from which variances are not too uncertain to be taken at their word


@dataclass(frozen=True)
class Wishes:
    """What the command line says beside the design.

    gpu: None for this machine. measure: its speed "auto", only if no run of it is on disk, "true" anew,
    "false" never. pilot: None for the default, "none" for none. length, steps: of answers, see
    `stand_in.Manner`.
    """

    gpu: GPU | None = None
    gpus: int = 1
    utilisation: float = 0.3
    margin: float = 0.02
    length: float | None = None
    steps: float | None = None
    pilot: str | None = None
    measure: str = "auto"


def assemble(arguments: Sequence[str], wishes: Wishes) -> Outline:
    """The plan of what a command line would run. Raises UserError."""
    plan = design(arguments)
    first = plan.cells[0]
    _comparable(plan)
    subject = Subject.of(first, wishes.length, wishes.steps)
    for cell in plan.cells:
        _check(cell, subject)
    pilot, records, notes = _pilot(plan, wishes)
    bills = [bill(cell, subject, records) for cell in plan.cells]
    judged = [evaluations(cell, subject, records) for cell in plan.cells]
    every = sorted({run.config.seed for run in plan.runs})
    start = warm_starts(first, subject, every, {run.config.seed for run in plan.runs if run.left}, records)
    clocks, warm, where, why, more = _clocks(plan, subject, wishes, records, bills, judged, start)
    arms = [_arm(subject, *each) for each in zip(plan.cells, bills, judged, clocks, strict=True)]
    starts = (
        None if start is None else WarmStarts(len(every), len(start.missing), start.flops, start.source, warm)
    )
    roles, seeds, ladder = _comparison(plan)
    declared = first.config.looks
    looks = Looks(tuple(declared.at), declared.spending) if declared.at else None
    clusters = len({problem.cluster or problem.id for problem in subject.problems})
    samples = first.config.evaluate.samples
    problems = len(subject.problems)
    found = power.power(seeds, roles, pilot, wishes.margin, problems, samples, clusters, ladder, looks)
    at_a_time = wishes.gpus if wishes.gpu else plan.jobs
    return Outline(
        SCHEMA,
        tuple(arguments),
        first.config.name,
        subject.task.name,
        type(subject.model).__name__,
        subject.parameters,
        first.config.sampling.cap,
        subject.manner.length,
        subject.manner.steps,
        first.config.evaluate.split,
        problems,
        samples,
        first.config.budget.milestones + 1,
        dict(Counter(run.state for run in plan.runs)),
        tuple(arms),
        starts,
        _totals([(arm.runs, arm) for arm in arms], start.flops * len(every) if start else 0.0),
        _totals([(arm.left, arm) for arm in arms], start.flops * len(start.missing) if start else 0.0),
        _time(plan, arms, start, warm, where, why, at_a_time),
        sum(arm.runs * arm.bytes for arm in arms),
        _free(Path(first.config.paths.results)),
        wishes.margin,
        tuple(found),
        (*notes, *more, *_remarks(plan, arms, found, pilot, wishes, subject)),
    )


def _comparable(plan: Design) -> None:
    """Raises UserError for designs whose arms have different tasks, models, caps, evaluation sets or units of
    the budget: they are several experiments."""
    first = plan.cells[0]
    for cell in plan.cells[1:]:
        differs = [group for group in EQUAL if cell.values[group] != first.values[group]]
        if cell.budget[0] != first.budget[0]:
            differs.append("the unit of the budget")
        if differs:
            raise UserError(
                f"{differs[0]} differs between runs: each value is an experiment of its own, plan one"
            )


def _check(cell: Cell, subject: Subject) -> None:
    """What a run would refuse at its start. Raises UserError."""
    parts = {axis: build(getattr(cell.config.strategy, axis)) for axis in AXES}
    for part in parts.values():
        if check := getattr(part, "check", None):
            check(subject.task)
    check_problems(cell.config, subject.task)
    check_budget(cell.config, subject.task, subject.model, Strategy(**parts))


def _pilot(plan: Design, wishes: Wishes) -> tuple[power.Pilot, list[Recorded], list[str]]:
    """(where variances come from, finished runs, notes)."""
    own = list(dict.fromkeys(run.folder.parent for run in plan.runs))
    folder = None if wishes.pilot in (None, "none") else Path(str(wishes.pilot))
    automatic = wishes.pilot is None and DEFAULT_PILOT.is_dir()
    if automatic:
        folder = DEFAULT_PILOT
    records, notes = finished([*own, *([folder] if folder else [])])
    if folder is None:
        return power.assumed(), records, notes
    first = plan.cells[0].values
    if automatic and not any(
        run.folder.parent == folder and run.is_of(first, ("task", "model", "sampling")) for run in records
    ):  # another experiment's: its variances say nothing here
        return power.assumed(), records, notes
    try:
        found = power.pilot(folder)
    except UserError as error:
        if not automatic:
            raise
        return power.assumed(), records, [*notes, f"no variances from {folder}: {error}"]
    for name, theirs in (("task", found.task), ("model", found.model)):
        if theirs != first[name]:
            notes.append(f"{folder} measured another {name}: its variances are a guess for this one")
    return found, records, notes


def _clocks(
    plan: Design,
    subject: Subject,
    wishes: Wishes,
    records: Sequence[Recorded],
    bills: Sequence[Bill],
    judged: Sequence[Evaluations],
    start: Start | None,
) -> tuple[list[Clock | None], float | None, str, str, list[str]]:
    """(of each arm, seconds of a warm start, where, where from or why not, notes)."""
    cells = plan.cells
    if wishes.gpu:
        gpu = wishes.gpu
        clocks: list[Clock | None] = [on_gpu(gpu, wishes.utilisation, each.flops) for each in judged]
        warm = start.flops / (gpu.peak * wishes.utilisation) if start else None
        many = f"{wishes.gpus} x " if wishes.gpus > 1 else ""
        why = (
            f"{100 * wishes.utilisation:g} % of {gpu.peak / 1e12:,.0f} TFLOP/s, dense bf16, by the "
            f"{gpu.source}; one utilisation for all of the work: decoding alone reaches less"
        )
        return clocks, warm, f"{many}{gpu.name}", why, []
    machine = this_machine()
    names = ", ".join([f"{machine['cpu']}, {machine['cores']} cores", *machine["gpus"][:1]])
    where = f"this machine ({names})"
    memory = Recollection(records, machine)
    clocks = [memory.clock(cell, each.flops) for cell, each in zip(cells, judged, strict=True)]
    if wishes.measure != "true" and all(clocks):
        folders = dict.fromkeys(str(run.folder.parent) for run in records)
        why = f"as runs took on it in {', '.join(folders)}"
        others: dict[str, list[str]] = {}
        for cell, clock in zip(cells, clocks, strict=True):
            if clock and clock.source != OWN:
                others.setdefault(clock.source, []).append(cell.name)
        why += "".join(f"; {', '.join(dict.fromkeys(names))} {whose}" for whose, names in others.items())
        return clocks, start.made if start else None, where, why, []
    if wishes.measure == "false":
        reason = "no finished run of this machine to go by, and measure=false; gpu=H100 tells a GPU's time"
        return clocks, start.made if start else None, where, reason, []
    first = cells[0]
    side_by_side = max(1, min(plan.jobs, machine["cores"], len(plan.runs)))
    speed = benchmark.measure(first.config, first.values, machine, side_by_side, wishes.measure == "true")
    asked = first.config.evaluate.workers or machine["cores"]
    workers = max(1, min(asked, machine["cores"] // side_by_side)) if not machine["gpus"] else 1
    clocks = [
        from_benchmark(speed, cell, subject, found, each, workers)
        for cell, found, each in zip(cells, bills, judged, strict=True)
    ]
    warm = speed.warm_flop * start.flops if start and speed.warm_flop else None
    why = f"measured in some seconds, {side_by_side} process{'es' if side_by_side > 1 else ''} at a time"
    return clocks, warm, where, why, described(speed, machine["cores"])


def _arm(subject: Subject, cell: Cell, found: Bill, judged: Evaluations, clock: Clock | None) -> Arm:
    unit, amount = cell.budget
    spent, seconds = found.spent, None
    if unit == "seconds":
        # as many FLOPs as the seconds allow
        spent = spent * (amount / (clock.flop * spent.amount("flops"))) if spent and clock else None
        seconds = (amount, clock.evaluate) if clock else None
    elif clock and (spent or unit == "flops"):
        total = amount if unit == "flops" else spent.amount("flops") if spent else 0.0
        seconds = clock.flop * total, clock.evaluate
    share = cell.config.learner.iterations / spent.updates if spent and spent.updates else None
    return Arm(
        cell.name,
        cell.settings,
        contrasts.role(cell.name, cell.values["strategy"]),
        cell.seeds,
        len(cell.runs),
        sum(run.left for run in cell.runs),
        unit,
        amount,
        spent.flops if spent else None,
        judged.flops,
        spent.updates if spent else None,
        spent.tokens if spent else None,
        share,
        found.source,
        seconds,
        clock.source if clock else "not known",
        folder_bytes(cell, subject, spent.updates if spent else None),
    )


def _totals(counted: Sequence[tuple[int, Arm]], warm_start: float) -> dict[str, float]:
    """FLOPs by purpose over so many runs of each arm. An arm whose split is not known counts as `unknown`, if
    its budget is one in FLOPs."""
    totals = defaultdict(float, warm_start=warm_start)
    for count, arm in counted:
        split = arm.flops or ({"unknown": arm.budget} if arm.unit == "flops" else {})
        for purpose, value in (*split.items(), ("evaluate", arm.evaluate)):
            totals[purpose] += count * value
    return {purpose: value for purpose, value in totals.items() if value}


def _time(
    plan: Design,
    arms: Sequence[Arm],
    start: Start | None,
    warm: float | None,
    where: str,
    why: str,
    at_a_time: int,
) -> Time:
    arm_of = {id(run): arm for cell, arm in zip(plan.cells, arms, strict=True) for run in cell.runs}

    def seconds(runs: Sequence[Run], unmade: set[int]) -> list[float | None]:
        """The first run of a seed makes its warm start."""
        found: list[float | None] = []
        for run in runs:
            arm, extra = arm_of[id(run)], 0.0
            if run.config.seed in unmade:
                unmade.discard(run.config.seed)
                extra = float("nan") if warm is None else warm
            found.append(None if arm.seconds is None or extra != extra else sum(arm.seconds) + extra)
        return found

    every = {run.config.seed for run in plan.runs} if start else set()
    whole = wall(seconds(plan.runs, every), at_a_time)
    left = wall(
        seconds([run for run in plan.runs if run.left], set(start.missing) if start else set()), at_a_time
    )
    return Time(where, at_a_time, whole and whole[0], left and left[0], whole and whole[1], why)


def _comparison(plan: Design) -> tuple[dict[str, str], dict[str, tuple[int, ...]], list[str]]:
    """(roles, seeds, those on the ladder of scorers) of the arms that are compared: those at the smallest
    budget, where a strategy stands for one arm, and a base that goes beyond it and is read there, too."""
    least = min(cell.budget[1] for cell in plan.cells)
    arms = [cell for cell in plan.cells if cell.budget[1] == least]
    names = Counter(cell.name for cell in arms)
    arms += [cell for cell in plan.cells if cell.name in BASES and cell.name not in names]
    arms = [cell for cell in arms if names[cell.name] <= 1]
    roles = {cell.name: contrasts.role(cell.name, cell.values["strategy"]) for cell in arms}
    ladder = [cell.name for cell in arms if contrasts.rung(cell.values["strategy"])]
    return roles, {cell.name: cell.seeds for cell in arms}, ladder


def _free(folder: Path) -> float | None:
    there = next((path for path in (folder, *folder.resolve().parents) if path.is_dir()), None)
    return float(shutil.disk_usage(there).free) if there else None


def _remarks(
    plan: Design,
    arms: Sequence[Arm],
    found: Sequence[Any],
    pilot: power.Pilot,
    wishes: Wishes,
    subject: Subject,
) -> list[str]:
    """What the reader must know."""
    notes = []
    for arm in arms:
        if arm.batch and arm.batch > LARGE_BATCH:
            problems = plan.cells[0].config.learner.problems
            fits = max(1, int(problems * LARGE_BATCH / arm.batch))
            notes.append(
                f"{arm.name}: a batch takes {100 * arm.batch:.1f} % of the budget, so results at equal spend "
                f"get coarse; learner.problems={fits} keeps it at {100 * LARGE_BATCH:g} %"
            )
    seeds = {seed for arm in arms for seed in arm.seeds}
    if len(seeds) == 1:
        notes.append(
            "one seed: no verdict is possible, because nothing tells how far another seed would be off; "
            "seed=0,1,2,3 runs four"
        )
    if not found:
        notes.append("no suspect beside an arm that it is to be added to: nothing to give a verdict on")
    if found and not any(cell.config.tuning.seeds for cell in plan.cells):
        notes.append(
            "no arm is tuned, and the learning rate can matter more than the strategy: experiment=tune, "
            "then tuned=..."
        )
    least = min(arm.budget for arm in arms)
    names = Counter(arm.name for arm in arms if arm.budget == least)
    if several := [name for name, count in names.items() if count > 1]:
        notes.append(f"{', '.join(several)} runs with several settings: no verdict compares them")
    longer = dict.fromkeys(arm.name for arm in arms if arm.budget > least)
    if found and not any(arm.name in BASES and arm.budget >= LONGER * least for arm in arms):
        notes.append(f'"needed" cannot be said: no base with {LONGER} times the budget is among the runs')
    if others := [name for name in longer if name not in BASES]:
        notes.append(
            f"{', '.join(others)} goes beyond the smallest budget: the report refuses it, since arms are "
            "compared at one budget, which only a base may exceed"
        )
    if pilot.seeds is not None and 1 < pilot.seeds < FEW_SEEDS and found:
        low, high = power.doubt(pilot.seeds)
        notes.append(
            f"variances measured on as few as {pilot.seeds} seeds are rough: the true standard deviation "
            f"between seeds is {low:.2g} to {high:.2g} times the measured one (95 %)"
        )
    if wishes.gpu and subject.parameters < SMALL:
        notes.append(
            "a model this small keeps no GPU busy: its time is overhead, and peak x utilisation says nothing "
            "about that"
        )
    free = _free(Path(plan.cells[0].config.paths.results))
    needed = sum(arm.left * arm.bytes for arm in arms)
    if free is not None and needed > free:
        notes.append(
            f"the disk has {free / 1e9:.1f} GB free, less than the {needed / 1e9:.1f} GB that are needed"
        )
    return notes
