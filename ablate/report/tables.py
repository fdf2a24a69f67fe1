"""Every number of a report as tables: what figures show, and what they leave out. These are of the arms;
`claim_tables` has those of what is said about them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ablate.report import claim_tables
from ablate.report.answers import tables as answers
from ablate.report.content import Arm, Effect, Report
from ablate.report.contrasts import PARTS
from ablate.report.wording import NOTHING, SCORERS, Table, amount, interval, percent, spaced, tuned

LONGEST = 40  # characters of a setting; the whole is in the runs' config.yaml


def tables(report: Report) -> list[Table]:
    """All that have rows, in the order of the page."""
    found = [
        _design(report),
        _accuracy(report),
        _conduct(report),
        claim_tables.claims(report),
        claim_tables.certainty(report),
        claim_tables.budgets(report),
        claim_tables.factorial(report),
        claim_tables.controls(report),
        _compute(report),
        claim_tables.ladder(report),
        claim_tables.difficulty(report),
        claim_tables.accounts(report),
        _metrics(report),
        *answers.tables(report),
        _milestones(report),
        _settings(report),
    ]
    return [table for table in found if table.rows]


def _design(report: Report) -> Table:
    """What each strategy is made of, and what it came to."""
    rows = []
    first: dict[tuple[str, ...], Arm] = {}  # of the arms made of the same parts
    for arm in report.arms:
        parts = tuple(_setting(arm, f"{axis}._target_") for axis in PARTS)
        like = first.setdefault(parts, arm)
        other = [
            f"{key} {_setting(arm, key)}"
            for key in dict.fromkeys((*arm.settings, *like.settings))
            if str(arm.settings.get(key)) != str(like.settings.get(key))
        ]
        scorer = arm.settings.get("credit.scorer")
        if scorer is not None and not any(each.startswith("credit.scorer ") for each in other):
            other.insert(0, f"credit.scorer {scorer}")
        minutes = NOTHING if arm.seconds is None else f"{arm.seconds / 60:.1f}"
        rows.append((arm.name, arm.role, *parts, ", ".join(other) or NOTHING, f"{arm.updates:,.0f}", minutes))
    head = ("arm", "role", *PARTS, "scorer, and what sets it apart", "updates", "minutes per run")
    return Table("design", "What differed, and what it came to", head, tuple(rows))


def _settings(report: Report) -> Table:
    """The settings that not all strategies have alike."""
    keys = list(dict.fromkeys(key for arm in report.arms for key in arm.settings))
    rows = [(key.removesuffix("._target_"), *(_setting(arm, key) for arm in report.arms)) for key in keys]
    differing = tuple(row for row in rows if len(set(row[1:])) > 1)
    return Table("settings", "The strategies' settings", _heads("setting", report.arms), differing)


def _setting(arm: Arm, key: str) -> str:
    value = arm.settings.get(key)
    if value is None or _unused(arm, key):
        return NOTHING
    text = str(value).rpartition(".")[2] if key.endswith("_target_") else " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _unused(arm: Arm, key: str) -> bool:
    """Is it a setting of a scorer that this arm's part does not ask?"""
    part, *inner = key.split(".")
    chosen = {value for name, value in arm.settings.items() if name.count(".") == 1 and name.startswith(part)}
    return len(inner) > 1 and inner[0] in SCORERS and inner[0] not in chosen


def _heads(first: str, arms: Iterable[Arm]) -> tuple[str, ...]:
    return (first, *(arm.name for arm in arms))


def _accuracy(report: Report) -> Table:
    rows = tuple(
        (
            arm.name,
            arm.role,
            str(len(arm.seeds)),
            percent(arm.before),
            percent(arm.after),
            interval(arm.against_base) + ("°" if _alone(arm.against_base) else ""),
        )
        for arm in report.arms
    )
    notes = []
    if any(_alone(arm.against_base) for arm in report.arms):
        notes.append(
            "Intervals of suspects are those of the verdicts; the others (°) are 95 % each for itself."
        )
    if len({arm.seeds for arm in report.arms}) > 1:
        notes.append("Before and after are over an arm's own seeds, differences over the seeds in common.")
    head = ("arm", "role", "seeds", f"{report.metric} before (%)", "after (%)", "vs guess + check (points)")
    return Table("accuracy", "Accuracy at equal spend", head, rows, tuple(notes))


