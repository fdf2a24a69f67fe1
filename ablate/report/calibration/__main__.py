"""Can the instrument be trusted? `python -m ablate.report.calibration [results/<experiment>] [looks=4,8,12]`

Thousands of experiments are simulated whose true effect is known, with the variance components of the given
experiment or, without one, with those measured on the default task, and are judged as real ones are: how
often verdicts are false, intervals cover, how wide they are, and whether power is as predicted (`fixed`); and
where intervals fail, which is where training works on some seeds only (`rare`).
With looks=4,8,12 it is sequential experiments that are simulated (`sequential`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ablate.report.calibration import fixed, rare, sequential
from ablate.report.calibration.world import World, measured
from ablate.schema import unknown_key
from ablate.types import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    looks = [word.partition("=")[2] for word in words if word.startswith("looks=")]
    other = next(
        (word.partition("=")[0] for word in words if "=" in word and not word.startswith("looks=")), None
    )
    folders = [word for word in words if not word.startswith("looks=")]
    if len(folders) > 1 or len(looks) > 1 or any(word.startswith("-") for word in words):
        asked = words in (["-h"], ["--help"])
        print(__doc__, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        if other:
            raise unknown_key(other, ("looks",))
        from ablate.report.looks import SPENDINGS, parse

        planned = [parse(looks[0], spending) for spending in SPENDINGS] if looks else []
        world = measured(Path(folders[0])) if folders else World()
    except UserError as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 2
    if planned:
        print(sequential.to_text(world, sequential.table(world, planned)), end="")
    else:
        print(fixed.to_text(world, fixed.table(world)), end="")
        print(rare.to_text(rare.table(world)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
