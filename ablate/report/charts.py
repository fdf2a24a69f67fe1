"""The kinds of charts that a report is made of: curves over training, forests, effects by budget, bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.report.content import Arm, Claim, Curve, Effect, Report
from ablate.report.drawing import NORMAL, SMALL, WIDTH, apart, canvas, colour, grid, plain, round_ticks, short
from ablate.report.wording import UNITS, amount, interval, spaced

PURPOSES = ("update", "rollout", "label", "score", "judge", "auxiliary_update")
ACCURACY = "accuracy"  # in place of a held-out figure's name: what arms are compared by
VISIBLE = 0.002  # of a bar
WIDEST = 3.0  # times the largest effect: intervals of very few seeds go on beyond the frame
MOST_TICKS = 5  # beside the start
LINE = 0.17  # inches from one line of text to the next
CHARACTER = 0.073  # inches, of small text


@dataclass(frozen=True)
class Row:
    """A line of a forest: what is compared, its colour's name, its effect, a word on it. head: a heading."""

    label: str
    colour: str
    effect: Effect | None
    word: str = ""
    head: bool = False


def dashes(arms: Sequence[Arm], colours: dict[str, str]) -> dict[str, Any]:
    """Arm -> line style: the second and third of a colour are dashed; placebos and floors always are."""
    kinds = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
    seen: dict[str, int] = {}
    out = {}
    for arm in arms:
        first = int(arm.role in ("placebo", "floor"))
        count = seen[colours[arm.name]] = seen.get(colours[arm.name], first - 1) + 1
        out[arm.name] = kinds[count % len(kinds)]
    return out


def curves(
    report: Report,
    arms: Sequence[Arm],
    metric: str,
    label: str,
    *,
    colours: dict[str, str],
    longer: bool = False,
) -> Any:
    """A held-out figure of some arms against training compute, on a logarithmic axis that the start stands
    left of. longer: beyond the budget, where runs go on."""
    names = [short(arm.name) for arm in arms]
    height = 3.1
    figure, axes = canvas(height, right=0.16 + CHARACTER * max(map(len, names)))
    scale = 1.0 if metric == "length" else 100.0
    chosen = {arm.name: (arm.curves[-1] if longer else arm.curves[0]) for arm in arms}
    first = min(c.budget[1] for c in chosen.values() if len(c.budget) > 1) / 2.2
    styles, ends = dashes(arms, colours), []
    last = max(max(c.budget) for c in chosen.values())
    for arm in arms:
        curve, ink = chosen[arm.name], colour(colours[arm.name])
        values = [scale * value for value in curve.metrics.get(metric, curve.accuracy)]
        if longer and len(arm.curves) == 1:
            axes.plot([curve.budget[-1], last], [values[-1]] * 2, color=ink, lw=0.9, ls=":")
            axes.plot(curve.budget[-1], values[-1], "o", ms=4.5, color=ink)
        else:
            spent = [max(x, first) for x in curve.budget]
            axes.plot(spent, values, color=ink, lw=1.7, ls=styles[arm.name], marker="o", ms=3.2, mec="none")
            _band(axes, metric, curve, spent, values, ink)
        ends.append(values[-1])
    _compute_axis(axes, first, chosen.values(), UNITS[report.unit])
    axes.yaxis.set_major_locator(round_ticks())
    axes.set_ylabel(label, fontsize=SMALL, color=colour("muted"))
    low, high = axes.get_ylim()
    axes.set_ylim(max(0.0, low - 0.04 * (high - low)) if low >= 0 else 0.0, high)
    grid(axes, "y")
    name_ends(axes, height, names, ends, [colours[arm.name] for arm in arms])
    return figure


def _band(axes: Any, metric: str, curve: Curve, spent: list[float], values: list[float], ink: str) -> None:
    if metric == ACCURACY and all(error is not None for error in curve.accuracy_se):
        half = [100 * (error or 0.0) for error in curve.accuracy_se]
        low, high = ([v + s * h for v, h in zip(values, half, strict=True)] for s in (-1, 1))
        axes.fill_between(spent, low, high, color=ink, alpha=0.16, lw=0)


