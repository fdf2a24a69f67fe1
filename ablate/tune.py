"""From tuning runs to the settings of a comparison: `python -m ablate.tune results/<experiment> [name=...]`

Reads the runs' own files: every strategy at the same learning rates, or in as many trials of Optuna's, on
the same tuning seeds, judged on tuning problems. The setting with the best mean accuracy wins. The winners,
with what was tried and what it cost, become conf/tuned/<name>.yaml in the working directory, which
`tuned=<name>` chooses.

Exit codes: 0 done; 2 a mistake of the user's, told in one line.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ablate.command import exit_code
from ablate.naming import conf_dir
from ablate.record import atomic_write
from ablate.report.contrasts import CELL_OF, CELLS, PLACEBOS
from ablate.schema import unknown_key
from ablate.text import table
from ablate.tuning.studies import STORAGE, as_json, draw
from ablate.tuning.trials import COSTS, Trial, load
from ablate.types import UserError

HELP = """\
Which learning rate for which strategy? Choose from tuning runs, and write conf/tuned/<name>.yaml.

usage: python -m ablate.tune results/<experiment> [name=<name>]

  1. python -m ablate -m experiment=tune             the same learning rates for every strategy
     (learner.lr=1.5e-4 strategy=a,b model=... task=... budget.flops=... as in any sweep)
  2. python -m ablate.tune results/tune name=mine    the best of each
  3. python -m ablate -m experiment=suspects tuned=mine

