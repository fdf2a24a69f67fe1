"""Which figures a report has, and what each shows. `ablate.report.drawing` says how they look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from ablate.report.answers.figures import planned
from ablate.report.charts import ACCURACY, Row, budgets, curves, forest, panels, stacked
from ablate.report.content import Arm, Claim, Report
from ablate.report.contrasts import CELL_OF, ESSAY, FACTORS, PLACEBOS
from ablate.report.drawing import save
from ablate.report.wording import ACCOUNTS, SCORERS, UNITS, spaced

RANKED = ("base", "variant", "suspect", "combination")
APART = ("upper bound", "outside")


@dataclass(frozen=True)
class Figure:
    """name: of its files. section: of the page. svg: for the page. caption: what it shows, in words."""

    name: str
    section: str
    svg: str
    caption: str


def figures(report: Report, folder: Path) -> list[Figure]:
    """Draw what the data allow, each as SVG and PNG in the folder; figures of an earlier report go."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [
        Figure(name, section, save(folder, name, draw), caption)
        for name, section, caption, draw in _planned(report)
    ]
    for path in folder.iterdir():
        if path.suffix in (".svg", ".png") and path.stem not in {each.name for each in drawn}:
            path.unlink()
    return drawn


Plan = tuple[str, str, str, Callable[[], Any]]


def _planned(report: Report) -> Iterable[Plan]:
    """(name, section, caption, how to draw it)."""
    colours = palette(report)
    ranked = [arm for arm in report.arms if arm.role in RANKED]
    forests = partial(forest, margin=report.margin, metric=report.metric)
    label = f"{report.metric} (%)"
    band = "bands: ± 1 standard error over seeds" if len(report.seeds) > 1 else "one seed, no bands"
    if len({arm.seeds for arm in ranked}) > 1:
        band += ", each arm over its own seeds"
    spent = partial(curves, report, colours=colours)
    rungs = [arm for arm in report.arms if arm.name in {rung.arm for rung in report.ladder}]
    claimed = {claim.weights[0][0] for claim in report.claims}
    # the other scorers' arms stand on the ladder alone
    plain = [a for a in ranked if a.role != "combination" and (a not in rungs or a.name in claimed)]
    base = [arm for arm in report.arms if arm.role == "base"]
    if plain:
        text = (
            f"Held-out accuracy ({report.metric}) against training compute, from the common start on; {band}."
        )
        yield "accuracy", "accuracy", text, partial(spent, plain, ACCURACY, label)
    if len(plain) < len(ranked):
        combined = [arm for arm in ranked if arm.role != "suspect"]
        text = f"The same for the essay's recipe and other combinations; {band}."
        yield "combinations", "accuracy", text, partial(spent, combined, ACCURACY, label)
    if any(len(arm.curves) > 1 for arm in plain):
        text = (
            "Does more compute make up for a suspect? What goes on beyond the budget, and where the others "
            "ended (dots, continued as dotted lines)."
        )
        yield "longer", "accuracy", text, partial(spent, plain, ACCURACY, label, longer=True)
    shaded = f"Shaded: smaller than the margin of {100 * report.margin:g} points."
    many = any(claim.effect and claim.effect.interval for claim in report.claims)
    at_each = ", 95 % intervals simultaneous over the suspects at each {0}" if many else ""
    intervals = " with simultaneous 95 % intervals" if many else " (one seed: no intervals)"
    if rows := list(_families(report.claims, colours)):
        text = f"Effects at the budget{intervals}. {shaded}"
        yield "effects", "effects", text, partial(forests, rows)
    for on, family in groupby(report.claims, key=_on):
        claims = [claim for claim in family if len(claim.by_budget) > 1]
        if claims:
            name = "budgets" if on == report.claims[0].on else "budgets-essay"
            text = f"Effects on top of {on} at several budgets{at_each.format('budget')}. {shaded}"
            if any(claim.crossings for claim in claims):
                text += " Diamonds: the curves of the two arms cross."
            yield name, "budgets", text, partial(budgets, report, claims, colours)
    if rows := list(_accounts(report, colours)):
        text = f"The same effects where all arms have spent the same on another account. {shaded}"
        yield "accounts", "accounts", text, partial(forests, rows)
    yield from _factorial(report, colours, forests, shaded)
    if rows := list(_placebos(report.placebos, colours)):
        text = f"Each suspect's arm minus its placebo, which spends the same without the idea. {shaded}"
        yield "placebos", "controls", text, partial(forests, rows)
    if rows := [_row(claim, colours, claim.weights[0][0]) for claim in report.replicates]:
        text = f"A/A: runs that differ in their sampling seed alone. {shaded}"
        yield "replicates", "controls", text, partial(forests, rows)
    for name, text, arms in _compared(report):
        yield name, "controls", f"{text}; {band}.", partial(spent, arms, ACCURACY, label)
    if arms := [arm for arm in report.arms if arm.shares]:
        text = "Where each arm's budget went, by purpose, in percent of its FLOPs."
        yield "compute", "compute", text, partial(stacked, arms)
    if plain:
        text = "Tokens per held-out answer over training."
        yield "length", "length", text, partial(spent, plain, "length", "tokens per answer")
        text = "Share of held-out answers cut off at the cap over training."
        yield "truncated", "length", text, partial(spent, plain, "truncated", "cut off at the cap (%)")
    if behaviours := list(_behaviours(plain)):
        text = "How held-out answers are reached, over training: means per answer."
        yield "behaviour", "length", text, partial(panels, report, plain, behaviours, colours)
    yield from planned(report, colours)
    if rows := list(_ladder(report, colours)):
        text = (
            "Process rewards by one scorer after the other, each minus guess + check, with 95 % intervals. "
            f"The oracle is free: an upper bound. After equal updates the price is out of it. {shaded}"
        )
        yield "ladder", "ladder", text, partial(forests, rows)
        text = f"Guess + check and process rewards by scorer; {band}."
        yield "ladder-curves", "ladder", text, partial(spent, base + rungs, ACCURACY, label)
    if rows := list(_by_difficulty(report, colours)):
        text = f"Effects by the problems' difficulty{at_each.format('class')}. {shaded}"
        yield "difficulty", "difficulty", text, partial(forests, rows)
    if away := [arm for arm in report.arms if arm.role in APART and arm not in rungs]:
        text = f"No part of the ranking: upper bounds and arms that plain decoding does not rank; {band}."
        yield "apart", "apart", text, partial(spent, base + away, ACCURACY, label)


