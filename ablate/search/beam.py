"""Beam search over steps: follow the best of all candidates (Snell et al. 2024, arXiv:2408.03314, section
5.1).

Every one of the `width` paths gets `branch` next steps, and the `width` best of all are followed. A finished
answer holds its place in the beam as long as its value does. At width 1 this is the search of depth one:
step by step, the best of `branch` candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablate.search.steps import Path, Tree
from ablate.types import Trajectory


@dataclass(frozen=True)
class Beam:
    """width x branch candidates in every round."""

    width: int
    branch: int

    def start(self, root: Trajectory) -> list[Path]:
        """The prompt alone."""
        return [Path(root)]

    def allot(self, tree: Tree) -> list[int]:
        """`branch` each; the prompt gets them all."""
        if tree.open[0].value is None:
            return [self.width * self.branch]
        return [self.branch] * len(tree.open)

    def follow(self, tree: Tree, candidates: list[Path]) -> list[Path]:
        """The best, earlier answers included."""
        earlier = [path for path in tree.ended if path not in candidates]
        return sorted([*earlier, *candidates], key=lambda path: path.rank, reverse=True)[: self.width]
