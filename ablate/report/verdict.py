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
    where that cannot be read. least, most: multiples that the other arm's runs cover. A multiple belongs to
    the interval unless the two arms differ there; the value is where the effect first falls to zero.
    """
    count = 2 + int(np.ceil(STEPS * np.log2(most / least)))
    found = [(m, difference(float(m))) for m in np.geomspace(least, most, count)]
    grid = np.array([m for m, each in found if each is not None])
    if len(grid) < 2:
        return None
    effect, low, high = np.array([each for _, each in found if each is not None]).T
    inside = np.flatnonzero((low <= 0) & (high >= 0))
    if len(inside):
        ends = (
            None if inside[0] == 0 else _crossing(grid, low, inside[0]),
            None if inside[-1] == len(grid) - 1 else _crossing(grid, high, inside[-1] + 1),
        )
    elif (above := low > 0).all() or (high < 0).all():
        ends = (None, None)
    else:  # from better to worse between two multiples
        change = int(np.argmin(above))
        ends = float(grid[change - 1]), float(grid[change])
    below = np.flatnonzero(effect <= 0)
    first = int(below[0]) if len(below) else 0
    value = _crossing(grid, effect, first) if first else None
    return Worth(value, ends, float(grid[0]), float(grid[-1]))


def _crossing(grid: np.ndarray, values: np.ndarray, after: int) -> float:
    """Where `values` pass zero between `after` - 1 and `after`, linearly in the logarithm of the multiple."""
    x, y = np.log(grid[after - 1 : after + 1]), values[after - 1 : after + 1]
    return float(np.exp(x[0] + (x[1] - x[0]) * y[0] / (y[0] - y[1])))
