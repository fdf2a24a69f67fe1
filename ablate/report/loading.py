"""From an experiment's folder to runs that can be compared, or to the reason why they cannot.

A run that is unfinished, failed or cut off is left out and named. Runs that differ in what must be equal are
refused; other differences become notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablate.config import of_the_learner
from ablate.experiments import check_experiment, no_runs, run_folders
from ablate.record import load_evaluation, primary, read_json, read_jsonl, status
from ablate.report.contrasts import ALONE, CELLS, NOTHING
from ablate.report.runs import COLUMNS, NEAR, Experiment, Problems, Run
from ablate.schema import flat
from ablate.types import UserError

# these must be equal in all runs ...
REFUSED = ("task", "model", "sampling", "evaluate", "budget.unit")
# ... and of these a difference is named
NAMED = ("engine", "learner")
# ... unless they only say how the learner's work is done, where an arm has one setting alone
HOW = ("sharding", "gradient_checkpointing", "micro_batch_tokens", "max_steps")
# of every evaluation
SHOWN = ("heldout/pass@1", "heldout/length", "heldout/truncated")
# ... but these, where runs of one strategy differ in them, make arms of their own
VARIED = ("learner.kl", "learner.distinct_problems")
# these may go on to a larger budget: what others are compared with
BASES = (*CELLS[NOTHING], *CELLS[ALONE["correct"]])


def load(folder: Path, seeds: frozenset[int] | None = None) -> Experiment:
    """The finished runs below a folder, those of `seeds` if given.

    Raises UserError if there are none, or if they cannot be compared: other tasks, models, caps, evaluation
    sets, metrics or budgets, two runs for one place.
    """
    runs: list[Run] = []
    left_out: list[tuple[str, str]] = []
    problems: Problems | None = None
    every: set[int] = set()
    for each in _candidates(folder):
        try:
            run = _load(each, problems)
        except _Incomparable as error:
            raise UserError(str(error)) from error
        except UserError as error:
            left_out.append((each.name, str(error).replace(f"{each}/", "")))
            continue
        every.add(run.seed)
        if seeds is None or run.seed in seeds:
            runs.append(run)
            problems = run.problems
    if not runs or problems is None:
        wanted = "" if seeds is None else f" with seed {', '.join(map(str, sorted(seeds)))}"
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out[:3])
        raise UserError(f"{folder} has no finished run{wanted}{f' ({reasons})' if reasons else ''}")
    _label(runs)
    _refuse(runs)
    notes = _differences(runs)
    unit, budget, more = _budget(runs)
    name = folder.resolve().name
    return Experiment(
        name, folder, runs, problems, unit, budget, left_out, notes + more, tuple(sorted(every))
    )


def _candidates(folder: Path) -> list[Path]:
    """Folders of runs in an experiment's folder. Raises UserError for any other folder."""
    check_experiment(folder)
    if found := run_folders(folder):
        return found
    raise no_runs(folder)


