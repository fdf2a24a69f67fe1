"""A judged program as a server of its functions: runs inside the sandbox, and is not to be trusted.

It is told the program, then one call at a time, and answers with what the call returns. What would be right
it never learns: values are compared outside. So a program that takes this process over gains nothing by it;
it could only answer the calls, which is what is asked of it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from ablate.tasks.inside import Line, limit
from ablate.tasks.wire import Unencodable, decode, encode


def main() -> None:
    """{"source", "cpu_seconds", "memory"} -> {"names"}; {"id", "name", "args", "kwargs"} -> {"id", ...}."""
    line = Line()
    order = line.hear()
    limit(order["cpu_seconds"], order["memory"])
    # a module, because dataclasses look theirs up
    sys.modules["answer"] = module = ModuleType("answer")
    space = module.__dict__
    try:
        exec(compile(order["source"], "<answer>", "exec"), space)
    except BaseException as error:  # SystemExit, KeyboardInterrupt: the program's, not this process's
        line.say({"raised": _kind(error)})
        return
    line.say({"names": [name for name, value in space.items() if callable(value) and isinstance(name, str)]})
    while True:
        order = line.hear()
        line.say({"id": order["id"], **_call(space, order)})


def _call(space: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    try:
        args = [decode(arg) for arg in order["args"]]
        kwargs = {name: decode(value) for name, value in order["kwargs"].items()}
        value = encode(space[order["name"]](*args, **kwargs))
    except Unencodable:
        return {"raised": "Unencodable"}
    except BaseException as error:
        return {"raised": _kind(error)}
    return {"value": value, "args": [_or_null(arg) for arg in args]}


def _or_null(arg: Any) -> Any:
    """An argument as the call has left it, where it is a container that the call may have changed."""
    try:
        return encode(arg) if isinstance(arg, list | dict | set | bytearray) else None
    except BaseException:
        return None


def _kind(error: BaseException) -> str:
    """The nearest built-in class of an exception."""
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"), "Exception")
