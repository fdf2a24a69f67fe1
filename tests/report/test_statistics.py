"""Held against textbook formulas, scipy and the truth of simulated outcomes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gamma

from ablate.report.statistics import (
    Components,
    chances,
    critical,
    estimate,
    half_width,
    seeds_to_settle,
    two_way,
)


def test_one_effect_for_all_problems_is_a_t_test_over_seeds():
    by_seed = np.array([0.01, 0.03, -0.02, 0.05])
    found = estimate(np.repeat(by_seed[:, None], 30, axis=1), np.arange(30) % 10)
    assert found.value == pytest.approx(by_seed.mean())
    assert found.se == pytest.approx(stats.sem(by_seed))
    assert found.interval() == pytest.approx(tuple(stats.ttest_1samp(by_seed, 0).confidence_interval(0.95)))
    wider = tuple(stats.ttest_1samp(by_seed, 0).confidence_interval(0.95 ** (1 / 3)))
    assert found.interval(3) == pytest.approx(wider)


def test_one_effect_for_all_seeds_is_a_clustered_error_over_problems():
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 20, 100)
    by_problem = rng.normal(0.02, 0.1, 20)[clusters] + rng.normal(0, 0.1, 100)
    found = estimate(np.repeat(by_problem[None], 5, axis=0), clusters)
    sums = np.bincount(clusters, weights=by_problem - by_problem.mean())
    assert found.se == pytest.approx(np.sqrt((sums**2).sum() * 20 / 19) / 100)  # CR1
    half = found.interval()[1] - found.value
    assert half == pytest.approx(stats.t.ppf(0.975, 19) * found.se)


@given(st.integers(2, 6), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_mean_squares_are_those_of_a_two_way_layout(seeds, clusters, draw):
    d = np.random.default_rng(draw).normal(size=(seeds, clusters))  # one problem per cluster
    value, a, c, e = two_way(d, np.ones(clusters))
    seed, cluster, mean = d.mean(1), d.mean(0), d.mean()
    cells = seeds * clusters
    assert value == pytest.approx(mean)
    assert a == pytest.approx(clusters * sum((s - mean) ** 2 for s in seed) / (seeds - 1) / cells)
    assert c == pytest.approx(seeds * sum((k - mean) ** 2 for k in cluster) / (clusters - 1) / cells)
    rest = sum(
        (d[s, k] - seed[s] - cluster[k] + mean) ** 2 for s in range(seeds) for k in range(clusters)
    ) / ((seeds - 1) * (clusters - 1))
    assert e == pytest.approx(rest / cells, abs=1e-12)


def test_variance_and_coverage_on_binary_outcomes():
    """Whole experiments, answer by answer: two arms, problems of unequal difficulty in unequal clusters, of
    which each experiment has its own."""
    rng = np.random.default_rng(1)
    errors, variances, covered = [], [], []
    for _ in range(2000):
        sizes = rng.integers(1, 9, 60)
        clusters = np.repeat(np.arange(60), sizes)
        n, seeds = len(clusters), 6
        difficulty = rng.normal(0, 1, 60)[clusters] + rng.normal(0, 1, n)
        liking = 0.4 * rng.normal(0, 1, 60)[clusters]  # what one arm finds easier
        arms = []
        for sign in (-0.5, 0.5):
            logit = difficulty + sign * liking + rng.normal(0, 0.06, (seeds, 1))
            arms.append(rng.binomial(8, 1 / (1 + np.exp(-logit))) / 8)
        found = estimate(arms[1] - arms[0], clusters)
        errors.append(found.value)
        variances.append(found.se**2)
        covered.append(found.interval()[0] <= 0 <= found.interval()[1])
    assert np.mean(variances) == pytest.approx(np.var(errors), rel=0.1)  # three Monte Carlo errors
    assert 0.94 <= np.mean(covered) <= 0.97


def test_one_seed_or_one_cluster_has_no_interval():
    assert estimate(np.full((1, 8), 0.25), np.arange(8)).interval() is None
    assert estimate(np.full((3, 8), 0.25), np.zeros(8)).interval() is None
    assert estimate(np.full((1, 8), 0.25), np.arange(8)).value == 0.25


def test_a_family_widens_the_interval_by_sidak():
    assert critical(7) == pytest.approx(stats.t.ppf(0.975, 7))
    assert critical(7, 3) == pytest.approx(stats.t.ppf(0.5 + 0.5 * 0.95 ** (1 / 3), 7))
    assert critical(7, 3) < stats.t.ppf(1 - 0.025 / 3, 7)  # Bonferroni's


def test_degrees_of_freedom_lie_between_those_of_the_parts():
    t = stats.t.ppf(0.975, [4, 40])
    parts = np.array([0.01, 0.02]) ** 2
    weighed = t**2 * parts
    df = weighed.sum() ** 2 / (weighed**2 / [4, 40]).sum()
    assert 4 < df < 40
    both = half_width(*parts, seeds=5, clusters=41)
    assert both == pytest.approx(stats.t.ppf(0.975, df) * np.sqrt(parts.sum()))
    # alone, each part has its own; without any variance there is no width
    assert half_width(parts[0], 0.0, 5, 41) == pytest.approx(0.01 * t[0])
    assert half_width(0.0, parts[1], 5, 41) == pytest.approx(0.02 * t[1])
    assert half_width(0.0, 0.0, 5, 41) == 0.0
    drawn = half_width(np.array([parts[0], 0.0]), parts[1], 5, 41)  # many experiments at once
    assert drawn == pytest.approx([both, 0.02 * t[1]])


def chi_square_means(df, count):
    """Equally likely values of a variance's estimate over its truth."""
    return stats.chi2.ppf((np.arange(count) + 0.5) / count, df) / df


