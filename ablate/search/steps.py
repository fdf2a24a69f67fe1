"""Step-by-step search with a budget of candidates: what beam search, DVTS and REBASE have in common.

In every round the paths that are being followed get some next steps each, drawn from the policy, a guide
values all of these candidates, and some are followed further. The algorithms differ in how many each path
gets and in which are followed. All trees of a batch advance in lockstep: a round is one call of the engine
and one of the guide.

Finished answers are kept with their values, whenever they come, and compete with open paths by value: nothing
is decided by who arrived first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ablate.types import Step, Trajectory


@dataclass(frozen=True, eq=False)
class Path:
    """A trajectory as far as it goes.

    value: the guide's, in [0, 1]; None of the prompt alone. branch: of independent subtrees, which one.
    count: samples that were this same path. chance: log-probability of its last step, by which paths of equal
    value are told apart.
    """

    trajectory: Trajectory
    value: float | None = None
    finished: bool = False
    branch: int = 0
    count: int = 1
    chance: float = 0.0

    @property
    def rank(self) -> tuple[float, bool, float]:
        """What paths are compared by; of equal values a finished answer's comes first."""
        return (-1.0 if self.value is None else self.value, self.finished, self.chance)


@dataclass(eq=False)
class Tree:
    """open: the paths that are followed. ended: every finished answer so far."""

    open: list[Path]
    ended: list[Path] = field(default_factory=list)


class Algorithm(Protocol):
    """How a budget is spent."""

    def start(self, root: Trajectory) -> list[Path]:
        """What is followed at first."""
        ...

    def allot(self, tree: Tree) -> list[int]:
        """How many next steps each open path gets."""
        ...

    def follow(self, tree: Tree, candidates: list[Path]) -> list[Path]:
        """Which candidates are followed further; finished ones among them hold a place, but are not open.
        `tree.ended` has the candidates that are finished."""
        ...


def grow(
    roots: Sequence[Trajectory],
    algorithm: Algorithm,
    draw: Callable[[list[Trajectory], list[int]], Sequence[Sequence[Step]]],
    value: Callable[[list[Trajectory]], Sequence[float]],
    finished: Callable[[Trajectory], bool],
) -> list[Tree]:
    """One tree per root, grown until nothing is left to follow.

    draw(prefixes, counts): next steps, so many of each. value(paths): in [0, 1], of open and of finished
    ones. A tree is done, too, as soon as a finished answer has the value 1, which no other can exceed.
    """
    trees = [Tree(algorithm.start(root)) for root in roots]
    while any(tree.open for tree in trees):
        asked = [
            (tree, path, count)
            for tree in trees
            if tree.open
            for path, count in zip(tree.open, algorithm.allot(tree), strict=True)
            if count > 0
        ]
        drawn = draw([path.trajectory for _, path, _ in asked], [count for *_, count in asked])
        new: dict[int, list[Path]] = {id(tree): [] for tree in trees}
        for (tree, path, _), steps in zip(asked, drawn, strict=True):
            new[id(tree)] += _children(path, steps, finished)
        valued = iter(value([path.trajectory for tree in trees for path in new[id(tree)]]))
        for tree in trees:
            candidates = [_with(path, next(valued)) for path in new[id(tree)]]
            tree.ended += [path for path in candidates if path.finished]
            sure = any(path.value is not None and path.value >= 1.0 for path in tree.ended)
            followed = [] if sure or not candidates else algorithm.follow(tree, candidates)
            tree.open = [path for path in followed if not path.finished]
    return trees


def _children(path: Path, steps: Sequence[Step], finished: Callable[[Trajectory], bool]) -> list[Path]:
    """The path's next steps, equal ones merged."""
    merged: dict[tuple[int, ...], list[Step]] = {}
    for step in steps:
        merged.setdefault(step.tokens, []).append(step)
    return [
        Path(
            (longer := path.trajectory.then(same[0])),
            finished=finished(longer),
            branch=path.branch,
            count=len(same),
            chance=sum(same[0].logprobs or ()),
        )
        for same in merged.values()
    ]


def _with(path: Path, value: float) -> Path:
    return Path(path.trajectory, value, path.finished, path.branch, path.count, path.chance)
