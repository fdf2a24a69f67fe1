"""Monte Carlo values: the chance that the policy itself finishes well from here.

V(prefix) = mean outcome of M rollouts from the prefix, within what is left of the cap (VinePPO, Kazemnejad et
al. 2024, arXiv:2410.01679, eq. 6). As labels for a step scorer they are Math-Shepherd's (Wang et al. 2023,
arXiv:2312.08935, eq. 3 and 4): *soft* is the mean, *hard* is whether any rollout succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ablate.types import Lab, Trajectory, UserError


@dataclass
class MonteCarlo:
    """`rollouts` = M; labels: "soft" (unbiased values) or "hard"."""

    rollouts: int = 3
    labels: Literal["soft", "hard"] = "soft"

    def __post_init__(self) -> None:
        if self.rollouts < 1:
            raise UserError(f"rollouts={self.rollouts} must be at least 1")

    def values(self, prefixes: Sequence[Trajectory], lab: Lab) -> list[float]:
        """One value per prefix, all of which have room left; charged as `label`."""
        drawn = lab.sample(prefixes, self.rollouts, purpose="label")
        ends = [prefix.then(step) for prefix, steps in zip(prefixes, drawn, strict=True) for step in steps]
        solved = [float(bool(end.solved)) for end in lab.verify(ends)]
        rows = [solved[i : i + self.rollouts] for i in range(0, len(solved), self.rollouts)]
        return [max(row) if self.labels == "hard" else sum(row) / len(row) for row in rows]
