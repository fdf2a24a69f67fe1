"""Verdicts on many answers at once, whoever gives them: a rule, a task's own processes, or a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ablate.types import JudgeModel, Problem, Task, Verdict


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
    return [task.verify(p, text) for p, text in zip(problems, completions, strict=True)]
