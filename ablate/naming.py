"""What an arm is called: its strategy, or, with another choice on an axis, the parts that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ablate.strategy import AXES


def conf_dir() -> Path:
    """The project's own choices: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "conf"


def conf_dirs() -> list[Path]:
    """Where choices come from: the project's own `conf/` and that in the working directory."""
    return [conf_dir(), Path.cwd() / "conf"]


def arm_name(choices: Mapping[str, Any], name: str | None) -> str | None:
    """The name of a composed strategy.

    choices: by group, as composed, whoever made them: a command line, a sweep, an experiment's file. name:
    what the composed strategy says. With the choices of its own file it keeps its name; with others it has
    all three, as `tree+none+outcome`, after the strategy's where that sets more than its axes, as in
    `process_shuffled+tree+none+process`. A name that is not the file's is the user's, and stays.
    """
    strategy = str(choices.get("strategy"))
    own_name, own, plain = _of_file(strategy)
    chosen = {axis: choices.get(f"strategy/{axis}") for axis in AXES}
    if name != own_name or all(choice in (None, own.get(axis)) for axis, choice in chosen.items()):
        return name
    cell = "+".join(str(chosen[axis] or "own") for axis in AXES)
    return cell if plain else f"{strategy}+{cell}"


def _of_file(strategy: str) -> tuple[str | None, dict[str, str], bool]:
    """(name, choice by axis, does it do nothing but choose) of a strategy's file and those that it is made
    of."""
    name: str | None = None
    axes: dict[str, str] = {}
    plain = True
    for path in [root / "strategy" / f"{strategy}.yaml" for root in conf_dirs()]:
        if not path.exists():
            continue
        file = OmegaConf.load(path)
        assert isinstance(file, DictConfig)  # it was composed
        plain = plain and set(file) <= {"defaults", "name"}
        for entry in file.get("defaults") or []:
            if isinstance(entry, str):
                if entry != "_self_":
                    parent, its_own, only = _of_file(entry.rpartition("/")[2].partition("@")[0])
                    name, axes, plain = parent or name, axes | its_own, plain and only
                continue
            for key, choice in entry.items():
                axis = str(key).removeprefix("override ").rpartition("/")[2]
                axes |= {axis: str(choice)} if axis in AXES else {}
        name = file.get("name", name)
    return name, axes, plain
