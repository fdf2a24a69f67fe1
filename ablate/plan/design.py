"""From a command line to the runs that it stands for, and to the arms that they make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from ablate.compose import plan, runs
from ablate.config import run_folder
from ablate.ledger import UNITS
from ablate.record import Status, status

if TYPE_CHECKING:
    from ablate.config import Config

SEEDS = ("seed", "sampling_seed")


@dataclass(frozen=True)
class Run:
    """A run that is asked for, and what became of it so far."""

    config: Config
    folder: Path
    state: Status

    @property
    def left(self) -> bool:
        """Is it still to be done, or to be finished?"""
        return self.state != "finished"


@dataclass(frozen=True)
class Cell:
    """Runs that differ in nothing but their seeds. settings: what tells it from others of its strategy;
    values: its configuration in plain containers."""

    name: str
    settings: dict[str, str]
    values: dict[str, Any]
    runs: list[Run]

    @property
    def config(self) -> Config:
        """Of its first run."""
        return self.runs[0].config

    @property
    def budget(self) -> tuple[str, float]:
        """(unit, amount)"""
        return next((unit, a) for unit in UNITS if (a := getattr(self.config.budget, unit)) is not None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its runs, each once."""
        return tuple(sorted({run.config.seed for run in self.runs}))


@dataclass(frozen=True)
class Design:
    """cells: in the order of their first runs. runs: in the order in which they are started, each folder
    once. jobs: how many the launcher takes at a time."""

    cells: list[Cell]
    runs: list[Run]
    jobs: int


def design(arguments: Sequence[str]) -> Design:
    """Everything that a command line stands for, every combination of listed values. Raises UserError."""
    checked = plan(arguments, multirun=True)
    found: dict[Path, Run] = {}
    for config in runs(checked):
        folder = run_folder(config)
        found.setdefault(folder, Run(config, folder, status(folder)))
    groups: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in found.values():
        values = cast(dict[str, Any], OmegaConf.to_container(cast(Any, run.config), resolve=True))
        shared = {key: value for key, value in values.items() if key not in SEEDS}
        groups.setdefault(json.dumps(shared, sort_keys=True, default=str), (values, []))[1].append(run)
    named: dict[str, list[dict[str, str]]] = {}
    for values, _ in groups.values():
        named.setdefault(values["strategy"]["name"], []).append(_flat(values))
    cells = []
    for values, group in groups.values():
        name, own = values["strategy"]["name"], _flat(values)
        others = named[name]
        keys = sorted({key for other in others for key in own if other.get(key) != own[key]})
        cells.append(Cell(name, {key: own[key] for key in keys}, values, group))
    return Design(cells, list(found.values()), checked.jobs)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys with their values as text, without the seeds."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif prefix or key not in SEEDS:
            found[prefix + key] = f"{value:g}" if isinstance(value, float) else str(value)
    return found
