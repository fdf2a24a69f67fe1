"""The exact step oracle of a task that has one: can this prefix still succeed?

It is free and privileged, so what it gives is an upper bound and no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.types import Lab, Task, Trajectory, UserError


@dataclass
class Oracle:
    """Reachability: V* of a perfect player, not the policy's own chance."""

    def check(self, task: Task) -> None:
        """Raises UserError if the task has no oracle."""
        if not hasattr(task, "oracle"):
            raise UserError(
                f"scorer=oracle needs a task with a step oracle, and task={task.name} has none; "
                "nearest: scorer=monte_carlo"
            )

    def values(self, prefixes: Sequence[Trajectory], lab: Lab) -> list[float]:
        """1.0 or 0.0 per prefix (Countdown), a share of parts (chain); nothing is charged."""
        return lab.oracle(prefixes)

    def ends(self, answers: Sequence[Trajectory], lab: Lab) -> list[float]:
        """What finished answers have made of it: the share of their parts that are right, or the outcome."""
        return lab.grade(answers)
