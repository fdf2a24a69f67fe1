"""Tuning trials, read from the runs' own files: a grid's, or those of Optuna's studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ablate.config import NOT_THE_RESULT, of_the_learner
from ablate.experiments import check_experiment, run_folders
from ablate.record import primary, read_json, read_jsonl, status
from ablate.schema import flat
from ablate.tuning.studies import STORAGE
from ablate.types import UserError

DIVERGED = "NonFiniteLoss"  # how a run's failure begins whose weights ran away: a trial, and a bad one
COSTS = ("flops", "logical_flops", "tokens")
RATE = "learner.lr"
WHOLE = 0.98  # of the budget, spent at the last evaluation of a whole run


@dataclass(frozen=True)
class Outcome:
    """What came of one tuning run. accuracy: on tuning problems at the end, in the figure that arms are
    compared by; None if there is none. why: the reason ("" if it is a trial); error: standard error over
    problems."""

    figure: str = "pass@1"
    accuracy: float | None = None
    error: float = 0.0
    diverged: bool = False
    why: str = ""


@dataclass(frozen=True)
class Trial:
    """One tuning run. values: what was tried, by dotted key; state: "" or why it has no accuracy; other
    fields as in `Outcome`."""

    folder: Path
    arm: str
    values: tuple[tuple[str, Any], ...]
    seed: int
    figure: str
    accuracy: float | None
    error: float
    cost: dict[str, float]
    config: dict[str, Any]
    state: str = ""

    @property
    def lr(self) -> float:
        """The learning rate of its run."""
        return float(self.config["learner"]["lr"])


def outcome(folder: Path) -> Outcome:
    """What came of a run."""
    state = status(folder)
    if state == "finished":
        row = (read_jsonl(folder / "evaluations.jsonl") or [{}])[-1]
        figure = primary(row)
        accuracy, spent = row.get(f"heldout/{figure}"), row.get("budget/spent", 1.0)
        why = "" if accuracy is not None else "evaluations.jsonl lacks its accuracy"
        if spent < WHOLE:
            why = f"cut off: evaluations.jsonl ends at {100 * spent:.0f} % of its budget"
        # null where a single cluster of problems leaves no error
        return Outcome(figure, accuracy, row.get(f"heldout/{figure}_se") or 0.0, why=why)
    if state == "failed":
        message = str(read_json(folder / "failure.json").get("message", ""))
        diverged = message.startswith(DIVERGED)
        first = (message.splitlines() or ["no reason given"])[0]
        return Outcome(diverged=diverged, why="" if diverged else f"failed: {first}")
    return Outcome(why="not finished")


def cost(folder: Path) -> dict[str, float]:
    """What a run spent, by COSTS; of a failed one, up to its last step."""
    if status(folder) == "finished":
        totals = read_json(folder / "summary.json").get("totals", {})
        return {name: float(totals.get(name, 0.0)) for name in COSTS}
    last = (read_jsonl(folder / "steps.jsonl") or [{}])[-1]
    return {name: float(last.get(f"budget/{name}", 0.0)) for name in COSTS}


def load(folder: Path) -> list[Trial]:
    """The trials in an experiment's folder.

    Raises UserError if they cannot be compared, or if a strategy lacks one that another has.
    """
    check_experiment(folder)
    if (folder / STORAGE).exists():
        return _of_studies(folder)
    runs = [each for each in run_folders(folder) if (each / "config.yaml").exists()]
    if not runs:
        raise UserError(f"{folder} has no runs: python -m ablate -m experiment=tune makes them")
    found, absent = [], {}
    for each in runs:
        trial, why = _trial(each)
        if why:
            absent[trial.arm, trial.lr, trial.seed] = why
        else:
            found.append(trial)
    if found:
        _refuse(found, (RATE,))
        _complete(found, absent)
        return found
    (arm, lr, seed), why = next(iter(absent.items()))
    raise UserError(f"{folder} has no finished run ({arm} learner.lr={lr:g} seed={seed}: {why}, ...)")


def _of_studies(folder: Path) -> list[Trial]:
    """Of Optuna's studies, in the order of their trials; a run that failed is one that lost."""
    from ablate.tuning.studies import read

    studies = read(folder / STORAGE)
    ended = {name: sum(state != "running" for _, state, _ in trials) for name, trials in studies.items()}
    running = [name for name, trials in studies.items() if ended[name] < len(trials)]
    counts = ", ".join(f"{name} {count}" for name, count in ended.items())
    if not any(ended.values()):
        raise UserError(
            f"{folder} has no finished trial: python -m ablate -m experiment=tune_optuna makes them"
        )
    if running or len(set(ended.values())) > 1:
        raise UserError(
            f"every strategy needs as many trials; finished are {counts}: run the same command again"
        )
    found: list[Trial] = []
    for trials in studies.values():
        for chosen, _, runs in trials:
            for name in runs:
                trial, why = _trial(folder / name, tuple(chosen))
                found.append(trial)
                if why and not why.startswith("failed"):
                    raise UserError(f"{folder / name}, which {folder / STORAGE} names, is {why}")
    keys = tuple(dict(found[0].values))
    _refuse(found, keys)
    return found


