"""Many runs at a glance: `python -m ablate.status results/<experiment> [--all] [--json]`

What runs, what is done, what failed and why, what stopped and waits to be gone on with, what a sweep has yet
to begin; time left, accuracy so far, budget spent; where MLflow compares them. Read from the runs' own files:
no process is asked, and of the streams only the ends are read.

Exit codes: 0; 2 a mistake in the call, told in one line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from ablate.command import exit_code
from ablate.experiments import check_experiment, no_runs, run_folders
from ablate.owner import alive, owner
from ablate.progress import clock
from ablate.record import check_format, primary, read_json, status
from ablate.sweeps.planned import plans
from ablate.text import table
from ablate.tracking.push import notes
from ablate.tracking.store import where_to_look
from ablate.types import UserError

ROWS = 40  # printed without --all
TAIL = 1 << 16  # bytes from the end of a stream
PAUSE = 20  # median steps: what lies longer between two was no work, as when a run was stopped and goes on

State = Literal["running", "done", "failed", "stopped", "waiting", "unreadable"]
ORDER: tuple[State, ...] = ("running", "failed", "unreadable", "stopped", "waiting", "done")


@dataclass(frozen=True)
class RunState:
    """One run. accuracy: of the last evaluation, by the figure `metric`; spent: share of the budget; seconds:
    wall time of a finished run; left: seconds that a running one still takes."""

    run: str
    state: State
    strategy: str | None = None
    seed: str | None = None
    accuracy: float | None = None
    metric: str | None = None
    spent: float | None = None
    seconds: float | None = None
    left: float | None = None
    text: str = ""  # why it failed, who is at work on it, what it is called in its sweep


@dataclass(frozen=True)
class Overview:
    """An experiment. left: seconds until all is done at as many runs at a time as now; None: nothing to tell
    it from. sweeps: at work now."""

    folder: str
    counts: dict[str, int]
    left: float | None
    sweeps: int
    mlflow: str | None
    runs: list[RunState] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(_main, argv)


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ablate.status", description="What runs, what is done, what failed, what waits."
    )
    parser.add_argument("folder", type=Path, metavar="results/<experiment>")
    parser.add_argument("--all", action="store_true", help=f"a line for every run, also of more than {ROWS}")
    parser.add_argument("--json", action="store_true", help="for machines: every run, times in seconds")
    options = parser.parse_args(argv)
    found = overview(options.folder)
    if options.json:
        print(json.dumps(asdict(found), indent=1))
    else:
        print("\n".join(lines(found, None if options.all else ROWS)))
    return 0


def overview(folder: Path) -> Overview:
    """The state of every run of an experiment. Raises UserError for a folder that is none."""
    check_experiment(folder)
    runs: list[RunState] = []
    mirrored: list[tuple[str, str, str]] = []
    for each in run_folders(folder):
        if status_or_none(each) == "new":
            continue
        runs.append(_look(each))
        noted = [note for note in notes(each) if "run_id" in note]
        mirrored += [(note["uri"], note["experiment_id"], note["run_id"]) for note in noted]
    known = {each.run for each in runs}
    working = 0
    for path, plan in plans(folder).items():
        working += alive(plan.owner, path)
        waiting = {name: text for name, text in plan.runs.items() if name not in known}
        for name, text in waiting.items():
            strategy, seed = _named(name)
            runs.append(RunState(name, "waiting", strategy, seed, text=text))
        known |= waiting.keys()
    if not runs:
        raise no_runs(folder)
    runs.sort(key=lambda run: (ORDER.index(run.state), run.run))
    counts = Counter(run.state for run in runs)
    return Overview(
        str(folder),
        {state: counts[state] for state in ORDER if counts[state]},
        _left(runs),
        working,
        _compare(mirrored, folder.resolve().name),
        runs,
    )


def _named(run: str) -> tuple[str, str]:
    """Strategy and seed, as the name of a run's folder has them."""
    strategy, _, seed = run.rpartition("-")[0].rpartition("-s")
    return strategy, seed


def status_or_none(folder: Path) -> str | None:
    """`record.status`, or None where a file of it cannot be read."""
    try:
        return status(folder)
    except UserError:
        return None


def _look(folder: Path) -> RunState:
    """One run, from its files."""
    named: dict[str, Any] = dict(zip(("strategy", "seed"), _named(folder.name), strict=True))
    try:
        check_format(folder)
        state = status(folder)
        figures = _figures(folder)
        if state == "finished":
            summary = read_json(folder / "summary.json")
            figures["seconds"] = float(summary["seconds"]["total"])
            figures["spent"] = summary["budget"]["spent"] / summary["budget"]["declared"]
            return RunState(folder.name, "done", **named, **figures)
        if state == "failed":
            why = str(read_json(folder / "failure.json").get("message", "no reason given"))
            return RunState(folder.name, "failed", **named, text=" ".join(why.split()), **figures)
    except (UserError, KeyError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, UserError) else f"another version's files: {error!r}"
        return RunState(folder.name, "unreadable", **named, text=why)
    at_work = owner(folder)
    if at_work is None:
        return RunState(folder.name, "stopped", **named, **figures)
    return RunState(folder.name, "running", **named, text=str(at_work), left=_rest(folder), **figures)


