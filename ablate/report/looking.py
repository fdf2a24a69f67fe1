"""Which look at an experiment this is, who declared it, and whether it is the last one."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.report.content import Claim, Look
from ablate.report.looks import Looks, parse
from ablate.report.runs import Experiment, first_draws
from ablate.types import UserError

REACHED = ("harmful", "not needed", "needed", "helps")


def chosen(experiment: Experiment, text: str | None = None, spending: str | None = None) -> Looks | None:
    """The looks that the runs declare, or those of the command line, as `4,8,12`; None: a fixed design.

    Raises UserError where the two disagree, or the runs among themselves.
    """
    known: dict[Looks, str] = {}
    for run in experiment.runs:
        if found := _declared(run.config):
            known.setdefault(found, run.folder.name)
    if len(known) > 1:
        (one, first), (other, second) = list(known.items())[:2]
        raise UserError(
            f"looks are declared once: {_text(one)} in {first} and {_text(other)} in {second}; "
            "give the experiments other names"
        )
    declared = next(iter(known), None)
    if text is None and spending is None:
        return declared
    if text is None and declared is None:
        raise UserError(f"spending={spending} needs looks, as in looks=4,8,12")
    base = declared.spending if declared else "obrien_fleming"
    at = ",".join(map(str, declared.at)) if text is None and declared else str(text)
    given = parse(at, spending or base)
    if declared is not None and given != declared:
        raise UserError(
            f"{_text(given)} is not what the runs declare: {_text(declared)}; looks are declared before them"
        )
    return given


def _declared(config: dict) -> Looks | None:
    looks = config.get("looks") or {}
    return Looks(tuple(looks["at"]), looks["spending"]) if looks.get("at") else None


def _text(looks: Looks) -> str:
    return f"looks={','.join(map(str, looks.at))} spending={looks.spending}"


def look(experiment: Experiment, claims: Sequence[Claim], looks: Looks) -> Look:
    """Where the experiment stands."""
    seeds = min((len(each.effect.seeds) if each.effect else 0 for each in claims), default=0)
    number = looks.number(seeds)
    families = [each.effect.family for each in claims if each.effect]
    family = max(families, default=1)
    spent = None if number is None else 1 - (1 - looks.spent(number, family)) ** family
    stop = bool(claims) and number is not None and all(each.word in REACHED for each in claims)
    flops = sum(float(run.summary["totals"]["flops"]) for run in experiment.runs)
    # of every arm that has not got as far, at what its runs have cost
    missing, rest = 0, 0.0
    for arm in experiment.arms if stop else ():
        known = first_draws(run for runs in experiment.arm(arm).values() for run in runs[:1])
        wanting = max(looks.at[-1] - len(known), 0)
        missing += wanting
        rest += wanting * sum(float(run.summary["totals"]["flops"]) for run in known) / len(known)
    return Look(
        at=looks.at,
        spending=looks.spending,
        declared=all(_declared(run.config) == looks for run in experiment.runs),
        seeds=seeds,
        number=number,
        spent=spent,
        stop=stop,
        runs=len(experiment.runs),
        flops=flops,
        saved_runs=missing,
        saved_flops=rest,
    )