def _trial(folder: Path, keys: tuple[str, ...] = (RATE,)) -> tuple[Trial, str]:
    """A run as a trial, and why it is none ("" if it is one)."""
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        arm, seed = config["strategy"]["name"], int(config["seed"])
        every = dict(flat(config))
        values = tuple((key, float(every[key]) if key == RATE else every[key]) for key in keys)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {folder / 'config.yaml'}: {str(error).splitlines()[0]}") from error
    end = outcome(folder)
    state = "diverged" if end.diverged else end.why.partition(":")[0]
    known = end.figure, end.accuracy, end.error, cost(folder)
    return Trial(folder, arm, values, seed, *known, config, state), end.why


def _refuse(trials: list[Trial], tuned: tuple[str, ...]) -> None:
    """Raises UserError where trials cannot be compared."""
    first = trials[0]
    if (split := first.config["evaluate"]["split"]) != "tuning":
        raise UserError(
            f"{first.folder} was judged on evaluate.split={split}: settings are chosen on tuning problems"
        )
    places: dict[Any, Trial] = {}
    for each in trials:
        for other, without in (
            (first, ("strategy", *tuned, "seed", "sampling_seed")),
            (places.setdefault(each.arm, each), (*tuned, "seed", "sampling_seed")),
            (places.setdefault((each.arm, each.values, each.seed), each), ()),
        ):
            here, there = (_settings(one.config, without) for one in (other, each))
            if keys := sorted(key for key in here | there if here.get(key) != there.get(key)):
                key = keys[0]
                what = "the learning rate" if tuned == (RATE,) else "what was tuned"
                raise UserError(
                    f"trials differ in more than {what}: {key} is {here.get(key)} in "
                    f"{other.folder.name} and {there.get(key)} in {each.folder.name}; keep one of them"
                )


def plain_settings(config: Any, without: Iterable[str]) -> dict[str, Any]:
    """What determines the results of a checked config's run, but for some keys, as {dotted key: value}."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return _settings(values, without)


def _settings(config: Mapping[str, Any], without: Iterable[str]) -> dict[str, Any]:
    """What determines a run's result, but for some keys, as {dotted key: value}."""
    if isinstance(learner := config.get("learner"), Mapping):
        config = {**config, "learner": of_the_learner(learner)}
    left = tuple(f"{key}." for key in (*NOT_THE_RESULT, *without))
    return {key: value for key, value in flat(config) if not f"{key}.".startswith(left)}


def _complete(trials: list[Trial], absent: Mapping[tuple[str, float, int], str]) -> None:
    """Raises UserError, naming what is missing, unless every strategy has every rate on every seed."""
    have = {(each.arm, each.lr, each.seed) for each in trials}
    places = {*have, *absent}
    arms, rates, seeds = (sorted(set(values)) for values in zip(*places, strict=True))
    wanted: list[Any] = [(arm, lr, seed) for arm in arms for lr in rates for seed in seeds]
    missing = [
        f"{place[0]} learner.lr={place[1]:g} seed={place[2]} ({absent.get(place, 'not run')})"
        for place in wanted
        if place not in have
    ]
    if missing:
        raise UserError(
            f"every strategy needs the same trials; {len(missing)} of {len(wanted)} are missing: "
            f"{'; '.join(missing)}"
        )
