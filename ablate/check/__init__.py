"""Is a strategy sound, is a task? `python -m ablate.check`.

The strategy of a command line is rolled out for a few batches of its task in a watched laboratory, and what
it returns is held against its contract (`ablate.types`). The model is small and random, made in a moment;
since it solves nothing, verdicts on answers that ended are drawn. With `--start` it is the model that a run
would start from, with the verifier's own verdicts.

A command line that chooses a task and no strategy is about the task: its own right answers go through its own
verifier, and so do those of other problems (`ablate.check.task`).

In a test of your own:

    from ablate.check import check_strategy
    from ablate.compose import compose

    assert [found for found in check_strategy(compose(["strategy=my_idea"])) if not found.ok] == []

properties  what a strategy owes the laboratory, one function each
strategy    all of them, on a few batches
watched     the laboratory in which it is watched
task        what a task owes the laboratory
"""

from ablate.check.strategy import check_strategy
from ablate.check.task import check_task

__all__ = ["check_strategy", "check_task"]
