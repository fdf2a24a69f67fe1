"""The tables of what is said about arms: claims, budgets, accounts, the factorial, controls, the ladder."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablate.report.content import Account, Claim, Effect, Report
from ablate.report.contrasts import SIMPLE
from ablate.report.verdict import LONGER
from ablate.report.wording import (
    ACCOUNTS,
    NOTHING,
    SCORERS,
    UNITS,
    Table,
    amount,
    bounds,
    count,
    crossings,
    interval,
    multiple,
    name,
    spaced,
    verdict,
)

APART = "Intervals hold together over the suspects at each {0}, not over several of them."
PLAIN = ("comparison", "kind", "points", "verdict", "seeds")


def claims(report: Report) -> Table:
    """The headline effects, and what they are worth."""
    rows = tuple(
        (
            name(claim),
            interval(claim.effect),
            verdict(claim),
            _seeds(claim),
            interval(claim.extended),
            NOTHING if claim.worth is None else multiple(claim.worth),
        )
        for claim in report.claims
    )
    head = ("suspect", "points", "verdict", "seeds", f"against {LONGER}x the budget", "without it as good at")
    notes = []
    if any(claim.worth is not None for claim in report.claims):
        notes.append(
            "Without it as good at: the multiple of the budget with which the arm without the suspect is as "
            "good as the one with it, as far as it was run."
        )
    return Table("claims", "Effects and verdicts", head, rows, tuple(notes))


def certainty(report: Report) -> Table:
    """What makes the headline effects uncertain, and what this many seeds can tell."""
    rows = tuple(
        (
            name(claim),
            NOTHING if claim.effect is None or claim.effect.alone is None else bounds(claim.effect.alone),
            *_deviations(claim.effect),
            NOTHING if claim.power is None else f"{100 * claim.power:.0f}",
            str(claim.seeds_to_settle or NOTHING),
        )
        for claim in report.claims
        if claim.effect is not None and claim.effect.interval is not None
    )
    head: tuple[str, ...] = (
        "suspect",
        "interval for itself (points)",
        "sd by seeds",
        "sd by problems",
        "power (%)",
    )
    head += ("seeds to settle it",)
    notes = (
        "Standard deviations of the effect, in points. Power: the probability of “not needed” with as many "
        "seeds, if the true effect is zero and varies as it did here.",
    )
    return Table("certainty", "How sure they are", head, rows, notes)


def _seeds(claim: Claim) -> str:
    return str(len(claim.effect.seeds)) if claim.effect else "0"


def _deviations(effect: Effect | None) -> tuple[str, str]:
    """Standard deviations of the effect, in points: what the seeds and what the problems contribute."""
    if effect is None or effect.estimate.components is None:
        return NOTHING, NOTHING
    parts = effect.estimate.by_seed, effect.estimate.by_problem
    by_seed, by_problem = (f"{100 * math.sqrt(max(part, 0.0)):.2f}" for part in parts)
    return by_seed, by_problem


def budgets(report: Report) -> Table:
    """Effects where less was spent, their slope, and where the curves cross."""
    shares = sorted({share for claim in report.claims for share, _ in claim.by_budget[1:]})
    rows = tuple(
        (
            name(claim),
            f"{interval(claim.by_budget[0][1])} at {claim.by_budget[0][0]:.3g}x",
            *(interval(dict(claim.by_budget[1:]).get(share)) for share in shares),
            interval(claim.slope),
            "; ".join(crossings(claim)) or NOTHING,
        )
        for claim in report.claims
        if claim.by_budget
    )
    at = (f"at {share:.3g}x the budget" for share in shares)
    head = ("suspect", "from where both were evaluated", *at, "per doubling of compute", "curves cross")
    notes = (APART.format("budget"),)
    return Table("budgets", "Effects at several budgets (points)", head, rows, notes)


def accounts(report: Report) -> Table:
    """The verdict where all have spent the same on other accounts than the budget's."""
    axes = list(dict.fromkeys(each.effect.axis for claim in report.claims for each in claim.accounts))
    rows = []
    for claim in report.claims:
        by_axis = {each.effect.axis: each for each in claim.accounts}
        if by_axis:
            cells = (_account(by_axis.get(axis), claim) for axis in axes)
            rows.append((name(claim), f"{interval(claim.effect)} {claim.word}", *cells))
    head: tuple[str, ...] = ("suspect", f"at the budget in {UNITS[report.unit]}")
    head += tuple(f"at equal {ACCOUNTS[axis]}" for axis in axes)
    untested = [
        ACCOUNTS[axis]
        for axis in axes
        if not any(
            each.extended for claim in report.claims for each in claim.accounts if each.effect.axis == axis
        )
    ]
    notes = []
    if untested and rows:
        notes.append(
            f"Not tested at equal {' and '.join(untested)}: whether a suspect is “needed”, because nothing "
            f"that suspects are added to ran to {LONGER} times as much; “helps” may be “needed” there."
        )
    if unread := _unread(report):
        notes.append(
            f"Not read, because one of the two was first evaluated after the other had ended: "
            f"{'; '.join(unread)}. More milestones (budget.milestones=) evaluate earlier."
        )
    rates = {arm.name: arm.lr for arm in report.arms}
    if "updates" in axes and any(
        len({rates.get(arm) for arm, _ in claim.weights}) > 1 for claim in report.claims if claim.accounts
    ):
        notes.append("Equal updates are not updates of one size: every arm has its own learning rate.")
    return Table("accounts", "The verdict by other accounts", head, tuple(rows), tuple(notes))


