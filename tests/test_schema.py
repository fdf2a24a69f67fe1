"""Dataclasses as schemas: conversion, defaults, components, and every way to be wrong."""

import sys
import types
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from ablate import schema
from ablate.types import UserError


@dataclass(frozen=True)
class Inner:
    depth: int = 2
    rate: float = schema.limited(0.5, above=0, below=1)


@dataclass(frozen=True)
class Deeper(Inner):
    extra: bool = False


@dataclass(frozen=True)
class Outer:
    size: int
    kind: Literal["red", "green"] = "red"
    inner: Inner = field(default_factory=lambda: Inner(depth=7))
    maybe: Inner | None = None
    free: Any = field(default_factory=Deeper)
    spread: tuple[float, ...] = (1.0, 2.0)
    made: list[int] = field(default_factory=list, init=False)

    def __post_init__(self):
        if self.size == 13:
            raise ValueError("size=13 is unlucky")


@dataclass
class Unreadable:
    call: types.FunctionType


class Plain:
    pass


TARGET = f"{__name__}.Outer"


def build(**values):
    return schema.build(OmegaConf.create({"_target_": TARGET, **values}))


def test_build_makes_nested_frozen_dataclasses_with_their_own_defaults():
    assert build(size=1) == Outer(1)
    built = build(size="3", inner={"rate": "2e-1"}, maybe={"depth": 1}, free={"extra": True}, spread=[1])
    assert built == Outer(3, inner=Inner(7, 0.2), maybe=Inner(1), free=Deeper(extra=True), spread=(1.0,))
    assert type(built.free) is Deeper and type(built.spread) is tuple


def test_a_component_can_hold_components_and_survives_yaml():
    node = OmegaConf.create({"_target_": TARGET, "size": 1, "free": {"_target_": TARGET, "size": 2}})
    assert schema.build(node).free == Outer(2)
    values = schema.read(Outer, {"size": 1}, "outer")
    text = OmegaConf.to_yaml(OmegaConf.create({"_target_": TARGET, **values}))
    assert schema.build(OmegaConf.create(text)) == Outer(1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "Outer.size has no value: set Outer.size=..."),
        ({"size": "x"}, "Outer.size=x is not a whole number"),
        ({"size": 1.5}, "Outer.size=1.5 is not a whole number"),
        ({"size": True}, "Outer.size=True is not a whole number"),
        ({"size": None}, "Outer.size=null is not a whole number"),
        ({"size": 13}, "Outer: size=13 is unlucky"),
        (
            {"size": 1, "kind": "gren"},
            "Outer.kind=gren is not a choice; did you mean green?; choices: green, red",
        ),
        ({"size": 1, "sise": 1}, "unknown key Outer.sise; did you mean Outer.size?"),
        ({"size": 1, "made": [1]}, "unknown key Outer.made"),
        (
            {"size": 1, "inner": 3},
            "Outer.inner=3: Outer.inner has keys of its own, for example Outer.inner.depth",
        ),
        ({"size": 1, "inner": {"dept": 1}}, "unknown key Outer.inner.dept; did you mean Outer.inner.depth?"),
        ({"size": 1, "inner": {"rate": 0}}, "Outer.inner.rate=0.0 is too small: it must be larger than 0"),
        ({"size": 1, "inner": {"rate": 1}}, "Outer.inner.rate=1.0 is too large: it must be smaller than 1"),
        ({"size": 1, "inner": {"rate": "nan"}}, "Outer.inner.rate=nan is not a finite number"),
        ({"size": 1, "spread": ["x"]}, "Outer.spread=['x'] is not of type tuple"),
        ({"size": 1, "spread": 3}, "Outer.spread=3 is not a list, as in Outer.spread=[3]"),
        ({"_target_": "Outer"}, "Outer._target_=Outer is not of the form package.module.Class"),
        ({"_target_": "nowhere.at.All"}, "there is no module nowhere"),
        ({"_target_": f"{__name__}.Outr"}, "did you mean Outer?"),
        ({"_target_": f"{__name__}.Plain"}, "Plain is not a dataclass"),
        ({"_target_": f"{__name__}.Unreadable", "call": 1}, "cannot hold values of type"),
    ],
)
def test_mistakes_are_told_in_one_line(values, message):
    with pytest.raises(UserError) as caught:
        build(**values)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", "broken_module needs no_such_library, which is not installed"),
        ("x = (1,\ny = 2", "line 1: SyntaxError"),
        ("\n\n1 / 0", "line 3: ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_says_where(tmp_path, monkeypatch, source, message):
    (tmp_path / "broken_module.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_module", raising=False)
    with pytest.raises(UserError, match="broken_module") as caught:
        build(_target_="broken_module.Thing")
    assert message in str(caught.value)


def test_only_components_are_built():
    with pytest.raises(UserError, match="has no _target_"):
        schema.build({"size": 1})
