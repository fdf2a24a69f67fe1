"""The counter-based generator: uniform, independent along every axis, and the same for ever."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from ablate.randomness import hash64, uniforms

ROWS = np.arange(600)
KEYS = [0, 1, 2, 3, 2**63, 2**64 - 1, hash64("rollout", 7), hash64("rollout", 8)]


@pytest.mark.parametrize("key", KEYS)
def test_numbers_are_uniform(key):
    drawn = uniforms(key, ROWS, 500)
    assert drawn.shape == (600, 500) and drawn.dtype == np.float64
    assert drawn.min() >= 0.0 and drawn.max() < 1.0
    flat = drawn.ravel()
    n = flat.size
    for power in (1, 2, 3, 4):  # the moments of a uniform number, within five standard errors
        mean = 1 / (power + 1)
        spread = np.sqrt(1 / (2 * power + 1) - mean**2)
        assert abs((flat**power).mean() - mean) < 5 * spread / np.sqrt(n)
    assert kstest(flat, "uniform").pvalue > 1e-4
    for start in (0, 1, 2):  # pairs of neighbouring positions fill the unit square
        cells = np.histogram2d(
            drawn[:, start::2][:, :240].ravel(), drawn[:, start + 1 :: 2][:, :240].ravel(), 16
        )
        assert chisquare(cells[0].ravel()).pvalue > 1e-4
    # all 53 bits are in use
    bits = (flat * 2.0**53).astype(np.uint64)
    for bit in range(53):
        assert abs(((bits >> np.uint64(bit)) & np.uint64(1)).mean() - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_rows_keys_and_positions_are_independent():
    """No correlation between any two rows, positions or keys, consecutive ones included."""
    by_key = [uniforms(key, np.arange(40), 4000) for key in KEYS]
    streams = np.concatenate(by_key)  # (keys x rows, positions)
    check_uncorrelated(streams)
    check_uncorrelated(uniforms(5, np.arange(4000), 300).T)  # (positions, rows)
    shifted = by_key[0]
    for lag in (1, 2, 7, 64):  # along a row, and along a row against another one
        check_uncorrelated(np.concatenate([shifted[:, lag:], shifted[:, :-lag]]))


def check_uncorrelated(streams):
    """All pairs of rows: each coefficient is normal with standard deviation 1/sqrt(n)."""
    size, n = streams.shape
    scores = np.corrcoef(streams)[np.triu_indices(size, 1)] * np.sqrt(n)
    assert np.abs(scores).max() < 6.0  # 2e-9 a pair
    assert abs((scores**2).mean() - 1.0) < 6 * np.sqrt(2 / scores.size) + 6 / np.sqrt(n)


def test_a_number_depends_on_key_row_and_position_only():
    whole = uniforms(9, np.arange(20), 50)
    some = np.array([13, 2, 2, 19])
    np.testing.assert_array_equal(uniforms(9, some, 17), whole[some, :17])
    np.testing.assert_array_equal(uniforms(9, some.astype(np.uint32), 17), whole[some, :17])
    assert (
        len(np.unique(np.concatenate([uniforms(key, ROWS, 40).ravel() for key in KEYS]))) == len(KEYS) * 24000
    )


def test_numbers_are_splitmix64_over_hashed_rows():
    """Against whole-number arithmetic in plain Python, and the generator's published first outputs."""
    golden = 0x9E3779B97F4A7C15

    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    assert [mix(i * golden % 2**64) for i in (1, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    for key in KEYS:
        for row in (0, 1, 2**31, 2**40):
            state = mix((row * golden + key) % 2**64)
            expected = [(mix((state + i * golden) % 2**64) >> 11) * 2.0**-53 for i in (1, 2, 3)]
            assert uniforms(key, np.array([row]), 3)[0].tolist() == expected


def test_pinned_values():
    """Recorded runs can be drawn again only as long as these hold."""
    assert uniforms(0, np.array([0]), 2)[0].tolist() == [0.8833108082136426, 0.43152799704850997]
    assert uniforms(2**64 - 1, np.array([12345]), 2)[0].tolist() == [0.8865599823741152, 0.878548794096512]
    assert hash64("evaluate", "heldout", 8) == 8023795142214464075


def test_hash64_is_the_same_in_every_process():
    parts = ("rollout", 3, 1.5, None)
    code = f"from ablate.randomness import hash64; print(hash64(*{parts!r}))"
    for seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        assert int(printed) == hash64(*parts)


def test_hash64_tells_parts_apart():
    seen = {hash64(a, b) for a in range(300) for b in range(300)}
    assert len(seen) == 90000 and max(seen) < 2**64
    assert len({hash64("ab", "c"), hash64("a", "bc"), hash64("abc"), hash64("abc", "")}) == 4
    high = np.array([value >> 32 for value in seen])
    assert kstest(high / 2.0**32, "uniform").pvalue > 1e-4