With experiment=tune_optuna in the first step, Optuna searches a range, of more
keys if you like, in as many trials for every strategy; its figures go to results/<experiment>/figures.
"""
HEADER = "# @package _global_\n# Learning rates by strategy, written by python -m ablate.tune"
# an arm that was not tuned itself runs at the learning rate of the arm that it differs from in one point
LIKE = {"process": "process_rewards", "search": "mcts", "correct": "learn_to_correct"}
VARIANTS = {"guess_check_wide": "guess_check"} | {
    name: "process_rewards" for name in ("process_learned", "process_oracle", "process_naive")
}


@dataclass(frozen=True)
class Setting:
    """A strategy at one setting, {dotted key: value}. accuracy: mean over seeds, -inf if a run diverged."""

    values: tuple[tuple[str, Any], ...]
    trials: tuple[Trial, ...]

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self.trials[0].lr

    @property
    def text(self) -> str:
        """`0.0006`, or `lr=0.0006 warmup_steps=5`"""
        found = [(key, f"{v:g}" if isinstance(v, float) else str(v)) for key, v in self.values]
        if [key for key, _ in found] == ["learner.lr"]:
            return found[0][1]
        return " ".join(f"{key.removeprefix('learner.')}={value}" for key, value in found)

    @property
    def accuracy(self) -> float:
        """Mean over seeds; -inf if one of them diverged or failed."""
        known = [each.accuracy for each in self.trials if each.accuracy is not None]
        return fmean(known) if len(known) == len(self.trials) else -math.inf

    @property
    def error(self) -> float:
        """Standard error of the mean over problems, seeds taken as they are."""
        return math.sqrt(sum(each.error**2 for each in self.trials)) / len(self.trials)


@dataclass(frozen=True)
class Choice:
    """What a strategy's trials came to. settings: by learning rate, or as tried; notes: of the winner."""

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
    built_in = conf_dir() / "tuned" / path.name
    if built_in.exists() and built_in.parent.resolve() != path.parent.resolve():
        raise UserError(f"name={name} is a built-in choice of tuned: choose another name=...")
    if path.exists() and not path.read_text().startswith(HEADER):
        raise UserError(f"{path} was not written by this command: choose another name=...")
    choices = choose(load(folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, to_yaml(choices, f"{folder} name={name}").encode())
    print("\n".join(_table(choices)))
    if (folder / STORAGE).exists():
        print(f"\nFigures: {', '.join(map(str, draw(folder / STORAGE, folder / 'figures')))}")
    print(f"\nWritten to {path}; python -m ablate -m experiment=suspects tuned={name} uses it.")
    return 0


def choose(trials: list[Trial]) -> list[Choice]:
    """The best setting of each strategy: the highest mean accuracy, the smallest learning rate of equals."""
    found = []
    for arm in dict.fromkeys(each.arm for each in trials):
        own = [each for each in trials if each.arm == arm]
        tried = list(dict.fromkeys(each.values for each in own))
        if _grid(trials):
            tried.sort()
        settings = tuple(
            Setting(
                values,
                tuple(sorted((each for each in own if each.values == values), key=lambda each: each.seed)),
            )
            for values in tried
        )
        best = max(settings, key=lambda each: each.accuracy)  # the first of equals
        if best.accuracy == -math.inf:
            if all(trial.state == "failed" for each in settings for trial in each.trials):
                raise UserError(f"{arm} failed in every trial (failure.json in {own[0].folder} says why)")
            raise UserError(f"{arm} diverged at every learning rate: add smaller ones, for every strategy")
        found.append(Choice(arm, settings, best, tuple(_notes(settings, best, _grid(trials)))))
    return found


def _grid(trials: Iterable[Trial]) -> bool:
    """Has every strategy been tried at the same settings?"""
    tried: dict[str, set[Any]] = {}
    trials = list(trials)
    for each in trials:
        tried.setdefault(each.arm, set()).add(each.values)
    same = len({frozenset(each) for each in tried.values()}) == 1
    searched = any((each.folder.parent / STORAGE).exists() for each in trials)
    return same and not searched and all([key for key, _ in each.values] == ["learner.lr"] for each in trials)


def _notes(settings: tuple[Setting, ...], best: Setting, grid: bool) -> Iterator[str]:
    others = [each for each in settings if each is not best]
    if grid and best in (settings[0], settings[-1]):
        yield "at the edge of the grid, extend it" if others else "the only one that was tried"
    if ties := [each for each in others if each.accuracy == best.accuracy]:
        yield f"a tie with {_named(ties)}: the {'smallest' if grid else 'first'} was taken"
    close = [
        each for each in others if 0 < best.accuracy - each.accuracy < math.hypot(best.error, each.error)
    ]
    if close:
        yield f"{_named(close)} within one standard error over problems"


def _named(settings: Iterable[Setting]) -> str:
    return " and ".join(each.text for each in settings)


def to_yaml(choices: list[Choice], arguments: str) -> str:
    """The file of conf/tuned/: the winners, and as comments what was tried."""
    best, spent = _values(choices)
    first = choices[0].settings[0].trials[0].config
    seeds = [trial.seed for trial in choices[0].settings[0].trials]
    unit, budget = next((u, b) for u in (*COSTS, "seconds") if (b := first["budget"].get(u)))
    parts = ", ".join(str(first[key]["_target_"]).rpartition(".")[2] for key in ("task", "model"))
    same = _grid(trial for each in choices for setting in each.settings for trial in setting.trials)
    what = (
        f"at {_named(choices[0].settings)}" if same else f"in {len(choices[0].settings)} trials of Optuna's"
    )
    lines = [
        f"{HEADER} {arguments}",
        f"# {parts}; every strategy {what}, seeds "
        f"{', '.join(map(str, seeds))}, {budget:g} {unit} a run; {_figure(choices)} on tuning problems.",
        "#",
        *(f"# {line}".rstrip() for line in _table(choices)),
        "learner:",
    ]
    for key in (key for key, _ in choices[0].best.values):
        lines.append(f"  {key.removeprefix('learner.')}:")
        for name, (setting, note) in best.items():
            lines.append(f"    {name}: {as_json(dict(setting.values)[key])}{note}")
    lines += ["tuning: # of the trials behind each, outside every run's budget", f"  seeds: {seeds}"]
    for cost in COSTS:
        lines.append(f"  {cost}:")
        lines += [f"    {name}: {int(spent[name].cost(cost))}" for name in best]
    return "\n".join(lines) + "\n"


def _values(choices: list[Choice]) -> tuple[dict[str, tuple[Setting, str]], dict[str, Choice]]:
    """({strategy: (setting, comment)}, {strategy: whose trials}), with those that follow another."""
    best: dict[str, tuple[Setting, str]] = {}
    spent: dict[str, Choice] = {}
    for each in choices:
        notes = f"  # {'; '.join(each.notes)}" if each.notes else ""
        best[each.arm], spent[each.arm] = (each.best, notes), each
    for each in choices:
        same = CELLS[CELL_OF[each.arm]] if each.arm in CELL_OF else ()
        likes = [name for part, names in PLACEBOS.items() if LIKE[part] == each.arm for name in names]
        likes += [name for name, arm in VARIANTS.items() if arm == each.arm]
        for name in (*same, *likes):
            if name not in best:
                best[name], spent[name] = (each.best, f"  # as {each.arm}"), each
    return best, spent


def _table(choices: list[Choice]) -> list[str]:
    rows, notes = [], []
    for each in choices:
        for setting in each.settings:
            seeds = [t.state if t.accuracy is None else f"{100 * t.accuracy:.1f}" for t in setting.trials]
            rows.append(
                [
                    each.arm,
                    setting.text,
                    f"{100 * setting.accuracy:.1f}" if math.isfinite(setting.accuracy) else "-",
                    "best" if setting is each.best else "",
                    " ".join(seeds),
                    f"{sum(trial.cost['flops'] for trial in setting.trials):.3g}",
                ]
            )
        notes += [f"{each.arm}: {each.best.text} is best; {'; '.join(each.notes)}"] if each.notes else []
    rate = [key for key, _ in choices[0].best.values] == ["learner.lr"]
    head = [
        "strategy",
        "learning rate" if rate else "setting",
        f"{_figure(choices)} (%)",
        "",
        "by seed",
        "FLOPs",
    ]
    total = sum(each.cost("flops") for each in choices)
    return [*table(head, rows), "", *notes, f"All trials: {total:.3g} FLOPs."]


def _figure(choices: list[Choice]) -> str:
    trials = [trial for each in choices for trial in each.best.trials]  # none of them diverged
    return trials[0].figure


if __name__ == "__main__":
    sys.exit(main())
