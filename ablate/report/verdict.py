"""From an effect to a word, and to what it is worth in compute. The first rule that matches counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ablate.report.content import Effect, Word, Worth

LONGER = 4  # times the budget that the arm without the suspect gets before "needed" is said
STEPS = 16  # multiples of the budget tried per doubling of compute


def decide(effect: Effect, margin: float, extended: Effect | None = None) -> tuple[Word, tuple[str, ...]]:
    """The verdict on an effect and what must be said with it.

    extended: the effect against the arm without the suspect at 4x the budget, in the same units.
    """
    if effect.interval is None:
        return "no verdict", ("one seed: nothing tells how far another seed would be off",)
    low, high = effect.interval
    if high < 0:
        return "harmful", ()
    if high < margin:
        return "not needed", ()
    if low > margin:
        if extended is None or extended.interval is None:
            return "helps", (f"needed not shown: no base run at {LONGER}x the budget",)
        if extended.interval[0] > 0:
            return "needed", ()
        return "helps", (f"needed not shown: the base with {LONGER}x the budget is not below it",)
    if low > 0:
        return "helps", ()
    return "inconclusive", ()


def worth(
    difference: Callable[[float], tuple[float, float, float] | None], least: float, most: float
) -> Worth | None:
    """The compute-equivalent gain by inversion of intervals.

    difference: (effect, low, high) of the arm at the budget against the other at a multiple of it, or None
    where that cannot be read; then there is no answer. least, most: multiples that the other arm's runs
    cover. A multiple belongs to the interval unless the two arms differ there; the value is where the effect
    first falls to zero.
    """
    count = 2 + int(np.ceil(STEPS * np.log2(most / least)))
    grid = np.geomspace(least, most, count)
    found = [each for each in (difference(float(multiple)) for multiple in grid) if each is not None]
    if len(found) < count:
        return None
    effect, low, high = np.array(found).T
    inside = np.flatnonzero((low <= 0) & (high >= 0))
    ends: tuple[float | None, float | None]
    if len(inside):
        ends = (
            None if inside[0] == 0 else _crossing(grid, low, inside[0]),
            None if inside[-1] == len(grid) - 1 else _crossing(grid, high, inside[-1] + 1),
        )
    else:  # better at all multiples, worse at all, or from better to worse between two
        change = int(np.searchsorted(high < 0, True))
        ends = (
            float(grid[change - 1]) if change else None,
            float(grid[change]) if change < len(grid) else None,
        )
    below = np.flatnonzero(effect <= 0)
    first = int(below[0]) if len(below) else 0
    value = _crossing(grid, effect, first) if first else None
    return Worth(value, ends, float(grid[0]), float(grid[-1]))


def _crossing(grid: np.ndarray, values: np.ndarray, after: int) -> float:
    """Where `values` pass zero between `after` - 1 and `after`, linearly in the logarithm of the multiple."""
    x, y = np.log(grid[after - 1 : after + 1]), values[after - 1 : after + 1]
    if (y[0] > 0) == (y[1] > 0):  # a curve that is not monotone
        return float(grid[after])
    return float(np.exp(x[0] + (x[1] - x[0]) * y[0] / (y[0] - y[1])))
