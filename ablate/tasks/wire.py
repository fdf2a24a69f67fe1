"""Python values as JSON and back: what may pass between a judged program and its judge.

Plain data alone: what is decoded has the types of the standard library, whatever a program has made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import isfinite
from typing import Any

DEEPEST = 60  # levels of nesting
MOST_ITEMS = 100_000  # of an iterator


class Unencodable(Exception):
    """A value that is not plain data."""


def encode(value: Any, depth: int = 0) -> Any:
    """A value that JSON can hold. Raises Unencodable."""
    if depth > DEEPEST:
        raise Unencodable("nested too deeply")
    if value is None or isinstance(value, bool | str):
        return value if value is None or type(value) in (bool, str) else str.__str__(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else {"int": hex(value)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: bytes(value).hex()}
    if isinstance(value, list):
        return [encode(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in value.items()]}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item, depth + 1) for item in value]}
    if isinstance(value, Iterator | range | type({}.keys()) | type({}.values()) | type({}.items())):
        items = [encode(item, depth + 1) for item in islice(value, MOST_ITEMS + 1)]
        if len(items) > MOST_ITEMS:
            raise Unencodable("an iterator without end")
        return {"iterator": items}
    raise Unencodable(f"a {type(value).__name__} is not plain data")


def decode(value: Any) -> Any:
    """What `encode` was given; views and ranges come back as iterators. Raises ValueError, TypeError or
    RecursionError for anything that it has not made."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("not an encoded value")
    ((kind, inside),) = value.items()
    if kind in ("int", "bytes", "bytearray"):
        if not isinstance(inside, str):
            raise ValueError("not an encoded value")
        if kind == "int":
            return int(inside, 16)
        return (bytes if kind == "bytes" else bytearray).fromhex(inside)
    if not isinstance(inside, list):
        raise ValueError("not an encoded value")
    items = [decode(item) for item in inside]
    if kind in ("tuple", "set", "frozenset"):
        return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](items)
    if kind == "dict":
        return dict(items)
    if kind == "iterator":
        return iter(items)
    if kind == "complex":
        return complex(*items)
    raise ValueError("not an encoded value")


def same(expected: Any, found: Any, tolerance: float) -> bool:
    """Is a value the expected one, which comes from JSON? Tuples and iterators count as lists, keys as texts;
    numbers with a fraction have a tolerance, relative and absolute; truth values are no numbers."""
    if isinstance(expected, bool) or isinstance(found, bool) or expected is None or found is None:
        return expected is found
    if isinstance(expected, int | float) and isinstance(found, int | float):
        if isinstance(expected, int) and isinstance(found, int):
            return expected == found
        close = abs(expected - found) <= tolerance * max(1.0, abs(expected))
        return expected == found or (isfinite(expected) and close)
    if isinstance(expected, str) or isinstance(found, str):
        return type(expected) is type(found) and expected == found
    if isinstance(expected, dict):
        texts = {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}
        return (
            isinstance(found, dict)
            and len(texts) == len(found)
            and expected.keys() == texts.keys()
            and all(same(value, texts[key], tolerance) for key, value in expected.items())
        )
    if isinstance(expected, list):
        items = list(found) if isinstance(found, list | tuple | Iterator) else None
        return (
            items is not None
            and len(items) == len(expected)
            and all(same(one, other, tolerance) for one, other in zip(expected, items, strict=True))
        )
    return False
