"""Verdicts on many answers at once, whoever gives them: a rule, a task's own processes, or a judge."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ablate.types import JudgeModel, Problem, Task, UserError, Verdict

VERIFY_SECONDS = (
    60.0  # for one answer, by a task's own `verify`; `verify_all` and judges have their own limits
)


class Ask(Protocol):
    """Asks the judge of a name, made at first use, and charges what it costs: see `Lab.judge`."""

    def __call__(self, name: str, make: Callable[..., JudgeModel], questions: Sequence[str]) -> list[Verdict]:
        """One verdict per question."""
        ...


def verdicts(
    task: Task,
    problems: Sequence[Problem],
    completions: Sequence[str],
    ask: Ask | None = None,
    log: Callable[[str, float], None] = lambda name, value: None,
) -> list[bool]:
    """Is each finished answer right? What a judge costs goes through `ask`, what is known of its errors to
    `log`. Raises ValueError for a task with a judge where nobody can ask one."""
    own: Any = task
    if not problems:
        return []
    if hasattr(own, "judge_all"):
        if ask is None:
            raise ValueError(f"task={task.name} has a judge, which must be asked and charged for")
        return own.judge_all(problems, completions, ask, log)
    if hasattr(own, "verify_all"):
        return own.verify_all(problems, completions)
    return _one_by_one(task, problems, completions)


class _Hung(BaseException):
    """No Exception: a verifier that never raises catches those."""


def _one_by_one(task: Task, problems: Sequence[Problem], completions: Sequence[str]) -> list[bool]:
    """A task's own `verify` in this process. One that hangs is interrupted by a signal, which Python's loops,
    regular expressions, sleeping and reading heed; native code that never looks for signals does not.

    Raises UserError, naming problem and answer: a verdict that depends on how busy a machine is would be
    none.
    """
    pairs = zip(problems, completions, strict=True)
    if threading.current_thread() is not threading.main_thread():
        return [task.verify(problem, text) for problem, text in pairs]
    found: list[bool] = []
    hung = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal hung
        hung = True
        raise _Hung

    # the kernel's timer: a thread could not look while a regular expression holds the interpreter
    before, began = signal.signal(signal.SIGALRM, interrupt), time.monotonic()
    earlier, _ = signal.getitimer(signal.ITIMER_REAL)
    try:
        for problem, text in pairs:
            signal.setitimer(signal.ITIMER_REAL, VERIFY_SECONDS)
            found.append(task.verify(problem, text))
            if hung:
                raise _Hung
    except _Hung:
        raise UserError(
            f"task={task.name}: its verifier gave no verdict within {VERIFY_SECONDS:g} s on the problem "
            f"{problem.id[:80]!r} and the answer {text[:80]!r}"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if earlier:  # somebody else's, which waited meanwhile
            signal.setitimer(signal.ITIMER_REAL, max(0.01, earlier - (time.monotonic() - began)))
    return found
