"""The verifier's own grade of what stands so far: the share of a task's parts that are right.

It knows what the verifier knows, which every arm asks free of charge, and does not look ahead: so it is not
privileged, as the oracle is. What it changes is how finely the verifier's judgement is paid out. A verdict on
it is one on the granularity of credit, a control of the instrument, and says nothing of scorers that must be
learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.types import Lab, Task, Trajectory, UserError


@dataclass
class Verified:
    """The share of right parts (`task.parts`) in every prefix."""

    def check(self, task: Task) -> None:
        """Raises UserError if the task's verifier has no parts to judge."""
        if not hasattr(task, "parts"):
            raise UserError(
                f"scorer=verified needs a task whose verifier judges parts, and task={task.name} has none; "
                "nearest: task=chain, scorer=monte_carlo"
            )

    def values(self, prefixes: Sequence[Trajectory], lab: Lab) -> list[float]:
        """One value per prefix; nothing is charged."""
        return lab.parts(prefixes)

    def ends(self, answers: Sequence[Trajectory], lab: Lab) -> list[float]:
        """The same of finished answers."""
        return lab.parts(answers)
