"""From a command line to a checked configuration: all that has to do with Hydra's composition.

Choices come from the project's own `conf/` and from `conf/` in the working directory, whose `strategies/*.py`
merge with the built-in ones (a namespace package). A command line is checked as a whole, every choice of a
sweep included, before anything runs; a mistake is a UserError of one line.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablate import devices, synonyms
from ablate.config import Config, validate_composed
from ablate.ledger import UNITS
from ablate.machine import side_by_side
from ablate.naming import conf_dir, conf_dirs
from ablate.schema import keys, nearest, one_line, unknown_key
from ablate.tuning.sweeper import StudySweeper
from ablate.types import UserError

EXTRAS = {
    "hydra/launcher=submitit_local": "submitit",
    "hydra/launcher=submitit_slurm": "submitit",
    "hydra/launcher=ray": "ray",
}
BUDGETS = tuple(f"budget.{unit}" for unit in UNITS)


@dataclass(frozen=True)
class _Composed:
    """A checked configuration; follows_seed: other values than the seed's own depend on the seed."""

    config: Config
    follows_seed: bool


@dataclass(frozen=True)
class Plan:
    """A checked command line."""

    overrides: list[str]  # as Hydra takes them
    multirun: bool
    config: Config  # of the run, or of the sweep's first
    varied: list[str] = field(default_factory=list)  # keys that a sweep gives several values
    count: int | None = 1  # of a sweep's runs; None if only its sweeper knows
    launcher: str = "basic"  # who starts a sweep's runs
    sweeper: str = "basic"  # which values a sweep takes: all of them (basic), or what it chooses as it goes
    jobs: int = 1  # runs at a time, as far as the launcher's settings tell, or the machine has room for
    known: dict[tuple[str, ...], _Composed] = field(default_factory=dict)  # without the seed -> checked


def groups() -> dict[str, list[str]]:
    """Every group with its choices, the working directory's included: {"strategy": ["guess_check"], ...}."""
    found: dict[str, set[str]] = {group: set() for group in default_choices()}
    for root in conf_dirs():
        for path in root.rglob("*.yaml"):
            if path.parent != root:
                found.setdefault(path.parent.relative_to(root).as_posix(), set()).add(path.stem)
    return {group: sorted(choices) for group, choices in found.items()}


def default_choices() -> dict[str, str | None]:
    """What `conf/config.yaml` chooses, by group."""
    entries = OmegaConf.to_container(OmegaConf.load(conf_dir() / "config.yaml").defaults)
    pairs = [next(iter(entry.items())) for entry in cast(list, entries) if isinstance(entry, dict)]
    return {group: choice for group, choice in pairs if not group.startswith("override ")}


def compose(overrides: Sequence[str] = ()) -> Config:
    """The checked configuration that `python -m ablate` with these arguments runs. Raises UserError."""
    return plan(overrides).config


