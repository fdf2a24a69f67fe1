"""The kinds of charts of test time, length and long training: lines on a logarithmic axis, small multiples of
methods, gains in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.report.answers.content import ArmAtTest, Gain, MethodCurve
from ablate.report.answers.testtime import BASELINE, GUIDES, METHODS
from ablate.report.charts import CHARACTER, LINE, key_places, name_ends
from ablate.report.drawing import SMALL, WIDTH, canvas, colour, grid, plain, round_ticks, short
from ablate.report.wording import amount

# guide -> colour's name; without a guide, ink
GUIDE_INK = {
    "learned": "process",
    "value": "correct",
    "monte_carlo": "search",
    "judge": "own2",
    "oracle": "full",
    "verified": "full",
    "verifier": "full",
}
ORACLE_DASH = (0, (4, 1.6))
DOTTED = (0, (1.2, 1.4))
FEW = 1.2  # decades: an axis shorter than that has ticks between powers of ten
WIDEST = 3.0  # times the largest gain: intervals of few seeds go on beyond the frame


@dataclass(frozen=True)
class Line:
    """A curve; bounds: (low, high) at each x, drawn as bars or, with `band`, as a band."""

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    bounds: Sequence[tuple[float, float] | None] = ()
    style: Any = "-"
    band: bool = False


def lines(
    shown: Sequence[Line],
    across: str,
    up: str,
    *,
    base: int = 10,
    unit: str = "",
    mark: tuple[float, str] | None = None,
    zero: bool = False,
) -> Any:
    """Curves on a logarithmic axis, named at their ends. base: of its ticks. unit: behind each of them. mark:
    a place on it, and what it is called. zero: a line at zero, and values of both signs."""
    from matplotlib.ticker import NullLocator

    names = [short(line.name, 22) for line in shown]
    height = 3.1
    figure, axes = canvas(height, right=0.2 + CHARACTER * max(map(len, names)))
    axes.set_xscale("log")
    if zero:
        axes.axhline(0, color=colour("muted"), lw=0.8)
    for i, line in enumerate(shown):
        ink = colour(line.colour)
        aside = 1.012 ** (i - (len(shown) - 1) / 2)  # so that bars do not hide each other
        axes.plot(line.x, line.y, color=ink, lw=1.6, ls=line.style, marker="o", ms=2.8, mec="none")
        if line.band:
            known = [bounds or (y, y) for bounds, y in zip(line.bounds, line.y, strict=True)]
            axes.fill_between(line.x, *zip(*known, strict=True), color=ink, alpha=0.14, lw=0)
            continue
        for x, bounds in zip(line.x, line.bounds, strict=False):
            if bounds is not None:
                axes.plot([x * aside] * 2, bounds, color=ink, lw=1.0)
    low, high = min(min(line.x) for line in shown), max(max(line.x) for line in shown)
    edge = (high / low) ** 0.03
    axes.set_xlim(low / edge, high * edge)
    ticks = _ticks(low, high, base, WIDTH - 0.8 - CHARACTER * max(map(len, names)))
    axes.set_xticks(ticks, [f"{amount(tick)}{unit}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(round_ticks())
    bottom, top = axes.get_ylim()
    if not zero:
        axes.set_ylim(max(0.0, bottom), top)
    if mark is not None:
        axes.axvline(mark[0], color=colour("muted"), lw=0.9, ls=(0, (3, 2)))
        axes.annotate(
            mark[1],
            (mark[0], 0.02),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-3, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            rotation=90,
            fontsize=SMALL,
            color=colour("muted"),
        )
    axes.set_xlabel(across, fontsize=SMALL, color=colour("muted"))
    axes.set_ylabel(up, fontsize=SMALL, color=colour("muted"))
    grid(axes, "y")
    name_ends(axes, height, names, [line.y[-1] for line in shown], [line.colour for line in shown])
    return figure


def _ticks(low: float, high: float, base: int, inches: float) -> list[float]:
    """Round places between two numbers, as many as have room for their labels."""
    first, last = np.floor(np.log(low) / np.log(base)), np.ceil(np.log(high) / np.log(base))
    within = [1.0] if base == 2 or np.log10(high / low) > FEW else [1.0, 2.0, 5.0]

    def found(factors: list[float]) -> list[float]:
        ticks = [f * float(base) ** p for p in np.arange(first, last + 1) for f in factors]
        return [tick for tick in ticks if low / 1.02 <= tick <= high * 1.02]

    if base == 2 and len(found(within)) < 3:
        within = [1.0, 1.5]
    kept: list[float] = []
    whole = np.log(high / low) or 1.0
    for tick in found(within):
        room = 0.11 + CHARACTER * len(amount(tick))
        if not kept or np.log(tick / kept[-1]) / whole * inches > room:
            kept.append(tick)
    return kept or [low]


def methods(arm: ArmAtTest) -> Any:
    """A small chart per method, its guides in colours, with the majority vote in each; oracles dashed."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator, NullLocator

    vote = next((each for each in arm.curves if (each.method, each.guide) == BASELINE), None)
    groups: dict[str, list[MethodCurve]] = {}
    for each in arm.curves:
        if each is not vote and each.flops:
            groups.setdefault(each.method, []).append(each)
    guides = list(dict.fromkeys(each.guide for curves in groups.values() for each in curves))
    oracles = {each.guide for curves in groups.values() for each in curves if each.oracle}
    key: list[tuple[str, str, Any]] = [("majority vote", "muted", "-")] if vote else []
    for guide in sorted(guides, key=_guide_place):
        name = "no guide" if guide is None else GUIDES.get(guide, guide)
        dash = ORACLE_DASH if guide in oracles else "-"
        told = " (an oracle)" if guide in oracles and name != "oracle" else ""
        key.append((name + told, _ink(guide), dash))
    keys = key_places([short(name) for name, _, _ in key])
    rows = -(-len(groups) // 2)
    tall, gap, top = 1.2, 0.6, 0.36 + LINE * (1 + keys[-1][1])
    height = top + rows * (tall + gap)
    figure, spare = canvas(height)
    spare.remove()
    drawn = [each for each in arm.curves if each.flops]
    low, high = min(min(c.flops) for c in drawn), max(max(c.flops) for c in drawn)
    bottom, up = min(min(c.accuracy) for c in drawn), max(max(c.accuracy) for c in drawn)
    wide, left, between = (WIDTH - 1.1) / 2, 0.44, 0.5
    for i, (method, curves) in enumerate(groups.items()):
        x, y = left + (i % 2) * (wide + between), height - top - (i // 2) * (tall + gap) - tall
        axes = figure.add_axes((x / WIDTH, y / height, wide / WIDTH, tall / height), facecolor="none")
        plain(axes)
        axes.set_xscale("log")
        for curve in ([vote] if vote else []) + curves:
            ink = colour("muted" if curve is vote else _ink(curve.guide))
            values = [100 * value for value in curve.accuracy]
            dash = ORACLE_DASH if curve.oracle else "-"
            mark = "D" if curve.oracle else "o"
            axes.plot(curve.flops, values, color=ink, lw=1.3, ls=dash, marker=mark, ms=2.4, mec=ink, mew=0.3)
        axes.set_xlim(low / 1.25, high * 1.25)
        margin = 5 * max(up - bottom, 0.02)
        axes.set_ylim(max(0.0, 100 * bottom - margin), min(100.0, 100 * up + margin))
        ticks = _ticks(low, high, 10, wide)
        axes.set_xticks(ticks, [amount(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        known = METHODS.get(method) or METHODS.get(method.partition(":")[0])  # a prompt is no title
        name = known or method.replace("_", " ")
        axes.set_title(short(name), fontsize=SMALL, color=colour("ink"), loc="left", pad=4)
        grid(axes, "y")
    figure.text(
        0.5, 0.04 / height, "FLOPs per problem; accuracy in %", ha="center", va="bottom", size=SMALL
    ).set_color(colour("muted"))
    for (name, ink, dash), (x, line) in zip(key, keys, strict=True):
        y = 1 - (0.16 + LINE * line) / height
        figure.add_artist(Line2D([x, x + 0.045], [y, y], color=colour(ink), lw=1.6, ls=dash))
        figure.text(x + 0.058, y, short(name), va="center", size=SMALL, color=colour(ink))
    return figure


def _ink(guide: str | None) -> str:
    return "ink" if guide is None else GUIDE_INK.get(guide, "own1")


def _guide_place(guide: str | None) -> int:
    known = list(GUIDES)
    return -1 if guide is None else known.index(guide) if guide in known else len(known)


def gains(arms: Sequence[tuple[str, str, Sequence[Gain]]], margin: float) -> Any:
    """Every method minus the majority vote, for each trained arm (name, colour, gains), in points: a group
    per method with a line per arm; the margin shaded, oracles with hollow diamonds."""
    from matplotlib.lines import Line2D

    labels = dict.fromkeys(gain.label for _, _, found in arms for gain in found if gain.gain is not None)
    groups = {
        label: [
            (ink, gain)
            for _, ink, found in arms
            for gain in found
            if gain.label == label and gain.gain is not None
        ]
        for label in labels
    }
    each, head = 0.13, 1.5 * LINE
    keys = key_places([short(name) for name, _, _ in arms])
    top = 0.3 + LINE * (1 + keys[-1][1])
    inches = sum(head + each * len(rows) for rows in groups.values())
    height = top + inches + 0.62
    figure, axes = canvas(height, left=0.12, top=top)
    axes.set_ylim(inches + 0.06, 0)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    low, high = _view([gain for rows in groups.values() for _, gain in rows], margin)
    axes.set_xlim(low, high)
    axes.axvspan(-100 * margin, 100 * margin, color=colour("shade"), lw=0)
    axes.axvline(0, color=colour("muted"), lw=0.9)
    y = 0.0
    for label, rows in groups.items():
        oracle = rows[0][1].oracle
        y += head
        axes.annotate(
            short(label + (" (an oracle)" if oracle and "oracle" not in label else ""), 50),
            (0, y - 0.1),
            xycoords=axes.get_yaxis_transform(),
            size=SMALL,
            color=colour("ink"),
            va="baseline",
            annotation_clip=False,
        )
        for ink, gain in rows:
            _gain(axes, gain, colour(ink), y, (low, high))
            y += each
    axes.xaxis.set_major_locator(round_ticks())
    axes.set_xlabel("minus a majority vote at the same FLOPs (points)", fontsize=SMALL, color=colour("muted"))
    for (name, ink, _), (x, line) in zip(arms, keys, strict=True):
        at = 1 - (0.16 + LINE * line) / height
        figure.add_artist(Line2D([x, x + 0.045], [at, at], color=colour(ink), lw=1.8))
        figure.text(x + 0.058, at, short(name), va="center", size=SMALL, color=colour(ink))
    return figure


def _gain(axes: Any, gain: Gain, ink: str, y: float, frame: tuple[float, float]) -> None:
    assert gain.gain is not None
    bounds = [100 * bound for bound in gain.gain.interval or ()]
    if bounds:
        axes.plot(bounds, [y, y], color=ink, lw=1.5)
        if bounds[0] < frame[0]:
            axes.plot(frame[0], y, "<", ms=4, color=ink, clip_on=False)
        if bounds[1] > frame[1]:
            axes.plot(frame[1], y, ">", ms=4, color=ink, clip_on=False)
    face = colour("paper") if gain.oracle else ink
    axes.plot(100 * gain.gain.value, y, "D" if gain.oracle else "o", ms=3.8, color=ink, mfc=face)


def _view(found: Sequence[Gain], margin: float) -> tuple[float, float]:
    values = [100 * gain.gain.value for gain in found if gain.gain is not None]
    values += [-200 * margin, 200 * margin]
    most = WIDEST * max(map(abs, values))
    ends = [100 * b for gain in found if gain.gain is not None for b in gain.gain.interval or ()] + values
    low, high = max(min(ends), -most), min(max(ends), most)
    return low - 0.04 * (high - low), high + 0.04 * (high - low)
