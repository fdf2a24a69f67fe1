from dataclasses import replace
from types import SimpleNamespace

import pytest

from ablate.report.content import Crossing, Worth
from ablate.report.wording import amount, count, crossings, described, multiple, numbers, percent, points
from ablate.text import table


def test_numbers_are_written_for_people():
    assert [points(value) for value in (0.0123, -0.0004, -0.021)] == ["+1.2", "-0.04", "-2.1"]
    assert [amount(value) for value in (3e12, 1.25e13, 400.0, 0.5, 1e-5)] == [
        *("3e12", "1.25e13", "400", "0.5", "1e-5")
    ]
    assert (count(1, "seed"), count(12, "seed")) == ("1 seed", "12 seeds")
    assert (percent(0.1234), percent(None)) == ("12.3", "?")
    assert table(["a", "b"], [["x|y", "1"]]) == [
        "| a    | b |",
        "|:-----|--:|",
        "| x\\|y | 1 |",
    ]


WORTH = Worth(1.72, None, (1.2, 2.6), 0.06, 4.02)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({}, "1.7x [1.2x, 2.6x]"),
        ({"interval": (1.2, None)}, "1.7x [1.2x, >4x]"),
        ({"interval": (None, None)}, "1.7x [<0.06x, >4x]"),
        # better with every budget that the other arm was given, and surely, or perhaps not
        ({"value": None, "beyond": "more", "interval": (4.02, None)}, "more than 4x"),
        ({"value": None, "beyond": "more", "interval": (2.8, None)}, "more than 4x [2.8x, >4x]"),
        # worse with every one
        ({"value": None, "beyond": "less", "interval": (None, 0.06)}, "less than 0.06x"),
        ({"value": None, "beyond": "less", "interval": (None, None)}, "less than 0.06x [<0.06x, >4x]"),
        ({"value": 0.0, "beyond": "less", "interval": (None, 0.06)}, "0x (no better than before training)"),
    ],
)
def test_worth_beyond_what_was_run(changes, text):
    assert multiple(replace(WORTH, **changes)) == text


def test_crossings_say_who_is_ahead_then():
    claim = SimpleNamespace(
        by_budget=((0.25, None), (1.0, None)),
        crossings=(Crossing(0.4, False, (None, 0.5)), Crossing(0.8, True, (0.7, None))),
    )
    assert crossings(claim) == [
        "falls behind at 0.4x the budget [<0.25x, 0.5x]",
        "gets ahead at 0.8x the budget [0.7x, >1x]",
    ]


@pytest.mark.parametrize(
    "effect, slope, text",
    [
        ((-0.03, -0.01), (-0.01, 0.02), "-2.0 points [-3.0, -1.0] at 3e12 FLOPs, margin 2, {}."),
        (
            (-0.013, -0.001),
            None,
            "-0.7 points [-1.3, -0.1] at 3e12 FLOPs, margin 2, {}; by less than the margin.",
        ),
        (
            (-0.013, -0.001),
            (0.005, 0.047),
            "-0.7 points [-1.3, -0.1] at 3e12 FLOPs, margin 2, {}; by less than the margin; "
            "catching up, +2.6 points [+0.5, +4.7] per doubling of compute from 0.26x to 1x the budget.",
        ),
    ],
)
def test_how_harmful_is_said(effect, slope, text):
    def between(bounds):
        middle = SimpleNamespace(value=sum(bounds) / 2, problems=1262)
        return SimpleNamespace(estimate=middle, interval=bounds, seeds=(0, 1))

    weights = (("mcts", 1.0), ("guess_check", -1.0))
    claim = SimpleNamespace(
        word="harmful",
        effect=between(effect),
        slope=slope and between(slope),
        weights=weights,
        by_budget=((0.257, None), (1.0, None)),
    )
    report = SimpleNamespace(metric="pass@1", budget=3e12, unit="flops", margin=0.02, look=None)
    assert numbers(claim, report) == text.format("2 seeds x 1,262 problems, mcts minus guess_check")


def test_a_component_is_described_by_its_plain_settings():
    config = {"_target_": "ablate.tasks.chain.Chain", "links": 6, "base": {"numbers": 3}, "none": None}
    assert described(config) == "Chain: links 6"
    assert described({"_target_": "x.Task"}) == "Task" and described({}) == ""
