"""From tuning runs to the settings of a comparison: `python -m ablate.tune results/<experiment> [name=...]`

Reads the runs' own files: every strategy at the same learning rates, on the same tuning seeds, judged on
tuning problems. The learning rate with the best mean accuracy wins. The winners, with what was tried and what
it cost, become conf/tuned/<name>.yaml in the working directory, which `tuned=<name>` chooses.

Exit codes: 0 done; 2 a mistake of the user's, told in one line.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ablate.command import exit_code
from ablate.config import NOT_THE_RESULT
from ablate.record import atomic_write, primary, read_json, read_jsonl, status
from ablate.report.contrasts import CELL_OF, CELLS, PLACEBOS
from ablate.schema import nearest, unknown_key
from ablate.text import table
from ablate.types import UserError

HELP = """\
Which learning rate for which strategy? Choose from tuning runs, and write conf/tuned/<name>.yaml.

usage: python -m ablate.tune results/<experiment> [name=<name>]

  1. python -m ablate -m experiment=tune             the same learning rates for every strategy
     (learner.lr=1.5e-4 strategy=a,b model=... task=... budget.flops=... as in any sweep)
  2. python -m ablate.tune results/tune name=mine    the best of each
  3. python -m ablate -m experiment=suspects tuned=mine
"""
HEADER = "# @package _global_\n# Learning rates by strategy, written by python -m ablate.tune"
# an arm that was not tuned itself runs at the learning rate of the arm that it differs from in one point
LIKE = {"process": "process_rewards", "search": "mcts", "correct": "learn_to_correct"}
VARIANTS = {"guess_check_wide": "guess_check"} | {
    name: "process_rewards" for name in ("process_learned", "process_oracle", "process_naive")
}
DIVERGED = "NonFiniteLoss"  # how a run's failure begins whose weights ran away: a trial, and a bad one
COSTS = ("flops", "logical_flops", "tokens")


@dataclass(frozen=True)
class Trial:
    """One tuning run. accuracy: on tuning problems at the end, in the figure that arms are compared by; None
    if training diverged."""

    folder: Path
    arm: str
    lr: float
    seed: int
    figure: str  # what accuracy is
    accuracy: float | None
    error: float  # standard error over problems
    cost: dict[str, float]
    config: dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """A strategy at one learning rate. accuracy: mean over seeds, -inf if a run diverged."""

    lr: float
    trials: tuple[Trial, ...]

    @property
    def accuracy(self) -> float:
        """Mean over seeds; -inf if one of them diverged."""
        known = [each.accuracy for each in self.trials if each.accuracy is not None]
        return fmean(known) if len(known) == len(self.trials) else -math.inf

    @property
    def error(self) -> float:
        """Standard error of the mean over problems, seeds taken as they are."""
        return math.sqrt(sum(each.error**2 for each in self.trials)) / len(self.trials)


@dataclass(frozen=True)
class Choice:
    """What a strategy's trials came to. settings: by learning rate; notes: what to say of the winner."""

    arm: str
    settings: tuple[Setting, ...]
    best: Setting
    notes: tuple[str, ...]

    def cost(self, name: str) -> float:
        """Of all trials, one of COSTS."""
        return sum(trial.cost[name] for each in self.settings for trial in each.trials)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(_main, argv)


