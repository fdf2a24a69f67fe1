"""The game of Countdown: legal moves, what they can reach, and every problem of a configuration.

A move takes two of the numbers that are left and replaces them by their sum, product or (positive)
difference; the result is a whole number in 1..ceiling. Multiplying by 1 is no move: it would merely drop a
number. The order of a sum or product makes no other move.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations, combinations_with_replacement
from math import comb
from random import Random
from typing import NamedTuple, TypeAlias
from zlib import crc32

from ablate.randomness import hash64

Numbers: TypeAlias = tuple[int, ...]

MOST_MULTISETS = 10_000  # more than this are sampled, so that every configuration starts within seconds


class Move(NamedTuple):
    """`left op right = result`, and the numbers it does not use, in their order."""

    left: int
    op: str
    right: int
    result: int
    rest: Numbers

    @property
    def after(self) -> Numbers:
        """The numbers that are left after the move."""
        return (self.result, *self.rest)


class Instance(NamedTuple):
    """A multiset (sorted), a target that it reaches, and the chance that a random attempt hits it."""

    numbers: Numbers
    target: int
    chance: float


def combine(left: int, op: str, right: int, ceiling: int) -> int | None:
    """The result of a legal combination, None for any other."""
    if op == "+":
        result = left + right
    elif op == "-":
        result = left - right
    elif op == "*" and left != 1 and right != 1:
        result = left * right
    else:
        return None
    return result if 1 <= result <= ceiling else None


def moves(numbers: Numbers, ceiling: int) -> list[Move]:
    """Every legal move, one for each pair of positions and operation."""
    found = []
    for i, j in combinations(range(len(numbers)), 2):
        rest = numbers[:i] + numbers[i + 1 : j] + numbers[j + 1 :]
        first, second = numbers[i], numbers[j]
        ordered = (first, second) if first >= second else (second, first)
        for op, left, right in (("+", first, second), ("-", *ordered), ("*", first, second)):
            result = combine(left, op, right, ceiling)
            if result is not None:
                found.append(Move(left, op, right, result, rest))
    return found


@cache
def _chances(numbers: Numbers, ceiling: int) -> dict[int, float]:
    if len(numbers) == 1:
        return {numbers[0]: 1.0}
    options = moves(numbers, ceiling)
    chances: defaultdict[int, float] = defaultdict(float)
    for move in options:
        for target, chance in _chances(tuple(sorted(move.after)), ceiling).items():
            chances[target] += chance
    return {target: chance / len(options) for target, chance in chances.items()}


def chances(numbers: Numbers, ceiling: int) -> Mapping[int, float]:
    """For every number that can be reached by using all of `numbers`: the chance that an attempt reaches it
    which draws each move uniformly from the legal ones (an attempt with no legal move left has failed)."""
    return _chances(tuple(sorted(numbers)), ceiling)


def instance(numbers: Numbers, target: int, ceiling: int) -> Instance:
    """The instance of a target that can be reached. Raises KeyError for any other."""
    # rounded, so that the order of summation does not break ties between equal chances
    return Instance(tuple(sorted(numbers)), target, round(chances(numbers, ceiling)[target], 12))


def split_of(numbers: Numbers, heldout_percent: int, tuning_percent: int) -> str:
    """The split of a multiset: train, tuning or heldout, from its checksum alone."""
    bucket = crc32(str(tuple(sorted(numbers))).encode()) % 100
    if bucket < heldout_percent:
        return "heldout"
    return "tuning" if bucket < heldout_percent + tuning_percent else "train"


def _multisets(count: int, largest: int) -> Iterator[Numbers]:
    if comb(largest + count - 1, count) <= MOST_MULTISETS:
        yield from combinations_with_replacement(range(1, largest + 1), count)
        return
    rng = Random(hash64("multisets", count, largest))
    drawn: set[Numbers] = set()
    while len(drawn) < MOST_MULTISETS:
        # distinct places in a longer row stand for a multiset, each for another one: the draw is uniform
        places: set[int] = set()
        while len(places) < count:
            places.add(int(rng.random() * (largest + count - 1)))
        drawn.add(tuple(place - i + 1 for i, place in enumerate(sorted(places))))
    yield from sorted(drawn)


@dataclass(frozen=True)
class Pool:
    """All problems of a configuration by split, and the chances up to which they are hard and medium.

    heldout is in hashed order, so that any first part of it is a random sample.
    """

    splits: dict[str, tuple[Instance, ...]]
    hard: float
    medium: float

    def stratum(self, chance: float) -> str:
        """hard, medium or easy: a third of all problems each, as nearly as ties allow."""
        return "hard" if chance <= self.hard else "medium" if chance <= self.medium else "easy"


def tercile_bounds(values: list[float]) -> tuple[float, float]:
    """The two values v whose share of `values` <= v comes nearest to one and to two thirds."""
    ordered = sorted(values)
    last = {value: i + 1 for i, value in enumerate(ordered)}  # how many are <= value

    def nearest(share: float) -> float:
        return min(last, key=lambda value: (abs(last[value] / len(ordered) - share), value))

    return nearest(1 / 3), nearest(2 / 3)


@lru_cache(maxsize=8)
def pool(count: int, largest: int, ceiling: int, heldout_percent: int, tuning_percent: int) -> Pool:
    """Every multiset of `count` numbers up to `largest`, with every target that it reaches.

    Targets that are themselves among the numbers are left out as too plain. Where there are more than
    MOST_MULTISETS multisets, that many are drawn, always the same.
    """
    splits: dict[str, list[Instance]] = {"train": [], "tuning": [], "heldout": []}
    for numbers in _multisets(count, largest):
        split = splits[split_of(numbers, heldout_percent, tuning_percent)]
        for target in sorted(chances(numbers, ceiling)):
            if target not in numbers:
                split.append(instance(numbers, target, ceiling))
    splits["heldout"].sort(key=lambda item: hash64("heldout", item.numbers, item.target))
    hard, medium = tercile_bounds([item.chance for split in splits.values() for item in split])
    return Pool({name: tuple(split) for name, split in splits.items()}, hard, medium)
