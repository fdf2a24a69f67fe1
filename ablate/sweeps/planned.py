"""What a sweep is about to do, kept beside its runs: `results/<name>/.sweeps/<time>-<process>.json`.

It tells `python -m ablate.status` which runs wait, and two sweeps of one name that do not belong together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from ablate.config import NOT_THE_RESULT, Config, run_folder
from ablate.experiments import run_folders
from ablate.ledger import UNITS
from ablate.owner import Owner, alive, this_process
from ablate.record import read_json, write_json
from ablate.schema import flat
from ablate.types import UserError

FOLDER = ".sweeps"
SAME = ("task", "model", "sampling", "evaluate")  # equal in all runs that are compared, as the budget's unit


@dataclass(frozen=True)
class Planned:
    """One sweep. runs: by the names of their folders, what tells each from the others."""

    runs: dict[str, str]
    varied: list[str]
    settings: dict[str, Any]
    owner: Owner


def declare(listed: Sequence[tuple[Config, str]], first: Config, varied: Sequence[str]) -> list[Path]:
    """Store the plan, a file per experiment that the runs belong to; returns the files, which are to be
    touched as long as the sweep is at work.

    listed: runs, each with what tells it from the others; none where only the sweeper knows them. first: one
    of them. varied: keys that the sweep gives several values. Raises UserError where an earlier sweep of the
    name had other settings in what runs of one experiment share, and neither sweep varies them.
    """
    experiments: dict[Path, dict[str, str]] = {run_folder(first).parent: {}}
    shared: dict[Path, Config] = {run_folder(first).parent: first}
    for config, name in listed:
        folder = run_folder(config)
        experiments.setdefault(folder.parent, {})[folder.name] = name
        shared.setdefault(folder.parent, config)
    settings = {experiment: _settings(config) for experiment, config in shared.items()}
    for experiment, config in shared.items():
        if config.name != Config().name:  # which nobody chose: runs of all kinds are there
            _refuse(experiment, settings[experiment], varied)
    files = []
    for experiment, runs in experiments.items():
        path = experiment / FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {path.parent}: {error.strerror}") from error
        earlier = plans(experiment)
        plan = Planned(runs, list(varied), settings[experiment], this_process())
        write_json(path, asdict(plan))
        for file, other in earlier.items():  # the same sweep, started again
            if other.runs.keys() <= runs.keys() and not alive(other.owner, file):
                file.unlink(missing_ok=True)
        files.append(path)
    return files


def plans(experiment: Path) -> dict[Path, Planned]:
    """The plans of an experiment's sweeps, oldest first. Raises UserError for a broken one."""
    found = {}
    for path in sorted((experiment / FOLDER).glob("*.json")):
        try:
            values = read_json(path)
            found[path] = Planned(**{**values, "owner": Owner(**values["owner"])})
        except (KeyError, TypeError) as error:
            raise UserError(f"cannot read {path}: another version of ablate wrote it ({error})") from error
    return found


def _settings(config: Config) -> dict[str, Any]:
    values = cast(dict[str, Any], OmegaConf.to_container(cast(Any, config), resolve=True))
    shared = dict(flat({group: values[group] for group in SAME}))
    shared["budget"] = next(unit for unit in UNITS if values["budget"][unit] is not None)
    return {key: value for key, value in shared.items() if key not in NOT_THE_RESULT}


def _refuse(experiment: Path, settings: Mapping[str, Any], varied: Sequence[str]) -> None:
    begun = {each.name for each in run_folders(experiment)}
    for path, plan in plans(experiment).items():
        if not (begun & plan.runs.keys() if plan.runs else begun) and not alive(plan.owner, path):
            continue  # nothing came of it
        free = {*varied, *plan.varied}
        free |= {key.replace("/", ".") for key in free}
        for key, value in settings.items():
            if any(f"{key}.".startswith(f"{each}.") for each in free) or key not in plan.settings:
                continue  # a key that did not exist then counts as having its default
            if plan.settings[key] != value:
                raise UserError(
                    f"an earlier sweep in {experiment} has {key}={plan.settings[key]} and this one {value}: "
                    "their runs cannot be compared; another name=... keeps them apart"
                )
