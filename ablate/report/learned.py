"""On how many seeds an arm has learned at all.

An interval takes an arm's seeds to scatter about its mean. Where training succeeds on some seeds and not on
others, a few seeds may all fall on one side, and then they scatter little about the wrong mean
(`python -m ablate.report.calibration` prints how often). That can be seen only in part, so it is said.
"""

from __future__ import annotations

from collections.abc import Sequence

from ablate.report.runs import Experiment
from ablate.report.statistics import LEVEL


def seeds_that_learned(experiment: Experiment, arm: str, seeds: Sequence[int], by: float) -> int:
    """Of these seeds: how many of the arm's gained more than `by` (a share) from the start to the budget."""
    gains: dict[int, list[float]] = {}
    for key in experiment.arm(arm):
        start, end = (experiment.read(arm, key, "budget", at) for at in (0.0, experiment.budget))
        if start is not None and end is not None:
            gains.setdefault(key[0], []).append(float(end.mean() - start.mean()))
    # without outcomes per problem at the start nothing is known, and nothing is held against the arm
    return sum(seed not in gains or sum(gains[seed]) / len(gains[seed]) > by for seed in seeds)


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
