"""REBASE: reward-balanced search (Wu et al. 2024, arXiv:2408.00724, section 3.2).

Nothing is cut off: what is left of the budget, B = `samples` minus the finished answers, is shared out
among the open paths by the softmax of their values V,

    W_j = B exp(V_j / T) / sum_k exp(V_k / T),

rounded so that the shares add up to B (largest remainders). A path that gets none is followed no further.
Paths that several samples have in common count as many times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ablate.search.steps import Path, Tree
from ablate.types import Trajectory


@dataclass(frozen=True)
class Rebase:
    """samples: answers per tree. temperature: T, in units of the value; the lower, the greedier."""

    samples: int
    temperature: float = 0.2

    def start(self, root: Trajectory) -> list[Path]:
        """The prompt alone, which gets the whole budget."""
        return [Path(root)]

    def allot(self, tree: Tree) -> list[int]:
        """The shares W of what is left."""
        left = self.samples - sum(path.count for path in tree.ended)
        return shares(
            [path.value or 0.0 for path in tree.open],
            [path.count for path in tree.open],
            max(0, left),
            self.temperature,
        )

    def follow(self, tree: Tree, candidates: list[Path]) -> list[Path]:
        """All."""
        return candidates


def shares(values: list[float], counts: list[int], budget: int, temperature: float) -> list[int]:
    """Whole numbers in proportion to counts x exp(values / temperature) that add up to the budget."""
    top = max(values)
    weights = [n * math.exp((v - top) / temperature) for v, n in zip(values, counts, strict=True)]
    exact = [budget * weight / sum(weights) for weight in weights]
    whole = [math.floor(share) for share in exact]
    # the largest remainders are rounded up; of equal ones the better path's
    order = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], -values[i]))
    for i in order[: budget - sum(whole)]:
        whole[i] += 1
    return whole
