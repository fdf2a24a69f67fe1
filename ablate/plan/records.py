"""What finished runs spent: FLOPs by purpose, seconds, and on which machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ablate.config import Config
from ablate.experiments import run_folders
from ablate.ledger import BUDGETED
from ablate.machine import cores, cpu_model
from ablate.record import read_json, status
from ablate.schema import read
from ablate.types import UserError

COMPUTES = ("strategy", "task", "model", "sampling", "learner")  # what decides how compute is spent


@dataclass(frozen=True)
class Recorded:
    """One finished run."""

    folder: Path
    summary: dict[str, Any]

    @cached_property
    def config(self) -> dict[str, Any]:
        """As it was started."""
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return dict(yaml.load((self.folder / "config.yaml").read_bytes(), loader))

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Machine and versions."""
        return read_json(self.folder / "meta.json")

    @property
    def flops(self) -> dict[str, float]:
        """By purpose, those against the budget."""
        accounts = self.summary["compute"]
        return {purpose: accounts[purpose]["flops"] for purpose in BUDGETED if purpose in accounts}

    def account(self, purpose: str) -> float | None:
        """FLOPs of a separate account."""
        found = self.summary["compute"].get(purpose)
        return None if found is None else float(found["flops"])

    def amount(self, unit: str) -> float:
        """What was spent against a budget in this unit."""
        return float(self.summary["seconds"]["train"] if unit == "seconds" else self.summary["totals"][unit])

    @cached_property
    def completed(self) -> dict[str, Any]:
        """The configuration with defaults for keys that are newer than the run; empty if it has no meaning
        today."""
        try:
            return read(Config, self.config, "")
        except UserError:
            return {}

    def is_of(self, config: Mapping[str, Any], groups: Iterable[str] = COMPUTES) -> bool:
        """Are these groups of the configuration the run's own, whatever the strategy is called?"""
        for group in groups:
            own, wanted = _unnamed(self.config.get(group)), _unnamed(config[group])
            newer = own != wanted and _keys(own) != _keys(wanted) and _targets(own) == _targets(wanted)
            if (_unnamed(self.completed.get(group)) if newer else own) != wanted:
                return False
        return True

    @property
    def undisturbed(self) -> bool:
        """Not interrupted: the clock of a resumed run counts steps that were done again."""
        return not self.meta.get("resumed")

    def on(self, machine: Mapping[str, Any]) -> bool:
        """Did it run on such a machine, in one process?"""
        own = self.meta.get("machine", {})
        return (
            self.meta.get("processes", 1) == 1
            and all(own.get(key) == machine[key] for key in ("cpu", "cores"))
            and (own.get("gpus", [])[:1] == machine["gpus"][:1])
        )


def _unnamed(node: Any) -> Any:
    """A group without its name: what a strategy is called does not decide what it costs."""
    return {key: value for key, value in node.items() if key != "name"} if isinstance(node, Mapping) else node


def _keys(node: Any) -> Any:
    """The keys of nested mappings, without the values."""
    return {key: _keys(value) for key, value in node.items()} if isinstance(node, Mapping) else None


def _targets(node: Any) -> dict[str, Any]:
    """The classes of nested components."""
    if not isinstance(node, Mapping):
        return {}
    nested = {
        f"{key}.{name}": target for key, value in node.items() for name, target in _targets(value).items()
    }
    return nested | ({"_target_": node["_target_"]} if "_target_" in node else {})


def this_machine() -> dict[str, Any]:
    """What `meta.json` says of a machine, as far as it decides the speed, without asking torch."""
    return {"cpu": cpu_model(), "cores": cores(), "gpus": _gpus()}


def _gpus() -> list[str]:
    """Names of NVIDIA's GPUs, from the driver."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = path.read_text().splitlines()
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return found


def finished(folders: Iterable[Path]) -> tuple[list[Recorded], list[str]]:
    """(the finished runs in folders of experiments, notes on runs that cannot be read)."""
    found, notes = [], []
    for folder in dict.fromkeys(folders):
        for each in run_folders(folder):
            try:
                if status(each) == "finished":
                    run = Recorded(each, read_json(each / "summary.json"))
                    needed = run.flops, run.amount("flops"), run.summary["seconds"], run.config["strategy"]
                    if all(needed):
                        found.append(run)
            except (UserError, KeyError, TypeError, ValueError, OSError) as error:
                notes.append(f"{each} is left out: its record cannot be read ({str(error).splitlines()[0]})")
    return found, notes
