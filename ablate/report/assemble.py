"""From an experiment's runs to everything that its report says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ablate.ledger import BUDGETED, SEPARATE
from ablate.report import contrasts
from ablate.report.content import SCHEMA, Arm, Claim, Curve, Effect, Factorial, Report
from ablate.report.effects import Effects
from ablate.report.loading import settings
from ablate.report.runs import NEAR, Experiment, Run

ORDER = ("base", "suspect", "combination", "placebo", "floor", "upper bound", "outside")


def assemble(experiment: Experiment, margin: float, sensitive_to_search: bool = False) -> Report:
    """The report's content. margin: a share, declared before the runs. sensitive_to_search: some control has
    shown that the instrument can see a benefit of search."""
    effects = Effects(experiment, margin, sensitive_to_search)
    roles = contrasts.roles(experiment)
    families = contrasts.families(roles)
    claims = [effects.claim(each, len(family)) for family in families for each in family]
    family = contrasts.placebos(roles)
    placebos = [_without_needed(effects.claim(each, len(family), extend=False)) for each in family]
    replicates = [effects.replicate(arm) for arm in experiment.arms]
    claimed = {claim.weights: claim.effect for claim in claims}
    arms = [_arm(experiment, name, role, effects, claimed) for name, role in roles.items()]
    arms.sort(key=lambda arm: (ORDER.index(arm.role), arm.name))
    first = experiment.runs[0]
    return Report(
        schema=SCHEMA,
        experiment=experiment.name,
        margin=margin,
        unit=experiment.unit,
        budget=experiment.budget,
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
        factorial=_factorial(experiment, effects),
        notes=(*experiment.notes, *_notes(experiment, arms)),
        left_out=tuple(experiment.left_out),
        provenance=_provenance(experiment.runs),
    )


def _without_needed(claim: Claim) -> Claim:
    """A placebo is no alternative that one could spend more on."""
    return replace(claim, caveats=tuple(each for each in claim.caveats if not each.startswith("needed")))


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
        tuple(effects.claim(each, len(simple), extend=False) for each in simple),
        tuple(
            replace(effects.claim(each, 1), word="no verdict", caveats=("exploratory",))
            for each in (() if missing else contrasts.interactions(grid))
        ),
    )


def _arm(
    experiment: Experiment, name: str, role: str, effects: Effects, claimed: Mapping[Any, Effect | None]
) -> Arm:
    runs = [runs[0] for runs in experiment.arm(name).values()]  # the shortest that reach the budget
    everything = [run for runs in experiment.arm(name).values() for run in runs]
    budget = experiment.budget
    levels = [experiment.read(name, run.key, "budget", budget) for run in runs]
    read = [level.mean() for level in levels if level is not None]
    against = None
    base = contrasts.base(contrasts.roles(experiment))
    if base and name != base and role != "outside":
        contrast = contrasts.against(name, base, name, "guess + check")
        against = claimed.get(contrast.weights) or effects.at(contrast, "budget", budget, 1)

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    def at_budget(column: str) -> float:
        return mean(run.figure(column, "budget", budget) for run in runs)

    accounts = [run.summary["compute"] for run in runs]

    def spent_on(purposes: Iterable[str]) -> dict[str, float]:
        return {p: mean(float(a.get(p, {}).get("flops", 0.0)) for a in accounts) for p in purposes}

    spent = spent_on(BUDGETED)
    total = sum(spent.values()) or float("nan")
    seconds = [float(run.summary["seconds"]["total"]) for run in runs if run.budget[1] <= budget * (1 + NEAR)]
    return Arm(
        name=name,
        role=role,
        seeds=tuple(sorted({run.seed for run in runs})),
        before=mean(run.metric("pass@1")[0] for run in runs),
        after=mean(read) if read else None,
        against_base=against,
        length=(mean(run.metric("length")[0] for run in runs), at_budget("heldout/length")),
        truncated=(mean(run.metric("truncated")[0] for run in runs), at_budget("heldout/truncated")),
        updates=at_budget("step"),
        tokens=at_budget("budget/tokens"),
        flops=at_budget("budget/flops"),
        logical=at_budget("budget/logical_flops") / at_budget("budget/flops"),
        shares={purpose: value / total for purpose, value in spent.items() if value},
        separate={purpose: value for purpose, value in spent_on(SEPARATE).items() if value},
        settings=_own(runs[0]),
        seconds=mean(seconds) if seconds else None,
        lr=tuple(sorted({float(run.config["learner"]["lr"]) for run in everything})),
        alarms=sum(bool(run.summary.get("alarms")) for run in everything),
        curves=tuple(
            _curve([run for run in everything if run.budget[1] == each])
            for each in sorted({run.budget[1] for run in everything})
        ),
    )


def _own(run: Run) -> dict[str, Any]:
    """The strategy's settings without its name."""
    return {
        key.removeprefix("strategy."): value
        for key, value in settings(run, ("strategy",)).items()
        if key != "strategy.name"
    }