def plan(arguments: Sequence[str], multirun: bool = False) -> Plan:
    """Check a command line: each choice of a sweep in turn, the others at their first. Raises UserError."""
    enter_working_directory()
    Plugins.instance().register(WorkingDirectory)
    Plugins.instance().register(StudySweeper)
    defaults = OmegaConf.to_container(OmegaConf.structured(Config))
    ConfigStore.instance().store(name="ablate_defaults", node=defaults, replace=True)
    with hydra.initialize_config_dir(str(conf_dir()), job_name="ablate"):
        overrides = _prepare(arguments)
        choices = [_choices(each) for each in overrides]
        composed = _compose([each[0] for each in choices])
        multirun = multirun or composed.hydra.mode == RunMode.MULTIRUN
        sweeps = [each for each in overrides if each.is_sweep_override()]
        if sweeps and not multirun:
            raise UserError(f"{sweeps[0].input_line} has several values: add -m to run each of them")
        if own := [each.input_line for each in sweeps if each.is_hydra_override()]:
            raise UserError(f"{own[0]} has several values: settings of Hydra itself take one")
        params = composed.hydra.sweeper.get("params")
        if multirun and params:  # an experiment's file defines the sweep; the command line wins
            swept = _prepare([f"{key}={value}" for key, value in params.items()])
            overrides = [*swept, *overrides, *_prepare(["hydra.sweeper.params=null"])]
            choices = [_choices(each) for each in overrides]
            composed = _compose([each[0] for each in choices])
        known: dict[tuple[str, ...], _Composed] = {}
        firsts = [each[0] for each in choices]
        config = _once(known, firsts, composed).config
        for position, others in enumerate(choices):
            for choice in others[1:]:
                lines = [*firsts[:position], choice, *firsts[position + 1 :]]
                _once(known, lines, _compose(lines))
        sweeper = composed.hydra.runtime.choices["hydra/sweeper"]
        launcher, launched_by = composed.hydra.launcher, composed.hydra.runtime.choices["hydra/launcher"]
        jobs = int(launcher.get("n_jobs") or launcher.get("array_parallelism") or 1)
    if jobs < 0:  # joblib: as many as there is room for
        jobs = len(devices.places(config)) or side_by_side(jobs)
    counts = {  # a later override of a key replaces an earlier one
        each.key_or_group: None if isinstance(each.value(), IntervalSweep) else len(values)
        for each, values in zip(overrides, choices, strict=True)
    }
    listed = [count for count in counts.values() if count is not None]
    total = math.prod(listed) if sweeper == "basic" and len(listed) == len(counts) else None
    varied = [key for key, count in counts.items() if count != 1]
    lines = [cast(str, each.input_line) for each in overrides]
    return Plan(lines, multirun, config, varied, total, launched_by, sweeper, jobs, known)


def runs(checked: Plan) -> list[Config]:
    """The configuration of every run of a checked command line, in the order in which they are started.

    Raises UserError for a sweep whose values are not known beforehand.
    """
    return [config for config, _ in named_runs(checked)]


def named_runs(checked: Plan) -> list[tuple[Config, str]]:
    """As `runs`, each with the values that tell it from the others: "strategy=mcts seed=1"."""
    if checked.sweeper != "basic":
        raise UserError(
            f"hydra/sweeper={checked.sweeper} chooses its runs as it goes; nearest: hydra/sweeper=basic, "
            "which takes every listed value"
        )
    found = []
    with hydra.initialize_config_dir(str(conf_dir()), job_name="ablate"):
        groups_known = groups()
        overrides = [_parse(line, groups_known) for line in checked.overrides]
        for each in overrides:
            if each.is_sweep_override() and isinstance(each.value(), IntervalSweep):
                raise UserError(f"{each.input_line} lists no values; name them: {each.key_or_group}=1,2,3")
        last = {each.key_or_group: each for each in overrides}  # a later one of a key replaces an earlier one
        for choice in product(*map(_choices, last.values())):
            lines = list(choice)
            same = checked.known.get(_unseeded(lines))
            if same is None:
                same = _once(checked.known, lines, _compose(lines))
            # composing takes a tenth of a second
            seeds = [int(line.partition("=")[2]) for line in lines if line.startswith("seed=")]
            config = (
                validate_composed(_compose(lines))
                if same.follows_seed
                else _reseeded(same.config, seeds[-1] if seeds else same.config.seed)
            )
            found.append((config, run_name(lines, checked.varied)))
    return found


def run_name(lines: Sequence[str], varied: Sequence[str]) -> str:
    """What tells a run of a sweep from the others: the overrides of keys that the sweep varies."""
    plain = [line.lstrip("+") for line in lines]
    return " ".join(line for line in plain if line.partition("=")[0] in varied) or "the only run"


def _unseeded(lines: list[str]) -> tuple[str, ...]:
    return tuple(line for line in lines if not line.startswith("seed="))


def _once(known: dict[tuple[str, ...], _Composed], lines: list[str], composed: DictConfig) -> _Composed:
    """Validate what was composed, and keep it for other seeds. Raises UserError."""
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    text = str(OmegaConf.to_container(own, resolve=False))
    found = _Composed(validate_composed(composed), re.search(r"\$\{[^}]*\bseed\b", text) is not None)
    return known.setdefault(_unseeded(lines), found)


def _reseeded(config: Config, seed: int) -> Config:
    copied: Any = cast(Any, config).copy()
    OmegaConf.set_readonly(copied, False)
    copied.seed = seed
    OmegaConf.set_readonly(copied, True)
    return copied


