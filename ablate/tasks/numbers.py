"""One plain number as people write it: "1,234", "$18.00", "18 eggs.", "-3.5\\%"; and nothing else.

Numbers are told apart exactly, without a tolerance, and without the parser of formulas, which is generous
with words: it reads "18\\text{ thousand}" as 18.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal
from typing import NamedTuple

LONGEST = 400  # characters of a number with its unit

_SEPARATOR = r"(?:,|\{,\}|\\[,!; ]|,\\!|[ \u00a0\u2009\u202f])"
_CURRENCY = r"(?:\\?\$|\\text\{\\?\$\}|[€£¥₹])"
_SHAPE = re.compile(
    rf"""(?P<sign>[-−+])?\s*{_CURRENCY}?\s*(?P<sign2>[-−+])?\s*
    (?P<whole>[0-9]{{1,3}}(?:{_SEPARATOR}[0-9]{{3}})+(?![0-9])|[0-9]+)?(?P<part>\.[0-9]+|\.(?![0-9]))?
    (?:\s*{_CURRENCY})?(?:\s*(?P<percent>\\?%))?(?P<rest>.*)""",
    re.VERBOSE | re.DOTALL,
)
_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textrm|operatorname)\s*\{([^{}]*)\}")
_EXPONENT = re.compile(r"(?<=[^\W\d_])\s*(?:\^\{?[23]\}?|[²³])")  # of a unit
_DEGREES = re.compile(r"\s*(?:\^?\s*\{?\s*\\(?:circ|degree)\s*\}?|°)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# the words of units that need not occur in the problem
UNITS = _words(
    """usd dollar dollars cent cents euro euros pound pounds rupee rupees yen
    second seconds sec secs s minute minutes min mins hour hours hr hrs h day days week weeks month months
    year years yr yrs am pm
    mm cm m km millimeter millimeters centimeter centimeters meter meters metre metres kilometer kilometers
    inch inches in foot feet ft yard yards yd mile miles mi mph kph
    mg g kg gram grams kilogram kilograms lb lbs ounce ounces oz ton tons
    ml l liter liters litre litres gallon gallons gal quart quarts pint pints cup cups
    square cubic sq unit units degree degrees per of each total people person persons item items piece
    pieces"""
)
# words that change what a number says; they are never a unit, whatever the problem's text
NOT_UNITS = _words(
    """and or not no nor but to than more less least most about around nearly almost over under fewer
    half halves third thirds quarter quarters fourth fifth tenth hundredth dozen dozens score couple pair
    pairs ten eleven twelve twenty hundred hundreds thousand thousands million millions billion billions
    trillion k bn one two three four five six seven eight nine zero double twice triple times time
    plus minus divided multiplied squared cubed factorial point negative positive remainder pi tau e i x y z n
    sqrt root power between either if wrong incorrect is"""
)
FUNCTIONS = _words("sqrt pi sin cos tan log ln exp frac")


class Number(NamedTuple):
    """A decimal number, exactly; percent: was it written with a percent sign?"""

    value: Decimal
    percent: bool = False

    def same(self, other: Number) -> bool:
        """Equal, where "25%" may stand for 25 and for 0.25."""
        if self.value == other.value:
            return True
        return self.percent != other.percent and self.share == other.share

    @property
    def share(self) -> Decimal:
        """The value, a hundredth of what stands before a percent sign."""
        return self.value / 100 if self.percent else self.value


def number(text: str, words: Collection[str] = ()) -> Number | None:
    """The number that a text is, None if it is anything else.

    words: of the problem, in small letters, which may serve as units, too.
    """
    text = " ".join(trimmed(text).split())
    if whole := _WRAPPED.fullmatch(text):  # \text{18 dollars}
        text = trimmed(whole[1])
    found = _SHAPE.fullmatch(text) if len(text) <= LONGEST else None
    if not found or not (found["whole"] or (found["part"] or ".") != "."):
        return None
    if found["sign"] and found["sign2"]:
        return None
    rest, percent = found["rest"], bool(found["percent"])
    if rest:
        if rest.strip().casefold() in ("percent", r"\text{percent}", r"\text{ percent}"):
            percent = True
        elif not _is_unit(rest, words):
            return None
    digits = re.sub(r"[^0-9]", "", found["whole"] or "0") + (found["part"] or "").rstrip(".")
    value = Decimal(digits)
    return Number(-value if (found["sign"] or found["sign2"]) in ("-", "−") else value, percent)


def trimmed(text: str) -> str:
    """Without what may stand around an answer: white space, emphasis, dollars of mathematics, a full stop."""
    before = None
    while before != text:
        before = text
        text = text.strip().removesuffix(".").removesuffix("\\")
        for left, right in (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`")):
            if len(text) > len(left + right) and text.startswith(left) and text.endswith(right):
                inside = text[len(left) : -len(right)]
                text = inside if left not in inside else text
    return text


def words_of(text: str) -> frozenset[str]:
    """The words of a text, in small letters."""
    return frozenset(re.findall(r"[^\W\d_]+", text.casefold()))


def foreign_words(text: str, words: Collection[str] = ()) -> bool:
    """Does a formula hold words of prose? Commands (\\frac), functions and units are none."""
    plain = _WRAPPED.sub(r" \1 ", text)
    found = re.findall(r"(?<![\\a-z])[a-z]{2,}", plain.casefold())
    return not all(word in FUNCTIONS or _may_be_unit(word, words) for word in found)


def _may_be_unit(word: str, words: Collection[str]) -> bool:
    return word in UNITS or (word in words and word not in NOT_UNITS)


def _is_unit(rest: str, words: Collection[str]) -> bool:
    rest = _DEGREES.sub(" ", rest, count=1)
    unwrapped = _WRAPPED.sub(r" \1 ", re.sub(r"\\[,;: ]|~", " ", rest))
    spelled = _EXPONENT.sub("", unwrapped).casefold()
    if re.search(r"[^\w\s/.-]|[\d_]", spelled):
        return False
    if rest[:1].isalpha() and (len(rest) < 2 or spelled not in UNITS):
        return False  # "18x" is a product; "18kg" and "18 eggs" are not
    return all(_may_be_unit(word, words) for word in words_of(spelled))