def coverage(by_seed, seeds, clusters, family):
    """Of an interval, if `by_seed` of the variance is the seeds' and the rest the problems'."""
    a = by_seed * chi_square_means(seeds - 1, 800)[:, None]
    c = (1 - by_seed) * chi_square_means(clusters - 1, 12)
    return np.mean(2 * stats.norm.cdf(half_width(a, c, seeds, clusters, family)) - 1)


@pytest.mark.parametrize("family", [1, 3, 12])
@pytest.mark.parametrize("clusters", [30, 236])
@pytest.mark.parametrize("seeds", [2, 3, 4, 8, 16])
def test_coverage_is_as_promised_whatever_varies(seeds, clusters, family):
    least = min(coverage(part, seeds, clusters, family) for part in np.linspace(0, 1, 11))
    assert least >= 0.95 ** (1 / family) - 0.0005


@pytest.mark.parametrize("family, floor", [(1, 1.16), (3, 1.26)])
def test_the_least_width_that_eight_seeds_can_have(family, floor):
    """Where only seeds vary: what the statistics' docstring says."""
    c4 = np.sqrt(2 / 7) * gamma(4) / gamma(3.5)
    mean = half_width(chi_square_means(7, 20000), 0.0, 8, 236, family).mean()
    assert mean == pytest.approx(c4 * critical(7, family), rel=1e-3)
    assert mean / critical(np.inf, family) == pytest.approx(floor, abs=0.005)


COMPONENTS = Components(seed=0.0155**2, problem=0.003**2, rest=0.006**2, clusters=200)


@pytest.mark.parametrize(
    "effect, likeliest",
    [
        (-0.05, "harmful"),
        (-0.01, "not needed"),
        (0.0, "not needed"),
        (0.011, "inconclusive"),
        (0.06, "helps"),
    ],
)
def test_chances_of_verdicts_add_up_and_follow_the_effect(effect, likeliest):
    found = chances(effect, 0.02, COMPONENTS, 12, 3)
    assert sum(found.values()) == pytest.approx(1)
    assert max(found, key=found.get) == likeliest


def test_seeds_that_settle_a_verdict():
    seeds = seeds_to_settle(0.0, 0.02, COMPONENTS, 3)
    settled = [1 - chances(0.0, 0.02, COMPONENTS, count, 3)["inconclusive"] for count in (seeds - 1, seeds)]
    assert settled[0] < 0.8 <= settled[1]
    # an effect beside the margin, and problems that are too few: no number of seeds helps
    few = Components(seed=0.0155**2, problem=0.02**2, rest=0.006**2, clusters=20)
    assert seeds_to_settle(0.0, 0.02, few, 3) is None