def _curve(runs: list[Run]) -> Curve:
    """Means over runs with one budget, at the milestones that all of them have."""
    common = set.intersection(*({float(row["milestone"]) for row in run.milestones} for run in runs))
    shares = sorted(common)
    places = [[[float(row["milestone"]) for row in run.milestones].index(s) for s in shares] for run in runs]

    def column(values: list[np.ndarray]) -> np.ndarray:
        return np.stack([each[place] for each, place in zip(values, places, strict=True)])

    def mean(values: list[np.ndarray]) -> tuple[float, ...]:
        return tuple(column(values).mean(0).tolist())

    accuracy = column([run.metric("pass@1") for run in runs])
    by_seed = np.stack(
        [accuracy[[r.seed == s for r in runs]].mean(0) for s in sorted({r.seed for r in runs})]
    )
    seeds = len(by_seed)
    se = (by_seed.std(0, ddof=1) / np.sqrt(seeds)).tolist() if seeds > 1 else [None] * len(shares)
    names = [
        key.removeprefix("heldout/")
        for key in runs[0].milestones[0]
        if key.startswith("heldout/") and all(key in row for run in runs for row in run.milestones)
    ]
    return Curve(
        declared=runs[0].budget[1],
        run=tuple(run.folder.name for run in runs),
        share=tuple(shares),
        budget=mean([run.spent("budget") for run in runs]),
        flops=mean([run.spent("flops") for run in runs]),
        logical_flops=mean([run.spent("logical_flops") for run in runs]),
        updates=mean([run.spent("updates") for run in runs]),
        accuracy=tuple(accuracy.mean(0).tolist()),
        accuracy_se=tuple(se),
        accuracies=tuple(map(tuple, accuracy.tolist())),
        metrics={name: mean([run.metric(name) for run in runs]) for name in names},
    )


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
        if arm.after is None:
            notes.append(f"{arm.name} cannot be read at the budget: outcomes per problem are missing there")
    if len(every) == 1:
        notes.append("one seed: no verdict, because nothing tells how far another seed would be off")
    if all(arm.role != "base" for arm in arms):
        notes.append("guess_check did not run: nothing to add the suspects to")
    schedules = {str(run.config["learner"]["schedule"]) for run in experiment.runs}
    if schedules != {"constant"}:
        notes.append(
            f"learning rate schedule {', '.join(sorted(schedules))}: a milestone is not what a run with that "
            "budget would have given, so effects at smaller budgets and multiples of compute are biased"
        )
    return notes


def _provenance(runs: list[Run]) -> dict[str, dict[str, int]]:
    """Facts about the runs, each value with the number of runs that have it."""

    def count(values: list[Any]) -> dict[str, int]:
        return dict(Counter(str(value) for value in values if value is not None))

    libraries = sorted({name for run in runs for name in run.meta.get("libraries", {})})
    return {
        "revision": count([run.meta.get("git", {}).get("revision") for run in runs]),
        "ablate": count([run.meta.get("ablate") for run in runs]),
        "python": count([run.meta.get("python") for run in runs]),
        **{name: count([run.meta.get("libraries", {}).get(name) for run in runs]) for name in libraries},
        "cpu": count([run.meta.get("machine", {}).get("cpu") for run in runs]),
        "command": count([_command(run) for run in runs]),
    }


def _command(run: Run) -> str | None:
    """What started a run; a worker's own command line, as early records have it, cannot be repeated."""
    command = run.meta.get("command")
    return None if command is None or "LokyProcess" in command else str(command)
