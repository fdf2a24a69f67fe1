"""One search tree per problem, for training and for test time: AlphaZero's, over steps of text.

Children are steps sampled from the policy, so their prior P is their empirical frequency (as in Sampled
MuZero, Hubert et al. 2021, arXiv:2104.06303: the sampling has already carried the policy once). Selection is
PUCT (Silver et al. 2018, doi:10.1126/science.aar6404):

    argmax_a  Q(a) + c_puct P(a) sqrt(N_parent) / (1 + N(a)),   N_parent = 1 + sum_b N(b),

with Q = V(parent) for an unvisited child. All trees of a batch advance in lockstep, so that one engine call
serves them all; each may take several leaves at a time. A visit whose value is not known yet counts in N and
not in Q (Liu et al. 2020, arXiv:1810.11755). Virtual losses, which count it as lost, would spread visits over
siblings of equal value: few as the visits of a tree in training are, their shares would then exceed the prior
where it is small, and teach the policy its rarest steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from ablate.types import Step, Trajectory


@dataclass(eq=False)
class Node:
    """A state: the trajectory so far.

    prior: share of the parent's sampled steps that were this one. value: the state's own evaluation, in
    [0, 1], None before its first visit. total: sum of the values backed up through it.
    """

    trajectory: Trajectory
    parent: Node | None = None
    prior: float = 1.0
    terminal: bool = False
    value: float | None = None
    visits: int = 0
    pending: int = 0  # visits on their way, whose value is not known yet
    total: float = 0.0
    bias: float = 1.0  # the prior as selection sees it: with noise at the root
    children: list[Node] = field(default_factory=list)

    @property
    def q(self) -> float:
        """Mean backed-up value; the parent's evaluation while unvisited."""
        if self.visits:
            return self.total / self.visits
        return self.parent.value or 0.0 if self.parent is not None else 0.0

    def select(self, c_puct: float) -> Node:
        """The child that PUCT goes to."""
        scale = c_puct * math.sqrt(1 + sum(child.visits + child.pending for child in self.children))
        return max(
            self.children, key=lambda child: child.q + scale * child.bias / (1 + child.visits + child.pending)
        )

    def path(self) -> Iterator[Node]:
        """This node and those above it, up to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def back_up(self, value: float) -> None:
        """A pending visit has this value, here and on the way to the root."""
        for node in self.path():
            node.pending -= 1
            node.visits += 1
            node.total += value

    def expand(self, steps: Sequence[Step], finished: Callable[[Trajectory], bool]) -> None:
        """Add the sampled steps as children; equal ones are merged, and their share is the prior."""
        merged: dict[tuple[int, ...], list[Step]] = {}
        for step in steps:
            merged.setdefault(step.tokens, []).append(step)
        for same in merged.values():
            share, path = len(same) / len(steps), self.trajectory.then(same[0])
            self.children.append(Node(path, self, share, terminal=finished(path), bias=share))

    def add_noise(self, rng: Random, alpha: float, share: float) -> None:
        """Mix what selection sees of the children's priors with Dirichlet(alpha) noise."""
        draws = [rng.gammavariate(alpha, 1.0) for _ in self.children]
        total = sum(draws) or 1.0
        for child, draw in zip(self.children, draws, strict=True):
            child.bias = (1.0 - share) * child.prior + share * draw / total

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


def search(
    roots: Sequence[Node],
    simulations: int,
    evaluate: Callable[[list[Node]], Sequence[float]],
    expand: Callable[[list[Node]], None],
    select: Callable[[Node], Node],
    parallel: int = 1,
) -> None:
    """Run `simulations` in every tree, in lockstep, at most `parallel` of one tree at a time.

    evaluate(nodes): values in [0, 1] of nodes met for the first time; a terminal node's is the verifier's.
    expand(nodes): gives each of them (those not terminal) its children. select(node): the child to go to. A
    leaf that is being evaluated is not evaluated again: who meets it ends its tree's turn.
    """
    left = {id(root): simulations for root in roots}
    while any(left.values()):
        leaves: list[Node] = []
        for root in roots:
            for _ in range(min(parallel, left[id(root)])):
                leaf = root
                while leaf.children:
                    leaf = select(leaf)
                if leaf.pending and leaf.value is None:
                    break
                for node in leaf.path():
                    node.pending += 1
                leaves.append(leaf)
                left[id(root)] -= 1
        fresh = [leaf for leaf in leaves if leaf.value is None]
        for leaf, value in zip(fresh, evaluate(fresh), strict=True):
            leaf.value = value
        expand([leaf for leaf in fresh if not leaf.terminal])
        for leaf in leaves:
            assert leaf.value is not None
            leaf.back_up(leaf.value)
