"""On how many seeds an arm has learned at all.

An interval takes an arm's seeds to scatter about its mean. Where training succeeds on some seeds and not on
others, a few seeds may all fall on one side, and then they scatter little about the wrong mean
(`python -m ablate.report.calibration` prints how often). Seeds that are there show it in part, so it is said.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ablate.report.runs import Experiment
from ablate.report.statistics import LEVEL

# what accuracy must have gained: standard errors, problems clustered, and at least this share
ERRORS, LEAST = 2.0, 0.01


def seeds_that_learned(experiment: Experiment, arm: str, keys: Iterable[tuple[int, int]]) -> int:
    """On how many of the seeds in `keys` (seed, sampling seed) the arm is better at the budget than at its
    start. Without outcomes per problem at the start nothing is known, and nothing is held against it."""
    gains: dict[int, list[np.ndarray]] = {}
    for key in keys:
        start, end = (experiment.read(arm, key, "budget", at) for at in (0.0, experiment.budget))
        if start is None or end is None:
            start, end = np.zeros(1), np.ones(len(experiment.problems.ids))
        gains.setdefault(key[0], []).append(end - start)
    _, cluster = np.unique(experiment.problems.clusters, return_inverse=True)
    return sum(_gained(np.mean(each, axis=0), cluster) for each in gains.values())


def _gained(gains: np.ndarray, cluster: np.ndarray) -> bool:
    """gains: per problem."""
    mean = gains.mean()
    sums = np.bincount(cluster, weights=gains - mean)
    return bool(mean > max(ERRORS * np.sqrt((sums**2).sum()) / len(gains), LEAST))


def caveats(learned: dict[str, int], seeds: int) -> tuple[str, ...]:
    """What must be said with an effect. learned: arm -> seeds on which it learned, of `seeds`."""
    found = []
    for arm, count in learned.items():
        if count == 0:
            rare = 1 - (1 - LEVEL) ** (1 / seeds)
            found.append(
                f"{arm} learned on none of {seeds} seeds; that it does on up to {100 * rare:.0f} % of seeds "
                "is not excluded"
            )
        elif count < seeds:
            found.append(f"{arm} learned on {count} of {seeds} seeds alone, where intervals are unreliable")
    return tuple(found)