def enter_working_directory() -> None:
    """Make the user's own `strategies/*.py` importable beside the built-in ones.

    Raises UserError where a file of the user's would hide a built-in one, or be hidden by it.
    """
    here = Path.cwd()
    if str(here) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(here))
    stray = here / "strategies" / "__init__.py"
    if stray.exists():
        raise UserError("strategies/__init__.py hides the built-in strategies: remove this file")
    for own, built_in in (
        (here / "strategies", Path(__file__).parents[1] / "strategies"),
        (here / "conf", conf_dir()),
    ):
        if own.is_dir() and own.resolve() == built_in.resolve():
            continue
        for path in sorted([*own.glob("*.py"), *own.glob("*/**/*.yaml")]):
            if (built_in / path.relative_to(own)).exists():
                raise UserError(f"{path.relative_to(here)} has the name of a built-in file: rename it")


class WorkingDirectory(SearchPathPlugin):
    """Adds `conf/` of the working directory after the project's own."""

    def manipulate_search_path(self, search_path: Any) -> None:
        own = Path.cwd() / "conf"
        if own.is_dir() and own.resolve() != conf_dir().resolve():
            search_path.append(provider="working directory", path=f"file://{own}")


def explain(error: Exception) -> UserError:
    """What Hydra, OmegaConf or YAML complained about, as one line; never its advice to add unknown keys."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if extra := EXTRAS.get(f"{group}={choice}"):
            return UserError(
                f"{group}={choice} needs an extra that is not installed: pip install 'ablate[{extra}]'"
            )
        if other := synonyms.CHOICES.get(group, {}).get(choice):
            return UserError(f"unknown {group} {choice}; did you mean {group}={other}?")
        extras = [name.partition("=")[2] for name in EXTRAS if name.startswith(f"{group}=")]
        return UserError(f"unknown {group} {choice}; {nearest(choice, {*(error.options or []), *extras})}")
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return UserError(f"{mark.name}, line {mark.line + 1}: {error.problem}")
    causes: list[BaseException] = [error, *([error.__cause__] if error.__cause__ else [])]
    lines = [line.strip() for cause in causes for line in str(cause).splitlines()]
    refused = re.match("Could not override '(.*?)'", lines[0]) if lines else None
    key = refused[1] if refused else ""
    if key.startswith("hydra."):
        return UserError(f"unknown key {key}; python -m ablate --cfg hydra lists Hydra's own")
    advice = re.compile("To append|Either remove|Or add|full_key|object_type")
    kept = [line for line in lines if line and not advice.match(line)]
    return UserError("; ".join(dict.fromkeys(kept)) or one_line(error))


_HYDRA_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)


def _compose(overrides: list[str]) -> DictConfig:
    try:
        return hydra.compose("config", overrides, return_hydra_config=True)
    except _HYDRA_ERRORS as error:
        found = re.match("Could not override '(hydra[.]launcher[.].*?)'", str(error))
        raise (_no_such_launcher_key(found[1], overrides) if found else explain(error)) from error


def _no_such_launcher_key(key: str, overrides: list[str]) -> UserError:
    """A launcher has keys of its own; the basic one, which is the default, next to none."""
    lines = [line for line in overrides if not line.lstrip("+~").startswith("hydra.launcher.")]
    try:
        chosen = hydra.compose("config", lines, return_hydra_config=True).hydra
    except _HYDRA_ERRORS as error:
        return explain(error)
    name = chosen.runtime.choices["hydra/launcher"]
    if name == "basic":
        return UserError(f"unknown key {key}: choose another launcher, for example hydra/launcher=joblib")
    known = [f"hydra.launcher.{each}" for each in chosen.launcher if each != "_target_"]
    return UserError(f"hydra/launcher={name}: {unknown_key(key, known)}")


def _prepare(arguments: Sequence[str]) -> list[Override]:
    """Overrides as Hydra should take them; keys and groups that do not exist are refused."""
    known = groups()
    overrides = [_parse(_rewrite(_parse(line, known), known), known) for line in arguments]
    units = [each for each in overrides if each.key_or_group in BUDGETS and each.value() is not None]
    if len({each.key_or_group for each in units}) > 1:
        lines = " and ".join(cast(str, each.input_line) for each in units)
        raise UserError(f"{lines} are both set: a budget has one unit, keep one of them")
    # the unit on the command line replaces the one that the budget's file sets
    named = {each.key_or_group for each in overrides}
    extra = [f"{unit}=null" for unit in BUDGETS if units and unit not in named]
    return overrides + [_parse(line, known) for line in extra]


def _parse(line: str, known: dict[str, list[str]]) -> Override:
    if "=" not in line and not line.startswith("~"):
        homes = [f"{group}={line}" for group, choices in known.items() if line in choices]
        advice = f"; did you mean {homes[0]}?" if homes else ""
        raise UserError(f"{line} is not of the form key=value{advice}")
    loader = GlobalHydra.instance().config_loader()
    try:
        override = OverridesParser.create(loader).parse_override(line)
    except (OverrideParseException, HydraException) as error:
        reason = str(error).splitlines()[0].split(" expecting ")[0]
        raise UserError(f"cannot read {line}: {reason}; expected key=value") from error
    if override.value() == "" and line.endswith("="):
        raise UserError(f"{line} has no value")
    override.config_loader = loader  # what `glob` chooses from
    return override


def _rewrite(override: Override, known: dict[str, list[str]]) -> str:
    """The override's line, made to reach keys that a component has but its file leaves out."""
    key, line = override.key_or_group, cast(str, override.input_line)
    if key.split(".")[0].split("/")[0] == "hydra":
        return line
    if override.is_delete():
        advice = f"did you mean {key}=none?" if "none" in known.get(key, ()) else f"set {key}=... instead"
        raise UserError(f"{line}: nothing can be deleted, a run has every setting; {advice}")
    _refuse_alien(override, known)
    line = line.lstrip("+")  # a new key cannot be added, so + says nothing
    if isinstance(override.value(), dict):
        return f"++{line}"
    if key in known:
        if not isinstance(override.value(), str | list) and not override.is_sweep_override():
            raise UserError(f"{line} names no choice; {nearest('', known[key])}")
        if not known[key] and isinstance(override.value(), str):  # Hydra would take the group for a key
            raise UserError(f"unknown {key} {override.value()}; {nearest('', known[key])}")
        return line
    if "/" in key or override.package:
        raise UserError(f"unknown group {key}; {nearest(key, known)}")
    table = keys(Config)
    if any(f"{key}.".startswith(f"{name}.") for name, is_component in table.items() if is_component):
        return f"++{line}"
    if any(f"{name}.".startswith(f"{key}.") for name in table):
        return line
    raise unknown_key(key, _siblings(key) or [*table, *known], table)