def _alone(effect: Effect | None) -> bool:
    return effect is not None and effect.family == 1 and effect.interval is not None


def _conduct(report: Report) -> Table:
    rows = tuple(
        (
            arm.name,
            f"{arm.length[0]:.0f} → {arm.length[1]:.0f}",
            f"{percent(arm.truncated[0])} → {percent(arm.truncated[1])}",
            f"{arm.updates:,.0f}",
            f"{arm.tokens:,.0f}",
            amount(arm.flops),
            f"{arm.logical:.2f}",
            f"{100 * arm.overshoot:.1f}",
            NOTHING if arm.largest_batch is None else f"{100 * arm.largest_batch:.1f}",
            NOTHING if arm.seconds is None else f"{arm.seconds / 60:.1f}",
            ", ".join(f"{lr:g}" for lr in arm.lr),
        )
        for arm in report.arms
    )
    head: tuple[str, ...] = (
        "arm",
        "length (tokens)",
        "truncated (%)",
        "updates",
        "generated tokens",
        "FLOPs",
    )
    head += ("logical / cached FLOPs", "overshoot (%)", "largest batch (% of the budget)")
    head += ("minutes", "learning rate")
    return Table("conduct", "Length, work and time of a run", head, rows)


def _compute(report: Report) -> Table:
    within = list(dict.fromkeys(purpose for arm in report.arms for purpose in arm.shares))
    trials = any(any(arm.tuning) for arm in report.arms)
    apart = list(dict.fromkeys(purpose for arm in report.arms for purpose in arm.separate))
    rows = tuple(
        (
            arm.name,
            *(f"{100 * arm.shares.get(purpose, 0.0):.1f}" for purpose in within),
            *(amount(arm.separate.get(purpose, 0.0)) for purpose in apart),
            *([tuned(arm)] if trials else []),
        )
        for arm in report.arms
    )
    head = ("arm", *(f"{spaced(purpose)} (%)" for purpose in within))
    head += tuple(f"{spaced(purpose)} (FLOPs)" for purpose in [*apart, *(["tuning"] if trials else [])])
    notes = ("In FLOPs: on accounts of their own, outside the budget.",) if apart or trials else ()
    return Table("compute", "Where the compute went", head, rows, notes)


def _metrics(report: Report) -> Table:
    """Every held-out figure at the last milestone of the declared budget."""
    names = list(dict.fromkeys(each for arm in report.arms for each in arm.curves[0].metrics))
    rows = tuple((each, *(_metric(arm.curves[0].metrics.get(each)) for arm in report.arms)) for each in names)
    title = "Every held-out figure at the end of the budget"
    return Table("metrics", title, _heads("figure", report.arms), rows)


def _metric(values: tuple[float, ...] | None) -> str:
    return NOTHING if not values or math.isnan(values[-1]) else f"{values[-1]:.3g}"


def _milestones(report: Report) -> Table:
    rows = []
    for arm in report.arms:
        for curve in arm.curves:
            for i, share in enumerate(curve.share):
                error = curve.accuracy_se[i]
                rows.append(
                    (
                        arm.name,
                        f"{share * curve.declared / report.budget:.3g}",
                        amount(curve.flops[i]),
                        amount(curve.logical_flops[i]),
                        f"{curve.updates[i]:,.0f}",
                        percent(curve.accuracy[i]),
                        NOTHING if error is None else f"{100 * error:.2f}",
                        " ".join(f"{100 * row[i]:.1f}" for row in curve.accuracies),
                    )
                )
    head = (
        "arm",
        "of the budget",
        "FLOPs",
        "logical FLOPs",
        "updates",
        f"{report.metric} (%)",
        "se over seeds",
        "each run",
    )
    return Table("milestones", "Accuracy at every milestone", head, tuple(rows))
