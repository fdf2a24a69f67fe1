"""Means and slopes of one arm with their intervals, from however many seeds there are.

Everything here is a mean over seeds and problems of some values d_sp, or is made one: a statistic whose
sampling error is, to first order, the sum over answers of an influence f_i (sum_i f_i = 0) has the
pseudo-values

    d_sp = value + S P sum over the answers i of seed s to problem p of f_i,

whose mean is the value and whose variance is the statistic's (the linearisation behind cluster-robust errors,
Cameron & Miller 2015, J. Human Resources 50). With at least two seeds, seeds and clusters of problems are
both random, as in `statistics`; with one, clusters alone are: then nothing tells how far another seed would
be off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.report.answers.content import Reading
from ablate.report.statistics import critical, estimate

BOTH, PROBLEMS, SEEDS = "seeds and problems", "problems", "seeds"


def reading(values: np.ndarray, clusters: np.ndarray, family: int = 1) -> Reading:
    """The mean of values (seeds, problems); family: intervals that are to hold together."""
    seeds, problems = values.shape
    if seeds > 1:
        found = estimate(values, clusters)
        return Reading(found.value, found.interval(family), seeds, problems, BOTH)
    value, (names, label) = float(values.mean()), np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        return Reading(value, None, seeds, problems, PROBLEMS)
    sums = np.bincount(label, weights=values[0] - value)
    count = len(sums)
    error = np.sqrt((sums**2).sum() * count / (count - 1)) / problems  # CR1
    half = float(critical(count - 1, family) * error)
    return Reading(value, (value - half, value + half), seeds, problems, PROBLEMS)


@dataclass(frozen=True)
class Cells:
    """Which answer belongs to which seed and problem: seed (N,) and problem (N,) count from zero; clusters:
    of the problems (P,)."""

    seed: np.ndarray
    problem: np.ndarray
    clusters: np.ndarray
    seeds: int

    @property
    def shape(self) -> tuple[int, int]:
        """(seeds, problems)"""
        return self.seeds, len(self.clusters)

    @property
    def cell(self) -> np.ndarray:
        """The number of each answer's (seed, problem)."""
        return self.seed * len(self.clusters) + self.problem

    def among(self, chosen: np.ndarray) -> Cells:
        """Those of some answers; seeds and problems without any stay."""
        return Cells(self.seed[chosen], self.problem[chosen], self.clusters, self.seeds)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Per seed and problem."""
        size = self.seeds * len(self.clusters)
        return np.bincount(self.cell, weights=values, minlength=size).reshape(self.shape)

    def within(self, values: np.ndarray) -> np.ndarray:
        """Each answer's value minus the mean over its seed and problem."""
        return values - _means(self.cell, values)

    def within_seed(self, values: np.ndarray) -> np.ndarray:
        """Each answer's value minus the mean over its seed."""
        return values - _means(self.seed, values)

    def mean(self, values: np.ndarray) -> Reading:
        """The mean over answers."""
        value = float(values.mean())
        return self._read(value, (values - value) / len(values))

    def slope(self, x: np.ndarray, y: np.ndarray) -> Reading | None:
        """Of the least-squares line through y against x, both already without their fixed effects; None where
        x does not vary."""
        square = float(x @ x)
        if square <= 1e-12:
            return None
        value = float(x @ y) / square
        return self._read(value, x * (y - value * x) / square)

    def _read(self, value: float, influence: np.ndarray) -> Reading:
        seeds, problems = self.shape
        return reading(value + seeds * problems * self.sums(influence), self.clusters)


def _means(label: np.ndarray, values: np.ndarray) -> Any:
    counts = np.bincount(label)
    return (np.bincount(label, weights=values) / np.maximum(counts, 1))[label]
