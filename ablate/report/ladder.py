"""The oracle ladder: process rewards by one scorer after the other, everything else equal.

It separates "process rewards do not help" from "this scorer is bad". The oracle is free and privileged, so
the comparison at the budget favours it; after equal updates the price is out of it, too, and what is left
between two rungs is the quality of the values. Oracle values are V* of a perfect player, Monte Carlo and
learned ones estimate V of the policy, a judge's are its own opinion: no scorer is held against another's
target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablate.record import step_means
from ablate.report import contrasts
from ablate.report.content import Claim, Rung
from ablate.report.effects import Effects
from ablate.report.runs import Experiment, Run
from ablate.report.wording import SCORERS

JUDGING = ("label", "score", "judge", "auxiliary_update")  # purposes that a scorer's values are paid under
RECORDED = "train/scorer/"


def ladder(experiment: Experiment, effects: Effects, claims: Sequence[Claim]) -> tuple[Rung, ...]:
    """The rungs that ran, the most privileged first; none if there is but one scorer. claims: the headlines,
    whose words are those of the rungs that they are about."""
    roles, found = contrasts.roles(experiment), contrasts.rungs(experiment)
    base = contrasts.base(roles)
    if base is None or len(set(found.values())) < 2:
        return ()
    names = sorted(found, key=lambda name: (_place(found[name]), name))
    level = min(float(run.spent("updates")[-1]) for run in experiment.runs if run.arm in (base, *names))
    out = []
    for name in names:
        contrast = contrasts.against(name, base, name, "guess + check")
        claim = next((each for each in claims if each.weights == contrast.weights), None)
        runs = [runs[0] for runs in experiment.arm(name).values()]
        free = roles[name] == "upper bound"
        out.append(
            Rung(
                arm=name,
                scorer=found[name],
                at_budget=effects.at(contrast, "budget", experiment.budget, 1),
                at_updates=effects.at(contrast, "updates", level, 1),
                word=claim.word if claim else "no verdict",
                caveats=claim.caveats if claim else ("an upper bound" if free else "no headline",),
                price=float(np.mean([_price(run) for run in runs])),
                quality=_quality(runs),
            )
        )
    return tuple(out)


def _place(scorer: str) -> int:
    known = list(SCORERS)
    return known.index(scorer) if scorer in known else len(known)


def _price(run: Run) -> float:
    account = run.summary["compute"]
    spent = {purpose: float(each.get("flops", 0.0)) for purpose, each in account.items()}
    judging = sum(spent.get(purpose, 0.0) for purpose in JUDGING)
    return judging / (judging + spent.get("rollout", 0.0) + spent.get("update", 0.0))


def _quality(runs: list[Run]) -> dict[str, float]:
    """Means over runs of what each says of its scorer: in its summary, or in its steps, which early summaries
    leave out and which need not have been kept."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, value in (run.summary.get("scorer") or step_means(run.folder, RECORDED)).items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in sorted(found.items())}
