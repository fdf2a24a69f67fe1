import numpy as np
import pytest

from ablate.report.content import Effect
from ablate.report.statistics import Estimate
from ablate.report.verdict import decide, worth


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
    assert word == "helps" and "4x the budget is not below it" in caveat
    word, (caveat,) = decide(clear, 0.02)
    assert word == "helps" and caveat == "needed not shown: no base run at 4x the budget"


def test_one_seed_has_no_verdict():
    alone = Effect("budget", 1e12, (0,), Estimate(0.3, 1, 100), 1, None, None)
    assert decide(alone, 0.02)[0] == "no verdict"


def gain(arm, half, least=1 / 16, most=4.0):
    """The worth of an arm with this accuracy against a base that gains 10 points with every doubling."""

    def difference(multiple):
        value = arm - (0.5 + 0.1 * np.log2(multiple))
        return value, value - half, value + half

    return worth(difference, least, most)


def test_worth_is_where_the_base_catches_up():
    found = gain(0.6, 0.05)
    assert found.value == pytest.approx(2, rel=1e-6)
    assert found.interval == pytest.approx((2**0.5, 2**1.5), rel=1e-6)
    assert (found.least, found.most) == (1 / 16, 4.0)


def test_worth_beyond_what_was_run_is_a_bound():
    above = gain(0.75, 0.1)  # as good as the base with 5.7x, between 2.8x and 11x
    assert above.value is None
    assert above.interval == (pytest.approx(2**1.5, rel=1e-6), None)
    assert gain(0.95, 0.1).interval == (4.0, None)  # better than all of it
    below = gain(0.05, 0.1)  # worse than the base with a sixteenth: by less than the error
    assert below.value is None
    assert below.interval == (None, pytest.approx(1 / 2**3.5, rel=1e-6))
    assert gain(-0.3, 0.1).interval == (None, 1 / 16)


def test_worth_needs_a_base_that_can_be_read():
    assert worth(lambda multiple: None, 0.25, 1.0) is None
