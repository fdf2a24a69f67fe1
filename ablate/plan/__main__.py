"""Before anything runs: `python -m ablate.plan [experiment=...] [key=value ...]`

How many runs a command line stands for and how many of them are left, FLOPs by purpose, hours on this machine
or on a named GPU, disk, the smallest effect that the design can detect, and the seeds that a verdict needs.

Exit codes: 0 done; 2 a mistake of the user's, told in one line.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ablate.command import exit_code, refuse_options
from ablate.config import Config
from ablate.plan.gpus import GPUS, find
from ablate.record import write_json
from ablate.schema import keys, nearest
from ablate.types import UserError

HELP = f"""\
What would it cost, and what could it find? Nothing is trained.

usage: python -m ablate.plan [experiment=... | strategy=... seed=0,1,2 ...] [key=value ...]

The command line of the runs, lists of values and all; beside their keys:

  gpu=H100                 hours on a GPU, from the vendor's peak bf16 FLOP/s:
                           {", ".join(gpu.name for gpu in GPUS[:10])},
                           {", ".join(gpu.name for gpu in GPUS[10:])}
  gpus=1                   that many, a run on each at a time
  utilisation=0.3          share of the peak that is reached, over all of the work
  measure=auto             this machine's speed, if no gpu is named: from finished runs, else measured in
                           half a minute and kept (auto); measured now (true); never measured (false)
  margin=0.02              what an effect must exceed to matter, as a share of problems
  pilot=results/countdown  an experiment that variances and costs are taken from; none: assumptions
  length=78                mean tokens of an answer after training (default: 61 % of sampling.cap)
  steps=16                 mean steps of such an answer (default: 16, of at least 5 tokens each)
  json=true                everything for machines (schema: ablate.plan.content); json=FILE beside the text

examples:
  python -m ablate.plan experiment=suspects
  python -m ablate.plan experiment=suspects seed=0,1,2,3,4,5,6,7 budget.flops=1e13 gpu=H100 gpus=8
  python -m ablate.plan -m strategy=guess_check,mcts seed=0,1,2 measure=false
"""
KEYS = ("gpu", "gpus", "utilisation", "measure", "margin", "pilot", "length", "steps", "json")
MEASURE = ("auto", "true", "false")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(_main, argv)


def _main(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    # every combination of listed values is planned, with -m or without
    words = [word for word in argv if word not in ("-m", "--multirun")]
    refuse_options(words)
    given = {key: value for key, _, value in (word.partition("=") for word in words) if key in KEYS}
    rest = [word for word in words if word.partition("=")[0] not in KEYS]
    for word in rest:
        _not_misspelt(word.partition("=")[0])

    from ablate.plan.assemble import Wishes, assemble
    from ablate.plan.text import to_text

    gpu = find(given["gpu"]) if "gpu" in given else None
    for key in ("gpus", "utilisation"):
        if key in given and gpu is None:
            raise UserError(f"{key}={given[key]} says nothing without a GPU: add gpu=H100")
    if given.get("measure", "auto") not in MEASURE:
        raise UserError(f"measure={given['measure']} is not a choice; {nearest(given['measure'], MEASURE)}")
    wishes = Wishes(
        gpu=gpu,
        gpus=int(_number(given, "gpus", 1, whole=True, low=1)),
        utilisation=_number(given, "utilisation", 0.3, high=1.0),
        margin=_number(given, "margin", 0.02, high=1.0),
        length=_number(given, "length", 1.0) if "length" in given else None,
        steps=_number(given, "steps", 1.0, low=1) if "steps" in given else None,
        pilot=given.get("pilot"),
        measure=given.get("measure", "auto"),
    )
    target = _target(given.get("json", "false"))
    outline = assemble(rest, wishes)
    if target == "true":
        print(json.dumps(asdict(outline), indent=2))
        return 0
    if isinstance(target, Path):
        write_json(target, asdict(outline))
    print(to_text(outline), end="")
    return 0


def _target(text: str) -> Path | str:
    """Where the JSON goes: a file, "true" for standard output, or "false". Raises UserError."""
    if not text:
        raise UserError("json= has no value: json=true, or the name of a file")
    if text in ("true", "false"):
        return text
    if not Path(text).parent.is_dir():
        raise UserError(f"json={text}: there is no folder {Path(text).parent}")
    return Path(text)


def _number(
    given: dict[str, str], key: str, default: float, whole: bool = False, low: float = 0, high: float = 1e12
) -> float:
    """The key's value within (0, high], at least low. Raises UserError."""
    text = given.get(key)
    if text is None:
        return default
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        raise UserError(f"{key}={text} is not a {'whole ' if whole else ''}number") from None
    if not (value > 0 and low <= value <= high):
        hint = f"; did you mean {value / 100:g}?" if high == 1 and 1 < value <= 100 else ""
        limits = f"at least {low:g}" if low else f"above 0 and at most {high:g}"
        raise UserError(f"{key}={text} must be {limits}{hint}")
    return value


def _not_misspelt(key: str) -> None:
    """Raises UserError for a key that is almost one of the plan's own, and none of a run's."""
    tops = {name.split(".")[0] for name in keys(Config)}
    if "." in key or "/" in key or key.lstrip("+~") in tops:
        return
    close = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.7)
    if close and not difflib.get_close_matches(key, tops, n=1, cutoff=0.8):
        raise UserError(f"unknown key {key}; did you mean {close[0]}?")


if __name__ == "__main__":
    sys.exit(main())