def _main(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    folders = [word for word in argv if "=" not in word]
    if len(folders) != 1 or folders[0].startswith("-"):
        raise UserError("give one folder: python -m ablate.tune results/<experiment> [name=<name>]")
    options = dict(word.split("=", 1) for word in argv if "=" in word)
    for key in options:
        if key != "name":
            raise unknown_key(key, ("name",))
    folder = Path(folders[0])
    name = options.get("name", folder.resolve().name)
    if not name.isidentifier():
        raise UserError(f"name={name} cannot name a choice: letters, digits and _ can")
    path = Path("conf/tuned") / f"{name}.yaml"
    if path.exists() and not path.read_text().startswith(HEADER):
        raise UserError(f"{path} was not written by this command: choose another name=...")
    choices = choose(load(folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, to_yaml(choices, f"{folder} name={name}").encode())
    print("\n".join(_table(choices)))
    print(f"\nWritten to {path}; python -m ablate -m experiment=suspects tuned={name} uses it.")
    return 0


def load(folder: Path) -> list[Trial]:
    """The trials in an experiment's folder.

    Raises UserError if they cannot be compared, or if a strategy lacks one that another has.
    """
    if not folder.is_dir():
        beside = [each.name for each in folder.parent.glob("*/")]
        raise UserError(f"{folder} is not a folder; {nearest(folder.name, beside)}")
    runs = [path.parent for path in sorted(folder.glob("*/config.yaml"))]
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
        _refuse(found)
        _complete(found, absent)
        return found
    (arm, lr, seed), why = next(iter(absent.items()))
    raise UserError(f"{folder} has no finished run ({arm} learner.lr={lr:g} seed={seed}: {why}, ...)")


def _trial(folder: Path) -> tuple[Trial, str]:
    """A run as a trial, and why it is none ("" if it is one)."""
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        arm, lr, seed = config["strategy"]["name"], float(config["learner"]["lr"]), int(config["seed"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {folder / 'config.yaml'}: {str(error).splitlines()[0]}") from error
    state, why, accuracy, row, figure = status(folder), "", None, {}, "pass@1"
    cost = dict.fromkeys(COSTS, 0.0)
    if state == "finished":
        totals = read_json(folder / "summary.json").get("totals", {})
        row = (read_jsonl(folder / "evaluations.jsonl") or [{}])[-1]
        figure = primary(row)
        accuracy = row.get(f"heldout/{figure}")
        cost = {name: float(totals.get(name, 0.0)) for name in COSTS}
        why = "" if accuracy is not None else "evaluations.jsonl lacks its accuracy"
    elif state == "failed":
        message = str(read_json(folder / "failure.json").get("message", ""))
        why = "" if message.startswith(DIVERGED) else f"failed: {message.splitlines()[0]}"
        for step in read_jsonl(folder / "steps.jsonl")[-1:]:
            cost = {name: float(step.get(f"budget/{name}", 0.0)) for name in COSTS}
    else:
        why = "not finished"
    deviation = row.get(f"heldout/{figure}_se") or 0.0  # null where a single cluster of problems leaves none
    return Trial(folder, arm, lr, seed, figure, accuracy, deviation, cost, config), why


def _refuse(trials: list[Trial]) -> None:
    """Raises UserError where trials cannot be compared."""
    first = trials[0]
    if (split := first.config["evaluate"]["split"]) != "tuning":
        raise UserError(
            f"{first.folder} was judged on evaluate.split={split}: settings are chosen on tuning problems"
        )
    places: dict[Any, Trial] = {}
    for each in trials:
        for other, without in (
            (first, ("strategy", "learner.lr", "seed", "sampling_seed")),
            (places.setdefault(each.arm, each), ("learner.lr", "seed", "sampling_seed")),
            (places.setdefault((each.arm, each.lr, each.seed), each), ()),
        ):
            here, there = (_settings(one.config, without) for one in (other, each))
            if keys := sorted(key for key in here | there if here.get(key) != there.get(key)):
                key = keys[0]
                raise UserError(
                    f"trials differ in more than the learning rate: {key} is {here.get(key)} in "
                    f"{other.folder.name} and {there.get(key)} in {each.folder.name}; keep one of them"
                )


def _settings(config: Mapping[str, Any], without: Iterable[str]) -> dict[str, Any]:
    """What determines a run's result, but for some keys, as {dotted key: value}."""
    left = tuple(f"{key}." for key in (*NOT_THE_RESULT, *without))
    return {key: value for key, value in _flat(config, "") if not f"{key}.".startswith(left)}


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


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


def choose(trials: list[Trial]) -> list[Choice]:
    """The best learning rate of each strategy: the highest mean accuracy, the smallest of equals."""
    found = []
    for arm in dict.fromkeys(each.arm for each in trials):
        own = [each for each in trials if each.arm == arm]
        settings = tuple(
            Setting(lr, tuple(sorted((each for each in own if each.lr == lr), key=lambda each: each.seed)))
            for lr in sorted({each.lr for each in own})
        )
        best = max(settings, key=lambda each: each.accuracy)  # the first of equals
        if best.accuracy == -math.inf:
            raise UserError(f"{arm} diverged at every learning rate: add smaller ones, for every strategy")
        found.append(Choice(arm, settings, best, tuple(_notes(settings, best))))
    return found


def _notes(settings: tuple[Setting, ...], best: Setting) -> Iterator[str]:
    others = [each for each in settings if each is not best]
    if best in (settings[0], settings[-1]):
        yield "at the edge of the grid, extend it" if others else "the only one that was tried"
    if ties := [each.lr for each in others if each.accuracy == best.accuracy]:
        yield f"a tie with {_rates(ties)}: the smallest was taken"
    close = [
        each.lr for each in others if 0 < best.accuracy - each.accuracy < math.hypot(best.error, each.error)
    ]
    if close:
        yield f"{_rates(close)} within one standard error over problems"


def _rates(rates: Iterable[float]) -> str:
    return " and ".join(f"{lr:g}" for lr in rates)


def to_yaml(choices: list[Choice], arguments: str) -> str:
    """The file of conf/tuned/: the winners, and as comments what was tried."""
    rates, spent = _values(choices)
    first = choices[0].settings[0].trials[0].config
    seeds = [trial.seed for trial in choices[0].settings[0].trials]
    unit, budget = next((u, b) for u in (*COSTS, "seconds") if (b := first["budget"].get(u)))
    parts = ", ".join(str(first[key]["_target_"]).rpartition(".")[2] for key in ("task", "model"))
    lines = [
        f"{HEADER} {arguments}",
        f"# {parts}; every strategy at {_rates(each.lr for each in choices[0].settings)}, seeds "
        f"{', '.join(map(str, seeds))}, {budget:g} {unit} a run; {_figure(choices)} on tuning problems.",
        "#",
        *(f"# {line}".rstrip() for line in _table(choices)),
        "learner:",
        "  lr:",
        *(f"    {name}: {lr!r}{note}" for name, (lr, note) in rates.items()),
        "tuning: # of the trials behind each, outside every run's budget",
        f"  seeds: {seeds}",
    ]
    for cost in COSTS:
        lines.append(f"  {cost}:")
        lines += [f"    {name}: {int(spent[name].cost(cost))}" for name in rates]
    return "\n".join(lines) + "\n"


def _values(choices: list[Choice]) -> tuple[dict[str, tuple[float, str]], dict[str, Choice]]:
    """({strategy: (learning rate, comment)}, {strategy: whose trials}), with those that follow another."""
    rates: dict[str, tuple[float, str]] = {}
    spent: dict[str, Choice] = {}
    for each in choices:
        notes = f"  # {'; '.join(each.notes)}" if each.notes else ""
        rates[each.arm], spent[each.arm] = (each.best.lr, notes), each
    for each in choices:
        same = CELLS[CELL_OF[each.arm]] if each.arm in CELL_OF else ()
        likes = [name for part, names in PLACEBOS.items() if LIKE[part] == each.arm for name in names]
        likes += [name for name, arm in VARIANTS.items() if arm == each.arm]
        for name in (*same, *likes):
            if name not in rates:
                rates[name], spent[name] = (each.best.lr, f"  # as {each.arm}"), each
    return rates, spent


def _table(choices: list[Choice]) -> list[str]:
    rows, notes = [], []
    for each in choices:
        for setting in each.settings:
            seeds = ["diverged" if t.accuracy is None else f"{100 * t.accuracy:.1f}" for t in setting.trials]
            rows.append(
                [
                    each.arm,
                    f"{setting.lr:g}",
                    f"{100 * setting.accuracy:.1f}" if math.isfinite(setting.accuracy) else "-",
                    "best" if setting is each.best else "",
                    " ".join(seeds),
                    f"{sum(trial.cost['flops'] for trial in setting.trials):.3g}",
                ]
            )
        notes += [f"{each.arm}: {each.best.lr:g} is best; {'; '.join(each.notes)}"] if each.notes else []
    head = ["strategy", "learning rate", f"{_figure(choices)} (%)", "", "by seed", "FLOPs"]
    total = sum(each.cost("flops") for each in choices)
    return [*table(head, rows), "", *notes, f"All trials: {total:.3g} FLOPs."]


def _figure(choices: list[Choice]) -> str:
    trials = [trial for each in choices for trial in each.best.trials]  # none of them diverged
    return trials[0].figure


if __name__ == "__main__":
    sys.exit(main())
