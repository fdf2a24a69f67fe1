"""From an experiment's runs to everything that its report says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ablate.report import contrasts
from ablate.report.answers.files import read
from ablate.report.answers.length import lengths
from ablate.report.answers.longer import longer
from ablate.report.answers.testtime import testtime
from ablate.report.arms import summed_up
from ablate.report.content import SCHEMA, Arm, Claim, Control, Factorial, Report
from ablate.report.controls import seen
from ablate.report.effects import Effects
from ablate.report.ladder import ladder
from ablate.report.looking import look
from ablate.report.looks import Looks
from ablate.report.provenance import commands, design, provenance
from ablate.report.runs import Experiment
from ablate.report.wording import amount

ORDER = ("base", "variant", "suspect", "combination", "placebo", "floor", "upper bound", "outside")
SENSITIVITY = "sensitivity to search not shown"
TUNED = ("base", "suspect", "combination")
UNEVEN = 1.5  # times the trials of another arm: more than what their batches' sizes explain
LARGE = 0.02  # of the budget: a batch that takes more makes readings at equal spend coarse


def assemble(
    experiment: Experiment, margin: float, controls: Sequence[Control] = (), looks: Looks | None = None
) -> Report:
    """The report's content. margin: a share, declared before the runs. controls: other experiments that show
    what the instrument can see. looks: when the experiment is looked at while it goes on."""
    effects = Effects(experiment, margin, looks)
    roles = contrasts.roles(experiment)
    families = contrasts.families(roles, contrasts.rungs(experiment))
    claims = [effects.claim(each, len(family)) for family in families for each in family]
    family = contrasts.placebos(roles)
    placebos = [_without_needed(effects.claim(each, len(family), extend=False)) for each in family]
    replicates = [effects.replicate(name) for name in experiment.arms]
    factorial = _factorial(experiment, effects)
    sensitive = seen(claims, controls)
    if "search" not in sensitive:
        claims, placebos = _insensitive(claims), _insensitive(placebos)
        if factorial is not None:
            factorial = replace(factorial, main=tuple(_insensitive(factorial.main)))
    claimed = {claim.weights: claim.effect for claim in claims}
    arms = [summed_up(experiment, name, role, effects, claimed) for name, role in roles.items()]
    place = {name: i for i, name in enumerate(experiment.arms)}
    arms.sort(key=lambda arm: (ORDER.index(arm.role), place[arm.name]))
    first = experiment.runs[0]
    written, unrecorded = commands(experiment.runs, experiment.name)
    files = read(experiment)
    return Report(
        schema=SCHEMA,
        experiment=experiment.name,
        margin=margin,
        unit=experiment.unit,
        budget=experiment.budget,
        metric=first.metric,
        task=first.config["task"],
        model=first.config["model"],
        cap=int(first.config["sampling"]["cap"]),
        problems=len(experiment.problems.ids),
        samples=int(first.config["evaluate"]["samples"]),
        cluster_sizes=tuple(np.unique(experiment.problems.clusters, return_counts=True)[1].tolist()),
        seeds=tuple(sorted({run.seed for run in experiment.runs})),
        arms=tuple(arms),
        claims=tuple(claims),
        placebos=tuple(placebos),
        replicates=tuple(claim for claim in replicates if claim is not None),
        factorial=factorial,
        ladder=ladder(experiment, effects, claims),
        controls=tuple(controls),
        seen=sensitive,
        notes=(*experiment.notes, *_notes(experiment, arms)),
        left_out=(*experiment.left_out, *files.left_out),
        provenance=provenance(experiment.runs),
        commands=written,
        unrecorded=unrecorded,
        design=design(experiment.name) if unrecorded else None,
        hours=sum(float(run.summary["seconds"]["total"]) for run in experiment.runs) / 3600,
        length=lengths(experiment, files),
        testtime=testtime(experiment, files),
        longer=longer(experiment),
        look=look(experiment, claims, looks) if looks else None,
    )


def _without_needed(claim: Claim) -> Claim:
    """A placebo is no alternative that one could spend more on."""
    return replace(claim, caveats=tuple(each for each in claim.caveats if not each.startswith("needed")))


def _insensitive(claims: Iterable[Claim]) -> list[Claim]:
    """The claims, with a caveat where they say something of search."""
    return [
        replace(claim, caveats=(*claim.caveats, SENSITIVITY))
        if claim.suspect == "search" or "search" in claim.adds
        else claim
        for claim in claims
    ]


def _factorial(experiment: Experiment, effects: Effects) -> Factorial | None:
    """The 2x2x2, if most of its cells were run."""
    roles = contrasts.roles(experiment)
    grid, missing = contrasts.cells(roles)
    if len(grid) < 6:
        return None
    main = [] if missing else contrasts.main_effects(grid)
    simple = contrasts.simple_effects(grid)
    return Factorial(
        tuple(sorted(grid.items())),
        tuple(missing),
        tuple(effects.claim(each, len(main)) for each in main),
        # the headlines and the main effects have the words: a pair must not get another one here
        tuple(_wordless(effects.claim(each, len(simple), extend=False), contrasts.SIMPLE) for each in simple),
        tuple(
            _wordless(effects.claim(each, 1), "exploratory")
            for each in (() if missing else contrasts.interactions(grid))
        ),
    )


def _wordless(claim: Claim, why: str) -> Claim:
    return replace(claim, word="no verdict", caveats=(why,))


def _notes(experiment: Experiment, arms: list[Arm]) -> list[str]:
    """What the reader must know about how the runs were paired and read."""
    notes = []
    every = {seed for arm in arms for seed in arm.seeds}
    for arm in arms:
        if missing := sorted(every - set(arm.seeds)):
            notes.append(
                f"{arm.name} lacks seed {', '.join(map(str, missing))}: paired on the seeds that both arms "
                "have"
            )
        if arm.alarms:
            notes.append(f"{arm.name}: {arm.alarms} of its runs raised an alarm (see their summary.md)")
        if unread := _unread(experiment, arm.name):
            notes.append(
                f"{arm.name}, seed {', '.join(map(str, unread))}, cannot be read at the budget: outcomes per "
                "problem are missing there, and its effects are without"
            )
        if arm.largest_batch is not None and arm.largest_batch > LARGE:
            fits = max(1, int(_problems_per_batch(experiment, arm.name) * LARGE / arm.largest_batch))
            notes.append(
                f"{arm.name}: one batch took up to {100 * arm.largest_batch:.2f} % of the budget, so that "
                f"readings at equal spend are coarse; learner.problems={fits} keeps it at {100 * LARGE:g} %"
            )
    notes += _tuning(arms)
    moved = [
        name
        for run in experiment.runs
        if (name := run.config.get("name", experiment.name)) != experiment.name
    ]
    if moved:
        names = ", ".join(f"name={name}" for name in sorted(set(map(str, moved))))
        notes.append(f"{len(moved)} of the runs were made as {names}, and their folders put here afterwards")
    if experiment.runs[0].primary == "score":
        notes.append(
            f"accuracy is the mean of the task's own score ({experiment.runs[0].metric}), not the share of "
            "answers that are right as a whole (pass@1, in the tables)"
        )
    if len(every) == 1:
        notes.append("one seed: no verdict, because nothing tells how far another seed would be off")
    if all(arm.role not in ("base", "variant") for arm in arms):
        notes.append("guess_check did not run: nothing to add the suspects to")
    schedules = {str(run.config["learner"]["schedule"]) for run in experiment.runs}
    if schedules != {"constant"}:
        notes.append(
            f"learning rate schedule {', '.join(sorted(schedules))}: a milestone is not what a run with that "
            "budget would have given, so effects at smaller budgets and multiples of compute are biased"
        )
    return notes


def _tuning(arms: Iterable[Arm]) -> list[str]:
    """Where arms that stand for a recipe were tuned at unequal cost."""
    own = [arm for arm in arms if arm.role in TUNED]
    if not any(any(arm.tuning) for arm in own):
        return []
    notes = [f"{arm.name} was not tuned itself" for arm in own if not any(arm.tuning)]
    most, least = (pick(flops for arm in own for flops in arm.tuning if flops) for pick in (max, min))
    if most > UNEVEN * least:
        notes.append(
            f"tuning was uneven by what the runs recorded: from {amount(least)} to {amount(most)} FLOPs of "
            "trials for an arm (by arm in the design)"
        )
    return notes


def _unread(experiment: Experiment, arm: str) -> list[int]:
    """Seeds with a run of the arm that cannot be read at the budget."""
    keys = sorted(experiment.arm(arm))
    return [key[0] for key in keys if experiment.read(arm, key, "budget", experiment.budget) is None]


def _problems_per_batch(experiment: Experiment, arm: str) -> int:
    return next(int(run.config["learner"].get("problems", 1)) for run in experiment.runs if run.arm == arm)
