"""SCoRe: self-correction in two turns and two stages (Kumar et al. 2024, arXiv:2409.12917, sections 4 and 5).

The policy answers, y1; the correction marker is appended; it answers again, y2, within the common cap. With
r1 and r2 the verified outcomes, and kl the summed log-ratio of a turn's tokens to the starting policy,

    stage I    maximises r2 - beta_one kl(y1): learn to correct while the first turn stays as it was (eq. 3);
    stage II   maximises r1 + r2 + alpha (r2 - r1) - beta_two (kl(y1) + kl(y2)): both turns, with a bonus for
               progress (eq. 4 and 5).

A turn's return is what follows from it on (rewards and kl of its own and of later turns); its advantage is
that minus the mean over the problem's answers. An answer that the cap cuts off has no second turn. Two turns
are no single decode: this arm stands outside the ranking.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

from ablate.types import Group, Lab, Step, Task, Trajectory, UserError


@dataclass
class SecondTurn:
    """Every answer that ended is followed by the marker and a second answer: one group per problem."""

    def check(self, task: Task) -> None:
        """Raises UserError if the task has no correction marker."""
        if not getattr(task, "correction", ""):
            raise UserError(
                f"recovery=second_turn needs a task with a correction marker; {task.name} has none"
            )

    def __call__(self, groups: list[Group], lab: Lab) -> list[Group]:
        """The same groups; `parent` of an answer with two turns is the first one."""
        starts = {
            (g, i): replace(lab.unended(t).then(Step(lab.marker)), parent=t)
            for g, group in enumerate(groups)
            for i, t in enumerate(group)
            if lab.finished(t) and t.length + len(lab.marker) <= lab.cap
        }
        drawn = iter(lab.sample(list(starts.values()), 1))
        return [
            [starts[g, i].then(next(drawn)[0]) if (g, i) in starts else t for i, t in enumerate(group)]
            for g, group in enumerate(groups)
        ]


@dataclass
class Turns:
    """Credit per turn. stage_one: share of the budget that stage I takes."""

    alpha: float = 1.0
    beta_one: float = 0.1
    beta_two: float = 0.01
    stage_one: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.stage_one <= 1.0:
            raise UserError(f"stage_one={self.stage_one} is a share of the budget: it must lie in [0, 1]")
        for name in ("alpha", "beta_one", "beta_two"):
            if getattr(self, name) < 0.0:
                raise UserError(f"{name}={getattr(self, name)} must not be negative")

    def __call__(self, groups: list[Group], lab: Lab) -> list[Group]:
        """The groups with one advantage per step; the marker's counts for nothing, since it is masked."""
        answers = [t for group in groups for t in group]
        if not answers:
            return groups
        reference = iter(lab.score(answers, reference=True))
        first = lab.budget_fraction < self.stage_one
        turns = iter([self._returns(t, next(reference), first) for t in answers])
        _log_turns(answers, lab)
        return [self._centred(group, [next(turns) for _ in group]) for group in groups]

    def _returns(self, answer: Trajectory, reference: list[float], first: bool) -> list[float]:
        """The return of every step."""
        r1, r2 = outcomes(answer)
        ratios, at = [], 0
        for step in answer.steps:
            own = step.logprobs or ()
            ratios.append(sum(p - q for p, q in zip(own, reference[at:], strict=False)))
            at += len(step.tokens)
        last = len(answer.steps) - 1
        kl_one, kl_two = ratios[0], ratios[last] if last else 0.0
        if first:
            returns = [r2 - self.beta_one * kl_one, r2]
        else:
            second = r2 + self.alpha * (r2 - r1) - self.beta_two * kl_two
            returns = [r1 + second - self.beta_two * kl_one, second]
        return [returns[0], *[returns[1]] * last]

    def _centred(self, group: Group, returns: list[list[float]]) -> Group:
        first = fmean(r[0] for r in returns)
        seconds = [r[-1] for r in returns if len(r) > 1]
        second = fmean(seconds) if seconds else 0.0
        return [
            replace(t, advantages=(r[0] - first, *(value - second for value in r[1:])))
            for t, r in zip(group, returns, strict=True)
        ]


def outcomes(answer: Trajectory) -> tuple[float, float]:
    """r1, r2; an answer without a second turn has its outcome twice, so that it shows no progress."""
    last = float(bool(answer.solved))
    return (float(bool(answer.parent.solved)) if answer.parent else last), last


def _log_turns(answers: list[Trajectory], lab: Lab) -> None:
    pairs = [outcomes(t) for t in answers]
    lab.log("score/turn_1", fmean(r1 for r1, _ in pairs))
    lab.log("score/turn_2", fmean(r2 for _, r2 in pairs))
    lab.log("score/difference", fmean(r2 - r1 for r1, r2 in pairs))
    lab.log("score/incorrect_to_correct", fmean(float(r1 < r2) for r1, r2 in pairs))
    lab.log("score/correct_to_incorrect", fmean(float(r1 > r2) for r1, r2 in pairs))
