"""How the report's figures look: palette, canvas, and a figure as SVG for the page and as files.

Figures are narrow, so that their text stays readable on a telephone. In the page their colours are CSS
variables, one set for light and one for dark; as files they stand on white.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from ablate.record import atomic_write

# name -> (light, dark). Suspects: blue, vermilion, green and purple of Okabe & Ito's palette for all kinds of
# colour vision, darkened or lightened to 4.5:1 on the page; each light colour is unique, and so replaceable.
PALETTE = {
    "paper": ("#fffffe", "#14181d"),
    "ink": ("#1f2933", "#e4e8ec"),
    "muted": ("#5a6672", "#9aa6b2"),
    "rule": ("#dfe3e8", "#323a43"),
    "shade": ("#eceff3", "#232a32"),
    "process": ("#0a66b2", "#6cb4f5"),
    "search": ("#b84800", "#ff9950"),
    "correct": ("#00775a", "#3fcb9f"),
    "full": ("#8f3f98", "#dd9be4"),
    "own1": ("#7d5a12", "#d9b25c"),
    "own2": ("#a32a55", "#f58fb0"),
    "own3": ("#48607d", "#a3bedd"),
    "tint1": ("#35424f", "#d6dde4"),
    "tint2": ("#71808f", "#98a5b2"),
    "tint3": ("#aab6c2", "#66737f"),
    "tint4": ("#c3ccd5", "#515c67"),
    "tint5": ("#d8dee4", "#414a54"),
    "tint6": ("#e9edf0", "#2c333b"),
}
WIDTH = 4.6  # inches
SMALL, NORMAL = 8.0, 8.8  # points
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: the page's font, searchable
    "text.parse_math": False,  # names from files are no formulas
    "font.family": "DejaVu Sans",
    "font.size": NORMAL,
    "axes.unicode_minus": False,
    "axes.linewidth": 0.7,
    "lines.solid_capstyle": "round",
}


def colour(name: str) -> str:
    """A colour of the palette as drawn; the page puts a variable in its place."""
    return PALETTE[name][0]


def canvas(
    height: float, left: float = 0.52, right: float = 0.15, top: float = 0.12, bottom: float = 0.5
) -> Any:
    """(figure, axes) of this height with these margins, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), facecolor=colour("paper"))  # not pyplot: no state, no display
    FigureCanvasAgg(figure)
    size = (1 - (left + right) / WIDTH, 1 - (top + bottom) / height)
    axes = figure.add_axes((left / WIDTH, bottom / height, *size), facecolor="none")
    plain(axes)
    return figure, axes


def plain(axes: Any) -> None:
    """No frame; quiet ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(colour("muted"))
    axes.tick_params(labelsize=SMALL, colors=colour("muted"), width=0.7, length=3)


def round_ticks() -> Any:
    """A few ticks at round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(7, steps=[1, 2, 5, 10])


def grid(axes: Any, axis: str) -> None:
    """Thin lines behind the data."""
    axes.grid(axis=axis, color=colour("rule"), lw=0.6)
    axes.set_axisbelow(True)


def save(folder: Path, name: str, draw: Callable[[], Any]) -> str:
    """Draw a figure and write `name`.svg and `name`.png into the folder; returns the SVG for the page."""
    import matplotlib

    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = draw()
        text, pixels = StringIO(), BytesIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        figure.savefig(pixels, format="png", dpi=200)
    # matplotlib repeats every text in a comment, unescaped
    svg = re.sub(r"<!--.*?-->\s*", "", text.getvalue(), flags=re.DOTALL)
    atomic_write(folder / f"{name}.svg", svg.encode())
    atomic_write(folder / f"{name}.png", pixels.getvalue())
    return inline(svg, name)


def inline(svg: str, name: str) -> str:
    """An SVG without comments as part of a page: no prologue, no metadata, ids of its own, colours as
    variables."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None, "matplotlib's SVG has a viewBox"
    inside = re.split(r"(<text[^>]*>[^<]*</text>)", body)  # names from files stay as they are
    inside[::2] = [_ours(part, name) for part in inside[::2]]
    inside[1::2] = [_variables(part) for part in inside[1::2]]
    return f'<svg {box[0]} aria-hidden="true">' + "".join(inside)


def _ours(svg: str, name: str) -> str:
    svg = re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#([^"]*)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", svg)
    return _variables(svg)


def _variables(svg: str) -> str:
    """Colours inside tags as variables."""
    names = {light: name for name, (light, _) in PALETTE.items()}

    def swap(tag: re.Match[str]) -> str:
        return re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var(--{names[m[0]]})" if m[0] in names else m[0], tag[0])

    return re.sub(r"<[^>]*>", swap, svg)


def style() -> str:
    """The palette as CSS variables: dark where the reader's machine is set to it, light on paper."""
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in PALETTE.items()) for i in (0, 1))
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def apart(positions: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Positions moved as little as needed to lie at least this far from each other and, as far as there is
    room, between two bounds; in the same order."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[list[float]] = []  # [sum of wanted first places, members]
    for rank, i in enumerate(order):
        groups.append([positions[i] - rank * least, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, members = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += members
    placed = [total / members for total, members in groups for _ in range(int(members))]
    moved = [0.0] * len(positions)
    for rank, (i, place) in enumerate(zip(order, placed, strict=True)):
        most = max(low + rank * least, high - (len(order) - 1 - rank) * least)
        moved[i] = min(max(place + rank * least, low + rank * least), most)
    return moved


def short(text: str, most: int = 26) -> str:
    """A name that fits beside a figure, on one line."""
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1] + "…"
