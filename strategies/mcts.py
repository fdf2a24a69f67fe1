"""Search in training: trajectories from a tree, AlphaZero's way, over steps of text.

For each problem a tree is grown by PUCT (`ablate.search.tree`). A leaf's value mixes a value head, trained on
outcomes, with a rollout of the policy; a finished answer's value is the verifier's. The training rows are
sibling steps s of every node that was searched enough, the path before them masked. With N the visits and P
the prior (the share of the samples that were s), a step's reward is pi(s) / P(s), pi = N(s) / sum N, and its
weight P(s): outcome credit, which subtracts the weighted mean 1, then gives AlphaZero's policy target,

    sum_s (pi(s) - P(s)) grad log p(s)        (Silver et al. 2018, doi:10.1126/science.aar6404),

and process credit P(s) (Q(s) - V(parent)) grad log p(s).

The rollouts' answers are handed on beside the rows, masked: nothing in them is reinforced, but recovery finds
the failures there, of which the rows, single steps, hold few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from ablate.scorers.value_head import ValueHead
from ablate.search.tree import Node, search
from ablate.types import Group, Lab, Problem, Step, Trajectory, UserError


@dataclass
class Tree:
    """A tree per problem.

    simulations: per problem; parallel: how many of them at a time. width: steps sampled at each node, equal
    ones merged. c_puct: exploration. noise_alpha, noise_share: Dirichlet noise at the root. rollout_weight:
    share of the rollout in a leaf's value, the rest is the value head's (1: no value head; 0: no rollouts,
    and the head learns from the answers that end inside the tree). min_visits: of its children, for a node to
    be trained on. select: "uniform" is the placebo: the tree grows without regard to values, the targets are
    made the same way.
    """

    simulations: int = 16
    parallel: int = 4
    width: int = 4
    c_puct: float = 1.0
    noise_alpha: float = 0.5
    noise_share: float = 0.25
    rollout_weight: float = 0.5
    min_visits: int = 4
    select: Literal["puct", "uniform"] = "puct"
    value_head: ValueHead = field(default_factory=ValueHead)

    size = "simulations"  # what the cost of a batch grows with: the name of a setting

    def __post_init__(self) -> None:
        for name, least in (("simulations", 2), ("parallel", 1), ("width", 2), ("min_visits", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"{name}={getattr(self, name)} is too small: the smallest valid value is {least}"
                )
        for name in ("rollout_weight", "noise_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name}={getattr(self, name)} is a share: it must lie in [0, 1]")
        for name in ("c_puct", "noise_alpha"):
            if getattr(self, name) <= 0.0:
                raise UserError(f"{name}={getattr(self, name)} must be positive")

    def __call__(self, problems: Sequence[Problem], lab: Lab) -> list[Group]:
        """A group of siblings for every node that was searched enough, and one of each problem's rollouts."""
        roots = [Node(Trajectory(problem)) for problem in problems]
        rollouts: list[tuple[Trajectory, Trajectory]] = []  # a leaf, and the judged answer drawn from it

        def select(node: Node) -> Node:
            if self.select == "puct":
                return node.select(self.c_puct)
            return lab.rng.choices(node.children, [child.prior for child in node.children])[0]

        search(
            roots,
            self.simulations,
            lambda nodes: self._evaluate(nodes, lab, rollouts),
            lambda nodes: self._expand(nodes, lab),
            select,
            self.parallel,
        )
        nodes = [node for root in roots for node in root.walk()]
        if self.rollout_weight < 1.0:
            examples = rollouts or [
                (above.trajectory, node.trajectory)
                for node in nodes
                if node.terminal and node.visits
                for above in node.path()
                if above is not node
            ]
            outcomes = [float(bool(answer.solved)) for _, answer in examples]
            self.value_head.learn([prefix for prefix, _ in examples], outcomes, lab)
        lab.log("tree/nodes", len(nodes) / len(roots))
        lab.log("tree/depth", fmean(max(len(n.trajectory.steps) for n in root.walk()) for root in roots))
        lab.log("tree/value", fmean(root.q for root in roots))
        ends = [n.value for n in nodes if n.terminal and n.value is not None]
        ends += [float(bool(answer.solved)) for _, answer in rollouts]
        lab.log("tree/solved", fmean(ends) if ends else 0.0)  # of all answers that were judged
        rows = [
            self._siblings(node)
            for node in nodes
            if sum(child.visits for child in node.children) >= self.min_visits
        ]
        seen: dict[str, Group] = {}
        for _, answer in rollouts:
            seen.setdefault(answer.problem.id, []).append(
                replace(answer, steps=tuple(step.masked() for step in answer.steps))
            )
        return rows + list(seen.values())

    def _evaluate(
        self, nodes: list[Node], lab: Lab, rollouts: list[tuple[Trajectory, Trajectory]]
    ) -> list[float]:
        """Values of new leaves; the answers drawn from them are added to the rollouts."""
        ended = [node for node in nodes if node.terminal]
        for node, judged in zip(ended, lab.verify([node.trajectory for node in ended]), strict=True):
            node.trajectory = judged
        inner = [node.trajectory for node in nodes if not node.terminal]
        values = [0.0] * len(inner)
        if self.rollout_weight > 0.0 and inner:
            drawn = lab.sample(inner, 1)
            answers = lab.verify([t.then(s[0]) for t, s in zip(inner, drawn, strict=True)])
            values = [self.rollout_weight * bool(t.solved) for t in answers]
            rollouts += zip(inner, answers, strict=True)
        if self.rollout_weight < 1.0 and inner:
            heads = self.value_head.values(inner, lab)
            values = [v + (1.0 - self.rollout_weight) * h for v, h in zip(values, heads, strict=True)]
        inner_values = iter(values)
        return [
            float(bool(node.trajectory.solved)) if node.terminal else next(inner_values) for node in nodes
        ]

    def _expand(self, nodes: list[Node], lab: Lab) -> None:
        """Sample the next step of every node, `width` times."""
        drawn = lab.sample([node.trajectory for node in nodes], self.width, stop=(lab.step_boundary,))
        for node, steps in zip(nodes, drawn, strict=True):
            node.expand(steps, lab.finished)
            if node.parent is None:
                node.add_noise(lab.rng, self.noise_alpha, self.noise_share)

    def _siblings(self, node: Node) -> Group:
        """The node's children as training rows."""
        path = [step.masked() for step in node.trajectory.steps]
        prefix = (*path, Step((), value=node.q))
        total = sum(child.visits for child in node.children)
        return [
            Trajectory(
                node.trajectory.problem,
                (*prefix, replace(child.trajectory.steps[-1], value=value, weight=child.prior)),
                solved=child.trajectory.solved,
                reward=child.visits / total / child.prior,
            )
            for child in node.children
            for value in [child.q if child.visits else node.q]  # of what was not tried nothing is known
        ]
