"""Beam search, DVTS and REBASE on trees that can be enumerated, against references written down again."""

import math
from itertools import product
from random import Random

import pytest
from paper import END, PaperLab, problem

from ablate.search.beam import Beam
from ablate.search.dvts import DVTS
from ablate.search.rebase import Rebase, shares
from ablate.search.steps import Path, Tree, grow
from ablate.types import Step, Trajectory

DIGITS, DEPTH = 3, 4


class Game:
    """Known values of all strings of digits. Prefixes have values that mislead: only leaves are payoffs."""

    def __init__(self, seed):
        draw = Random(seed)
        self.values = {
            digits: 0.9 * draw.random()
            for depth in range(1, DEPTH + 1)
            for digits in product(range(DIGITS), repeat=depth)
        }
        self.lab = PaperLab(lambda digits: True, DEPTH, (1 / DIGITS,) * DIGITS, enumerate_steps=True)
        self.calls = []

    def draw(self, paths, counts):
        """Child j is digit j: with enough samples every child is there."""
        self.calls.append(len(paths))
        rows = zip(paths, counts, strict=True)
        return [self.lab.sample([path], count, stop=("\n",))[0] for path, count in rows]

    def value(self, paths):
        return [self.values[self.lab.digits(path.completion)] for path in paths]

    def grow(self, algorithm, count=1):
        roots = [Trajectory(problem(f"p{i}")) for i in range(count)]
        return grow(roots, algorithm, self.draw, self.value, self.lab.finished)

    def answers(self, tree):
        return {self.lab.digits(path.trajectory.completion): path.value for path in tree.ended}


def reference_beam(values, width):
    beam = [()]
    for _ in range(DEPTH):
        children = [(*path, digit) for path in beam for digit in range(DIGITS)]
        beam = sorted(children, key=lambda path: -values[path])[:width]
    return beam


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_the_tree_finds_the_optimum_of_all_answers(seed):
    game = Game(seed)
    (tree,) = game.grow(Beam(width=DIGITS**DEPTH, branch=DIGITS))
    leaves = {digits: value for digits, value in game.values.items() if len(digits) == DEPTH}
    assert game.answers(tree) == leaves
    assert len(game.calls) == DEPTH


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_beam_follows_what_a_beam_written_down_again_follows(width):
    game = Game(7)
    (tree,) = game.grow(Beam(width, branch=DIGITS))
    ends = [digits for digits in reference_beam(game.values, width)]
    best = max(tree.ended, key=lambda path: path.rank)
    assert game.lab.digits(best.trajectory.completion) == ends[0]
    assert set(ends) <= set(game.answers(tree))
    assert max(game.calls) <= width


def test_subtrees_of_dvts_are_greedy_searches_of_their_own():
    """Each subtree's draws differ, so that they part; alone and together each finds the same."""
    game = Game(3)

    def drawn(branches):
        tables = {branch: Random(branch) for branch in branches}

        class Keyed(DVTS):
            def start(self, root):
                return [Path(root, branch=branch) for branch in branches]

        open_branches = []

        def draw(paths, counts):
            out = []
            for branch, path in zip(open_branches[-1], paths, strict=True):
                room = len(game.lab.digits(path.completion)) + 1 == DEPTH
                digits = [tables[branch].randrange(DIGITS) for _ in range(2)]
                out.append([Step((d, END) if room else (d,), (-1.0,)) for d in digits])
            return out

        class Watched(Keyed):
            def allot(self, tree):
                open_branches.append([path.branch for path in tree.open])
                return super().allot(tree)

        root = Trajectory(problem())
        (tree,) = grow([root], Watched(len(branches), 2), draw, game.value, game.lab.finished)
        return {b: {p.trajectory.completion for p in tree.ended if p.branch == b} for b in branches}

    together = drawn([0, 1, 2, 3])
    for branch in range(4):
        assert drawn([branch])[branch] == together[branch]
    assert len({frozenset(found) for found in together.values()}) > 1


