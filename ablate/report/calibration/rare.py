"""Where the intervals fail: an arm that learns on some seeds and not on others.

An arm succeeds on a share of all seeds, with a large gain, against a base that never does. A few seeds may
all fall on one side, and nothing in them tells: so the report names arms that did not learn on every seed
(`ablate.report.learned`). One line per share and number of seeds: how often the true effect lies in the
interval, and how often that ends below the margin, which would be called not needed or harmful.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablate.report.calibration.fixed import EXPERIMENTS, FAMILY, chunks, contrasts
from ablate.report.calibration.world import MARGIN, World
from ablate.report.statistics import half_width, two_way

SHARES = (0.1, 0.25, 0.5, 0.9)
SEEDS = (4, 8, 16)
GAIN = 0.97


def table(
    world: World, experiments: int = EXPERIMENTS, seed: int = 0
) -> list[tuple[float, int, float, float]]:
    """(share of seeds on which it learns, seeds, covered, ends below the margin)."""
    return [
        (share, seeds, *_row(world, share, seeds, experiments, np.random.default_rng([seed, i, seeds])))
        for i, share in enumerate(SHARES)
        for seeds in SEEDS
    ]


def _row(
    world: World, share: float, seeds: int, experiments: int, rng: np.random.Generator
) -> tuple[float, float]:
    sizes = np.array(world.sizes, dtype=float)
    covered, below = [], []
    for count in chunks(experiments):
        learns = rng.random((count, 1, seeds, 1)) < share
        sums = contrasts(world, seeds, count, rng, 1) + GAIN * learns * sizes
        value, a, c, e = two_way(sums, sizes)
        half = half_width(a, np.maximum(c - e, 0.0), seeds, len(sizes), FAMILY)
        covered.append(np.abs(value - share * GAIN) <= half)
        below.append(value + half < MARGIN)
    return float(np.concatenate(covered).mean()), float(np.concatenate(below).mean())


def to_text(rows: Sequence[tuple[float, int, float, float]], experiments: int = EXPERIMENTS) -> str:
    """The table as Markdown."""
    lines = [
        "",
        f"Where they fail: an arm that gains {100 * GAIN:g} points on some seeds and nothing on others, "
        f"{experiments:,} experiments per line. The report names such arms as far as they can be seen.",
        "",
        "| learns on | seeds | covered (simultaneous) | interval ends below the margin |",
        "|---:|---:|---:|---:|",
        *(f"| {100 * p:.0f} % | {n} | {100 * hit:.1f} % | {100 * low:.1f} % |" for p, n, hit, low in rows),
    ]
    return "\n".join(lines) + "\n"