def _unread(report: Report) -> list[str]:
    """Accounts at which a claim with an effect has none."""
    axes = [axis for axis in ACCOUNTS if axis != report.unit]
    found = []
    for claim in report.claims:
        read = {each.effect.axis for each in claim.accounts}
        if claim.effect and len(claim.weights) == 2 and (missing := [a for a in axes if a not in read]):
            found.append(f"{name(claim)} at equal {' and '.join(ACCOUNTS[axis] for axis in missing)}")
    return found


def _account(found: Account | None, claim: Claim) -> str:
    if found is None:
        return NOTHING
    at = f"{amount(found.effect.level)} {ACCOUNTS[found.effect.axis]}"
    if claim.effect is None or found.effect.seeds != claim.effect.seeds:
        at += f", {count(len(found.effect.seeds), 'seed')}"
    return f"{interval(found.effect)} {verdict(found)}, at {at}"


def factorial(report: Report) -> Table:
    """Main effects, simple effects, interactions."""
    if report.factorial is None:
        return Table("factorial", "", (), ())
    parts = (
        ("main effect", report.factorial.main),
        ("simple effect", report.factorial.simple),
        ("interaction, exploratory", report.factorial.interactions),
    )
    rows = tuple(row for kind, claims in parts for row in _plain(claims, kind))
    notes = []
    if report.factorial.missing:
        notes.append(f"No main effects: {', '.join(report.factorial.missing)} did not run.")
    if report.factorial.main:
        common = next((claim.effect.seeds for claim in report.factorial.main if claim.effect), ())
        notes.append(
            f"Main effects and interactions are over the {count(len(common), 'seed')} that all eight "
            "combinations have, simple effects over those of their two. Simple effects tell whether a main "
            "effect speaks for all combinations: tree and process credit are not independent of each other."
        )
        notes.append(
            "Intervals hold together over the main effects, and over the simple effects; those of "
            "interactions are 95 % each for itself. Verdicts are the headlines' and the main effects'."
        )
    return Table("factorial", "The factorial", PLAIN, rows, tuple(notes))


def controls(report: Report) -> Table:
    """Placebos, A/A, and other experiments."""
    others = tuple(
        (
            f"{claim.title} on {claim.on}",
            f"control experiment {each.experiment}",
            NOTHING
            if claim.value is None
            else f"{100 * claim.value:+.1f}" + (f" {bounds(claim.interval)}" if claim.interval else ""),
            verdict(claim),
            str(claim.seeds),
        )
        for each in report.controls
        for claim in each.claims
    )
    rows = others + tuple(_plain(report.placebos, "arm – placebo") + _plain(report.replicates, "A/A"))
    return Table("controls", "Controls", PLAIN, rows)


def _plain(claims: Sequence[Claim], kind: str) -> list[tuple[str, ...]]:
    words = [NOTHING if claim.caveats == (SIMPLE,) else verdict(claim) for claim in claims]
    return [
        (name(claim), kind, interval(claim.effect), word, _seeds(claim))
        for claim, word in zip(claims, words, strict=True)
    ]


def ladder(report: Report) -> Table:
    """Process rewards by several scorers."""
    names = list(dict.fromkeys(each for rung in report.ladder for each in rung.quality))
    rows = tuple(
        (
            rung.arm,
            SCORERS.get(rung.scorer, rung.scorer),
            interval(rung.at_budget),
            verdict(rung),
            interval(rung.at_updates),
            f"{100 * rung.price:.1f}",
            *(f"{rung.quality[each]:.3g}" if each in rung.quality else NOTHING for each in names),
        )
        for rung in report.ladder
    )
    updates = [rung.at_updates.level for rung in report.ladder if rung.at_updates]
    after = f"after {updates[0]:,.0f} updates" if updates else "after equal updates"
    head: tuple[str, ...] = ("arm", "scorer", "at the budget (points)", "verdict", f"{after} (points)")
    head += ("judging (% of FLOPs)", *map(spaced, names))
    notes = (
        "Differences to guess + check, intervals 95 % each for itself; verdicts are the headlines', whose "
        "intervals hold together. The oracle is free and knows the answers: an upper bound, no verdict. "
        "Errors and calibration are against each scorer's own target.",
    )
    return Table("ladder", "The oracle ladder: process rewards by scorer", head, rows, notes)


def difficulty(report: Report) -> Table:
    """Effects over problems of one class."""
    names = list(dict.fromkeys(each for claim in report.claims for each, _ in claim.by_difficulty))
    rows = tuple(
        (name(claim), *(interval(dict(claim.by_difficulty).get(each)) for each in names))
        for claim in report.claims
        if claim.by_difficulty
    )
    notes = (APART.format("class"),)
    return Table("difficulty", "Effects by difficulty (points)", ("suspect", *names), rows, notes)
