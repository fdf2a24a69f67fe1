"""Every number of a report as tables: what the page's figures show, and what they leave out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.report.content import Arm, Claim, Effect, Report
from ablate.report.markdown import ACCOUNTS, UNITS, multiple, percent, points, with_interval

NOTHING = "–"
AXES = ("source", "recovery", "credit")
LONGEST = 40  # characters of a setting; the whole is in the runs' config.yaml


@dataclass(frozen=True)
class Table:
    """key: unique on the page. The first cell of a row names it; notes are said below."""

    key: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def tables(report: Report) -> list[Table]:
    """All that have rows, in the order of the page."""
    found = [
        _design(report),
        _accuracy(report),
        _conduct(report),
        _claims(report),
        _budgets(report),
        _accounts(report),
        _factorial(report),
        _controls(report),
        _compute(report),
        _difficulty(report),
        _metrics(report),
        _milestones(report),
        _settings(report),
    ]
    return [table for table in found if table.rows]


def name(claim: Claim) -> str:
    """`Search on guess + check`"""
    return f"{claim.title} on {claim.on}"


def verdict(claim: Claim) -> str:
    """The word with what must be said with it."""
    return claim.word + (f" ({'; '.join(claim.caveats)})" if claim.caveats else "")


def interval(effect: Effect | None) -> str:
    """`-0.1 [-1.4, +1.2]`, in points."""
    return NOTHING if effect is None else with_interval(effect).replace(" points", "")


def crossings(claim: Claim) -> list[float]:
    """Shares of the budget at which the effect changes its sign, linearly in the logarithm of compute."""
    found = []
    for (low, before), (high, after) in zip(claim.by_budget, claim.by_budget[1:], strict=False):
        a, b = before.estimate.value, after.estimate.value
        if a * b < 0:
            found.append(low * (high / low) ** (a / (a - b)))
    return found


def _design(report: Report) -> Table:
    """What each strategy is made of, and what it came to."""
    rows = []
    first: dict[tuple[str, ...], Arm] = {}  # of the arms made of the same parts
    for arm in report.arms:
        parts = tuple(_setting(arm, f"{axis}._target_") for axis in AXES)
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
    head = ("arm", "role", *AXES, "scorer, and what sets it apart", "updates", "minutes per run")
    return Table("design", "What differed, and what it came to", head, tuple(rows))


def _settings(report: Report) -> Table:
    """The settings that not all strategies have alike."""
    keys = list(dict.fromkeys(key for arm in report.arms for key in arm.settings))
    rows = [(key.removesuffix("._target_"), *(_setting(arm, key) for arm in report.arms)) for key in keys]
    differing = tuple(row for row in rows if len(set(row[1:])) > 1)
    return Table("settings", "The strategies' settings", _heads("setting", report.arms), differing)


def _setting(arm: Arm, key: str) -> str:
    value = arm.settings.get(key)
    if value is None:
        return NOTHING
    text = str(value).rpartition(".")[2] if key.endswith("_target_") else " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


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
    head = ("arm", "role", "seeds", "pass@1 before (%)", "after (%)", "vs guess + check (points)")
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
            f"{arm.flops:.3g}",
            f"{arm.logical:.2f}",
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
    head += ("logical / cached FLOPs", "minutes", "learning rate")
    return Table("conduct", "Length, work and time of a run", head, rows)


def _claims(report: Report) -> Table:
    rows = tuple(
        (
            name(claim),
            interval(claim.effect),
            NOTHING if claim.effect is None or claim.effect.alone is None else bounds(claim.effect.alone),
            *_deviations(claim.effect),
            str(len(claim.effect.seeds)) if claim.effect else "0",
            verdict(claim),
            str(claim.seeds_to_settle or NOTHING),
            interval(claim.extended),
            NOTHING if claim.worth is None else multiple(claim.worth),
        )
        for claim in report.claims
    )
    head: tuple[str, ...] = (
        "suspect",
        "points",
        "interval for itself",
        "sd by seeds",
        "sd by problems",
        "seeds",
        "verdict",
    )
    head += ("seeds to settle it", "against 4x the budget", "worth in compute")
    return Table("claims", "Effects and verdicts", head, rows)


def _deviations(effect: Effect | None) -> tuple[str, str]:
    """Standard deviations of the effect, in points: what the seeds and what the problems contribute."""
    if effect is None or effect.estimate.components is None:
        return NOTHING, NOTHING
    parts = effect.estimate.by_seed, effect.estimate.by_problem
    by_seed, by_problem = (f"{100 * math.sqrt(max(part, 0.0)):.2f}" for part in parts)
    return by_seed, by_problem


def bounds(pair: tuple[float, float]) -> str:
    """`[-1.4, +1.2]`, in points."""
    return f"[{points(pair[0])}, {points(pair[1])}]"


def _budgets(report: Report) -> Table:
    shares = sorted({share for claim in report.claims for share, _ in claim.by_budget})
    rows = tuple(
        (
            name(claim),
            *(interval(dict(claim.by_budget).get(share)) for share in shares),
            interval(claim.slope),
            ", ".join(f"{share:.2g}x" for share in crossings(claim)) or NOTHING,
        )
        for claim in report.claims
        if claim.by_budget
    )
    head = (
        "suspect",
        *(f"at {share:.3g}x the budget" for share in shares),
        "per doubling",
        "changes sign at",
    )
    return Table("budgets", "Effects at several budgets (points)", head, rows)


def _accounts(report: Report) -> Table:
    axes = list(dict.fromkeys(effect.axis for claim in report.claims for effect, _ in claim.accounts))
    rows = []
    for claim in report.claims:
        accounts = {found[0].axis: found for found in claim.accounts}
        if accounts:
            rows.append(
                (name(claim), _judged(claim.effect, claim.word), *(_account(accounts, a) for a in axes))
            )
    head = (
        "suspect",
        f"at the budget in {UNITS[report.unit]}",
        *(f"at equal {ACCOUNTS[axis]}" for axis in axes),
    )
    return Table("accounts", "The verdict by other accounts", head, tuple(rows))


def _account(accounts: dict[str, tuple[Effect, Any]], axis: str) -> str:
    if axis not in accounts:
        return NOTHING
    effect, word = accounts[axis]
    return f"{_judged(effect, word)}, at {effect.level:.3g}"


def _judged(effect: Effect | None, word: str) -> str:
    return f"{interval(effect)} {word}"


def _factorial(report: Report) -> Table:
    if report.factorial is None:
        return Table("factorial", "", (), ())
    parts = (
        ("main effect", report.factorial.main),
        ("simple effect", report.factorial.simple),
        ("interaction, exploratory", report.factorial.interactions),
    )
    notes = [f"No main effects: {', '.join(report.factorial.missing)} did not run."]
    rows = tuple(row for kind, claims in parts for row in _plain(claims, kind))
    title = "The factorial"
    return Table("factorial", title, PLAIN, rows, tuple(notes) if report.factorial.missing else ())


PLAIN = ("comparison", "kind", "points", "verdict", "seeds")


def _plain(claims: Sequence[Claim], kind: str) -> list[tuple[str, ...]]:
    return [
        (
            name(claim),
            kind,
            interval(claim.effect),
            verdict(claim),
            str(len(claim.effect.seeds)) if claim.effect else "0",
        )
        for claim in claims
    ]


def _controls(report: Report) -> Table:
    rows = _plain(report.placebos, "arm – placebo") + _plain(report.replicates, "A/A")
    return Table("controls", "Controls", PLAIN, tuple(rows))


def _compute(report: Report) -> Table:
    within = list(dict.fromkeys(purpose for arm in report.arms for purpose in arm.shares))
    apart = list(dict.fromkeys(purpose for arm in report.arms for purpose in arm.separate))
    rows = tuple(
        (
            arm.name,
            *(f"{100 * arm.shares.get(purpose, 0.0):.1f}" for purpose in within),
            *(f"{arm.separate.get(purpose, 0.0):.3g}" for purpose in apart),
        )
        for arm in report.arms
    )
    head = ("arm", *(f"{spaced(purpose)} (%)" for purpose in within))
    head += tuple(f"{spaced(purpose)} (FLOPs)" for purpose in apart)
    notes = ("In FLOPs: on accounts of their own, outside the budget.",) if apart else ()
    return Table("compute", "Where the compute went", head, rows, notes)


def spaced(word: str) -> str:
    """`auxiliary_update` as two words."""
    return word.replace("_", " ")


def _difficulty(report: Report) -> Table:
    names = list(dict.fromkeys(each for claim in report.claims for each, _ in claim.by_difficulty))
    rows = tuple(
        (name(claim), *(interval(dict(claim.by_difficulty).get(each)) for each in names))
        for claim in report.claims
        if claim.by_difficulty
    )
    return Table("difficulty", "Effects by difficulty (points)", ("suspect", *names), rows)


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
                        f"{curve.flops[i]:.4g}",
                        f"{curve.logical_flops[i]:.4g}",
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
        "pass@1 (%)",
        "se over seeds",
        "each run",
    )
    return Table("milestones", "Accuracy at every milestone", head, tuple(rows))
