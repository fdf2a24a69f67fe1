"""A run's figures, from its record alone: figures/curves.svg and .png."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.record import primary, read_jsonl

INK, BLUE, GREY, ORANGE = "#1f2933", "#2563a8", "#9aa5b1", "#c2410c"
WIDTH, HEIGHT = 10.0, 3.2  # inches


def draw(folder: Path, title: str) -> list[Path]:
    """Accuracy, length and compute of a run against what it spent; returns the files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    evaluations, steps = read_jsonl(folder / "evaluations.jsonl"), read_jsonl(folder / "steps.jsonl")
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")  # not pyplot: no state, no display
    FigureCanvasAgg(figure)
    accuracy, length, truncated = figure.subplots(1, 3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    spent = [row["budget/flops"] for row in evaluations]

    during = [row["budget/flops"] for row in steps]
    accuracy.plot(during, _smooth([row["train/solved"] for row in steps]), color=GREY, lw=1, label="training")
    name = f"heldout/{primary(evaluations[-1])}"
    errors = [1.96 * (row[f"{name}_se"] or 0.0) for row in evaluations]
    values = [row[name] for row in evaluations]
    label = "held-out" if name.endswith("pass@1") else "held-out, in part"
    accuracy.errorbar(spent, values, errors, color=BLUE, marker="o", ms=4, capsize=2, label=label)
    _style(accuracy, "accuracy (± 95 %)", (0.0, 1.0))
    accuracy.legend(frameon=False, fontsize=8, loc="upper left")

    length.plot(during, _smooth([row["train/length"] for row in steps]), color=GREY, lw=1)
    length.plot(spent, [row["heldout/length"] for row in evaluations], color=BLUE, marker="o", ms=4)
    _style(length, "tokens per answer", (0.0, None))

    truncated.plot(during, _smooth([row["train/truncated"] for row in steps]), color=GREY, lw=1)
    cut = [row["heldout/truncated"] for row in evaluations]
    truncated.plot(spent, cut, color=ORANGE, marker="o", ms=4)
    _style(truncated, "share cut off at the cap", (0.0, 1.0))

    where = folder / "figures"
    where.mkdir(exist_ok=True)
    files = [where / "curves.svg", where / "curves.png"]
    for file in files:
        figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files


def _smooth(values: list[float], decay: float = 0.8) -> list[float]:
    """Exponential mean over batches."""
    out: list[float] = []
    for value in values:
        out.append(value if not out else decay * out[-1] + (1.0 - decay) * value)
    return out


def _style(axes: Any, label: str, limits: tuple[float | None, float | None]) -> None:
    axes.set_title(label, fontsize=9, color=INK, loc="left")
    axes.set_xlabel("training FLOPs (cached)", fontsize=8, color=INK)
    axes.set_ylim(*limits)
    axes.set_xlim(left=0.0)
    axes.tick_params(labelsize=8, colors=INK)
    axes.xaxis.get_offset_text().set_fontsize(8)
    axes.grid(axis="y", color="#e4e7eb", lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