def _load(folder: Path, problems: Problems | None) -> Run:
    """A run; problems: the evaluation set, if another run gave it. Raises UserError with the reason if it
    cannot be used."""
    import yaml

    state = status(folder)
    if state == "failed":
        message = str(read_json(folder / "failure.json").get("message", "")).strip().splitlines()
        raise UserError(f"failed: {message[0] if message else 'no reason given'}")
    if state != "finished":
        raise UserError("not finished")
    try:
        quick = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it was built in: ten times
        config: Any = yaml.load((folder / "config.yaml").read_text(), quick)
    except FileNotFoundError:
        raise UserError("config.yaml is missing") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"config.yaml cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise UserError("config.yaml holds no settings")
    meta, summary = read_json(folder / "meta.json"), read_json(folder / "summary.json")
    milestones = read_jsonl(folder / "evaluations.jsonl")
    try:
        name, seed = config["strategy"]["name"], config["seed"]
        spent, declared = float(summary["budget"]["spent"]), float(summary["budget"]["declared"])
        _ = summary["compute"], float(summary["seconds"]["total"]), config["learner"]["schedule"]
        last, read = int(milestones[-1]["step"]), float(milestones[-1]["budget/spent"])
        needed = (
            *COLUMNS.values(),
            "budget/spent",
            "milestone",
            *SHOWN,
            f"heldout/{primary(milestones[-1])}",
        )
        missing = [key for key in needed for row in milestones if key not in row]
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"cut off: its files lack {error}") from error
    if missing:
        raise UserError(f"cut off: evaluations.jsonl lacks {missing[0]}")
    if spent < declared * (1 - NEAR):
        raise UserError(f"ended at {100 * spent / declared:.0f} % of its budget")
    if read < 1 - NEAR:
        raise UserError(f"cut off: evaluations.jsonl ends at {100 * read:.0f} % of its budget")
    if not (folder / "evaluations" / f"{last:06d}.parquet").exists():
        raise UserError(f"evaluations/{last:06d}.parquet, the outcomes per problem, is missing")
    own = _problems(folder, last)
    if problems is not None:
        common = len(np.intersect1d(own.ids, problems.ids))
        if not common == len(own.ids) == len(problems.ids):
            raise _Incomparable(
                f"{name}, seed {seed}, was evaluated on other problems than the runs before it "
                f"({folder.name}: {len(own.ids)} problems, {common} of them among their {len(problems.ids)})"
            )
    return Run(folder, config, meta, summary, milestones, problems or own)


class _Incomparable(Exception):
    """Turned into a UserError by `load`; a run that cannot be read is left out, this one is refused."""


def _problems(folder: Path, step: int) -> Problems:
    columns = load_evaluation(folder, step)
    ids, first = np.unique(columns["problem"].astype(str), return_index=True)
    clusters = columns["cluster"].astype(str)[first]
    # a problem without a cluster is one of its own
    return Problems(ids, np.where(clusters == "", ids, clusters), columns["stratum"].astype(str)[first])


