"""A plan as it reads on a terminal, within 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from ablate.ledger import BUDGETED
from ablate.plan.content import Arm, Contrast, Outline, Time
from ablate.report.contrasts import TITLES

WIDTH = 96
PURPOSES = {"auxiliary_update": "aux. update", "warm_start": "warm start"}
MOST = "> 1000"


def to_text(outline: Outline) -> str:
    """The whole plan."""
    parts = [_head(outline), _compute(outline), _time(outline.time), _disk(outline), _power(outline)]
    if outline.notes:
        parts.append([line for note in outline.notes for line in _wrapped(note, "note: ")])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(outline: Outline) -> list[str]:
    arms, states = outline.arms, outline.states
    count, left = sum(arm.runs for arm in arms), sum(arm.left for arm in arms)
    seeds = len({seed for arm in arms for seed in arm.seeds})
    there = [
        f"{states[state]} {state}" for state in ("finished", "unfinished", "failed") if states.get(state)
    ]
    lines = [
        f"{outline.experiment}: {_many(count, 'run')} of {_many(len(arms), 'arm')} on {_many(seeds, 'seed')}"
        + (f"; on disk: {', '.join(there)}; {left} left" if there else "")
    ]
    budgets = dict.fromkeys(f"{_short(arm.budget)} {_unit(arm.unit)}" for arm in arms)
    split = {"heldout": "held-out"}.get(outline.split, outline.split)
    text = (
        f"{outline.task}, {outline.model} with {_size(outline.parameters)} parameters; "
        f"{' or '.join(budgets)} a run; at most {outline.cap} tokens an answer; "
        f"{outline.problems:,} {split} problems x {outline.samples} samples at {outline.evaluations} "
        "milestones"
    )
    return lines + _wrapped(text)


def _compute(outline: Outline) -> list[str]:
    arms = outline.arms
    used = [p for p in BUDGETED if any(arm.flops and arm.flops.get(p) for arm in arms)]
    sources = list(dict.fromkeys(arm.source for arm in arms))
    head = ["FLOPs of a run", "left", "updates", *(PURPOSES.get(p, p) for p in used), "evaluate", "time", ""]
    rows = []
    for arm in arms:
        split = [_short((arm.flops or {}).get(p), unknown=arm.flops is None) for p in used]
        rows.append(
            [
                _name(arm),
                f"{arm.left}/{arm.runs}",
                "?" if arm.updates is None else f"{arm.updates:,.0f}",
                *split,
                _short(arm.evaluate),
                "?" if arm.seconds is None else _span(sum(arm.seconds)),
                chr(ord("a") + sources.index(arm.source)),
            ]
        )
    totals = {"all runs": outline.flops, "what is left": outline.left}
    if not outline.left or outline.left == outline.flops:
        del totals["what is left"]
    for title, each in totals.items():
        rows.append([title, "", "", *(_short(each.get(p)) for p in (*used, "evaluate")), "", ""])
    lines = _table([head, *rows])
    for i, source in enumerate(sources):
        lines += _wrapped(_source(source, outline), f"{chr(ord('a') + i)}  ")
    starts = outline.warm_starts
    if starts:
        time = "" if starts.seconds is None else f", {_span(starts.seconds)}"
        made = f"{starts.missing} to be made" if starts.missing else "none to be made"
        lines.append(
            f"warm start: {_short(starts.flops)} FLOPs ({starts.source}{time}), one for each of "
            f"{_many(starts.needed, 'seed')}: {made}"
        )
    whole, left = sum(outline.flops.values()), sum(outline.left.values())
    rest = "" if left == whole else f", {_short(left)} of them left" if left else ", none of them left"
    lines.append(f"in all {_short(whole)} FLOPs with evaluation and warm starts{rest}")
    return lines


def _source(source: str, outline: Outline) -> str:
    if source != "estimated":
        return source
    return (
        "estimated: the strategy rehearsed on a stand-in for the policy, whose answers grow to "
        f"{outline.length:.0f} tokens in {outline.steps:.0f} steps (length=, steps=)"
    )


def _time(time: Time) -> list[str]:
    if time.wall is None or time.left is None or time.work is None:
        return [f"Time on {time.where}: not known", *_wrapped(time.why, "  ")]
    side = f"{time.at_a_time} runs at a time" if time.at_a_time > 1 else "one run at a time"
    whole = f"{_span(time.wall)} for all runs"
    if time.at_a_time > 1:
        whole += f", {_span(time.work)} one after the other"
    if time.left != time.wall:
        whole = f"{_span(time.left) if time.left else 'nothing'} for what is left; {whole}"
    return [f"Time on {time.where}, {side}:", *_wrapped(whole, "  "), *_wrapped(time.why, "  ")]


def _disk(outline: Outline) -> list[str]:
    each = max(arm.bytes for arm in outline.arms)
    free = "" if outline.free is None else f"; {_bytes(outline.free)} free"
    what = f"checkpoints, policy, outcomes per problem: at most {_bytes(each)} a run"
    return [f"Disk: {_bytes(outline.bytes)} ({what}){free}"]


def _power(outline: Outline) -> list[str]:
    margin = f"{100 * outline.margin:g} points"
    if not outline.contrasts:
        return [f"Power: no contrast to give a verdict on (margin {margin})"]
    head = [
        [f"Power (margin {margin})", "", "smallest", "chance of", "seeds for", "seeds for"],
        ["", "seeds", "effect seen", '"not needed"', '"not needed"', margin],
    ]
    rows: list[list[str]] = []
    on = ""
    for each in outline.contrasts:
        if each.on != on:
            on = each.on
            rows.append([f"on {on}", *[""] * 5])
        rows.append(
            [
                f"  {TITLES.get(each.suspect, each.suspect)}",
                str(each.seeds),
                "-" if each.smallest is None else f"{100 * each.smallest:.1f} points",
                "-" if each.not_needed is None else f"{100 * each.not_needed:.0f} %",
                f"{each.seeds_not_needed or MOST}",
                f"{each.seeds_margin or MOST}",
            ]
        )
    lines = _table([*head, *rows])
    lines += _wrapped(
        'effect seen: found to help with 80 % power; chance of "not needed": where there is no effect; '
        'seeds: for 80 % power, of "not needed" without an effect, and to see an effect of the margin'
    )
    return lines + _variances(outline.contrasts)


def _variances(contrasts: Sequence[Contrast]) -> list[str]:
    """Where the standard deviations come from, and what they are."""
    lines: list[str] = []
    for source in dict.fromkeys(each.source for each in contrasts):
        own = [each for each in contrasts if each.source == source]
        parts = [
            f"{_range(each.seed for each in own)} by seed",
            f"{_range(each.problem for each in own)} by problem",
            f"{_range(each.rest for each in own)} the rest",
        ]
        what = "assumed, no experiment measured them" if source == "assumed" else f"measured on {source}"
        lines += _wrapped(f"standard deviations of a difference, in points ({what}): {', '.join(parts)}")
    return lines


def _range(values: Iterable[float]) -> str:
    found = sorted(100 * value for value in values)
    low, high = f"{found[0]:.2g}", f"{found[-1]:.2g}"
    return low if low == high else f"{low} to {high}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart: the first left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _wrapped(text: str, first: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _name(arm: Arm) -> str:
    own = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in arm.settings.items())
    return f"{arm.name} {own}".rstrip()


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _unit(unit: str) -> str:
    return {"flops": "FLOPs"}.get(unit, unit)


def _short(value: float | None, unknown: bool = False) -> str:
    """7.2e11; - for nothing."""
    if not value:
        return "?" if unknown else "-"
    if value < 1e4:
        return f"{value:.3g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def _size(count: float) -> str:
    for factor, letter in ((1e9, "B"), (1e6, "M")):
        if count >= 0.1 * factor:
            return f"{count / factor:.2g}{letter}"
    return f"{count:,.0f}"


def _span(seconds: float) -> str:
    if 0 < seconds < 1:
        return "< 1 s"
    for limit, factor, name in ((100.0, 1.0, "s"), (6000.0, 60.0, "min"), (172800.0, 3600.0, "h")):
        if seconds < limit:
            value = seconds / factor
            return f"{value:.1f} {name}" if value < 10 and name != "s" else f"{value:.0f} {name}"
    return f"{seconds / 86400:.1f} days"


def _bytes(count: float) -> str:
    for factor, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return f"{count / factor:.3g} {name}"
    return f"{count / 1e3:.0f} kB"