def _figures(folder: Path) -> dict[str, Any]:
    """Accuracy and share of the budget, as the ends of the streams have them."""
    evaluations, steps = _tail(folder / "evaluations.jsonl"), _tail(folder / "steps.jsonl")
    found: dict[str, Any] = {}
    if evaluations:
        found["metric"] = primary(evaluations[-1])
        found["accuracy"] = evaluations[-1][f"heldout/{found['metric']}"]
    if last := (steps or evaluations):
        found["spent"] = last[-1]["budget/spent"]
    return found


def _rest(folder: Path) -> float | None:
    """Seconds that a running run takes until its budget is spent, at its pace of late."""
    rows = _tail(folder / "steps.jsonl")
    if len(rows) < 2:
        return None
    gained = rows[-1]["budget/spent"] - rows[0]["budget/spent"]
    if gained <= 0:
        return None
    steps = [after["time"] - before["time"] for before, after in pairwise(rows)]
    worked = [each for each in steps if each <= PAUSE * median(steps)]
    pace = fmean(worked) * len(steps) / gained
    return max(0.0, (1.0 - rows[-1]["budget/spent"]) * pace - (time.time() - rows[-1]["time"]))


def _tail(path: Path) -> list[dict[str, Any]]:
    """The last rows of a stream, those in its last TAIL bytes. Raises UserError for a broken one."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(0, size - TAIL))
            text = handle.read()
    except FileNotFoundError:
        return []
    rows = text.split(b"\n")[:-1]  # what follows the last line's end is half a line
    try:
        return [json.loads(row) for row in (rows[1:] if size > TAIL else rows)]
    except ValueError as error:
        raise UserError(f"{path}: not a JSON object in every line") from error


def _left(runs: list[RunState]) -> float | None:
    """Seconds until the last run is done: what is left, at the mean time of those that are done (of the same
    strategy, if there are any), by as many at a time as now."""
    running = [run for run in runs if run.state == "running"]
    rest = [run for run in runs if run.state in ("waiting", "stopped")]
    if not running:
        return None
    done: dict[str | None, list[float]] = {}
    for run in runs:
        if run.seconds is not None:
            done.setdefault(run.strategy, []).append(run.seconds)
    everything = [seconds for some in done.values() for seconds in some]
    total = 0.0
    for run in (*running, *rest):
        if run.left is not None:
            total += run.left
        elif everything:
            total += fmean(done.get(run.strategy, everything)) * (1.0 - (run.spent or 0.0))
        else:
            return None
    return max(total / len(running), max((run.left or 0.0) for run in running))


def _compare(mirrored: list[tuple[str, str, str]], name: str) -> str | None:
    """Where MLflow shows the runs together; of several stores, the one that has most of them."""
    if not mirrored:
        return None
    ((uri, _),) = Counter(uri for uri, _, _ in mirrored).most_common(1)
    pairs = [(experiment, run) for store, experiment, run in mirrored if store == uri]
    return where_to_look(uri, pairs, name)


def lines(found: Overview, most: int | None) -> list[str]:
    """The overview for people, with at most so many runs."""
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    left = f" · about {clock(found.left)} left" if found.left is not None else ""
    out = [f"{found.folder}: {len(found.runs)} runs: {counts}{left}", ""]
    shown = found.runs[:most]
    head = ["run", "state", "accuracy", "budget spent", "left"]
    rows = [
        [
            run.run,
            run.state,
            f"{100 * run.accuracy:.1f} %" if run.accuracy is not None else "",
            f"{100 * run.spent:.0f} %" if run.spent is not None else "",
            clock(run.left) if run.left is not None else "",
        ]
        for run in shown
    ]
    out += table(head, rows)
    if len(shown) < len(found.runs):
        out.append(f"... and {len(found.runs) - len(shown)} more (--all)")
        out += ["", *_by_strategy(found.runs)]
    told = [run for run in shown if run.text and run.state in ("running", "failed", "unreadable", "waiting")]
    out += ["", *(f"{run.state} {run.run}: {run.text}" for run in told)] if told else []
    rest = {"stopped", "waiting", "failed"} & found.counts.keys()
    if rest and not found.sweeps and "running" not in found.counts:
        out += ["", "no process is at work: the same command with resume=true goes on"]
    if found.mlflow:
        out += ["", f"MLflow: {found.mlflow}"]
    return out


def _by_strategy(runs: list[RunState]) -> list[str]:
    """Runs done, of how many, and their mean accuracy."""
    rows = []
    for name in sorted({run.strategy or "" for run in runs}):
        own = [run for run in runs if run.strategy == name]
        done = [run.accuracy for run in own if run.state == "done" and run.accuracy is not None]
        rows.append([name, f"{len(done)} of {len(own)}", f"{100 * fmean(done):.1f} %" if done else ""])
    return table(["strategy", "done", "mean accuracy"], rows)


if __name__ == "__main__":
    sys.exit(main())
