"""Which figures of test time, length and long training a report has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ablate.report.answers.charts import DOTTED, Line, gains, lines, methods
from ablate.report.answers.content import ArmAtTest, CapPoint, LengthCurves, Reading, SetAtTest
from ablate.report.answers.testtime import BASELINE
from ablate.report.answers.wording import SETS, arm_name
from ablate.report.charts import ACCURACY, Row, curves, forest
from ablate.report.content import Effect, Report
from ablate.report.statistics import Estimate
from ablate.report.wording import UNITS

SHOWN = ("base", "variant", "suspect", "combination")  # roles of arms in the figures of length
Bounds = tuple[float, float] | None
Plan = tuple[str, str, str, Any]
INTERVALS, BANDS = "Bars: 95 % intervals.", "Bands: 95 % intervals."
BEFORE: dict[str, Any] = {"name": "before training", "colour": "muted", "style": DOTTED}


def planned(report: Report, colours: Mapping[str, str]) -> Iterable[Plan]:
    """(name, section, caption, how to draw it)."""
    yield from _longer(report, colours)
    yield from _lengths(report, colours)
    for found in report.testtime:
        yield from _tested(report, found, colours)


def _tested(report: Report, found: SetAtTest, colours: Mapping[str, str]) -> Iterable[Plan]:
    hard = "" if found.set == "heldout" else f"-{found.set}"
    where = SETS[found.set]
    voting = [arm for arm in found.arms if any((c.method, c.guide) == BASELINE for c in arm.curves)]
    names = {arm.arm for arm in voting}
    trained = [arm for arm in report.arms if arm.name in names]
    if trained and not hard:
        text = "Train-time compute: held-out accuracy as training goes on, one plain sample per problem."
        label = f"{report.metric} (%)"
        draw = partial(curves, report, trained, ACCURACY, label, colours=dict(colours))
        yield "train-time", "essay", text, draw
    if voting:
        spread = "seeds" if found.over != "problems" else "problems"
        text = (
            f"Test-time compute, on {where}: the trained policies with a majority vote over more and more "
            f"plain samples; bands: ± 1 standard error over {spread}."
        )
        shown = [_vote(arm, colours) for arm in voting]
        draw = partial(lines, shown, "FLOPs per problem", "accuracy (%)")
        yield f"test-time{hard}", "essay" if not hard else "testtime", text, draw
    for i, arm in enumerate(found.arms):
        if any((curve.method, curve.guide) != BASELINE and curve.flops for curve in arm.curves):
            text = (
                f"{arm_name(arm.arm, arm.times)} on {where}, by method: accuracy against FLOPs per problem. "
                "Dashed, with diamonds: an oracle is told what is right, an upper bound."
            )
            yield f"methods{hard}-{i + 1}", "testtime", text, partial(methods, arm)
    groups = [(arm_name(arm.arm, arm.times), colours.get(arm.arm, "ink"), arm.gains) for arm in found.arms]
    if any(gain.gain is not None for _, _, own in groups for gain in own):
        text = (
            f"Train x test, on {where}: each method minus a majority vote by the same policy at the same "
            f"FLOPs, with 95 % intervals over {found.over}, each for itself. Diamonds: oracles. Shaded: "
            f"smaller than the margin of {100 * report.margin:g} points."
        )
        yield f"train-test{hard}", "traintest", text, partial(gains, _distinct(groups), report.margin)


def _distinct(groups: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """With another colour where two arms have the same."""
    spare = ["own1", "own2", "own3", "muted", "full", "process", "search", "correct"]
    out: list[tuple[str, str, Any]] = []
    for name, ink, own in groups:
        used = {other for _, other, _ in out}
        fresh = next((each for each in spare if each not in used), ink) if ink in used else ink
        out.append((name, fresh, own))
    return out


def _vote(arm: ArmAtTest, colours: Mapping[str, str]) -> Line:
    curve = next(each for each in arm.curves if (each.method, each.guide) == BASELINE)
    values = [100 * value for value in curve.accuracy]
    bounds: list[Bounds] = [
        None if error is None else (value - 100 * error, value + 100 * error)
        for value, error in zip(values, curve.accuracy_se, strict=True)
    ]
    name = arm_name(arm.arm, arm.times)
    return Line(name, colours.get(arm.arm, "ink"), curve.flops, values, bounds, band=True)


# -- length --------------------------------------------------------------------------------------------------


def _lengths(report: Report, colours: Mapping[str, str]) -> Iterable[Plan]:
    ranked = {arm.name for arm in report.arms if arm.role in SHOWN}
    shown = [each for each in report.length if each.arm in ranked] or list(report.length)
    natural = [each for each in shown if each.pooled]
    pooled = [line for each in natural if (line := _bucketed(each, colours, within=False))]
    if pooled:
        text = (
            f"1, pooled: accuracy of plain samples by length, all problems together. {INTERVALS} Answers "
            "that were cut off are left out. Harder problems have longer answers: this is no effect of "
            "length."
        )
        yield (
            "length-pooled",
            "natural",
            text,
            partial(lines, pooled, "tokens of the answer", "right (%)", base=2),
        )
    inside = [line for each in natural if (line := _bucketed(each, colours, within=True))]
    if inside:
        text = (
            "2, within problems: the same answers against others to the same problem, which may be longer or "
            f"shorter. {INTERVALS} A chain that succeeds stops: this is no effect of length either."
        )
        yield (
            "length-within",
            "natural",
            text,
            partial(
                lines,
                inside,
                "length, in multiples of the problem's mean",
                "right, minus the problem's mean (points)",
                base=2,
                unit="x",
                zero=True,
            ),
        )
    if shown:
        caps = [_capped(each, each.caps, colours) for each in shown]
        if start := _start(report):
            caps.append(replace(_capped(start, start.start, {}), **BEFORE))
        text = f"{'3, the' if pooled else 'The'} cap: one long decode, solved within so many tokens. {BANDS}"
        if start:
            text += " Dotted: before training."
        mark = report.cap, "training cap"
        yield (
            "length-cap",
            "natural",
            text,
            partial(lines, caps, "cap (tokens)", "solved within it (%)", base=2, mark=mark),
        )


def _scaled(found: Reading | None) -> Bounds:
    return None if found is None or found.interval is None else tuple(100 * b for b in found.interval)  # type: ignore[return-value]


def _bucketed(each: LengthCurves, colours: Mapping[str, str], within: bool) -> Line | None:
    kept = [bucket for bucket in (each.within if within else each.pooled) if bucket.accuracy is not None]
    if not kept:
        return None
    return Line(
        arm_name(each.arm, each.times),
        colours.get(each.arm, "ink"),
        [bucket.centre for bucket in kept],
        [100 * bucket.accuracy.value for bucket in kept if bucket.accuracy],
        [_scaled(bucket.accuracy) for bucket in kept],
    )


def _capped(each: LengthCurves, points: Sequence[CapPoint], colours: Mapping[str, str]) -> Line:
    return Line(
        arm_name(each.arm, each.times),
        colours.get(each.arm, "ink"),
        [point.tokens for point in points],
        [100 * point.accuracy.value for point in points],
        [_scaled(point.accuracy) for point in points],
        band=True,
    )


def _start(report: Report) -> LengthCurves | None:
    """Where the common start is drawn from: the base, or else whatever has it."""
    having = [each for each in report.length if each.start]
    base = {arm.name for arm in report.arms if arm.role == "base"}
    return next((each for each in having if each.arm in base), having[0] if having else None)


# -- long training -------------------------------------------------------------------------------------------


def _longer(report: Report, colours: Mapping[str, str]) -> Iterable[Plan]:
    if report.longer is None:
        return
    rows = [
        Row(arm.arm, colours.get(arm.arm, "ink"), _effect(arm.accuracy.difference), arm.word)
        for arm in report.longer.arms
    ]
    text = (
        "Accuracy at the last evaluation minus that at the best one before it, which other seeds chose, with "
        "95 % intervals that hold together."
    )
    yield "longer", "longer", text, partial(forest, rows, report.margin, report.metric)
    rows = [Row(what, "ink", _effect(found)) for what, found in report.longer.effects]
    if rows:
        text = "The same change compared between settings: what the penalty and few problems do to it."
        yield "longer-effects", "longer", text, partial(forest, rows, report.margin, "change")
    shown = [
        Line(
            arm.arm,
            colours.get(arm.arm, "ink"),
            [share * report.budget for share, _ in arm.entropy],
            [value for _, value in arm.entropy],
        )
        for arm in report.longer.arms
        if len(arm.entropy) > 1
    ]
    if shown:
        text = "Entropy of the policy's next token in training batches."
        across = f"spent in training ({UNITS[report.unit]})"
        yield "entropy", "longer", text, partial(lines, shown, across, "entropy (nats per token)")


def _effect(found: Reading) -> Effect:
    """As the forest draws it."""
    estimate = Estimate(found.value, found.seeds, found.problems)
    return Effect("budget", 0.0, (), estimate, 1, found.interval, found.interval)
