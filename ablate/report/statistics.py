"""An effect and its interval from paired outcomes, seeds and problems both random.

The difference of accuracies d_sp of seed s on problem p is modelled as effect + seed + cluster + rest, where
a seed stands for everything that it decides (warm start, problem stream, sampling) and a cluster for problems
that are alike. With T_sk the sum of d over cluster k, N problems, K clusters, S seeds and

    effect = sum_sk T_sk / (S N)        z_sk = (K / N) (T_sk - n_k effect)

the z have mean zero, and the mean squares of a two-way layout without replication give the variance without
bias (Searle, Casella & McCulloch, Variance Components, 1992, section 4.3; z is the linearised ratio, as in
cluster-robust errors):

    A = MS_seed / (S K)   C = MS_cluster / (S K)   E = MS_rest / (S K)        Var(effect) = A + (C - E)

where C - E, the part of the problems alone, is cut at zero. The interval at confidence p is

    effect +- t(p, f) sqrt(A + C - E)        f = (a + c)^2 / (a^2 / (S-1) + c^2 / (K-1))
                                             a = t(p, S-1)^2 A    c = t(p, K-1)^2 (C - E)

With a = A and c = C - E, f would be Satterthwaite's (1946, Biometrics 2), which is too large with few seeds
just when A is underestimated: 4 seeds and three suspects gave 8 % false verdicts for 5. Each part weighed
with the square of its own t, as in Banerjee's interval effect +- sqrt(a + c) (1960, Sankhya 22), f errs to
the other side: its coverage, integrated over the chi-squares of both parts, is nowhere below p by more than
.0005, whatever the parts' sizes, from 2 seeds and 30 clusters on (a test does the integral; `calibration`
simulates). Banerjee's own never falls below p at all, and is about 4 % wider with 8 seeds.

Where seeds are all that varies there is nothing to gain: the mean width is t(p, S-1) c4(S) / t(p, inf) that
of a known variance, c4(S) = sqrt(2 / (S-1)) Gamma(S/2) / Gamma((S-1)/2), which with 8 seeds is 1.16 for one
interval and 1.26 for each of three that hold together.

The intervals of a family of m effects hold together with probability 95 %: each has p = .95^(1/m). That is
Sidak's bound (1967), which needs no correlations: contrasts that share an arm are positively correlated and
have standard errors of their own. A maximum-t interval would be about 2 % narrower and need a numerical
integral; Bonferroni's is 0.3 % wider. Seed variances are not pooled over arms, because an arm that wavers
more than the others would then get too short an interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "LEVEL",
    "Components",
    "Estimate",
    "chances",
    "critical",
    "detectable",
    "estimate",
    "half_width",
    "seeds_for",
    "seeds_to_settle",
    "two_way",
]

LEVEL = 0.95
POWER = 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Components:
    """What makes an effect vary, as contributions to the variance of its mean over all problems.

    seed, rest: of one seed; they are divided by the number of seeds. problem: of the problems (in clusters);
    more seeds do not reduce it. clusters: how many there are.
    """

    seed: float
    problem: float
    rest: float
    clusters: int

    def parts(self, seeds: int) -> tuple[float, float]:
        """(A, C - E) to expect with this many seeds."""
        return (self.seed + self.rest) / seeds, self.problem


@dataclass(frozen=True)
class Estimate:
    """An effect, in accuracy. Without components there was a single seed: nothing tells then how far another
    one would be off. by_seed, by_problem: the parts A and C - E of the variance."""

    value: float
    seeds: int
    problems: int
    by_seed: float = 0.0
    by_problem: float = 0.0
    components: Components | None = None

    @property
    def se(self) -> float | None:
        """Standard error."""
        return None if self.components is None else (self.by_seed + self.by_problem) ** 0.5

    def interval(self, family: int = 1, confidence: float | None = None) -> tuple[float, float] | None:
        """The 95 % interval, simultaneous over `family` effects. confidence: of it alone, instead."""
        if self.components is None:
            return None
        clusters = self.components.clusters
        half = half_width(self.by_seed, self.by_problem, self.seeds, clusters, family, confidence)
        return self.value - float(half), self.value + float(half)


def estimate(differences: np.ndarray, clusters: np.ndarray) -> Estimate:
    """The effect from differences (seeds, problems) and the problems' cluster labels (problems,)."""
    seeds, problems = differences.shape
    names, label = np.unique(clusters, return_inverse=True)
    if seeds < 2 or len(names) < 2:
        return Estimate(float(differences.mean()), seeds, problems)
    sums = np.stack([np.bincount(label, weights=row) for row in differences])
    value, a, c, e = two_way(sums, np.bincount(label))
    components = Components(
        seed=max(float(a - e) * seeds, 0.0),
        problem=max(float(c - e), 0.0),
        rest=float(e) * seeds,
        clusters=len(names),
    )
    return Estimate(float(value), seeds, problems, float(a), components.problem, components)


