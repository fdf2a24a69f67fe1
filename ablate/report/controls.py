"""What other experiments have shown that the instrument can see, from their own reports.

A verdict of "not needed" is worth as much as the instrument's sensitivity: until some setting has shown a
benefit of a suspect, nothing tells whether it would have been seen here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ablate.record import read_json
from ablate.report.content import SCHEMA, Claim, Control, ControlClaim
from ablate.report.wording import last_name
from ablate.schema import nearest
from ablate.types import UserError

SEEN = ("helps", "needed")


def control(folder: Path) -> Control:
    """A reported experiment's headline claims. Raises UserError if it has no report of this version."""
    path, again = folder / "verdict.json", f"python -m ablate.report {folder}"
    if not path.exists():
        beside = [each.parent.name for each in sorted(folder.parent.glob("*/verdict.json"))]
        if not folder.exists():
            hint = f"; {nearest(folder.name, beside)}" if beside else ""
            raise UserError(f"control={folder} does not exist{hint}")
        raise UserError(f"control={folder} has no verdict.json: {again}")
    report = read_json(path)
    try:
        if report["schema"] != SCHEMA:
            raise UserError(f"control={folder}: its verdict.json is of another version: {again}")
        return Control(
            experiment=str(report["experiment"]),
            task=last_name(report["task"]),
            metric=str(report["metric"]),
            margin=float(report["margin"]),
            unit=str(report["unit"]),
            budget=float(report["budget"]),
            claims=tuple(_claim(each, report["arms"]) for each in report["claims"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"control={folder}: its verdict.json cannot be read ({error}): {again}") from error


def _claim(found: dict, arms: Iterable[dict]) -> ControlClaim:
    with_it = {arm for arm, weight in found["weights"] if weight > 0}
    effect = found["effect"] or {}
    interval = effect.get("interval")
    estimate = effect.get("estimate") or {}
    return ControlClaim(
        title=str(found["title"]),
        adds=tuple(found["adds"]),
        on=str(found["on"]),
        word=found["word"],
        value=estimate.get("value"),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        seeds=len(effect.get("seeds", ())),
        problems=int(estimate.get("problems", 0)),
        caveats=tuple(found["caveats"]),
        settings=next((dict(arm["settings"]) for arm in arms if arm["name"] in with_it), {}),
    )


def seen(claims: Iterable[Claim], controls: Iterable[Control]) -> tuple[str, ...]:
    """What helps or is needed by itself in some headline claim, of this experiment or of a control."""
    found = [(claim.adds, claim.word) for claim in claims]
    found += [(claim.adds, claim.word) for each in controls for claim in each.claims]
    return tuple(dict.fromkeys(adds[0] for adds, word in found if word in SEEN and len(adds) == 1))