def _factorial(report: Report, colours: dict[str, str], forests: Any, shaded: str) -> Iterable[Plan]:
    if report.factorial is None:
        return
    parts = report.factorial
    if parts.main:
        rows = [_row(claim, colours, claim.title) for claim in parts.main]
        yield "factorial", "factorial", f"Main effects of the 2x2x2. {shaded}", partial(forests, rows)
    if parts.interactions:
        rows = [Row(claim.title, "ink", claim.effect) for claim in parts.interactions]
        yield "interactions", "factorial", f"Interactions, exploratory. {shaded}", partial(forests, rows)
    if parts.simple:
        rows = []
        for claim in parts.simple:
            if not rows or rows[-1].colour != _colour(claim, colours):
                rows.append(Row(claim.title, _colour(claim, colours), None, head=True))
            rows.append(Row(f"on {claim.on}", _colour(claim, colours), claim.effect))
        text = f"Simple effects: each factor on top of each combination of the others. {shaded}"
        yield "simple", "factorial", text, partial(forests, rows)


BEHAVIOUR = "behaviour/"


def _behaviours(arms: list[Arm]) -> Iterable[tuple[str, str]]:
    """(figure, label) of what tasks count in answers, where it is not the same everywhere; and the distance
    from the start."""
    known = [arm.curves[0].metrics for arm in arms]
    for name in dict.fromkeys(name for metrics in known for name in metrics):
        counted = name.startswith(BEHAVIOUR) or name == "kl_per_answer"
        everywhere = counted and all(name in metrics for metrics in known)
        if everywhere and len({value for metrics in known for value in metrics[name]}) > 1:
            label = spaced(name.removeprefix(BEHAVIOUR))
            yield name, "KL to the start (nats)" if name == "kl_per_answer" else label


def _ladder(report: Report, colours: dict[str, str]) -> Iterable[Row]:
    parts = (
        (f"at equal {UNITS[report.unit]}", lambda rung: rung.at_budget),
        ("after equal updates", lambda rung: rung.at_updates),
    )
    for title, of in parts if report.ladder else ():
        yield Row(title, "ink", None, head=True)
        for rung in report.ladder:
            if effect := of(rung):
                free = ", free" if rung.scorer == "oracle" else ""
                again = [each.scorer for each in report.ladder].count(rung.scorer) > 1
                name = SCORERS.get(rung.scorer, rung.scorer) + (f": {rung.arm}" if again else "")
                word = rung.word if effect is rung.at_budget and not free else ""
                yield Row(f"{name}{free}", "process", effect, word)


