"""Which problem comes when: pure functions of (seed, split, index), the same on every machine.

Everything goes through a hash, because arithmetic on seeds (`seed + index`) gives neighbouring seeds almost
the same problems. Only `Random.random` is drawn from: it is the one method whose sequence Python promises to
keep across versions.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import TypeVar

from ablate.randomness import hash64

Item = TypeVar("Item")


def pick(rng: Random, items: Sequence[Item]) -> Item:
    """A uniformly drawn item."""
    return items[int(rng.random() * len(items))]


@lru_cache(maxsize=16)
def _order(seed: int, split: str, epoch: int, size: int) -> array[int]:
    rng = Random(hash64("order", seed, split, epoch, size))
    keys = [rng.random() for _ in range(size)]
    return array("q", sorted(range(size), key=keys.__getitem__))


def permuted(seed: int, split: str, index: int, size: int) -> int:
    """The instance in [0, size) at `index` of a stream; every epoch of `size` indices is a fresh permutation.

    Raises ValueError for a negative index or an empty split.
    """
    if index < 0 or size < 1:
        raise ValueError(f"no problem {index} in a split of {size}")
    epoch, place = divmod(index, size)
    return _order(seed, split, epoch, size)[place]