def two_way(sums: np.ndarray, sizes: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """(effect, A, C, E) of many experiments at once.

    sums: differences summed within clusters (..., seeds, clusters), at least 2 of each; sizes: problems per
    cluster.
    """
    seeds, count = sums.shape[-2:]
    value = sums.sum((-1, -2)) / (seeds * sizes.sum())
    z = (sums - sizes * value[..., None, None]) * (count / sizes.sum())
    of_seeds = count * (z.mean(-1) ** 2).sum(-1)
    of_clusters = seeds * (z.mean(-2) ** 2).sum(-1)
    rest = np.maximum((z**2).sum((-1, -2)) - of_seeds - of_clusters, 0.0)
    cells, df_s, df_k = seeds * count, seeds - 1, count - 1
    return value, of_seeds / df_s / cells, of_clusters / df_k / cells, rest / (df_s * df_k) / cells


def half_width(
    by_seed: Any,
    by_problem: Any,
    seeds: int,
    clusters: int,
    family: int = 1,
    confidence: float | None = None,
) -> Any:
    """Half the 95 % interval, simultaneous over `family` effects, from the parts A and C - E >= 0.
    confidence: of this one interval, instead."""
    f, g = seeds - 1, clusters - 1
    t, u = critical(f, family, confidence), critical(g, family, confidence)
    a, c = t**2 * by_seed, u**2 * by_problem
    squares = np.asarray(a**2 / f + c**2 / g, dtype=float)
    nothing = squares == 0.0  # no variance at all
    df = np.where(nothing, f, (a + c) ** 2 / np.where(nothing, 1.0, squares))
    return critical(df, family, confidence) * np.sqrt(by_seed + by_problem)


def critical(df: Any, family: int = 1, confidence: float | None = None) -> Any:
    """How many standard errors a two-sided interval reaches to either side (Student's t)."""
    from scipy.special import stdtrit

    return stdtrit(df, 0.5 + 0.5 * (LEVEL ** (1 / family) if confidence is None else confidence))


def chances(
    effect: float,
    margin: float,
    components: Components,
    seeds: int,
    family: int = 1,
    confidence: float | None = None,
) -> dict[str, float]:
    """The probability of each verdict with at least 2 seeds if the true effect is `effect`. confidence: of
    one interval, instead of 95 % over the family.

    "helps" includes "needed": which of them it is depends on the base with 4x the budget. The seeds' part of
    the estimated variance is a scaled chi-square; the problems' part is taken for known.
    """
    from scipy.special import chdtri, ndtr

    a, c = components.parts(seeds)
    if a + c <= 0:
        word = "harmful" if effect < 0 else "not needed" if effect < margin else "helps"
        return {name: float(name == word) for name in ("harmful", "not needed", "helps", "inconclusive")}
    drawn = a * chdtri(seeds - 1, (np.arange(400) + 0.5) / 400) / (seeds - 1)
    # in true standard errors
    half = half_width(drawn, c, seeds, components.clusters, family, confidence) / np.sqrt(a + c)
    theta, d = effect / np.sqrt(a + c), margin / np.sqrt(a + c)
    harmful = ndtr(-half - theta)
    parts = {
        "harmful": harmful,
        "not needed": ndtr(d - half - theta) - harmful,
        "helps": ndtr(theta - np.maximum(half, d - half)),
    }
    out = {name: float(part.mean()) for name, part in parts.items()}
    return {**out, "inconclusive": max(1.0 - sum(out.values()), 0.0)}


def seeds_to_settle(effect: float, margin: float, components: Components, family: int = 1) -> int | None:
    """The fewest seeds that give some verdict with 80 % probability if the truth is `effect`; None: not even
    1000 do, because the problems are too few or the effect is too near to where verdicts change."""
    return _fewest(lambda seeds: 1 - chances(effect, margin, components, seeds, family)["inconclusive"])


def seeds_for(
    word: str,
    effect: float,
    margin: float,
    components: Components,
    family: int = 1,
    confidence: float | None = None,
) -> int | None:
    """The same for one verdict, named as in `chances`."""
    return _fewest(lambda seeds: chances(effect, margin, components, seeds, family, confidence)[word])


def detectable(
    margin: float, components: Components, seeds: int, family: int = 1, confidence: float | None = None
) -> float | None:
    """The smallest effect, in accuracy, that at least 2 seeds find to help with 80 % probability; None: there
    is none below 1."""

    def power(effect: float) -> float:
        return chances(effect, margin, components, seeds, family, confidence)["helps"]

    if power(1.0) < POWER:
        return None
    low, high = 0.0, 1.0  # too small, large enough
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def _fewest(power: Callable[[int], float]) -> int | None:
    """The fewest seeds whose power is 80 %; it grows with them."""
    if power(MOST_SEEDS) < POWER:
        return None
    low, high = 1, MOST_SEEDS  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high