def _compared(report: Report) -> Iterable[tuple[str, str, list[Arm]]]:
    """(name, caption, arms): every suspect with its placebos, and the floors, each beside guess + check."""
    base = [arm for arm in report.arms if arm.role == "base"]
    for suspect, names in PLACEBOS.items():
        placebos = [arm for arm in report.arms if arm.role == "placebo" and arm.name in names]
        if placebos:
            cell = tuple(int(factor == suspect) for factor in FACTORS)
            own = [arm for arm in report.arms if CELL_OF.get(arm.name) == cell and arm.name != ESSAY]
            text = f"Placebos beside their suspect: {spaced(own[0].name) if own else suspect}"
            yield f"controls-{suspect}", text, base + own + placebos
    if floors := [arm for arm in report.arms if arm.role == "floor"]:
        yield "floors", "Floors: what any use of the compute should beat", base + floors


def palette(report: Report) -> dict[str, str]:
    """Name of an arm or of a suspect -> its colour's name, the same in all figures."""
    found: dict[str, str] = {factor: factor for factor in FACTORS} | {"full": "full"}
    placebo = {name: suspect for suspect, names in PLACEBOS.items() for name in names}
    like = {rung.arm: "process" for rung in report.ladder}
    like |= {claim.weights[0][0]: claim.suspect for claim in report.claims if claim.suspect in FACTORS}
    own, variants = 0, ["ink", "process", "search", "correct", "full", "own2"]
    for arm in report.arms:
        cell = CELL_OF.get(arm.name)
        if arm.role == "base":
            found[arm.name] = "ink"
        elif arm.role == "variant":
            found[arm.name] = variants.pop(0) if variants else "own3"
        elif arm.role == "floor":
            found[arm.name] = "muted"
        elif cell is not None:
            alone = [factor for factor, there in zip(FACTORS, cell, strict=True) if there]
            found[arm.name] = alone[0] if len(alone) == 1 else "full"
        elif arm.name in placebo:
            found[arm.name] = placebo[arm.name]
        elif arm.name in like:
            found[arm.name] = like[arm.name]
        else:
            found[arm.name] = f"own{own % 3 + 1}"
            own += 1
    return found


def _row(claim: Claim, colours: dict[str, str], label: str = "") -> Row:
    return Row(label or f"{claim.title} on {claim.on}", _colour(claim, colours), claim.effect, claim.word)


def _on(claim: Claim) -> str:
    return claim.on


def _families(claims: Iterable[Claim], colours: dict[str, str]) -> Iterable[Row]:
    """Rows under what the suspects are added to."""
    for on, family in groupby(claims, key=_on):
        yield Row(f"on top of {on}", "ink", None, head=True)
        for claim in family:
            yield _row(claim, colours, claim.title)


def _placebos(claims: Iterable[Claim], colours: dict[str, str]) -> Iterable[Row]:
    """Placebos under the arm that they stand beside."""
    for (arm, ink), family in groupby(
        claims, key=lambda claim: (claim.weights[0][0], _colour(claim, colours))
    ):
        yield Row(f"{arm} minus", ink, None, head=True)
        for claim in family:
            yield _row(claim, colours, claim.weights[1][0])


def _colour(claim: Claim, colours: dict[str, str]) -> str:
    return colours.get(claim.suspect, "ink")


def _accounts(report: Report, colours: dict[str, str]) -> Iterable[Row]:
    for claim in report.claims:
        if claim.accounts:
            ink = _colour(claim, colours)
            yield Row(f"{claim.title} on {claim.on}", ink, None, head=True)
            yield Row(f"equal {UNITS[report.unit]}", ink, claim.effect, claim.word)
            for each in claim.accounts:
                yield Row(f"equal {ACCOUNTS[each.effect.axis]}", ink, each.effect, each.word)


def _by_difficulty(report: Report, colours: dict[str, str]) -> Iterable[Row]:
    for claim in report.claims:
        if claim.by_difficulty:
            ink = _colour(claim, colours)
            yield Row(f"{claim.title} on {claim.on}", ink, None, head=True)
            for name, effect in claim.by_difficulty:
                yield Row(name, ink, effect)
