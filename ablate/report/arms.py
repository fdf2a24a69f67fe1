"""What each arm came to: means over its runs, and its curves over training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ablate.ledger import BUDGETED, SEPARATE
from ablate.report import contrasts
from ablate.report.content import Arm, Curve, Effect
from ablate.report.effects import Effects
from ablate.report.loading import settings
from ablate.report.runs import NEAR, Experiment, Run


def summed_up(
    experiment: Experiment, name: str, role: str, effects: Effects, claimed: Mapping[Any, Effect | None]
) -> Arm:
    """An arm at equal spend. claimed: effects of the headline claims, by their weights."""
    runs = [runs[0] for runs in experiment.arm(name).values()]  # the shortest that reach the budget
    everything = [run for runs in experiment.arm(name).values() for run in runs]
    budget = experiment.budget
    levels = [experiment.read(name, run.key, "budget", budget) for run in runs]
    read = [(run.seed, level.mean()) for run, level in zip(runs, levels, strict=True) if level is not None]
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
    batches = [run.summary["budget"].get("largest_batch") for run in runs]
    largest = [float(each) for each in batches if each is not None]
    return Arm(
        name=name,
        role=role,
        seeds=tuple(sorted({run.seed for run in runs})),
        before=_by_seed((run.seed, run.heldout(run.primary)[0]) for run in runs),
        after=_by_seed(read) if read else None,
        against_base=against,
        length=(mean(run.heldout("length")[0] for run in runs), at_budget("heldout/length")),
        truncated=(mean(run.heldout("truncated")[0] for run in runs), at_budget("heldout/truncated")),
        updates=at_budget("step"),
        tokens=at_budget("budget/tokens"),
        flops=at_budget("budget/flops"),
        logical=at_budget("budget/logical_flops") / at_budget("budget/flops"),
        overshoot=max(run.summary["budget"]["spent"] / run.budget[1] - 1 for run in runs),
        largest_batch=max(largest) if largest else None,
        shares={purpose: value / total for purpose, value in spent.items() if value},
        separate={p: value for p, value in spent_on(SEPARATE).items() if value and p != "tuning"},
        tuning=tuple(sorted({float(a.get("tuning", {}).get("flops", 0.0)) for a in accounts})),
        settings=own(runs[0]),
        seconds=mean(seconds) if seconds else None,
        lr=tuple(sorted({float(run.config["learner"]["lr"]) for run in everything})),
        alarms=sum(bool(run.summary.get("alarms")) for run in everything),
        curves=tuple(
            _curve([run for run in everything if run.budget[1] == each])
            for each in sorted({run.budget[1] for run in everything})
        ),
    )


def _by_seed(values: Iterable[tuple[int, float]]) -> float:
    """The mean over seeds of (seed, value): other draws of one seed do not make it count twice."""
    seeds: dict[int, list[float]] = {}
    for seed, value in values:
        seeds.setdefault(seed, []).append(value)
    return float(np.mean([np.mean(each) for each in seeds.values()]))


def own(run: Run) -> dict[str, Any]:
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

    accuracy = column([run.heldout(run.primary) for run in runs])
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
        accuracy=tuple(by_seed.mean(0).tolist()),
        accuracy_se=tuple(se),
        accuracies=tuple(map(tuple, accuracy.tolist())),
        metrics={name: mean([run.heldout(name) for run in runs]) for name in names},
    )
