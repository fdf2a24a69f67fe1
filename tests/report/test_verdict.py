from dataclasses import replace

import numpy as np
import pytest

from ablate.report.content import Effect
from ablate.report.statistics import Estimate
from ablate.report.verdict import crossings, decide, worth


def effect(low, high):
    middle = Estimate((low + high) / 2, 4, 100)
    return Effect("budget", 1e12, (0, 1, 2, 3), middle, 3, (low, high), (low, high))


@pytest.mark.parametrize(
    "interval, word",
    [
        ((-0.03, -0.01), "harmful"),
        ((-0.01, 0.01), "not needed"),
        ((0.005, 0.015), "not needed"),  # less than the margin, however sure
        ((0.005, 0.04), "helps"),
        ((0.025, 0.04), "helps"),  # without a base at 4x the budget
        ((-0.01, 0.03), "inconclusive"),
        ((-0.01, 0.02), "inconclusive"),  # the margin itself is not below the margin
    ],
)
def test_the_first_rule_that_matches_counts(interval, word):
    assert decide(effect(*interval), 0.02)[0] == word


def test_needed_takes_a_base_that_does_not_catch_up():
    clear = effect(0.03, 0.05)
    assert decide(clear, 0.02, effect(0.001, 0.03)) == ("needed", ())
    word, (caveat,) = decide(clear, 0.02, effect(-0.01, 0.02))
    assert word == "helps" and "4x the budget may be as good" in caveat
    assert decide(clear, 0.02) == ("helps", ("needed not tested: no base run at 4x the budget",))
    some = replace(effect(0.01, 0.03), seeds=(0, 2))
    assert decide(clear, 0.02, some, "the updates") == (
        "needed",
        ("the base ran to 4x the updates on 2 of 4 seeds",),
    )
    alone = replace(some, interval=None)
    assert decide(clear, 0.02, alone) == ("helps", ("needed not tested: 4x the budget on one seed only",))
    # between zero and the margin there is nothing to test
    assert decide(effect(0.01, 0.05), 0.02) == ("helps", ())


def test_one_seed_has_no_verdict():
    alone = Effect("budget", 1e12, (0,), Estimate(0.3, 1, 100), 1, None, None)
    assert decide(alone, 0.02)[0] == "no verdict"


def test_outcomes_that_never_vary_tell_nothing():
    assert decide(effect(0.0, 0.0), 0.02)[0] == "no verdict"


def gain(arm, half, least=1 / 16, most=4.0, start=0.0):
    """The worth of an arm with this accuracy against a base that gains 10 points with every doubling."""

    def difference(multiple):
        if multiple == 0:
            return None if start is None else (arm - start, arm - start - half, arm - start + half)
        value = arm - (0.5 + 0.1 * np.log2(multiple))
        return value, value - half, value + half

    return worth(difference, least, most)


def test_worth_is_where_the_base_catches_up():
    found = gain(0.6, 0.05)
    assert found.beyond is None
    assert found.value == pytest.approx(2, rel=1e-6)
    assert found.interval == pytest.approx((2**0.5, 2**1.5), rel=1e-6)
    assert (found.least, found.most) == (1 / 16, 4.0)


def test_worth_beyond_what_was_run_is_a_bound():
    above = gain(0.75, 0.1)  # as good as the base with 5.7x, between 2.8x and 11x
    assert (above.value, above.beyond) == (None, "more")
    assert above.interval == (pytest.approx(2**1.5, rel=1e-6), None)
    assert gain(0.95, 0.1).interval == (4.0, None)  # better than all of it
    below = gain(0.05, 0.1)  # worse than the base with a sixteenth: by less than the error
    assert (below.value, below.beyond) == (None, "less")
    assert below.interval == (None, pytest.approx(1 / 2**3.5, rel=1e-6))
    assert gain(0.05, 0.01).interval == (None, 1 / 16)


def test_worth_of_an_arm_below_its_start_is_nothing():
    assert (gain(0.01, 0.01, start=0.02).value, gain(0.05, 0.01, start=0.02).value) == (0.0, None)
    assert gain(0.01, 0.01, start=None).value is None  # its outcomes were not kept


def test_crossings_are_where_the_effect_changes_its_sign():
    def found(values, half, unread=()):
        shares = (0.25, 0.5, 1.0)

        def difference(share):
            if any(low < share < high for low, high in unread):
                return None
            value = np.interp(np.log(share), np.log(shares), values)
            return value, value - half, value + half

        return crossings(difference, 0.25, 1.0)

    (once,) = found((-0.1, -0.1, 0.1), 0.05)
    assert once.share == pytest.approx(2**-0.5) and once.gains
    assert once.interval == (pytest.approx(2**-0.75, rel=0.05), pytest.approx(2**-0.25, rel=0.05))
    first, second = found((0.1, -0.1, 0.1), 0.01)
    assert (first.gains, second.gains) == (False, True) and first.interval[1] < second.interval[0]
    assert found((0.1, -0.1, 0.1), 1.0)[0].interval == (None, None)
    assert found((0.1, 0.0, 0.1), 0.01) == found((0.1, 0.2, 0.3), 0.01) == ()
    (through,) = found((-0.1, 0.0, 0.1), 0.01)  # exactly zero where it was measured
    assert through.share == pytest.approx(0.5, rel=0.05)
    (across,) = found((-0.1, -0.1, 0.1), 0.01, unread=[(0.5, 1.0)])  # between what can be read
    assert across.share == pytest.approx(2**-0.5, rel=0.02)


def test_worth_needs_a_base_that_can_be_read():
    assert worth(lambda multiple: None, 0.25, 1.0) is None
