"""What any strategy must beat: imitation, of the policy's own right answers or of demonstrations.

- `Accepted` is rejection-sampling fine-tuning, on policy (expert iteration; Yuan et al. 2023,
  arXiv:2308.01825): the likelihood of right answers is raised, A = 1 for them and 0 for the others.
- `Demonstrations` is supervised fine-tuning on more demonstrations of the task, those that are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ablate.types import Group, Lab, Problem, Step, Task, Trajectory, UserError


@dataclass
class Accepted:
    """Credit: right answers are imitated, wrong ones ignored."""

    def __call__(self, groups: list[Group], lab: Lab) -> list[Group]:
        """The groups with an advantage of 1 or 0 for every step."""
        return [
            [replace(t, advantages=(float(bool(t.solved)),) * len(t.steps)) for t in group]
            for group in groups
        ]


@dataclass
class Demonstrations:
    """Source: n demonstrations of each problem by the demonstrator of the warm start, to be imitated where
    they are right. What they cost is the update alone."""

    n: int = 8

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"n={self.n} must be at least 1")

    def check(self, task: Task) -> None:
        """Raises UserError if the task has no demonstrator."""
        if not hasattr(task, "demonstrate"):
            raise UserError(f"source=demonstrations needs a task with a demonstrator; {task.name} has none")

    def __call__(self, problems: Sequence[Problem], lab: Lab) -> list[Group]:
        """Groups of unverified trajectories, none of whose tokens the policy sampled."""
        starts = [Trajectory(problem) for problem in problems]
        return [
            [start.then(Step(tokens, imitate=1.0)) for tokens in answers]
            for start, answers in zip(starts, lab.demonstrate(problems, self.n), strict=True)
        ]
