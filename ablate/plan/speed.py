"""How long runs take: as runs of this machine did, as measured in some seconds, or on a named GPU.

A GPU's time is FLOPs over peak x utilisation, one utilisation for all of the work, which the user states:
decoding alone, small batches above all, reaches far less than updates do.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from ablate.plan.cost import Bill, Evaluations, Subject, estimate
from ablate.plan.gpus import GPU
from ablate.plan.stand_in import Unforeseen

if TYPE_CHECKING:
    from ablate.plan.benchmark import Speed
    from ablate.plan.design import Cell
    from ablate.plan.records import Recorded

OWN = "as its own runs"
DISTURBED = 0.25  # other processes at work per core, from which a measured speed is doubtful


@dataclass(frozen=True)
class Clock:
    """One run's seconds: per FLOP against the budget, and of its evaluations."""

    flop: float
    evaluate: float
    source: str


class Recollection:
    """Seconds as finished runs of this machine took them: an arm's own, else those of arms like it."""

    def __init__(self, records: Sequence[Recorded], machine: Mapping[str, Any]) -> None:
        self._records = [run for run in records if run.on(machine) and run.undisturbed]

    def clock(self, cell: Cell, evaluate: float) -> Clock | None:
        """None if no run of this model is there."""
        shared = [run for run in self._records if run.is_of(cell.values, ("model", "threads"))]
        own = [run for run in shared if run.is_of(cell.values, ("strategy", "task", "sampling"))]
        for runs, whose in (
            (own, OWN),
            (
                [run for run in shared if _alike(run, cell, ("source", "credit"))],
                "as arms with its source and credit",
            ),
            ([run for run in shared if _alike(run, cell, ("source",))], "as arms with its source"),
            (shared, "as other arms"),
        ):
            if runs:
                flop = median(run.summary["seconds"]["train"] / run.amount("flops") for run in runs)
                each = [
                    run.summary["seconds"]["evaluate"] / found
                    for run in runs
                    if (found := run.account("evaluate"))
                ]
                return Clock(flop, evaluate * median(each) if each else 0.0, whose)
        return None


def _alike(run: Recorded, cell: Cell, axes: Sequence[str]) -> bool:
    one, other = run.config["strategy"], cell.values["strategy"]
    return all(one[axis]["_target_"] == other[axis]["_target_"] for axis in axes)


def on_gpu(gpu: GPU, utilisation: float, evaluate: float) -> Clock:
    """Seconds on a named GPU."""
    rate = gpu.peak * utilisation
    return Clock(1 / rate, evaluate / rate, "FLOPs")


def from_benchmark(
    speed: Speed, cell: Cell, subject: Subject, found: Bill, judged: Evaluations, workers: int
) -> Clock | None:
    """Seconds by the benchmark: decoding as rehearsed, the rest by FLOPs. None if a part is unforeseen."""
    spent = found.spent
    if spent is None:
        return None
    if not found.rehearsed:
        try:
            spent = estimate(cell, subject)
        except Unforeseen:
            return None
    flop = speed.training(spent) / spent.amount("flops")
    return Clock(flop, speed.decoding(judged.passes, judged.rows) / workers, "benchmark")


def described(speed: Speed, cores: int) -> list[str]:
    """What must be said about a measured speed."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(speed.measured))
    notes = [f"the speed was measured on {when}; measure=true measures it again"]
    if speed.load > DISTURBED * cores:
        notes.append(
            f"about {speed.load:.1f} processes were at work on its {cores} cores when the speed was "
            "measured: on an idle machine runs are faster"
        )
    return notes


def schedule(durations: Sequence[float], at_a_time: int) -> float:
    """Seconds from start to end if the next run starts when one of those at work ends."""
    ends = [0.0] * at_a_time
    for seconds in durations:
        heapq.heappush(ends, heapq.heappop(ends) + seconds)
    return max(ends)


def wall(durations: Sequence[float | None], at_a_time: int) -> tuple[float, float] | None:
    """(from start to end, one after the other); None if a run's time is not known."""
    known = [each for each in durations if each is not None]
    return (schedule(known, at_a_time), sum(known)) if len(known) == len(durations) else None
