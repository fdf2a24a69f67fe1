"""The planner held against finished runs: what was rehearsed, and what they spent.

    python tests/benchmarks/plan.py [results/<experiment>]

For every arm: shares of the budget by purpose, updates, tokens and evaluation, rehearsed and measured (the
mean over its runs).
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from omegaconf import OmegaConf

from ablate.config import validate
from ablate.ledger import BUDGETED
from ablate.plan.cost import Subject, estimate, evaluations
from ablate.plan.design import Cell, Run
from ablate.plan.records import Recorded, finished
from ablate.text import table


def cell_of(run: Recorded) -> Cell:
    """The arm of a finished run, as a plan would have it."""
    config = validate(OmegaConf.create(run.config))
    values = cast(dict[str, Any], OmegaConf.to_container(cast(Any, config), resolve=True))
    return Cell(config.strategy.name, {}, values, [Run(config, run.folder, "new")])


def main(folder: Path) -> None:
    """Print the table."""
    runs, notes = finished([folder])
    print(*notes, sep="\n", end="\n" if notes else "")
    rows = []
    for arm in dict.fromkeys(run.summary["strategy"] for run in runs):
        same = [run for run in runs if run.summary["strategy"] == arm]
        cell = cell_of(same[0])
        subject = Subject.of(cell, None, None)
        spent = estimate(cell, subject)
        amount = spent.amount("flops")
        for purpose in BUDGETED:
            measured = fmean(run.flops.get(purpose, 0.0) / run.amount("flops") for run in same)
            if measured > 0.0005:
                guess = spent.flops.get(purpose, 0.0) / amount
                rows.append([arm, purpose, f"{100 * guess:.1f} %", f"{100 * measured:.1f} %"])
        for name, guess, each in (
            ("updates", spent.updates, [run.summary["steps"] for run in same]),
            ("tokens", spent.tokens, [run.summary["totals"]["tokens"] for run in same]),
            ("evaluate", evaluations(cell, subject, ()).flops, [run.account("evaluate") for run in same]),
        ):
            rows.append([arm, name, f"{guess:,.3g}", f"{fmean(cast(Any, each)):,.3g}"])
    print(*table(["arm", "", "rehearsed", "measured"], rows), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/countdown"))
