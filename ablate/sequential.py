"""A sweep that stops when its verdicts are reached: `python -m ablate.sequential experiment=... looks=4,8,12`

Seeds run in blocks, up to each declared look; after a block the report is read, with that look's intervals
(`ablate.report.looks`), and if every headline verdict is other than inconclusive no more seeds begin. The
looks are written into every run's config before it starts.

Exit codes: 0 done; 1 runs failed; 2 a mistake of the user's, told in one line; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ablate.command import exit_code, refuse_options
from ablate.record import read_json
from ablate.types import UserError

HELP = """\
Run a comparison seed by seed, look at it at declared numbers of seeds, and stop when it has said its word.

usage: python -m ablate.sequential experiment=<experiment> looks=4,8,12 [key=value ...]

  looks=4,8,12               numbers of seeds at which it is looked at; the last is the whole design
  spending=obrien_fleming    how the 5 % of false verdicts are spread over the looks; pocock spends more of
                             them early, and leaves the last look less
  margin=0.02, control=...   as in python -m ablate.report
  seed=10,11,...             which seeds, as many as the last look (default: 0, 1, 2, ...)
  anything else              as in python -m ablate -m: what every run is made of

The same command goes on where it was stopped. What looks cost and save, beforehand:
python -m ablate.report.calibration looks=4,8,12
"""
OF_THE_REPORT = ("margin", "control")
OWN = ("looks", "spending", *OF_THE_REPORT)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(_main, argv)


def _main(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    words = [word for word in argv if word not in ("-m", "--multirun")]
    refuse_options(words)
    own, rest = _split(words)
    if "looks" not in own:
        raise UserError(
            "looks are missing, as in looks=4,8,12: numbers of seeds, the last one the whole design"
        )
    from ablate.report.looks import parse

    looks = parse(own["looks"], own.get("spending", "obrien_fleming"))
    seeds, rest = _seeds(rest, looks.at[-1])
    declared = [f"looks.at=[{','.join(map(str, looks.at))}]", f"looks.spending={looks.spending}"]
    if not any(word.startswith(("resume=", "fresh=")) for word in rest):
        declared.append("resume=true")
    common = ["--multirun", *rest, *declared]
    folder = _check(common[1:], seeds, own)

    from ablate.cli import main as run
    from ablate.report.__main__ import main as report

    done = 0
    for number, count in enumerate(looks.at, 1):
        block = seeds[done:count]
        print(f"Look {number} of {len(looks.at)}: seeds {', '.join(map(str, block))}", flush=True)
        if code := run([*common, f"seed={','.join(map(str, block))}"]):
            if code == 1:
                print(
                    "ablate: without these runs there is no look: run the same command again", file=sys.stderr
                )
            return code
        told = [f"{key}={own[key]}" for key in OF_THE_REPORT if key in own]
        # also of runs that were there before, and declare none
        told += [f"looks={','.join(map(str, looks.at))}", f"spending={looks.spending}"]
        if code := report([str(folder), *told, f"seeds={','.join(map(str, seeds[:count]))}"]):
            return code
        if (read_json(folder / "verdict.json").get("look") or {}).get("stop"):
            break
        done = count
    return 0


def _split(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """(this command's own keys, what the sweep takes). Raises UserError."""
    own: dict[str, str] = {}
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if key not in OWN:
            rest.append(word)
        elif key in own:
            raise UserError(f"{key} is given twice: {key}={own[key]} and {word}")
        else:
            own[key] = value
    return own, rest


def _seeds(words: list[str], most: int) -> tuple[list[int], list[str]]:
    """(the design's seeds in order, the words without them). Raises UserError."""
    given = [word.partition("=")[2] for word in words if word.startswith("seed=")]
    rest = [word for word in words if not word.startswith("seed=")]
    if not given:
        return list(range(most)), rest
    try:
        seeds = sorted({int(part) for part in given[-1].split(",")})
    except ValueError:
        raise UserError(f"seed={given[-1]} is no list of whole numbers, as in seed=0,1,2") from None
    if len(seeds) != most:
        raise UserError(f"seed={given[-1]} has {len(seeds)} seeds; the last look is at {most}")
    return seeds, rest


def _check(overrides: list[str], seeds: list[int], own: dict[str, str]) -> Path:
    """The experiment's folder. Raises UserError before anything runs: for the sweep's mistakes and for the
    report's, which would otherwise come after the first block."""
    from omegaconf import OmegaConf

    from ablate.compose import plan, runs
    from ablate.config import run_folder
    from ablate.report.__main__ import margin_of
    from ablate.report.contrasts import families, role

    margin_of(own.get("margin", "0.02"))
    for each in filter(None, own.get("control", "").split(",")):
        from ablate.report.controls import control

        control(Path(each))
    checked = plan([*overrides, f"seed={','.join(map(str, seeds))}"], multirun=True)
    every = runs(checked)
    folders = {run_folder(each).parent for each in every}
    if len(folders) > 1:
        raise UserError(f"one experiment expected, with one name: {', '.join(map(str, sorted(folders)))}")
    strategies = {each.strategy.name: cast(Any, each.strategy) for each in every}
    arms = {
        name: role(name, cast(Any, OmegaConf.to_container(strategy))) for name, strategy in strategies.items()
    }
    if not any(families(arms)):
        raise UserError(
            f"strategy={','.join(arms)} holds no suspect beside what it is added to, so there is no verdict "
            "to reach; for example strategy=guess_check,mcts"
        )
    return folders.pop()


if __name__ == "__main__":
    sys.exit(main())
