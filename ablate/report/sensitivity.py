"""What is known of the instrument, in words: control experiments, and whose benefit has been seen."""

from __future__ import annotations

from ablate.report.content import Claim, Control, ControlClaim, Report
from ablate.report.wording import UNITS, amount, bounds, count, points, verdict

# suspect -> what it takes to have been seen before "not needed" says much
SENSITIVE = {"search": "search", "process": "process rewards"}


def sensitivity(report: Report) -> list[str]:
    """What is known of the instrument: control experiments, and whose benefit has been seen."""
    lines = [_control(each, claim) for each in report.controls for claim in each.claims]
    asked = {factor for claim in report.claims for factor in claim.adds}
    for suspect, title in SENSITIVE.items():
        if suspect not in asked:
            continue
        where = [
            each.experiment + _otherwise(claim, report)
            for each in report.controls
            for claim in each.claims
            if _helps(claim, suspect)
        ]
        if any(_helps(claim, suspect) for claim in report.claims):
            where = ["this experiment", *where]
        lines.append(
            f"Sensitivity to {title} shown: a benefit was seen in {', '.join(where)}."
            if suspect in report.seen
            else f"Sensitivity to {title} not shown: no setting is known here in which the instrument has "
            f"seen {title} help, so nothing tells whether a benefit would have been seen."
        )
    if any(claim.word != "no verdict" for claim in report.replicates):
        words = [claim.word for claim in report.replicates if claim.word != "no verdict"]
        false = sum(word not in ("not needed", "inconclusive") for word in words)
        lines.append(
            f"A/A, runs that differ in their sampling seed alone: {count(false, 'false verdict')} in "
            f"{count(len(words), 'comparison')} (by chance one in twenty)."
        )
    return lines


def _otherwise(control: ControlClaim, report: Report) -> str:
    """What a control's arm has other than the arm that is judged here."""
    judged = next((claim.weights[0][0] for claim in report.claims if claim.adds == control.adds), None)
    own = next((arm.settings for arm in report.arms if arm.name == judged), None)
    if own is None:
        return ""
    keys = [key for key in {**own, **control.settings} if key.count(".") == 1]
    differ = [
        f"{key.removesuffix('._target_')} {_short(there)} instead of {_short(here)}"
        for key in keys
        if (there := control.settings.get(key)) != (here := own.get(key))
    ]
    return f" (with {', '.join(differ)})" if differ else ""


def _short(value: object) -> str:
    """A value; of a component's name, the last part."""
    return value.rpartition(".")[2] if isinstance(value, str) else "none" if value is None else str(value)


def _helps(claim: Claim | ControlClaim, suspect: str) -> bool:
    return claim.adds == (suspect,) and claim.word in ("helps", "needed")


def _control(control: Control, claim: ControlClaim) -> str:
    numbers = ""
    if claim.value is not None:
        numbers = f" {points(claim.value)} points"
        numbers += f" {bounds(claim.interval)}" if claim.interval else ""
        numbers += f" in {control.metric}, {count(claim.seeds, 'seed')} x {claim.problems:,} problems"
    return (
        f"Control experiment {control.experiment} ({control.task}, {amount(control.budget)} "
        f"{UNITS.get(control.unit, control.unit)}, margin {100 * control.margin:g}): {claim.title} on top of "
        f"{claim.on}: {verdict(claim)}.{numbers}" + ("." if numbers else "")
    )
