"""From an effect to a word, and to what it is worth in compute. The first rule that matches counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ablate.report.content import Crossing, Effect, Word, Worth

LONGER = 4  # times the budget that the arm without the suspect gets before "needed" is said
STEPS = 16  # multiples or shares of the budget tried per doubling of compute


def decide(
    effect: Effect, margin: float, extended: Effect | None = None, at: str = "the budget"
) -> tuple[Word, tuple[str, ...]]:
    """The verdict on an effect and what must be said with it.

    extended: the effect against the arm without the suspect at 4x the budget, in the same units. at: what
    is multiplied, in words.
    """
    if effect.interval is None:
        return "no verdict", ("one seed: nothing tells how far another seed would be off",)
    low, high = effect.interval
    if low == high:  # as where no arm solves anything
        return "no verdict", ("nothing varied between seeds or problems: that tells nothing",)
    if high < 0:
        return "harmful", ()
    if high < margin:
        return "not needed", ()
    if low <= 0:
        return "inconclusive", ()
    if low <= margin:
        return "helps", ()
    if extended is None:
        return "helps", (f"needed not tested: no base run at {LONGER}x {at}",)
    if extended.interval is None:
        return "helps", (f"needed not tested: {LONGER}x {at} on one seed only",)
    if extended.interval[0] <= 0:
        return "helps", (f"needed not shown: the base with {LONGER}x {at} may be as good",)
    some, every = len(extended.seeds), len(effect.seeds)
    return "needed", (f"the base ran to {LONGER}x {at} on {some} of {every} seeds",) if some < every else ()


Difference = Callable[[float], tuple[float, float, float] | None]


def worth(difference: Difference, least: float, most: float) -> Worth | None:
    """The compute-equivalent gain by inversion of intervals.

    difference: (effect, low, high) of the arm at the budget against the other at a multiple of it, or None
    where that cannot be read; then there is no answer. least, most: multiples that the other arm's runs
    cover; 0 is asked for, too. A multiple belongs to the interval unless the two arms differ there; the value
    is where the effect first falls to zero.
    """
    grid = _grid(least, most)
    found = [each for each in (difference(float(multiple)) for multiple in grid) if each is not None]
    if len(found) < len(grid):
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
    first = int(below[0]) if len(below) else None
    if first:
        return Worth(_crossing(grid, effect, first), None, ends, float(grid[0]), float(grid[-1]))
    if first is None:
        return Worth(None, "more", ends, float(grid[0]), float(grid[-1]))
    start = difference(0.0)
    untrained = start is not None and start[0] <= 0
    return Worth(0.0 if untrained else None, "less", ends, float(grid[0]), float(grid[-1]))


def crossings(difference: Difference, least: float, most: float) -> tuple[Crossing, ...]:
    """Where an effect changes its sign between two shares of the budget.

    difference: (effect, low, high) at a share, or None where that cannot be read: there nothing is said.
    """
    read = [(share, found) for share in _grid(least, most) if (found := difference(float(share)))]
    if len(read) < 2:
        return ()
    grid = np.array([share for share, _ in read])
    effect, low, high = np.array([found for _, found in read]).T
    signs = np.sign(effect)
    for i in range(1, len(signs)):  # an effect of exactly zero belongs to what came before it
        signs[i] = signs[i] or signs[i - 1]
    out = []
    for after in 1 + np.flatnonzero(signs[1:] * signs[:-1] < 0):
        apart = np.flatnonzero((low > 0) | (high < 0))
        before, beyond = apart[apart < after], apart[apart >= after]
        bounds = (
            float(grid[before[-1]]) if len(before) else None,
            float(grid[beyond[0]]) if len(beyond) else None,
        )
        out.append(Crossing(_crossing(grid, effect, int(after)), bool(signs[after] > 0), bounds))
    return tuple(out)


def _grid(least: float, most: float) -> np.ndarray:
    return np.geomspace(least, most, 2 + int(np.ceil(STEPS * np.log2(most / least))))


def _crossing(grid: np.ndarray, values: np.ndarray, after: int) -> float:
    """Where `values` pass zero between `after` - 1 and `after`, linearly in the logarithm of the multiple."""
    x, y = np.log(grid[after - 1 : after + 1]), values[after - 1 : after + 1]
    if (y[0] > 0) == (y[1] > 0):  # a curve that is not monotone
        return float(grid[after])
    return float(np.exp(x[0] + (x[1] - x[0]) * y[0] / (y[0] - y[1])))
