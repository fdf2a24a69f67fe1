"""Which methods there are, their ladders, and how a mistake is answered."""

import pytest

from ablate.testtime.methods import DEFAULT, METHODS, budgets, chosen, jobs
from ablate.types import UserError


def test_a_method_alone_stands_for_all_its_guides():
    assert chosen("beam") == [("beam", guide) for guide in METHODS["beam"].guides]
    assert chosen("majority,beam:oracle,beam:oracle") == [("majority", None), ("beam", "oracle")]
    assert len(chosen(None)) == len(DEFAULT)
    assert {name for name, _ in chosen(None)} == set(METHODS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("majoriti", "methods=majoriti is not a method; did you mean majority"),
        ("beam:lerned", "methods=beam:lerned: lerned does not guide beam; did you mean learned"),
        ("beam:verifier", "verifier does not guide beam; choices: judge, learned"),
        ("majority:oracle", "majority has no guide; write methods=majority"),
        ("beam:", "methods=beam: names no guide; choices: judge, learned"),
    ],
)
def test_unknown_methods_and_guides_get_the_nearest(text, message):
    with pytest.raises(UserError, match=message):
        chosen(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "budgets=0 is below one sample: the smallest valid value is 1"),
        ("4,-1", "budgets=-1 is below one sample"),
        ("4,x", "budgets=4,x is no list of whole numbers"),
    ],
)
def test_budgets_are_at_least_one_sample(text, message):
    with pytest.raises(UserError, match=message):
        budgets(text)


def test_candidates_that_cannot_be_shared_out_are_refused():
    with pytest.raises(UserError, match=r"budgets=6 cannot be shared out: .* nearest: 4 and 8"):
        jobs([("beam", "oracle")], 128, 512, 1, (6,))
    assert [job.setting for job in jobs([("beam", "oracle")], 128, 512, 1, (2, 8))] == [
        {"n": 2, "m": 2},
        {"n": 8, "m": 4},
    ]


def test_ladders():
    caps = [job.setting["cap"] for job in jobs([("natural", None)], 128, 256, 1, (3,))]
    assert caps == [16, 32, 64, 128, 256]  # as far as there is room, whatever the budgets
    (job,) = jobs([("depth1", "monte_carlo")], 128, 512, 3, None)  # rollouts are dear
    assert job.setting == {"n": 2, "rollouts": 3}
    forced = [job.setting for job in jobs([("budget_forcing", None)], 128, 512, 1, None)]
    assert forced == [{"stop": 32}, {"stop": 64}, {"wait": 1}, {"wait": 2}, {"wait": 4}]
