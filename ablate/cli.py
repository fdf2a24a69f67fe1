"""The command line: `python -m ablate [options] [key=value ...]`.

Exit codes: 0 done; 2 a mistake of the user's, told in one line before any model loads where it can be; 1 any
other exception (with its traceback), or a sweep in which runs failed; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from omegaconf import OmegaConf

from ablate import __doc__ as purpose
from ablate import __version__
from ablate.command import exit_code
from ablate.compose import Plan, default_choices, enter_working_directory, explain, groups, plan
from ablate.config import Config, validate_job
from ablate.launch import start_others
from ablate.naming import conf_dir
from ablate.schema import nearest
from ablate.sweeps.jobs import sweep
from ablate.types import UserError

OPTIONS = {
    "-h": "--help",
    "-m": "--multirun",
    "-c": "--cfg",
    "-i": "--info",
    "--help": "this text",
    "--version": "the version",
    "--multirun": "run every combination of the values that keys list: seed=0,1,2",
    "--cfg": "job: print the configuration that would run, and stop; hydra: Hydra's own",
    "--info": "what Hydra knows: searchpath, plugins, defaults-tree, ...",
    "--hydra-help": "Hydra's own help",
}

HELP = """\
{purpose}
One run trains one model with one strategy until a compute budget is spent, and evaluates it.

usage: python -m ablate [options] [group=choice ...] [key=value ...]

groups and their choices (* is the default; conf/<group>/<choice>.yaml, the working directory's too):
{groups}

keys that are set most often (all of them with their values: python -m ablate --cfg job):
  seed=0                      warm start and problem stream
  strategy.source.n=8         answers per problem
  learner.lr=6e-4             learning rate
  learner.problems=32         problems per batch
  sampling.cap=128            most tokens of an answer
  budget.tokens=2e6           or budget.flops=3e12, or budget.seconds=120
  name=single                 the run's folder is under results/<name>/
  resume=true                 go on where the same command was killed

examples:
  python -m ablate
      guess + check on the embedded model and task: minutes on two cores, no download
  python -m ablate strategy.credit.scale=none learner.lr=3e-4 budget.tokens=1e6 seed=1
      the same without division by the group's standard deviation, at half the budget, with another seed
  python -m ablate -m seed=0,1,2 hydra/launcher=joblib hydra.launcher.n_jobs=2
      three seeds, two at a time

options:
{options}

Your own strategy: strategies/my_idea.py and conf/strategy/my_idea.yaml in the working directory;
python -m ablate.check strategy=my_idea holds it against its contract.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if argv is None and exit_code(start_others, argv):
        return 2
    return exit_code(_main, argv)


def _main(argv: list[str]) -> int:
    options, arguments = _split(argv)
    if "--help" in options:
        print(_help(), end="")
    elif "--version" in options:
        print(f"ablate {__version__}")
    elif "--info" in options or "--hydra-help" in options or options.get("--cfg") in ("hydra", "all"):
        checked = plan(arguments)
        asked = {option: value for option, value in options.items() if option != "--multirun"}
        shown = [part for option, value in asked.items() for part in (option, value) if part]
        _hydra(print, [*shown, *checked.overrides])
    elif "--cfg" in options:
        if options["--cfg"] != "job":
            raise UserError(f"--cfg {options['--cfg']}: {nearest(options['--cfg'], ('job', 'hydra', 'all'))}")
        checked = plan(arguments, multirun="--multirun" in options)
        if checked.multirun and checked.count != 1:
            print(f"# the first of {checked.count or 'several'} runs")
        print(OmegaConf.to_yaml(checked.config), end="")
    else:
        checked = plan(arguments, multirun="--multirun" in options)
        return sweep(checked, _hydra) if checked.multirun else _run(checked)
    return 0


def _split(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """({option: value}, the rest). Raises UserError for an option that does not exist."""
    options: dict[str, str] = {}
    arguments = []
    rest = iter(argv)
    for word in rest:
        if not word.startswith("-"):
            arguments.append(word)
            continue
        name, _, value = word.partition("=")
        name = OPTIONS[name] if len(name) == 2 and name in OPTIONS else name
        if name not in OPTIONS:
            if value:
                raise UserError(f"unknown option {word}; keys are written without dashes: {word.lstrip('-')}")
            names = [each for each in OPTIONS if each.startswith("--")]
            raise UserError(f"unknown option {word}; {nearest(word, names)}")
        if name in ("--cfg", "--info"):
            value = value or next(rest, "")
            if not value:
                raise UserError(f"{name} needs a value: {OPTIONS[name]}")
        options[name] = value
    return options, arguments


def _run(checked: Plan) -> int:
    failures: list[Exception] = []

    def job(cfg: Any) -> Any:
        try:
            return _start(cfg)
        except Exception as error:  # Hydra would report it in its own way
            failures.append(error)

    _hydra(job, checked.overrides)
    if failures:
        raise failures[0]
    return 0


def _start(cfg: Any) -> Any:
    enter_working_directory()
    checked: Config = validate_job(cfg)
    from ablate.run import run  # imports torch

    return run(checked)


def _hydra(job: Callable[[Any], Any], arguments: list[str]) -> None:
    """Hydra's own main with these arguments; its errors are raised instead of printed."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["ablate", *arguments], "1"
    try:
        hydra.main(config_path=str(conf_dir()), config_name="config")(job)()
    except hydra.errors.HydraException as error:
        raise explain(error) from error
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]


def _help() -> str:
    defaults = default_choices()
    lines = []
    for group, choices in sorted(groups().items()):
        names = [f"{choice}*" if choice == defaults.get(group) else choice for choice in choices]
        if names:
            lines.append(f"  {group:<20} {', '.join(names)}")
    shorts = {long: short for short, long in OPTIONS.items() if len(short) == 2}
    options = [
        f"  {', '.join(filter(None, (shorts.get(name), name))):<20} {text}"
        for name, text in OPTIONS.items()
        if len(name) > 2
    ]
    return HELP.format(purpose=purpose, groups="\n".join(lines), options="\n".join(options))
