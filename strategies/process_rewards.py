"""Process rewards: credit for every step instead of one for the answer.

With V_t the scorer's value after step t, V_0 the prompt's, r the verified outcome and p_t = V_t - V_{t-1}
(p_T = r - V_{T-1}; where values are shares of right parts, r is the answer's share) a step's progress, the
forms are

- difference: A_t = p_t. With Monte Carlo values this is VinePPO (Kazemnejad et al. 2024, arXiv:2410.01679,
  section 5); the sum telescopes to r - V_0. With values that are not the policy's own it is the *naive*
  process reward: on the default task it pays for every restart and teaches never to finish.
- progress: A_t = A_outcome + coefficient (p_t - mean p over the group's steps), as process advantage
  verifiers are used (Setlur et al. 2024, arXiv:2410.08146, eq. 3), centred so that it pays for no length.
- return: A_t = A_outcome + coefficient (G_t - mean G_t over the group's answers), G_t = p_t + ... + p_T, as
  in GRPO's process supervision (Shao et al. 2024, arXiv:2402.03300, section 4.1.3). For values that are what
  has been earned so far: a step then answers for what it leaves to later ones, too (room under the cap, say).

Siblings in a tree carry the search's values: there A = Q(child) - V(parent), and no scorer is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import fmean
from typing import Literal

from ablate.scorers.judge import Judge
from ablate.scorers.learned import Learned
from ablate.scorers.monte_carlo import MonteCarlo
from ablate.scorers.oracle import Oracle
from ablate.scorers.steps import step_values
from ablate.scorers.verified import Verified
from ablate.types import Group, Lab, Scorer, Task, Trajectory, UserError
from strategies.guess_check import Outcome


@dataclass
class Process:
    """Credit per step.

    scorer: who values a step; each has settings of its own below. form: see above; auto: difference where the
    values are the policy's own (monte_carlo), return where they are earned (verified), else progress.
    coefficient: of what is centred. until: share of the budget after which only the outcome counts ("to
    create the early examples"). shuffle: the placebo: the progress of the policy's steps is permuted within
    each answer, in a tree that of siblings, its sum kept. outcome: the outcome's credit.
    """

    scorer: Literal["monte_carlo", "learned", "judge", "verified", "oracle"] = "monte_carlo"
    form: Literal["auto", "difference", "progress", "return"] = "auto"
    coefficient: float = 1.0
    until: float = 1.0
    shuffle: bool = False
    outcome: Outcome = field(default_factory=Outcome)
    monte_carlo: MonteCarlo = field(default_factory=MonteCarlo)
    learned: Learned = field(default_factory=Learned)
    judge: Judge = field(default_factory=Judge)

    def __post_init__(self) -> None:
        if not 0.0 < self.until <= 1.0:
            raise UserError(f"until={self.until} is a share of the budget: it must lie in (0, 1]")
        without_settings: dict[str, Scorer] = {"verified": Verified(), "oracle": Oracle()}
        self._scorer = without_settings.get(self.scorer) or getattr(self, self.scorer)
        own = {"monte_carlo": "difference", "verified": "return"}.get(self.scorer, "progress")
        self._form = own if self.form == "auto" else self.form

    def check(self, task: Task) -> None:
        """Raises UserError if the task cannot serve the scorer."""
        if check := getattr(self._scorer, "check", None):
            check(task)

    def ready(self, lab: Lab) -> None:
        """Raises UserError if the policy cannot serve the scorer; called before training."""
        if ready := getattr(self._scorer, "ready", None):
            ready(lab)

    def __call__(self, groups: list[Group], lab: Lab) -> list[Group]:
        """The groups with one advantage per step."""
        if self.until < 1.0 and lab.budget_fraction >= self.until:
            return self.outcome(groups, lab)
        groups = [group if _searched(group) else [lab.split(t) for t in group] for group in groups]
        judged = [t for group in groups if not _searched(group) for t in group]
        values = iter(step_values(judged, self._scorer, lab, sampled=True))
        return [
            self._from_tree(group, lab) if _searched(group) else self._credit(group, values, lab)
            for group in groups
        ]

    def _credit(self, group: Group, values, lab: Lab) -> Group:
        progress = [differences(next(values)) for _ in group]
        for t, steps in zip(group, progress, strict=True):  # for the alarm: what the policy's steps are paid
            paid = (p for p, step in zip(steps, t.steps, strict=True) if step.logprobs is not None)
            lab.log("reward/process", sum(max(p, 0.0) for p in paid))
        if self.shuffle:
            progress = [_shuffled(t, steps, lab) for t, steps in zip(group, progress, strict=True)]
        if self._form != "difference":
            if self._form == "return":
                progress = [[sum(steps[i:]) for i in range(len(steps))] for steps in progress]
            centred = _centred(group, progress, by_place=self._form == "return")
            progress = [
                [a + self.coefficient * p for p in steps]
                for a, steps in zip(self.outcome.advantages(group), centred, strict=True)
            ]
        return [replace(t, advantages=tuple(steps)) for t, steps in zip(group, progress, strict=True)]

    def _from_tree(self, group: Group, lab: Lab) -> Group:
        """Q(child) - V(parent) for the last step of each sibling; the path before them is masked."""
        gains = [(t.steps[-1].value or 0.0) - (t.steps[-2].value or 0.0) for t in group]
        if self.shuffle:
            gains = lab.rng.sample(gains, len(gains))
        return [
            replace(t, advantages=(0.0,) * (len(t.steps) - 1) + (gain,))
            for t, gain in zip(group, gains, strict=True)
        ]


def _shuffled(trajectory: Trajectory, progress: list[float], lab: Lab) -> list[float]:
    """The progress of the policy's own steps, permuted among these; the others' is not used."""
    own = [t for t, step in enumerate(trajectory.steps) if step.logprobs is not None]
    drawn = dict(zip(own, lab.rng.sample(own, len(own)), strict=True))
    return [progress[drawn.get(t, t)] for t in range(len(progress))]


def _centred(group: Group, gains: list[list[float]], by_place: bool) -> list[list[float]]:
    """Every step's gain minus the mean over the group's steps, or over those in the same place."""
    own: dict[int, list[float]] = {}
    for t, steps in zip(group, gains, strict=True):
        for i, (gain, step) in enumerate(zip(steps, t.steps, strict=True)):
            if step.logprobs is not None:  # what the policy did not write cannot raise its baseline
                own.setdefault(i if by_place else 0, []).append(gain)
    means = {place: fmean(found) for place, found in own.items()}
    return [[gain - means.get(i if by_place else 0, 0.0) for i, gain in enumerate(steps)] for steps in gains]


def differences(values: list[float]) -> list[float]:
    """Progress p_1 .. p_T from values V_0 .. V_T."""
    return [after - before for before, after in pairwise(values)]


def _searched(group: Group) -> bool:
    return all(t.steps and t.steps[-1].value is not None for t in group)
