import itertools
from collections import Counter
from fractions import Fraction

import pytest

from ablate.tasks import arithmetic
from ablate.tasks.arithmetic import chances, moves, pool, tercile_bounds


def brute_force(numbers, ceiling):
    """Chances by walking every attempt, in exact fractions."""
    total = Counter()

    def walk(left, weight):
        if len(left) == 1:
            total[left[0]] += weight
            return
        nexts = []
        for a, b in itertools.combinations(range(len(left)), 2):
            low, high = sorted((left[a], left[b]))
            rest = [left[i] for i in range(len(left)) if i not in (a, b)]
            results = [low + high, high - low] + ([low * high] if low > 1 else [])
            nexts += [[result, *rest] for result in results if 0 < result <= ceiling]
        for state in nexts:
            walk(state, weight / len(nexts))

    walk(list(numbers), Fraction(1))
    return {target: float(chance) for target, chance in total.items()}


@pytest.mark.parametrize(
    "numbers", [(1, 1), (25, 25), (8, 9, 4), (1, 20, 3), (7, 7, 7), (3, 12, 5, 8), (1, 2, 2, 11)]
)
def test_chances_equal_enumeration(numbers):
    assert chances(numbers, 49) == pytest.approx(brute_force(numbers, 49))


def test_moves_stay_in_range_and_keep_the_rest():
    for move in moves((6, 1, 9, 9), 20):
        assert 1 <= move.result <= 20
        assert not (move.op == "*" and 1 in (move.left, move.right))
        assert sorted((move.left, move.right, *move.rest)) == [1, 6, 9, 9]
    assert moves((25, 25), 49) == []  # 0, 50 and 625 are out of range


def test_the_default_has_the_problems_of_the_pilot():
    found = pool(3, 20, 49, 15, 5)
    sizes = {name: len(split) for name, split in found.splits.items()}
    assert sizes == {"train": 6405, "tuning": 410, "heldout": 1262}
    assert sum(sizes.values()) == 8077
    assert (found.hard, found.medium) == pytest.approx((5 / 42, 2 / 9))
    # as wide as ties allow: one chance in nine has many problems
    shares = Counter(found.stratum(item.chance) for split in found.splits.values() for item in split)
    assert all(0.29 < shares[name] / 8077 < 0.38 for name in ("easy", "medium", "hard"))


def test_terciles_split_distinct_values_evenly():
    assert tercile_bounds([float(v) for v in range(9)]) == (2.0, 5.0)


def test_large_configurations_are_sampled(monkeypatch):
    monkeypatch.setattr(arithmetic, "MOST_MULTISETS", 50)
    drawn = list(arithmetic._multisets(4, 30))
    assert len(set(drawn)) == 50 and drawn == list(arithmetic._multisets(4, 30))
    assert all(len(m) == 4 and list(m) == sorted(m) and m[0] >= 1 and m[-1] <= 30 for m in drawn)