def _refuse_alien(override: Override, known: dict[str, list[str]]) -> None:
    """Raises UserError for what another library calls by this name."""
    key, value = override.key_or_group, override.value()
    group, _, choice = f"{key}/{value}".rpartition("/")
    if group.startswith("model/") and choice not in known.get(group, ()):
        raise UserError(f"model={value} is no choice; did you mean model=pretrained model.path={value}?")
    if key == "device":
        raise UserError(
            "unknown key device; pretrained models have model.device, CUDA_VISIBLE_DEVICES chooses"
        )
    other = synonyms.KEYS.get(key.rpartition(".")[2])
    component = any(key.startswith(f"{name}.") for name, is_one in keys(Config).items() if is_one)
    if other and key not in {*keys(Config), *known} and not component:
        raise UserError(f"unknown key {key}; did you mean {other}?")


def _siblings(key: str) -> list[str]:
    parent = key.rpartition(".")[0]
    return [name for name in keys(Config) if parent and name.startswith(f"{parent}.")]


def _choices(override: Override) -> list[str]:
    """Every single override that a sweep stands for; the ends of an interval."""
    if not override.is_sweep_override():
        return [cast(str, override.input_line)]
    value = override.value()
    if isinstance(value, IntervalSweep):
        values = [str(value.start), str(value.end)]
    else:
        values = list(override.sweep_string_iterator())
    if not values:
        raise UserError(f"{override.input_line} matches nothing")
    return [f"{override.get_key_element()}={each}" for each in values]
