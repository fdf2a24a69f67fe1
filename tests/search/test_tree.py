"""The tree: PUCT against an independent one, convergence to the optimum, lockstep, visits on their way."""

import math
from itertools import product
from random import Random

import pytest
from paper import PaperLab, problem

from ablate.search.tree import Node, search
from ablate.types import Step, Trajectory

DIGITS, DEPTH = 3, 4


def game(seed):
    """A payoff in [0, 1] for every string of digits."""
    draw = Random(seed)
    return {digits: draw.random() for digits in product(range(DIGITS), repeat=DEPTH)}


def grow(payoffs, simulations, c_puct, count=1, parallel=1, calls=None):
    """Trees over a game with real payoffs, all children enumerated, no noise; inner values are 0.5."""
    lab = PaperLab(lambda digits: True, DEPTH, (1 / DIGITS,) * DIGITS, enumerate_steps=True)
    roots = [Node(Trajectory(problem(f"p{i}"))) for i in range(count)]

    def evaluate(nodes):
        if calls is not None:
            calls.append(len(nodes))
        return [payoffs[lab.digits(n.trajectory.completion)] if n.terminal else 0.5 for n in nodes]

    def expand(nodes):
        drawn = lab.sample([n.trajectory for n in nodes], DIGITS, stop=("\n",))
        for node, steps in zip(nodes, drawn, strict=True):
            node.expand(steps, lab.finished)

    search(roots, simulations, evaluate, expand, lambda node: node.select(c_puct), parallel)
    return roots


def reference(payoffs, simulations, c_puct):
    """PUCT written down again: statistics in dictionaries by path. Returns visits and sums."""
    visits, sums, seen = {}, {}, {}
    for _ in range(simulations):
        path = [()]
        while path[-1] in seen and len(path[-1]) < DEPTH:
            here = path[-1]
            children = [(*here, d) for d in range(DIGITS)]
            parent_n = 1 + sum(visits.get(c, 0) for c in children)

            def score(c, here=here, parent_n=parent_n):
                n = visits.get(c, 0)
                q = sums[c] / n if n else seen[here]
                return q + c_puct * (1 / DIGITS) * math.sqrt(parent_n) / (1 + n)

            path.append(max(children, key=score))
        leaf = path[-1]
        seen[leaf] = payoffs[leaf] if len(leaf) == DEPTH else 0.5
        for node in path:
            visits[node] = visits.get(node, 0) + 1
            sums[node] = sums.get(node, 0.0) + seen[leaf]
    return visits, sums


@pytest.mark.parametrize("c_puct", [0.3, 1.0, 4.0])
def test_visits_and_values_are_those_of_an_independent_puct(c_puct):
    payoffs = game(1)
    (root,) = grow(payoffs, 300, c_puct)
    visits, sums = reference(payoffs, 300, c_puct)
    nodes = [n for n in root.walk() if n.visits]
    assert len(nodes) == len(visits) and root.visits == 300
    for node in nodes:
        digits = tuple(t for t in node.trajectory.completion if t < DIGITS)
        assert (node.visits, node.total) == (visits[digits], pytest.approx(sums[digits]))
        assert node.pending == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_best_child_converges_to_the_optimum(seed):
    payoffs = game(seed)
    best = max(payoffs.values())
    gaps = []
    for simulations in (100, 1000, 6000):
        (root,) = grow(payoffs, simulations, 1.0)
        chosen = max(root.children, key=lambda child: child.visits)
        gaps.append(best - chosen.q)
    reachable = max(v for d, v in payoffs.items() if d[:1] == chosen.trajectory.completion)
    assert reachable > best - 0.02
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.04


def test_lockstep_trees_are_the_trees_one_at_a_time_in_fewer_calls():
    payoffs, together = game(2), []
    many = grow(payoffs, 40, 1.0, count=32, calls=together)
    (alone,) = grow(payoffs, 40, 1.0)
    for root in many:
        assert [n.visits for n in root.walk()] == [n.visits for n in alone.walk()]
    assert len(together) == 40


@pytest.mark.parametrize("parallel", [2, 4, 8])
def test_visits_on_their_way_spread_a_tree_over_a_round(parallel):
    """Every simulation is counted once, no leaf is evaluated twice, and calls get fewer."""
    calls = []
    (root,) = grow(game(3), 64, 1.0, parallel=parallel, calls=calls)
    assert root.visits == 64 and all(node.pending == 0 for node in root.walk())
    for node in root.walk():
        inner = sum(child.visits for child in node.children)
        assert node.visits == inner + (node.value is not None) if not node.terminal else True
    assert len(calls) < 64 / parallel * 2
    assert max(calls) <= parallel


@pytest.mark.parametrize("c_puct", [0.05, 1.0])
@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_rare_steps_gain_nothing_where_all_values_are_equal(parallel, c_puct):
    """Visit shares are targets: on average they must not exceed the prior of a step that was sampled by
    chance, or the policy learns its own noise. Virtual losses did that."""
    draw, gains = Random(0), []

    def expand(nodes):
        for node in nodes:  # token 0 nine times in ten, else one of many
            tokens = [0 if draw.random() < 0.9 else 1 + int(draw.random() * 50) for _ in range(4)]
            node.expand([Step((token,), (-1.0,)) for token in tokens], lambda t: len(t.steps) == 5)

    roots = [Node(Trajectory(problem(f"p{i}"))) for i in range(500)]
    search(roots, 16, lambda nodes: [0.4] * len(nodes), expand, lambda node: node.select(c_puct), parallel)
    for node in (node for root in roots for node in root.walk()):
        total = sum(child.visits for child in node.children)
        if total >= 4 and len(node.children) > 1:
            rare = [child for child in node.children if child.trajectory.steps[-1].tokens != (0,)]
            gains += [child.visits / total - child.prior for child in rare]
    assert len(gains) > 500
    assert -0.03 < sum(gains) / len(gains) < 0.0


def test_equal_steps_are_merged_into_one_child_with_their_share():
    node = Node(Trajectory(problem()))
    node.expand([Step((1,), (-1.0,)), Step((2,), (-2.0,)), Step((1,), (-1.0,)), Step((1,), (-1.0,))], bool)
    assert [(c.trajectory.completion, c.prior, c.bias) for c in node.children] == [
        ((1,), 0.75, 0.75),
        ((2,), 0.25, 0.25),
    ]
    node.add_noise(Random(0), 0.5, 0.25)
    assert [c.prior for c in node.children] == [0.75, 0.25]  # targets are made with the policy's own prior
    assert sum(c.bias for c in node.children) == pytest.approx(1.0)
    assert node.children[0].bias != 0.75
