"""The properties of a strategy, checked on a few batches in a watched laboratory."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ablate.check import properties
from ablate.check.properties import Finding
from ablate.check.watched import Bench, Crash, Setup
from ablate.types import Group

if TYPE_CHECKING:
    from ablate.config import Config

BATCHES = 2


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
    ledger = properties.ledger(bench)  # before more is asked of the bench
    placed = [
        (f"batch {b}, {where}", t)
        for b, groups in enumerate(batches)
        for where, t in properties.placed(groups)
    ]
    nothing = () if placed else (f"in {BATCHES} batches no token to learn from, sampled or to imitate",)
    sound = [
        (where, t) for where, t in placed if not (properties.unreadable(t, setup) or properties.ragged(t))
    ]
    return [
        Finding("batches are rolled out", nothing, f"{BATCHES} batches, {len(placed)} trajectories"),
        properties.advantages("one finite advantage per step", placed, setup),
        properties.logprobs(placed),
        properties.tokens(placed, setup),
        properties.masks(sound, bench),
        properties.rescoring(sound, bench, setup),
        properties.verdicts(sound, bench),
        properties.groups(batches),
        properties.cap(placed, setup),
        ledger,
        properties.figures(batches, bench),
        properties.repeated("the same sampling seed gives the same groups", setup, batches[0], 0),
        properties.another_seed(setup, batches[0]),
        properties.repeated("a resumed run gives the same groups", setup, batches[-1], BATCHES - 1, state),
        properties.extreme("a batch in which nothing is solved", setup, "none"),
        properties.extreme("a batch in which everything is solved", setup, "all"),
    ]
