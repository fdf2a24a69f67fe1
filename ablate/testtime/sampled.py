"""Methods that draw whole answers: plain samples cut at a cap, majority vote, best of n.

All choose among the same draws (`frame.Pool`). A setting that needs n of N is measured on N/n disjoint sets
of them and averaged; each is charged as if it had been drawn for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ablate.testtime.choose import Candidate, best, vote
from ablate.testtime.frame import Frame
from ablate.testtime.guides import Guide, valued
from ablate.types import Step, Trajectory

POOL = 16  # answers to each problem that small settings are averaged over


def natural(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """One sample, cut at `cap` tokens: what an answer within so many tokens is worth. Of one long decode."""
    assert guide is None
    for drawn in frame.pool.sets(1, frame.longest, setting["samples"]):
        cut = [[_cut(step, setting["cap"]) for step in steps] for steps in drawn]
        frame.replay(cut)
        yield [Trajectory(p, (steps[0],)) for p, steps in zip(frame.problems, cut, strict=True)]


def majority(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """The most frequent of n answers (self-consistency, Wang et al. 2022, arXiv:2203.11171); of equally
    frequent ones the likelier, so that of two that differ likelihood decides alone."""
    assert guide is None
    for drawn in frame.pool.sets(setting["n"], frame.bench.cap, POOL):
        frame.replay(drawn)
        yield [
            vote([Candidate(Trajectory(p, (step,)), 1.0) for step in steps], frame.bench)
            for p, steps in zip(frame.problems, drawn, strict=True)
        ]


def best_of_n(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """The answer of n that the guide values highest; by the verifier it is pass@n."""
    assert guide is not None
    for drawn in frame.pool.sets(setting["n"], frame.bench.cap, POOL):
        frame.replay(drawn)
        guide.begin()
        rows = [[Trajectory(p, (s,)) for s in steps] for p, steps in zip(frame.problems, drawn, strict=True)]
        values = iter(valued([answer for row in rows for answer in row], guide, frame.bench))
        yield [best([Candidate(answer, next(values)) for answer in row], frame.bench) for row in rows]


def _cut(step: Step, tokens: int) -> Step:
    logprobs = None if step.logprobs is None else step.logprobs[:tokens]
    return replace(step, tokens=step.tokens[:tokens], logprobs=logprobs)