def settings(run: Run, groups: tuple[str, ...]) -> dict[str, Any]:
    """Dotted keys with values of some groups of a run's config. Keys of the learner that did not exist when
    it was recorded are at their defaults, which do what was done before."""
    recorded = {group: run.config.get(group, {}) for group in groups if "." not in group}
    if "learner" in recorded:
        recorded["learner"] = of_the_learner(recorded["learner"])
    found = dict(flat(recorded))
    found.pop("evaluate.workers", None)  # changes nothing
    if "budget.unit" in groups:
        found["budget.unit"] = run.budget[0]
    return found


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Keys with different values, or that only one of the two has."""
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def _label(runs: list[Run]) -> None:
    """Tells runs of one strategy apart by the settings that are compared within it; those of the only
    strategy are named by these alone."""
    strategies = {run.strategy for run in runs}
    for strategy in strategies:
        own = [run for run in runs if run.strategy == strategy]
        values = [[settings(run, ("learner",)).get(key) or None for key in VARIED] for run in own]
        differ = [len(set(column)) > 1 for column in zip(*values, strict=True)]
        for run, each in zip(own, values, strict=True):
            told = [_told(key, v) for key, v, d in zip(VARIED, each, differ, strict=True) if d]
            if told and len(strategies) == 1:
                run.label = ", ".join(told)
            elif any(value for value, d in zip(each, differ, strict=True) if d):
                run.label = f"{strategy} ({', '.join(told)})"


def _told(key: str, value: float | None) -> str:
    if key == "learner.kl":
        return f"KL {value:g}" if value else "no KL"
    return f"{value:g} problems" if value else "all problems"


def _refuse(runs: list[Run]) -> None:
    """Raises UserError where runs cannot be compared."""
    first = runs[0]
    places: dict[Any, Run] = {}
    arms: dict[str, Run] = {}
    for run in runs:
        here, there = settings(first, REFUSED), settings(run, REFUSED)
        if keys := differing(here, there):
            raise UserError(
                f"{first.arm} and {run.arm} cannot be compared: {_both(keys[0], here, there, first, run)}"
            )
        if run.primary != first.primary:
            raise UserError(
                f"{first.folder.name} was evaluated by {first.metric} and {run.folder.name} by {run.metric}: "
                "run one of them again"
            )
        other = places.setdefault((run.arm, run.key, run.budget), run)
        if other is not run:
            keys = differing(settings(other, ("strategy", *NAMED)), settings(run, ("strategy", *NAMED)))
            raise UserError(
                f"two runs of {run.arm} with seed {run.seed}: {other.folder.name} and {run.folder.name} "
                f"({'they differ in ' + ', '.join(keys[:3]) if keys else 'the same settings'}); keep one"
            )
        other = arms.setdefault(run.arm, run)
        here, there = (settings(each, ("strategy", "learner")) for each in (other, run))
        if keys := [k for k in differing(here, there) if k.removeprefix("learner.") not in HOW]:
            raise UserError(f"{run.arm} ran with two settings: {_both(keys[0], here, there, other, run)}")


def _both(key: str, here: Mapping[str, Any], there: Mapping[str, Any], one: Run, other: Run) -> str:
    return f"{key} is {here.get(key)} in {one.folder.name} and {there.get(key)} in {other.folder.name}"


def _differences(runs: list[Run]) -> list[str]:
    """Notes on what differs without forbidding a comparison."""
    notes = []
    flat = {id(run): settings(run, NAMED) for run in runs}
    names = {key for each in flat.values() for key in differing(flat[id(runs[0])], each)}
    for key in sorted(names - {key for key in VARIED if any(run.label for run in runs)}):
        notes.append(f"{key} differs: {_by_value(runs, [flat[id(run)].get(key) for run in runs])}")
    git = [run.meta.get("git") or {} for run in runs]
    revisions = [str(each.get("revision"))[:10] for each in git]
    if len(set(revisions)) > 1:
        notes.append(f"code revisions differ: {_by_value(runs, revisions)}")
    if dirty := sum(bool(each.get("dirty")) for each in git):
        notes.append(f"{dirty} of {len(runs)} runs were made with uncommitted changes in the code")
    for name in sorted({name for run in runs for name in run.meta.get("libraries", {})}):
        versions = [run.meta.get("libraries", {}).get(name) for run in runs]
        if len(set(versions)) > 1:
            notes.append(f"versions of {name} differ: {_by_value(runs, versions)}")
    return notes


def _by_value(runs: list[Run], values: Sequence[Any]) -> str:
    """Which runs have which value: `a (guess_check s0 s1); b (mcts s0)`."""
    found: dict[str, dict[str, list[str]]] = {}
    for run, value in zip(runs, values, strict=True):
        found.setdefault(str(value), {}).setdefault(run.arm, []).append(f"s{run.seed}")
    out = []
    for text, arms in found.items():
        where = ", ".join(f"{arm} {' '.join(dict.fromkeys(seeds))}" for arm, seeds in arms.items())
        out.append(f"{text} ({where})")
    return "; ".join(out)


def _budget(runs: list[Run]) -> tuple[str, float, list[str]]:
    """(unit, the declared budget that all arms have, notes). Raises UserError if an arm other than a base has
    another one."""
    budget = min(run.budget[1] for run in runs)
    longer = [run for run in runs if run.budget[1] > budget]
    for run in longer:
        if run.arm not in BASES:
            shortest = min(runs, key=lambda each: each.budget[1])
            raise UserError(
                f"{run.arm} and {shortest.arm} have different budgets: {run.budget[1]:.3g} and {budget:.3g} "
                f"{run.budget[0]} ({run.folder.name}, {shortest.folder.name})"
            )
    notes = []
    if longer:
        which = _by_value(longer, [f"{run.budget[1] / budget:g}x the budget" for run in longer])
        notes.append(f"runs of a base that go on: {which}")
    return runs[0].budget[0], budget, notes