def _compute_axis(axes: Any, first: float, shown: Iterable[Curve], unit: str) -> None:
    from matplotlib.ticker import NullLocator

    shown = list(shown)
    axes.set_xscale("log")
    ticks = sorted({_rounded(x) for curve in shown for x in curve.budget[1:]})
    kept: list[float] = []
    for tick in ticks:  # milestones of runs lie close together: one tick for those
        if not kept or tick > 1.5 * kept[-1]:
            kept.append(tick)
    kept = kept[::-1][:: -(-len(kept) // MOST_TICKS) or 1][::-1]
    axes.set_xticks([first, *kept], ["start", *(amount(tick) for tick in kept)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(first * 0.9, 1.04 * max(curve.budget[-1] for curve in shown))
    axes.set_xlabel(f"spent in training ({unit})", fontsize=SMALL, color=colour("muted"))


def _rounded(value: float) -> float:
    return float(f"{value:.1e}")


def forest(rows: Sequence[Row], margin: float, metric: str) -> Any:
    """Effects in points with their intervals, one below the other, the margin shaded; what each is and how
    much stands above it."""
    inches = sum(_room(row) for row in rows)
    figure, axes = canvas(inches + 0.75, left=0.12)
    axes.set_ylim(inches + 0.1, 0)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    y = 0.0
    low, high = view([row.effect for row in rows if row.effect is not None], margin)
    axes.set_xlim(low, high)
    for row in rows:
        y += _room(row)
        _labels(axes, row, y)
        if row.effect is not None:
            _interval(axes, row.effect, colour(row.colour), y - 0.5 * LINE, 100 * margin)
    axes.xaxis.set_major_locator(round_ticks())
    axes.set_xlabel(f"difference in {short(metric)} (points)", fontsize=SMALL, color=colour("muted"))
    return figure


def view(effects: Sequence[Effect], margin: float) -> tuple[float, float]:
    """What an axis of effects shows, in points: margin, effects, and their intervals within reason."""
    values = [100 * effect.estimate.value for effect in effects] + [-200 * margin, 200 * margin]
    most = WIDEST * max(map(abs, values))
    ends = [100 * bound for effect in effects for bound in effect.interval or ()] + values
    low, high = max(min(ends), -most), min(max(ends), most)
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _room(row: Row) -> float:
    """Inches that a row takes."""
    return LINE * (1.6 if row.head else 2.45)


def _labels(axes: Any, row: Row, y: float) -> None:
    """What a row is, and its numbers, above its line; `y` is the row's lower end."""
    at = {"xycoords": axes.get_yaxis_transform(), "va": "baseline", "annotation_clip": False}
    if row.head:
        axes.annotate(
            short(row.label, 50), (0, y - 0.03), size=NORMAL, color=colour(row.colour), weight="bold", **at
        )
        return
    numbers = f"{interval(row.effect)}  {row.word}".rstrip()
    high = y - 1.15 * LINE
    axes.annotate(short(row.label, 56 - len(numbers)), (0, high), size=SMALL, color=colour("ink"), **at)
    axes.annotate(numbers, (1, high), size=SMALL, color=colour(row.colour), ha="right", **at)


def _interval(axes: Any, effect: Effect, ink: str, y: float, margin: float) -> None:
    """An effect on its line, with the margin behind it; a hollow dot where there is no interval, an arrow
    where it goes on."""
    value = 100 * effect.estimate.value
    across = [y - 0.38 * LINE, y + 0.38 * LINE]
    axes.fill_betweenx(across, -margin, margin, color=colour("shade"), lw=0)
    axes.axhline(y, color=colour("rule"), lw=0.6, zorder=1)
    axes.plot([0, 0], across, color=colour("muted"), lw=0.9, solid_capstyle="butt")
    bounds = [100 * bound for bound in effect.interval or ()]
    if bounds:
        axes.plot(bounds, [y, y], color=ink, lw=2.0)
        low, high = axes.get_xlim()
        if bounds[0] < low:
            axes.plot(low, y, "<", ms=5, color=ink, clip_on=False)
        if bounds[1] > high:
            axes.plot(high, y, ">", ms=5, color=ink, clip_on=False)
    axes.plot(value, y, "o", ms=5.5, color=ink, mfc=ink if bounds else colour("paper"))


def budgets(report: Report, claims: Sequence[Claim], colours: dict[str, str]) -> Any:
    """Effects against the budget at which they are read, with intervals, the margin shaded; diamonds where
    curves cross."""
    from matplotlib.ticker import NullLocator

    names = [short(claim.title) for claim in claims]
    height = 3.0
    figure, axes = canvas(height, right=0.16 + CHARACTER * max(map(len, names)))
    axes.set_xscale("log")
    axes.axhspan(-100 * report.margin, 100 * report.margin, color=colour("shade"), lw=0)
    axes.axhline(0, color=colour("muted"), lw=0.8)
    last = []
    for i, claim in enumerate(claims):
        ink = colour(colours.get(claim.suspect, "ink"))
        aside = 1.025 ** (i - (len(claims) - 1) / 2)  # so that bars do not hide each other
        x = [share * report.budget * aside for share, _ in claim.by_budget]
        y = [100 * effect.estimate.value for _, effect in claim.by_budget]
        axes.plot(x, y, color=ink, lw=1.7, marker="o", ms=4, mec="none")
        for at, (_, effect) in zip(x, claim.by_budget, strict=True):
            if effect.interval is not None:
                axes.plot([at, at], [100 * bound for bound in effect.interval], color=ink, lw=1.2)
        crossed = [each.share * report.budget for each in claim.crossings]
        axes.plot(crossed, [0] * len(crossed), "D", ms=5, color=ink, mfc=colour("paper"), zorder=4)
        last.append(y[-1])
    axes.set_ylim(*view([effect for claim in claims for _, effect in claim.by_budget], report.margin))
    least = min(claim.by_budget[0][0] for claim in claims)
    ticks = [0.5**k * report.budget for k in range(1 - math.floor(math.log2(least)))]
    ticks = [tick for tick in ticks if tick >= 0.9 * least * report.budget]
    axes.set_xticks(ticks, [amount(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"budget ({UNITS[report.unit]})", fontsize=SMALL, color=colour("muted"))
    axes.set_ylabel(f"difference in {short(report.metric)} (points)", fontsize=SMALL, color=colour("muted"))
    axes.yaxis.set_major_locator(round_ticks())
    grid(axes, "y")
    name_ends(axes, height, names, last, [colours.get(claim.suspect, "ink") for claim in claims])
    return figure


def panels(
    report: Report, arms: Sequence[Arm], shown: Sequence[tuple[str, str]], colours: dict[str, str]
) -> Any:
    """Small charts of several held-out figures (name, label) against training compute, with one key."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator, NullLocator

    rows = -(-len(shown) // 2)
    keys = key_places([short(arm.name) for arm in arms])
    tall, gap, top = 1.15, 0.62, 0.34 + LINE * (1 + keys[-1][1])
    height = top + rows * (tall + gap)
    figure, spare = canvas(height)
    spare.remove()
    styles = dashes(arms, colours)
    first = min(arm.curves[0].budget[1] for arm in arms if len(arm.curves[0].budget) > 1) / 2.2
    wide, left, between = (WIDTH - 1.2) / 2, 0.44, 0.62
    for i, (name, label) in enumerate(shown):
        x, y = left + (i % 2) * (wide + between), height - top - (i // 2) * (tall + gap) - tall
        axes = figure.add_axes((x / WIDTH, y / height, wide / WIDTH, tall / height), facecolor="none")
        plain(axes)
        for arm in arms:
            curve = arm.curves[0]
            spent = [max(at, first) for at in curve.budget]
            ink = colour(colours[arm.name])
            axes.plot(spent, curve.metrics[name], color=ink, lw=1.4, ls=styles[arm.name])
        axes.set_xscale("log")
        axes.set_xticks([first, report.budget], ["start", amount(report.budget)])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        low, high = axes.get_ylim()
        axes.set_ylim(0.0 if 0 <= low < 0.5 * high else low, high)
        axes.set_title(label, fontsize=SMALL, color=colour("ink"), loc="left", pad=4)
        grid(axes, "y")
    figure.text(
        0.5, 0.04 / height, f"spent in training ({UNITS[report.unit]})", ha="center", va="bottom", size=SMALL
    ).set_color(colour("muted"))
    for arm, (x, line) in zip(arms, keys, strict=True):
        y = 1 - (0.16 + LINE * line) / height
        ink = colour(colours[arm.name])
        figure.add_artist(Line2D([x, x + 0.045], [y, y], color=ink, lw=1.6, ls=styles[arm.name]))
        figure.text(x + 0.058, y, short(arm.name), va="center", size=SMALL, color=ink)
    return figure


def key_places(names: Sequence[str]) -> list[tuple[float, int]]:
    """Places of a key's entries: (share of the width, line)."""
    out, x, line = [], 0.03, 0
    for name in names:
        wide = 0.1 + CHARACTER * len(name) / WIDTH
        if x + wide > 1 and x > 0.03:
            x, line = 0.03, line + 1
        out.append((x, line))
        x += wide
    return out


def stacked(arms: Sequence[Arm]) -> Any:
    """A bar per arm, cut by purpose; shares are written where they fit."""
    purposes = [p for p in PURPOSES if any(arm.shares.get(p, 0.0) >= VISIBLE for arm in arms)]
    bar, key = 0.36, 0.28
    height = bar * len(arms) + key + 0.1
    figure, axes = canvas(height, left=0.12, right=0.12, top=key, bottom=0.04)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(arms), 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for i, arm in enumerate(arms):
        left = 0.0
        axes.text(0, i + 0.42, short(arm.name, 40), fontsize=SMALL, color=colour("ink"), va="bottom")
        for purpose in purposes:
            share = 100 * arm.shares.get(purpose, 0.0)
            tint = PURPOSES.index(purpose) + 1
            axes.barh(i + 0.68, share, 0.44, left, color=colour(f"tint{tint}"), ec=colour("paper"), lw=0.6)
            if share >= 6:
                ink = colour("paper" if tint <= 2 else "ink")
                middle = left + share / 2
                axes.text(middle, i + 0.69, f"{share:.0f}", fontsize=7, color=ink, va="center", ha="center")
            left += share
    x = 0.0
    for purpose in purposes:  # the key, in inches from the left
        square = colour(f"tint{PURPOSES.index(purpose) + 1}")
        place = dict(xycoords="axes fraction", textcoords="offset points", va="center", fontsize=SMALL)
        at = (x / (WIDTH - 0.24), 1.0)
        axes.annotate("■", at, (0, 11), color=square, **place)
        axes.annotate(spaced(purpose), at, (11, 11), color=colour("ink"), **place)
        x += 0.3 + CHARACTER * len(purpose)
    return figure


def name_ends(axes: Any, height: float, names: list[str], ends: list[float], inks: list[str]) -> None:
    """Names of lines right of their ends, not on top of each other."""
    low, high = axes.get_ylim()
    places = apart(ends, LINE * (high - low) / (axes.get_position().height * height), low, high)
    for name, y, ink in zip(names, places, inks, strict=True):
        axes.annotate(
            name,
            (1.0, y),
            xytext=(6, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=colour(ink),
            annotation_clip=False,
        )
