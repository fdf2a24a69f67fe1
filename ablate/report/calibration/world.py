"""What makes the difference of two arms vary, in a simulated experiment as in a real one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablate.report.content import Report
from ablate.report.statistics import Components
from ablate.types import UserError

MARGIN = 0.02


@dataclass(frozen=True)
class World:
    """What makes the difference of two arms vary: standard deviations of its mean over all problems.

    The defaults are of the default task: runs of one arm differ by .011 between seeds, so differences by
    .011 x sqrt 2 if pairing removed nothing; with 8 samples an arm's mean has a sampling error of .0044, and
    problems that arms find differently hard add .004 to .006 (measured at differences of 3 to 12 points).

    sizes: problems per cluster; the default has the spread of the held-out multisets (1,261 in 236). alike:
    how much of the problems' part is shared within a cluster. tails: degrees of freedom of the seeds'
    distribution (None: normal). uneven: one arm's seeds vary by this factor more than the others'.
    """

    seed: float = 0.011 * 2**0.5
    problem: float = 0.004
    rest: float = 0.0044 * 2**0.5
    sizes: tuple[int, ...] = tuple(int(1.4 + 12.8 * ((k + 0.5) / 236) ** 1.87) for k in range(236))
    alike: float = 0.5
    tails: float | None = None
    uneven: float = 1.0

    @property
    def components(self) -> Components:
        """The same as variances."""
        return Components(self.seed**2, self.problem**2, self.rest**2, len(self.sizes))


def measured(folder: Path) -> World:
    """The components of an experiment. Raises UserError."""
    from ablate.report.assemble import assemble
    from ablate.report.loading import load

    world = pooled(assemble(load(folder), MARGIN))
    if world is None:
        raise UserError(f"{folder} has no two arms with two seeds in common: nothing to measure")
    return world


def pooled(report: Report) -> World | None:
    """The mean over an experiment's headline contrasts; None if none of them has two seeds."""
    found = [
        claim.effect.estimate.components
        for claim in report.claims
        if claim.effect is not None and claim.effect.estimate.components is not None
    ]
    if not found:
        return None
    means = [float(np.mean([getattr(each, name) for each in found])) for name in ("seed", "problem", "rest")]
    seed, problem, rest = map(float, np.sqrt(means))
    return World(seed, problem, rest, report.cluster_sizes)
