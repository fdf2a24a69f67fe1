"""Diverse verifier tree search: independent subtrees, each a beam of one (Beeching, Tunstall and Rush 2024,
"Scaling test-time compute with open models").

The budget is split over `subtrees` searches that never compete: in each, the best of `branch` next steps is
followed. So one overrated step cannot take all places, as it can in a beam.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablate.search.steps import Path, Tree
from ablate.types import Trajectory


@dataclass(frozen=True)
class DVTS:
    """subtrees x branch candidates in every round."""

    subtrees: int
    branch: int

    def start(self, root: Trajectory) -> list[Path]:
        """The prompt, once per subtree."""
        return [Path(root, branch=i) for i in range(self.subtrees)]

    def allot(self, tree: Tree) -> list[int]:
        """`branch` each."""
        return [self.branch] * len(tree.open)

    def follow(self, tree: Tree, candidates: list[Path]) -> list[Path]:
        """The best of each subtree; one whose best is finished is done."""
        best: dict[int, Path] = {}
        for path in candidates:
            if path.branch not in best or path.rank > best[path.branch].rank:
                best[path.branch] = path
        return list(best.values())
