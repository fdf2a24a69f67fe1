"""Learning to correct: what happens to failures.

An answer that ended wrong (not one that the cap cut off) gets the task's correction marker in place of its
end token, and the policy goes on from there, at least twice, within the common cap. The original answers keep
their own rewards and form their group's baseline alone; continuations form a group per cut with a
leave-one-out baseline, their prefix masked. The marker was not sampled, so it is taught by a likelihood term
where a continuation succeeds: otherwise the policy would never learn to start correcting.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ablate.scorers.monte_carlo import MonteCarlo
from ablate.scorers.oracle import Oracle
from ablate.scorers.steps import step_values
from ablate.types import Group, Lab, Step, Task, Trajectory, UserError


@dataclass
class Correct:
    """n continuations of every failure.

    cut: where the marker goes: "end" of the answer, or after the first wrong step (value 0), located by the
    "oracle" or by "monte_carlo" rollouts. teach: the marker's likelihood term has this weight in all, shared
    by the n continuations. Placebos: always: the marker follows right answers, too. resample: no marker, n
    fresh answers to the problem instead.
    """

    n: int = 2
    cut: Literal["end", "oracle", "monte_carlo"] = "end"
    teach: float = 1.0
    always: bool = False
    resample: bool = False
    monte_carlo: MonteCarlo = field(default_factory=MonteCarlo)

    def __post_init__(self) -> None:
        if self.n < 2:
            raise UserError(f"n={self.n} leaves no baseline for continuations: the smallest valid value is 2")
        if self.teach < 0.0:
            raise UserError(f"teach={self.teach} must not be negative")

    def check(self, task: Task) -> None:
        """Raises UserError if the task has no correction marker, or no oracle to locate with."""
        if not getattr(task, "correction", ""):
            raise UserError(
                f"recovery=correct needs a task with a correction marker, and {task.name} has none"
            )
        if self.cut == "oracle":
            Oracle().check(task)

    def __call__(self, groups: list[Group], lab: Lab) -> list[Group]:
        """The groups, and a new one for every cut."""
        answers = [t for group in groups for t in group]
        ended = [t for t in answers if lab.finished(t) and not lab.truncated(t)]
        failed = [t for t in ended if self.always or not t.solved]
        starts = [Trajectory(t.problem, parent=t) for t in failed]
        if not self.resample:
            starts = [_marked(t, lab, self.teach / self.n) for t in self._cut(failed, lab)]
        starts = [t for t in starts if t.length < lab.cap]
        lab.log("corrections", len(starts) / max(1, len(answers)))
        drawn = lab.sample(starts, self.n)
        return groups + [
            [start.then(step) for step in steps] for start, steps in zip(starts, drawn, strict=True)
        ]

    def _cut(self, failed: list[Trajectory], lab: Lab) -> list[Trajectory]:
        if self.cut == "end":
            return failed
        split = [lab.split(t) for t in failed]
        values = step_values(split, Oracle() if self.cut == "oracle" else self.monte_carlo, lab)
        return [replace(t, steps=t.steps[: first_wrong(v) + 1]) for t, v in zip(split, values, strict=True)]


def _marked(trajectory: Trajectory, lab: Lab, imitate: float) -> Trajectory:
    """What a continuation starts from: the answer, masked, and the marker."""
    kept = tuple(step.masked() for step in lab.unended(trajectory).steps)
    return Trajectory(trajectory.problem, (*kept, Step(lab.marker, imitate=imitate)), parent=trajectory)


def first_wrong(values: list[float]) -> int:
    """Index of the first step that leaves a value of 0, else of the last step; values: V_0 .. V_T."""
    return next((t for t, value in enumerate(values[1:]) if value == 0.0), len(values) - 2)
