"""Methods that search step by step under a guide: depth one, beam, DVTS, REBASE, and the training tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ablate.search.beam import Beam
from ablate.search.dvts import DVTS
from ablate.search.rebase import Rebase
from ablate.search.steps import Algorithm, Tree, grow
from ablate.search.tree import Node, search
from ablate.testtime.choose import Candidate, best, vote
from ablate.testtime.frame import Frame
from ablate.testtime.guides import Guide, valued
from ablate.types import Trajectory

C_PUCT = 1.0  # the training strategy's default


def searched(frame: Frame, guide: Guide, algorithm: Algorithm) -> list[Tree]:
    """A tree per problem, all in lockstep."""
    bench = frame.bench
    bench.begin_on(frame.problems)
    guide.begin()
    boundary = (bench.step_boundary,)
    return grow(
        [Trajectory(problem) for problem in frame.problems],
        algorithm,
        lambda paths, counts: bench.sample(paths, counts, stop=boundary),
        lambda paths: valued(paths, guide, bench),
        bench.finished,
    )


def candidates(tree: Tree) -> list[Candidate]:
    """The answers that a tree ended with."""
    return [Candidate(path.trajectory, path.value or 0.0, path.count) for path in tree.ended]


def depth1(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """Step by step, the best of n next steps."""
    assert guide is not None
    trees = searched(frame, guide, Beam(1, setting["n"]))
    yield [best(candidates(tree), frame.bench) for tree in trees]


def beam(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """n/m paths, m next steps of each."""
    assert guide is not None
    trees = searched(frame, guide, Beam(setting["n"] // setting["m"], setting["m"]))
    yield [best(candidates(tree), frame.bench) for tree in trees]


def dvts(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """n/m independent subtrees, m next steps in each."""
    assert guide is not None
    trees = searched(frame, guide, DVTS(setting["n"] // setting["m"], setting["m"]))
    yield [best(candidates(tree), frame.bench) for tree in trees]


def rebase(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """n answers; equal ones add up their values, as in the paper's weighted vote."""
    assert guide is not None
    trees = searched(frame, guide, Rebase(setting["n"]))
    yield [vote(candidates(tree), frame.bench) for tree in trees]


def mcts(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """The tree of `ablate.search.tree` without noise, its values all the guide's.

    The answer is the best of those that it came upon; a tree without any lets the policy go on from its most
    visited path.
    """
    assert guide is not None
    bench = frame.bench
    bench.begin_on(frame.problems)
    guide.begin()
    roots = [Node(Trajectory(problem)) for problem in frame.problems]

    def expand(nodes: list[Node]) -> None:
        drawn = bench.sample(
            [node.trajectory for node in nodes], setting["width"], stop=(bench.step_boundary,)
        )
        for node, steps in zip(nodes, drawn, strict=True):
            node.expand(steps, bench.finished)

    search(
        roots,
        setting["simulations"],
        lambda nodes: valued([node.trajectory for node in nodes], guide, bench),
        expand,
        lambda node: node.select(C_PUCT),
        setting["parallel"],
    )
    found = [
        [
            Candidate(n.trajectory, n.value)
            for n in root.walk()
            if n.terminal and n.value is not None and not bench.truncated(n.trajectory)
        ]
        for root in roots
    ]
    without = [root for root, answers in zip(roots, found, strict=True) if not answers]
    drawn = iter(bench.sample([_most_visited(root) for root in without], 1))
    yield [
        best(answers, bench) if answers else _most_visited(root).then(next(drawn)[0])
        for root, answers in zip(roots, found, strict=True)
    ]


def _most_visited(root: Node) -> Trajectory:
    """The path that goes to the most visited child every time, as far as it can go on."""
    node = root
    while inner := [child for child in node.children if child.visits and not child.terminal]:
        node = max(inner, key=lambda child: (child.visits, child.q))
    return node.trajectory
