"""Is a strategy sound, is a task? `python -m ablate.check strategy=my_idea|task=my_task [key=value ...]`

Exit codes: 0 every property holds; 1 one does not; 2 a mistake of the user's, told in one line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from ablate.check import check_strategy, check_task
from ablate.command import exit_code
from ablate.compose import compose
from ablate.config import build
from ablate.schema import nearest
from ablate.strategy import AXES
from ablate.types import UserError

HELP = """\
Hold a strategy or a task against its contract, one line per property.

usage: python -m ablate.check [--start] [--all] [group=choice ...] [key=value ...]

  python -m ablate.check strategy=my_idea strategy.source.n=4
      a few batches in a watched laboratory, on a small random model whose verdicts are drawn: seconds
  python -m ablate.check --start strategy=my_idea
      on the model that a run would start from
  python -m ablate.check task=math task.path=problems.jsonl
      its right answers through its own verifier; --all: every problem, not the first 2,000 held-out ones
      and 200 others

Groups and keys: python -m ablate --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(_main, argv)


def _main(argv: list[str]) -> int:
    options = [word for word in argv if word.startswith("-")]
    if "-h" in options or "--help" in options:
        print(HELP, end="")
        return 0
    known = ("--help", "--start", "--all")
    if unknown := [word for word in options if word not in known]:
        raise UserError(f"unknown option {unknown[0]}; {nearest(unknown[0], known)}")
    words = [word for word in argv if word not in options]
    config = compose(words)
    groups = {re.split("[=./]", word.lstrip("+~"))[0] for word in words}
    if "task" in groups and "strategy" not in groups:
        task = build(config.task)
        print(f"task={task.name}: {config.task._target_}")
        findings = check_task(task, build(config.task), whole="--all" in options)
    else:
        from ablate import runtime

        runtime.quiet_libraries()
        runtime.set_threads(config.threads)
        axes = (f"{axis}={getattr(config.strategy, axis)._target_}" for axis in AXES)
        print(f"strategy={config.strategy.name}:", *axes)
        findings = check_strategy(config, start="--start" in options)
    print(*findings, sep="\n")
    failed = sum(not found.ok for found in findings)
    print(f"{failed} of {len(findings)} properties FAILED" if failed else "every property holds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
