"""Plain numbers, however they are written; and what is none."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.tasks.numbers import LONGEST, Number, foreign_words, number, trimmed

WORDS = frozenset(["eggs", "day", "more", "thousand", "pi"])

EIGHTEEN = [
    *("18", "18.", "18.0", "+18", " 18 ", "$18$", "\\(18\\)", "**18**", "$18", "\\$18", "18$", "$ 18", "018"),
    *(
        "18 dollars",
        "18\\text{ dollars}",
        "18 \\text{eggs}",
        "18 eggs",
        "18 eggs per day",
        "18 eggs/day",
        "18kg",
    ),
    *(
        "18\\mathrm{cm}^2",
        "18 cm^{2}",
        "18 m²",
        "18 miles per hour",
        "18^\\circ",
        "18°",
        "18\\,\\text{kg}",
        "$18.00",
    ),
]
NONE = [
    *(
        "",
        ".",
        "-",
        "$",
        "eighteen",
        "18 or 19",
        "18, 19",
        "1,8",
        "18 19 20",
        "18x",
        "18 x",
        "x=18",
        "18/1",
        "1.8.1",
    ),
    *(
        "18 thousand",
        "18\\text{ thousand}",
        "18 pi",
        "18 more",
        "not 18",
        "about 18",
        "18!",
        "18^2",
        "18²",
        "18 ^2 eggs",
        "18 ^ eggs",
    ),
    *("--18", "-$-18", "1e3", "18 eggs and 3", "1,2345", "12,34", "18 \\pm 1", "٣", "१८", "18 eggs!", "{18}"),
]


@pytest.mark.parametrize("text", EIGHTEEN)
def test_renderings_of_a_number(text):
    assert number(text, WORDS) == Number(Decimal(18))


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_plain_number(text):
    assert number(text, WORDS) is None


def test_separators_signs_and_shares():
    for text in (
        "1,234,567",
        "1{,}234{,}567",
        "1\\,234\\,567",
        "1 234 567",
        "1,\\!234,\\!567",
    ):
        assert number(text) == Number(Decimal(1234567)), text
    for text in ("-3", "−3", "-$3", "$-3", "\\$-3", "-3 dollars"):
        assert number(text) == Number(Decimal(-3)), text
    quarter = number("25\\%")
    assert quarter == number("25%") == number("25 percent") == Number(Decimal(25), percent=True)
    assert quarter.same(Number(Decimal(25))) and quarter.same(Number(Decimal("0.25")))
    assert not quarter.same(Number(Decimal("2.5"))) and not Number(Decimal(25)).same(Number(Decimal("0.25")))


decimals = st.decimals(-(10**9), 10**9, places=2, allow_nan=False, allow_infinity=False)
RENDERINGS = [
    "{}",
    "${}",
    "{} dollars",
    "\\text{{{}}}",
    "**{}**",
    "{}.",
    "$ {} $",
    "{}\\text{{ eggs}}",
    "{}%",
]


@given(decimals, st.sampled_from([form for form in RENDERINGS if form != "\\text{{{}}}"]), st.booleans())
def test_a_number_is_read_back_exactly(value, form, separated):
    text = f"{value:,}" if separated else str(value)
    assert number(form.format(text), WORDS).value == value


@given(decimals, decimals, st.sampled_from(RENDERINGS), st.sampled_from(RENDERINGS))
def test_different_numbers_are_never_the_same(one, other, form, other_form):
    first, second = number(form.format(one), WORDS), number(other_form.format(other), WORDS)
    if first and second and first.percent == second.percent:
        assert first.same(second) == (one == other)


@given(st.text())
def test_every_text_can_be_tried(text):
    found = number(text, WORDS)
    assert found is None or found.value.is_finite()
    foreign_words(text, WORDS)
    assert len(trimmed(text)) <= len(text)


def test_long_texts_are_tried_quickly():
    for text in ("9" * 100_000, "-" + " " * 100_000 + "x", "1,000" * 50_000, "$" * 100_000, "a " * 100_000):
        assert number(text) is None
        trimmed(text)
    assert number("9" * LONGEST) is not None


def test_words_of_prose_in_formulas():
    assert foreign_words("18\\text{ thousand}") and foreign_words("not 18")
    assert not foreign_words("\\frac{36}{2}") and not foreign_words("\\frac{36}{2}\\text{ eggs}", WORDS)
    assert foreign_words("\\frac{36}{2}\\text{ eggs}")
