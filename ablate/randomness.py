"""Randomness as a pure function: the same (seed, purpose, batch, row, position) gives the same number.

A sampler that keeps no state can be killed and resumed anywhere, and what a row draws does not depend on
which other rows are in its batch.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def hash64(*parts: object) -> int:
    """A 64-bit hash of the parts, the same in every process: strings, numbers, tuples of them."""
    text = "\x1f".join(map(repr, parts))  # repr escapes the separator
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection on 64 bits."""
    import numpy as np

    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(key: int | np.ndarray, rows: np.ndarray, positions: int) -> np.ndarray:
    """Uniform numbers in [0, 1), shape (len(rows), positions): a counter-based generator.

    key: 64-bit stream key, or one per row (unsigned). rows: row numbers, shape (R,).
    """
    import numpy as np

    golden = 0x9E3779B97F4A7C15
    keys = np.uint64(key & (2**64 - 1)) if isinstance(key, int) else key.astype(np.uint64)
    with np.errstate(over="ignore"):
        row_keys = _mix(rows.astype(np.uint64) * np.uint64(golden) + keys)
        counters = np.arange(1, positions + 1, dtype=np.uint64) * np.uint64(golden)
        bits = _mix(row_keys[:, None] + counters[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
