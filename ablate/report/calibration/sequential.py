"""What simulation says of sequential experiments: `python -m ablate.report.calibration looks=4,8,12`

The experiments are those of `fixed`; each is looked at after its first 4, 8 and 12 seeds with the
intervals of `looks`, and stops when all of the family's verdicts are reached. One line per design, the fixed
one with all seeds among them:

- false: share of experiments with a false verdict of any suspect at any look, whether or not it would have
  stopped before: without an effect, and with one exactly at the margin; at most 5 %;
- stopped: the same at the look at which it stops;
- power: chance that all of the family's verdicts are right when it stops, without an effect and at twice the
  margin, and the seeds that it took, in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablate.report.calibration.fixed import EXPERIMENTS, FAMILY, chunks, contrasts
from ablate.report.calibration.world import MARGIN, World
from ablate.report.looks import Looks
from ablate.report.statistics import half_width, two_way


@dataclass(frozen=True)
class Row:
    """One design; shares of simulated experiments."""

    looks: Looks
    false_null: float
    false_margin: float
    stopped_null: float
    stopped_margin: float
    power_null: float
    power_helps: float
    seeds_null: float
    seeds_helps: float


def simulate(
    world: World, counts: Sequence[int], experiments: int, rng: np.random.Generator, family: int = FAMILY
) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """As `calibration.simulate`, of the first so many seeds of the same experiments, by their number."""
    sizes = np.array(world.sizes, dtype=float)
    judged: dict[int, list] = {count: [] for count in counts}
    for each in chunks(experiments):
        sums = contrasts(world, max(counts), each, rng, family)
        for count in counts:
            judged[count].append(two_way(sums[..., :count, :], sizes))
    found = {}
    for count, parts in judged.items():
        value, a, c, e = (np.concatenate(column) for column in zip(*parts, strict=True))
        found[count] = value, a, np.maximum(c - e, 0.0)
    return found


def table(
    world: World,
    designs: Sequence[Looks],
    experiments: int = EXPERIMENTS,
    margin: float = MARGIN,
    family: int = FAMILY,
    seed: int = 0,
) -> list[Row]:
    """One row per design, all on the same experiments, after that of one look at the end."""
    last = designs[0].at[-1]
    if any(each.at[-1] != last for each in designs):
        raise ValueError(f"designs with other numbers of seeds than {last}")
    counts = sorted({count for each in designs for count in each.at})
    drawn = simulate(world, counts, experiments, np.random.default_rng([seed, last]), family)
    return [_row(world, each, drawn, margin, family) for each in (Looks((last,)), *designs)]


def _row(world: World, looks: Looks, drawn: dict, margin: float, family: int) -> Row:
    error = np.stack([drawn[count][0] for count in looks.at])  # looks, experiments, family
    half = np.stack(
        [
            half_width(
                drawn[count][1],
                drawn[count][2],
                count,
                len(world.sizes),
                family,
                looks.confidence(i, family),
            )
            for i, count in enumerate(looks.at, 1)
        ]
    )
    words = {effect: _words(error + effect, half, margin) for effect in (0.0, margin, 2 * margin)}
    # at the margin: an interval that ends below it or begins above it, whatever its word
    beyond = (error + half < 0) | (error - half > 0)
    false = {0.0: np.isin(words[0.0], ("harmful", "helps", "above")), margin: beyond}
    stop = {effect: _stops(each) for effect, each in words.items()}
    seeds = {effect: np.array(looks.at)[each].mean() for effect, each in stop.items()}

    def at_stop(effect: float, each: np.ndarray) -> np.ndarray:
        return each[stop[effect], np.arange(each.shape[1])]

    helps = np.isin(words[2 * margin], ("helps", "above"))
    return Row(
        looks,
        float(false[0.0].any((0, 2)).mean()),
        float(false[margin].any((0, 2)).mean()),
        float(at_stop(0.0, false[0.0]).any(1).mean()),
        float(at_stop(margin, false[margin]).any(1).mean()),
        float(at_stop(0.0, words[0.0] == "not needed").all(1).mean()),
        float(at_stop(2 * margin, helps).all(1).mean()),
        float(seeds[0.0]),
        float(seeds[2 * margin]),
    )


def _words(value: np.ndarray, half: np.ndarray, margin: float) -> np.ndarray:
    """Verdicts as `verdict.decide` gives them; "above": helps, beyond the margin."""
    low, high = value - half, value + half
    cases = [high < 0, high < margin, low <= 0, low <= margin]
    return np.select(cases, ["harmful", "not needed", "inconclusive", "helps"], "above")


def _stops(words: np.ndarray) -> np.ndarray:
    """The index of the look at which each experiment stops."""
    reached = (words != "inconclusive").all(2)
    reached[-1] = True
    return reached.argmax(0)


def to_text(world: World, rows: Sequence[Row], experiments: int = EXPERIMENTS) -> str:
    """The table as Markdown."""
    parts = [f"{100 * each:.2f}" for each in (world.seed, world.problem, world.rest)]
    lines = [
        f"{experiments:,} simulated experiments, {FAMILY} suspects against one base, margin {100 * MARGIN:g} "
        "points; standard",
        f"deviations of a difference, in points: {parts[0]} by seed, {parts[1]} by problem, {parts[2]} by "
        "the rest.",
        "",
        "| looks | spending | false, any look: no effect | at the margin | false, where it stops: no effect "
        "| at the margin | all right at 0 | seeds | all right at 2 margins | seeds |",
        "|---|---|" + "---:|" * 8,
    ]
    for row in rows:
        fixed = len(row.looks.at) == 1
        false = (row.false_null, row.false_margin, row.stopped_null, row.stopped_margin)
        cells = [", ".join(map(str, row.looks.at)), "-" if fixed else row.looks.spending.replace("_", " ")]
        cells += [f"{100 * each:.1f} %" for each in false]
        cells += [f"{100 * row.power_null:.0f} %", f"{row.seeds_null:.1f}"]
        cells += [f"{100 * row.power_helps:.0f} %", f"{row.seeds_helps:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
