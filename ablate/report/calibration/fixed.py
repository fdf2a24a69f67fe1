"""Simulated experiments of a fixed design, whose true effect is known, judged as real ones are.

One line per number of seeds:

- false: how often any of the family's verdicts is wrong, without an effect (harmful, helps or needed) and
  with one exactly at the margin (not needed, or an interval above the margin); at most 5 %; the two
  agree, because an effect moves the intervals and changes nothing else;
- covered: how often the true effects lie in all of the family's intervals, and in a single 95 % interval;
- width: the mean width of a single and of a simultaneous interval, over that with known variances;
- power: chance of a verdict as predicted by `statistics.chances`, and as simulated: "not needed" without an
  effect and "helps" at twice the margin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ablate.report.calibration.world import MARGIN, World
from ablate.report.statistics import LEVEL, chances, critical, half_width, two_way

SEEDS = (2, 3, 4, 8, 12, 16)
EXPERIMENTS = 4000
FAMILY = 3


@dataclass(frozen=True)
class Row:
    """One line of the table; shares of simulated experiments."""

    seeds: int
    false_null: float
    false_margin: float
    covered: float
    covered_alone: float
    width: float
    width_alone: float
    power_null: tuple[float, float]  # predicted, simulated
    power_helps: tuple[float, float]


def simulate(
    world: World, seeds: int, experiments: int, rng: np.random.Generator, family: int = FAMILY
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(errors, A, C - E), each (experiments, family): estimates of effects that are zero.

    Every arm is compared with the same base. A true effect adds itself to the errors and changes nothing
    else.
    """
    parts = [contrasts(world, seeds, count, rng, family) for count in chunks(experiments)]
    sizes = np.array(world.sizes, dtype=float)
    judged = [two_way(sums, sizes) for sums in parts]
    value, a, c, e = (np.concatenate(column) for column in zip(*judged, strict=True))
    return value, a, np.maximum(c - e, 0.0)


def chunks(experiments: int) -> Iterator[int]:
    """Experiments at a time, so that memory is bounded."""
    for start in range(0, experiments, 250):
        yield min(250, experiments - start)


def contrasts(world: World, seeds: int, count: int, rng: np.random.Generator, family: int) -> np.ndarray:
    """Sums within clusters of the differences between each arm and the base (count, family, seeds,
    clusters)."""
    sizes = np.array(world.sizes, dtype=np.float32)
    arms, total = family + 1, sizes.sum()

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_normal((count, arms, *shape), dtype=np.float32)

    seed = noise(seeds, 1)
    if world.tails is not None:  # variance 1 with heavy tails
        heavy = rng.standard_t(world.tails, seed.shape) / np.sqrt(world.tails / (world.tails - 2))
        seed = heavy.astype(np.float32)
    seed[:, -1] *= world.uneven
    # the variance of the mean is that of cluster sums over total^2
    within = world.alike * sizes**2 + (1 - world.alike) * sizes
    problem = noise(1, len(sizes)) * np.sqrt(within / within.sum()) * total
    rest = noise(seeds, len(sizes)) * np.sqrt(sizes / total) * total
    arm = world.seed * seed * sizes + world.problem * problem + world.rest * rest
    return (arm[:, 1:] - arm[:, :1]) / np.float32(2**0.5)


def table(
    world: World,
    seeds: Sequence[int] = SEEDS,
    experiments: int = EXPERIMENTS,
    margin: float = MARGIN,
    family: int = FAMILY,
    seed: int = 0,
) -> list[Row]:
    """One row per number of seeds; seed: of the simulation."""
    return [
        _row(world, count, experiments, margin, family, np.random.default_rng([seed, count]))
        for count in seeds
    ]


def _row(
    world: World, seeds: int, experiments: int, margin: float, family: int, rng: np.random.Generator
) -> Row:
    error, a, c = simulate(world, seeds, experiments, rng, family)
    half, alone = (half_width(a, c, seeds, len(world.sizes), size) for size in (family, 1))
    outside = np.abs(error) > half
    # no effect: an interval off zero on either side; at the margin: one that ends below it or begins above it
    false_null = outside.any(1).mean()
    shifted = error + margin
    false_margin = ((shifted + half < margin) | (shifted - half > margin)).any(1).mean()
    known = np.sqrt(error.var(0))
    z, z_alone = critical(np.inf, family), critical(np.inf)
    predicted = [chances(effect, margin, world.components, seeds, family) for effect in (0.0, 2 * margin)]
    not_needed = (error + half < margin) & (error + half >= 0)
    doubled = error + 2 * margin
    helps = (doubled - half > 0) & (doubled + half >= margin)
    return Row(
        seeds,
        float(false_null),
        float(false_margin),
        float(1 - outside.any(1).mean()),
        float((np.abs(error) <= alone).mean()),
        float((half.mean(0) / (z * known)).mean()),
        float((alone.mean(0) / (z_alone * known)).mean()),
        (predicted[0]["not needed"], float(not_needed.mean())),
        (predicted[1]["helps"], float(helps.mean())),
    )


def to_text(world: World, rows: list[Row], experiments: int = EXPERIMENTS) -> str:
    """The table as Markdown."""
    lines = [
        f"{experiments:,} simulated experiments per line, {FAMILY} suspects against one base, margin "
        f"{100 * MARGIN:g} points, {100 * LEVEL:g} % intervals simultaneous over the {FAMILY};",
        f"standard deviations of a difference, in points: {100 * world.seed:.2f} by seed, "
        f"{100 * world.problem:.2f} by problem, {100 * world.rest:.2f} by the rest.",
        "",
        "| seeds | false: no effect | false: at the margin | covered: all | covered: one "
        "| width: simultaneous | width: one | power at 0: predicted, simulated | power at 2 margins |",
        "|---:" * 9 + "|",
    ]
    for row in rows:
        share = (row.false_null, row.false_margin, row.covered, row.covered_alone)
        cells = [f"{row.seeds}", *(f"{100 * each:.1f} %" for each in share)]
        cells += [f"{row.width:.2f}x", f"{row.width_alone:.2f}x"]
        cells += [f"{100 * a:.0f} %, {100 * b:.0f} %" for a, b in (row.power_null, row.power_helps)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
