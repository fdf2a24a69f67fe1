"""Is a strategy sound, is a task? `python -m ablate.check strategy=my_idea|task=my_task [key=value ...]`

The strategy of a command line is rolled out for a few batches of its task in a watched laboratory, and what
it returns is held against its contract (`ablate.types`). The model is small and random, made in a moment;
since it solves nothing, verdicts on answers that ended are drawn. With `--start` it is the model that a run
would start from, with the verifier's own verdicts.

A command line that chooses a task and no strategy is about the task: its own right answers go through its own
verifier, and so do those of other problems (`ablate.task_contract`).

In a test of your own:

    from ablate.check import check_strategy
    from ablate.compose import compose

    assert [found for found in check_strategy(compose(["strategy=my_idea"])) if not found.ok] == []

Exit codes: 0 every property holds; 1 one does not; 2 a mistake of the user's, told in one line.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ablate import contract
from ablate.command import exit_code
from ablate.compose import compose
from ablate.config import build
from ablate.contract import Finding
from ablate.schema import nearest
from ablate.strategy import AXES
from ablate.task_contract import check_task
from ablate.types import Group, UserError
from ablate.watched import Bench, Crash, Setup

if TYPE_CHECKING:
    from ablate.config import Config

BATCHES = 2

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


def check_strategy(config: Config, start: bool = False) -> list[Finding]:
    """One finding per property of the configuration's strategy; of one whose first batches crash, that alone.

    start: with the configured model as a run would start from it. Raises UserError for a mistake in the
    configuration.
    """
    setup = Setup.of(config, start)
    bench = Bench(setup)
    batches: list[list[Group]] = []
    state: dict[str, Any] = {}
    try:
        for number in range(BATCHES):
            state = copy.deepcopy(bench.state())
            batches.append(bench.rollout(number))
    except Crash as crash:
        return [Finding("batches are rolled out", (str(crash),))]
    ledger = contract.ledger(bench)  # before more is asked of the bench
    placed = [
        (f"batch {b}, {where}", t) for b, groups in enumerate(batches) for where, t in contract.placed(groups)
    ]
    nothing = () if placed else (f"no trajectory in {BATCHES} batches",)
    sound = [(where, t) for where, t in placed if not (contract.unreadable(t, setup) or contract.ragged(t))]
    return [
        Finding("batches are rolled out", nothing, f"{BATCHES} batches, {len(placed)} trajectories"),
        contract.advantages("one finite advantage per step", placed, setup),
        contract.logprobs(placed),
        contract.tokens(placed, setup),
        contract.masks(sound, bench),
        contract.rescoring(sound, bench, setup),
        contract.verdicts(sound, bench),
        contract.groups(batches),
        contract.cap(placed, setup),
        ledger,
        contract.figures(batches, bench),
        contract.repeated("the same sampling seed gives the same groups", setup, batches[0], 0),
        contract.another_seed(setup, batches[0]),
        contract.repeated("a resumed run gives the same groups", setup, batches[-1], BATCHES - 1, state),
        contract.extreme("a batch in which nothing is solved", setup, "none"),
        contract.extreme("a batch in which everything is solved", setup, "all"),
    ]


if __name__ == "__main__":
    sys.exit(main())
