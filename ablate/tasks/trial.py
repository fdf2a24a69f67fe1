"""A program on trial: what it returns, compared outside of it, decides.

The program sits in a sandbox of its own and answers calls. Expected values stay here, or, for tests written
in Python, in a second sandbox; what either process says is data. A program passes only if calls were made and
every one of them came back in time, under a number that cannot be guessed before, with the right value.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ablate.tasks import sandbox
from ablate.tasks.child import Child, Stopped
from ablate.tasks.wire import decode, encode, same

PASSED = "passed"


@dataclass(frozen=True)
class Example:
    """One call and what it must give: a value (from JSON), or an exception of this built-in class."""

    args: Sequence[Any] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    returns: Any = None
    raises: str | None = None


@dataclass(frozen=True)
class Exam:
    """What a program must do: examples, or tests in Python, or both. entry: the function under test. names:
    the functions that the tests may call. setup: Python that the tests need before."""

    entry: str
    examples: tuple[Example, ...] = ()
    tests: str = ""
    names: tuple[str, ...] = ()
    setup: str = ""


@dataclass(frozen=True)
class Limits:
    """Of one trial. seconds: of processor time for all calls; on the clock it may take several times as long,
    since the machine has other things to do. memory: bytes of address space. tolerance: of examples whose
    value has a fraction."""

    seconds: int = 5
    memory: int = 512 << 20
    tolerance: float = 1e-6

    @property
    def wall(self) -> float:
        """Seconds on the clock after which the trial is over."""
        return 3.0 * self.seconds + 5.0


class Failed(Exception):
    """The program did not pass; the message says why, in a word or two."""


def judge(program: str, exam: Exam, limits: Limits, unsafe: bool = False) -> str:
    """`PASSED`, or why not: "time", "ended", "flood", "noise" (`Stopped`), "wrong", "raised X", "undefined",
    "untested". Never raises for what a program does."""
    deadline = time.monotonic() + limits.wall
    children: list[Child] = []
    try:
        children.append(sandbox.start("ablate.tasks.candidate", unsafe))
        suspect = _Suspect(children[0], program, limits, deadline)
        if exam.examples:
            _examples(suspect, exam, limits)
        if exam.tests:
            children.append(sandbox.start("ablate.tasks.examiner", unsafe))
            _tests(suspect, children[1], exam, limits, deadline)
        return PASSED if suspect.calls else "untested"
    except (Stopped, Failed) as failure:
        return str(failure)
    finally:
        for child in children:
            child.close()


class _Suspect:
    """The program in its sandbox."""

    def __init__(self, child: Child, program: str, limits: Limits, deadline: float) -> None:
        self._child, self._deadline, self.calls = child, deadline, 0
        order = {"source": program, "cpu_seconds": limits.seconds, "memory": limits.memory}
        reply = child.ask(order, deadline)
        if not isinstance(reply, dict) or not isinstance(reply.get("names"), list):
            raise Failed(_raised(reply))
        self._names = reply["names"]

    def call(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The reply to a call, arguments and value encoded: {"value", "args"} or {"raised"}."""
        if name not in self._names:
            raise Failed("undefined")
        number = secrets.token_hex(16)
        order = {"id": number, "name": name, "args": args, "kwargs": kwargs}
        reply = self._child.ask(order, self._deadline)
        if not isinstance(reply, dict) or reply.pop("id", None) != number:
            raise Stopped("noise")  # it said something before it was asked
        if "raised" not in reply and not (
            isinstance(reply.get("args"), list) and len(reply["args"]) == len(args) and "value" in reply
        ):
            raise Stopped("noise")
        self.calls += 1
        return reply


def _examples(suspect: _Suspect, exam: Exam, limits: Limits) -> None:
    for example in exam.examples:
        args = [encode(arg) for arg in example.args]
        reply = suspect.call(exam.entry, args, {name: encode(value) for name, value in example.kwargs})
        if example.raises is not None or "raised" in reply:
            if reply.get("raised") != example.raises:
                raise Failed(_raised(reply) if "raised" in reply else "wrong")
            continue
        try:
            right = same(example.returns, decode(reply["value"]), limits.tolerance)
        except (ValueError, TypeError, RecursionError, OverflowError, MemoryError):
            raise Stopped("noise") from None
        if not right:
            raise Failed("wrong")


def _tests(suspect: _Suspect, examiner: Child, exam: Exam, limits: Limits, deadline: float) -> None:
    order = {
        "setup": exam.setup,
        "tests": exam.tests,
        "names": list(exam.names),
        "entry": exam.entry,
        "cpu_seconds": limits.seconds,
        "memory": limits.memory,
    }
    calls = suspect.calls
    message = examiner.ask(order, deadline)
    while "verdict" not in message:
        message = examiner.ask(suspect.call(message["name"], message["args"], message["kwargs"]), deadline)
    if message["verdict"] is not True:
        raise Failed("wrong" if message["why"] == "AssertionError" else f"raised {message['why']}")
    if suspect.calls == calls:
        raise Failed("untested")


def _raised(reply: Any) -> str:
    kind = reply.get("raised") if isinstance(reply, dict) else None
    return f"raised {kind}" if isinstance(kind, str) and kind.isidentifier() else "noise"
