"""Unit tests written in Python, in a sandbox of their own: what they call is in another one.

The functions under test are stand-ins that pass their calls on, so tests run as they are: plain asserts,
`check(candidate)` as in HumanEval, functions called `test_...`, unittest.TestCase classes. The judged program
never shares a process with them: it cannot see what they expect, nor change what they are made of, and all
that it returns arrives as plain data.

A container that a call changes in place is changed here, too. Exceptions keep the nearest built-in class.
"""

from __future__ import annotations

import builtins
import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

from ablate.tasks.inside import Line, limit
from ablate.tasks.wire import decode, encode


class NoTests(Exception):
    """Nothing was tested."""


def main() -> None:
    """{"setup", "tests", "names", "entry", "cpu_seconds", "memory"} -> {"name", "args", "kwargs"} ... ->
    {"verdict"}."""
    line = Line()
    order = line.hear()
    limit(order["cpu_seconds"], order["memory"])
    try:
        _run(order, line)
    except BaseException as error:
        line.say({"verdict": False, "why": type(error).__name__})
    else:
        line.say({"verdict": True, "why": ""})


def _run(order: dict[str, Any], line: Line) -> None:
    space: dict[str, Any] = {"__name__": "tests"}
    exec(compile(order["setup"], "<setup>", "exec"), space)
    stand_ins = {name: _stand_in(name, line) for name in order["names"]}
    solution = types.ModuleType("solution")  # for tests that import what they test
    for module in (space, solution.__dict__):
        module.update(stand_ins)
    sys.modules["solution"] = solution
    before = set(space)
    exec(compile(order["tests"], "<tests>", "exec"), space)
    own = {name: value for name, value in space.items() if name not in before}
    if callable(own.get("check")):
        own["check"](stand_ins[order["entry"]])
    for name, value in own.items():
        if name.startswith("test_") and callable(value):
            value()
        elif isinstance(value, type) and issubclass(value, unittest.TestCase):
            result = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(value).run(result)
            if not result.wasSuccessful():
                raise AssertionError
            if result.testsRun == len(result.skipped):
                raise NoTests


def _stand_in(name: str, line: Line) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        line.say(
            {
                "name": name,
                "args": [encode(arg) for arg in args],
                "kwargs": {key: encode(value) for key, value in kwargs.items()},
            }
        )
        reply = line.hear()
        if "raised" in reply:
            raise _exception(str(reply["raised"]))
        for arg, after in zip(args, reply["args"], strict=False):
            if after is not None:
                _become(arg, decode(after))
        return decode(reply["value"])

    call.__name__ = name
    return call


def _exception(name: str) -> Exception:
    """One of a built-in class; what would end this process (SystemExit) or is unknown becomes another."""
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        kind = RuntimeError
    try:
        return kind("raised by the answer")
    except TypeError:  # UnicodeDecodeError and the like are made of more, and are ValueErrors
        return ValueError("raised by the answer")


def _become(arg: Any, after: Any) -> None:
    """Change a container in place as the call has changed its copy."""
    if type(arg) is not type(after) or arg == after:
        return
    if isinstance(arg, list | bytearray):
        arg[:] = after
    elif isinstance(arg, dict | set):
        arg.clear()
        arg.update(after)
