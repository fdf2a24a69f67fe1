"""Plain data there and back; nothing else comes back, whatever is sent."""

import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.tasks.wire import DEEPEST, MOST_ITEMS, Unencodable, decode, encode, same

hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
values = st.recursive(
    hashable | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=12,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def kinds(value):
    """The types of a value, all the way down."""
    if isinstance(value, dict):
        return [dict, [(kinds(k), kinds(v)) for k, v in value.items()]]
    if isinstance(value, list | tuple):
        return [type(value), [kinds(item) for item in value]]
    return type(value)


@given(values)
def test_plain_data_goes_there_and_back(value):
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value and kinds(back) == kinds(value)


@given(plain)
def test_anything_that_json_holds_decodes_or_is_refused(value):
    with suppress(ValueError, TypeError):
        decode(value)


def test_what_is_no_plain_data_is_refused():
    class Equal:
        def __eq__(self, other):
            return True

    for value in (
        object(),
        Equal(),
        [Equal()],
        {"a": Equal()},
        len,
        int,
        ...,
        iter(int, 1),
        range(MOST_ITEMS + 1),
    ):
        with pytest.raises(Unencodable):
            encode(value)
    deep: list = []
    for _ in range(DEEPEST + 1):
        deep = [deep]
    loop: list = []
    loop.append(loop)
    for value in (deep, loop):
        with pytest.raises(Unencodable):
            encode(value)


def test_subclasses_come_back_as_what_they_are_made_of():
    class Number(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    class Text(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    for value, base in ((Number(3), int), (Text("a"), str)):
        back = decode(json.loads(json.dumps(encode(value))))
        assert type(back) is base and back != base("4")
    assert list(decode(encode(range(3)))) == [0, 1, 2] == list(decode(encode(iter([0, 1, 2]))))
    assert list(decode(encode({1: 2}.items()))) == [(1, 2)]
    assert math.isnan(decode(encode(math.nan))) and decode(encode(2**5000)) == 2**5000


@given(plain)
def test_a_value_is_the_same_as_itself_and_as_a_tuple(value):
    assert same(value, decode(encode(value)), 0.0)
    if isinstance(value, list):
        assert same(value, tuple(value), 0.0) and same(value, iter(value), 0.0)
        assert not same(value, [*value, 0], 0.0)


DIFFERENT = [
    *(
        (1, True),
        (0, False),
        (None, 0),
        ("1", 1),
        (1, "1"),
        ([1], 1),
        (1, [1]),
        ([], {}),
        ({}, []),
        ("a", ["a"]),
        (["a"], "a"),
    ),
    *(
        ([1, 2], [2, 1]),
        ([1, 2], {1, 2}),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        (1, 1.1),
        (1.0, 1.001),
        (1.0, math.nan),
    ),
    *(
        (math.inf, 1.0),
        ({"1": 1}, {1: 1, "1": 1}),
        ([[1]], [1]),
        (2**70, 2**70 + 1),
        ("", None),
        (1, 1 + 0j),
        ("ab", b"ab"),
    ),
]


@pytest.mark.parametrize(("expected", "found"), DIFFERENT)
def test_what_is_not_the_same(expected, found):
    assert not same(expected, found, 1e-6)


def test_tolerance_is_for_fractions_alone():
    assert same(0.1 + 0.2, 0.3, 1e-6) and same(1e9, 1e9 + 1, 1e-6) and same(2, 2.0, 0.0)
    assert not same(10**9, 10**9 + 1, 1e-6) and not same(0.1 + 0.2, 0.3, 0.0)
    assert same({"1": [1, [2, 3]]}, {1: [1, (2, 3)]}, 0.0)
