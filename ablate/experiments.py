"""An experiment's folder: which folders in it are runs, and what to say of a folder that is none."""

from __future__ import annotations

from pathlib import Path

from ablate.schema import nearest
from ablate.types import UserError

TESTTIME = "testtime"  # what `ablate.testtime` leaves beside the runs
ASIDE = ".before-"  # in the name of a run that fresh=true has moved aside
FILES = ("config.yaml", "meta.json", "steps.jsonl", "summary.json", "failure.json")


def check_experiment(folder: Path) -> None:
    """Raises UserError unless it is the folder of an experiment: one that exists, and no run's own."""
    if not folder.is_dir():
        parent = folder.parent
        beside = [each.name for each in parent.iterdir() if each.is_dir()] if parent.is_dir() else []
        raise UserError(f"{folder} is not a folder; {nearest(folder.name, beside)}")
    if any((folder / name).exists() for name in ("config.yaml", "evaluations.jsonl")):
        raise UserError(f"{folder} is a single run; give the folder of its experiment: {folder.parent}")


def run_folders(folder: Path) -> list[Path]:
    """The folders of an experiment's runs, by name; none where there is no such folder."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        each
        for each in found
        if each.name != TESTTIME and ASIDE not in each.name and any((each / name).exists() for name in FILES)
    ]


def no_runs(folder: Path) -> UserError:
    """What to say of a folder without runs, with the experiments in it."""
    below = [each.name for each in sorted(folder.iterdir()) if each.is_dir() and run_folders(each)]
    hint = f"; experiments in it: {', '.join(below)}" if below else ""
    return UserError(f"{folder} has no runs{hint}")