def test_shares_of_rebase_by_hand():
    # exp(.5 / .2) = 12.18, exp(.3 / .2) = 4.48, exp(0) = 1, of 8: 5.52, 2.03, .45
    assert shares([0.5, 0.3, 0.0], [1, 1, 1], 8, 0.2) == [6, 2, 0]
    # a path that two samples have in common counts twice: weights 2, 1 at equal values
    assert shares([0.4, 0.4], [2, 1], 6, 0.2) == [4, 2]
    assert shares([0.1, 0.9], [1, 1], 0, 0.2) == [0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_shares_of_rebase_add_up_and_lie_within_one_of_the_formula(seed):
    draw = Random(seed)
    values = [draw.random() for _ in range(draw.randint(1, 9))]
    counts = [draw.randint(1, 3) for _ in values]
    budget, t = draw.randint(0, 40), draw.choice([0.05, 0.2, 1.0])
    got = shares(values, counts, budget, t)
    weights = [n * math.exp(v / t) for v, n in zip(values, counts, strict=True)]
    assert sum(got) == budget
    for share, weight in zip(got, weights, strict=True):
        assert abs(share - budget * weight / sum(weights)) < 1.0


@pytest.mark.parametrize("samples", [1, 4, 11])
def test_rebase_ends_with_as_many_answers_as_it_may(samples):
    game = Game(5)
    for tree in game.grow(Rebase(samples), count=3):
        assert sum(path.count for path in tree.ended) == samples


def test_rebase_shares_what_finished_answers_have_left():
    ended = [Path(Trajectory(problem()), 0.2, True, count=3)]
    tree = Tree([Path(Trajectory(problem()), 0.5), Path(Trajectory(problem()), 0.5)], ended)
    assert Rebase(8).allot(tree) == [3, 2]


@pytest.mark.parametrize("algorithm", [Beam(2, 3), DVTS(2, 3), Rebase(6)])
@pytest.mark.parametrize("early", [0.2, 0.8])
def test_an_early_finisher_wins_by_score_alone(algorithm, early):
    """One answer ends at the first step, the others at the third; the late ones are worth .5."""

    def draw(paths, counts):
        out = []
        for path, count in zip(paths, counts, strict=True):
            depth = len(path.steps)
            kinds = [(7, END), (1,), (2,)] if depth == 0 else [(1,), (2,)]
            if depth == 2:
                kinds = [(1, END), (2, END)]
            out.append([Step(kinds[j % len(kinds)], (-1.0,)) for j in range(count)])
        return out

    def value(paths):
        return [early if path.completion == (7, END) else 0.5 for path in paths]

    def finished(path):
        return path.completion[-1:] == (END,)

    (tree,) = grow([Trajectory(problem())], algorithm, draw, value, finished)
    best = max(tree.ended, key=lambda path: path.rank)
    assert (7, END) in [path.trajectory.completion for path in tree.ended]
    assert (best.trajectory.completion == (7, END)) == (early > 0.5)
    if isinstance(algorithm, Beam | DVTS) and early < 0.5:
        assert len(best.trajectory.steps) == 3


def test_trees_in_lockstep_are_trees_alone_in_fewer_calls():
    many, alone = Game(2), Game(2)
    trees = many.grow(Beam(2, 3), count=16)
    (one,) = alone.grow(Beam(2, 3))
    assert all(many.answers(tree) == alone.answers(one) for tree in trees)
    assert len(many.calls) == len(alone.calls)


def test_nothing_is_looked_for_once_an_answer_is_certain():
    calls = []

    def draw(paths, counts):
        calls.append(counts)
        return [[Step((1, END), (-1.0,)), Step((2,), (-1.0,))] for _ in paths]

    def value(paths):
        return [1.0 if path.completion[-1] == END else 0.99 for path in paths]

    trees = grow([Trajectory(problem())], Beam(2, 2), draw, value, lambda path: path.completion[-1] == END)
    assert len(calls) == 1 and len(trees[0].ended) == 1 and trees[0].open == []
