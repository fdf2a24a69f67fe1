"""Looking at an experiment while it goes on: at declared numbers of seeds, without more false verdicts.

A look at S seeds estimates effect + P + (U_1 + ... + U_S) / S, where P is what the held-out problems add and
U_s what seed s adds (`statistics`: Var P = C - E, Var U = S A). P is the same at every look, and no seed
shrinks it. So for looks at S_l <= S_m

    Var(l) = Var P + Var U / S_l        Cov(l, m) = Var P + Var U / S_m = Var(m)

which is the canonical joint distribution of group sequential trials (Jennison & Turnbull, Group Sequential
Methods, 2000, section 3.1) with information 1 / Var(l): it is not proportional to the seeds and ends at
1 / Var P. Two things follow.

- What error may be spent by a look is a function of the seeds declared, S_l / S_last, not of information,
  which is not known beforehand. Any time that the data do not decide is allowed (Lan & DeMets, 1983,
  Biometrika 70; 1989, Statistics in Medicine 8). With alpha one interval's error, Lan & DeMets' functions are

      obrien_fleming  2 - 2 Phi(z(1 - alpha/2) / sqrt(S_l / S_last))   little early, the last almost whole
      pocock          alpha ln(1 + (e - 1) S_l / S_last)               about alike at every look

- Boundaries are those of Var P = 0, where looks correlate by sqrt(S_l / S_m). With Var P > 0 they correlate
  more, sqrt(Var(m) / Var(l)), so that one of them errs less often: the boundaries hold whatever the ratio
  of the two parts, which a few seeds estimate badly.

A boundary z_l is used as a confidence, p_l = 2 Phi(z_l) - 1: the interval of look l is that of `statistics`
at p_l, with the degrees of freedom of that look. That takes each look's small sample exactly and only the
dependence between looks from the normal distribution (Jennison & Turnbull, section 3.8): where the problems
add nothing at all and the first look has 4 seeds, three looks err in 4.9 % (obrien_fleming) or 5.3 % (pocock)
of the cases instead of 5, and in less where they add something, as they do. The intervals are
repeated confidence intervals (Jennison & Turnbull, 1989, JRSS B 51): all of a suspect's hold together with
.95^(1/m), m the family, whatever the rule by which one stops, and those of the family with 95 % (Sidak; for
symmetric convex sets, Royen, 2014, Far East J. Theor. Stat. 48). `calibration looks=...` simulates.

Assumed: seeds are independent and alike; the problems stay the same; looks and spending were declared before
the runs; no look was taken elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

import numpy as np

from ablate.config import Spending, check_looks
from ablate.report.statistics import LEVEL
from ablate.schema import nearest
from ablate.types import UserError

SPENDINGS: tuple[str, ...] = get_args(Spending)
GRID = 501  # points of the numerical integral, odd: Simpson's rule


@dataclass(frozen=True)
class Looks:
    """When an experiment is looked at. at: numbers of seeds, growing, the last one the whole design.

    Raises UserError.
    """

    at: tuple[int, ...]
    spending: str = "obrien_fleming"

    def __post_init__(self) -> None:
        if not self.at:
            raise UserError("looks names no number of seeds, as in looks=4,8,12")
        check_looks(self.at)
        if self.spending not in SPENDINGS:
            raise UserError(f"spending={self.spending} is not a choice; {nearest(self.spending, SPENDINGS)}")

    def number(self, seeds: int) -> int | None:
        """Which look this many seeds are, from 1; None: none that was declared."""
        return self.at.index(seeds) + 1 if seeds in self.at else None

    def spent(self, number: int, family: int = 1) -> float:
        """The error that one interval, simultaneous over `family`, may have made by look `number`."""
        return float(_spent(self.at[number - 1] / self.at[-1], 1 - LEVEL ** (1 / family), self.spending))

    def confidence(self, number: int, family: int = 1) -> float:
        """Of one interval at look `number`, so that all looks' and the family's hold together with 95 %."""
        return _confidences(self.at, self.spending, family)[number - 1]


def parse(text: str, spending: str = "obrien_fleming") -> Looks:
    """`4,8,12`. Raises UserError."""
    try:
        at = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"looks={text} is no list of numbers of seeds, as in looks=4,8,12") from None
    return Looks(at, spending)


def _spent(time: float, alpha: float, spending: str) -> Any:
    from scipy.special import ndtr, ndtri

    if spending == "pocock":
        return alpha * np.log1p((np.e - 1) * time)
    return 2 * ndtr(-ndtri(1 - alpha / 2) / np.sqrt(time))


@lru_cache(maxsize=64)
def _confidences(at: tuple[int, ...], spending: str, family: int) -> tuple[float, ...]:
    """2 Phi(z_l) - 1 for each look."""
    from scipy.special import ndtr

    alpha = 1 - LEVEL ** (1 / family)
    spent = [float(_spent(seeds / at[-1], alpha, spending)) for seeds in at]
    return tuple(float(1 - 2 * ndtr(-z)) for z in boundaries(at, spent))


def boundaries(times: Sequence[float], spent: Sequence[float]) -> list[float]:
    """z_l such that |Z| crosses one of z_1 .. z_l with probability spent_l, where Z_l = B(times_l) /
    sqrt(times_l) of a Brownian motion B.

    The density of B on the paths that have not crossed is carried from look to look by numerical integration
    (Armitage, McPherson & Rowe, 1969, JRSS A 132; Jennison & Turnbull, chapter 19).
    """
    from scipy.special import ndtr, ndtri

    root = np.sqrt(times[0])
    found = [float(-ndtri(spent[0] / 2))]
    points, weights = _simpson(found[0] * root)
    density = np.exp(-0.5 * (points / root) ** 2) / (root * np.sqrt(2 * np.pi))
    for before, time, used, total in zip(times, times[1:], spent, spent[1:], strict=False):
        step, root = np.sqrt(time - before), np.sqrt(time)
        mass = weights * density
        old = points

        def crossing(z: float, old: Any = old, mass: Any = mass, step: Any = step, root: Any = root) -> float:
            above, below = (z * root - old) / step, (-z * root - old) / step
            return float(mass @ (ndtr(-above) + ndtr(below)))

        found.append(_solve(crossing, total - used))
        points, weights = _simpson(found[-1] * root)
        kernel = np.exp(-0.5 * ((points[:, None] - old) / step) ** 2) / (step * np.sqrt(2 * np.pi))
        density = kernel @ mass
    return found


def _solve(crossing: Callable[[float], float], wanted: float) -> float:
    """The z at which a falling probability is `wanted`."""
    from scipy.optimize import brentq

    return float(brentq(lambda z: crossing(z) - wanted, 0.0, 12.0, xtol=1e-10))


def _simpson(end: float) -> tuple[Any, Any]:
    """(points, weights) of Simpson's rule on [-end, end]."""
    points = np.linspace(-end, end, GRID)
    weights = np.full(GRID, 2.0)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    return points, weights * (points[1] - points[0]) / 3
