"""Everything that a plan says, without a word of how it is shown.

`json=` writes this, field by field: dataclasses are objects, tuples are lists, None is null (not known). Its
schema is the definitions below; `schema` counts up when a field changes its meaning or goes. FLOPs are cached
ones, as budgets are; effects are in accuracy (0.02 is 2 points).
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = 1


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seeds.

    settings: what tells it from other arms of this strategy. role: as in reports. flops: of one run, by
    purpose against the budget; evaluate: FLOPs of one run's evaluations. batch: share of the budget that one
    batch takes. source: where these come from. seconds: of one run, training and evaluation; clock: where
    they come from. bytes: of one finished run's folder.
    """

    name: str
    settings: dict[str, str]
    role: str
    seeds: tuple[int, ...]
    runs: int
    left: int
    unit: str
    budget: float
    flops: dict[str, float] | None
    evaluate: float
    updates: float | None
    tokens: float | None
    batch: float | None
    source: str
    seconds: tuple[float, float] | None
    clock: str
    bytes: float


@dataclass(frozen=True)
class WarmStarts:
    """One for each seed: how many, and how many are still to be made. flops, seconds: of one; source: where
    the former come from."""

    needed: int
    missing: int
    flops: float
    source: str
    seconds: float | None


@dataclass(frozen=True)
class Time:
    """where: the machine. at_a_time: runs side by side. wall, left: seconds from start to end, of all runs
    and of those left; work: of all runs one after the other. why: where these come from, or why they are
    None."""

    where: str
    at_a_time: int
    wall: float | None
    left: float | None
    work: float | None
    why: str


@dataclass(frozen=True)
class Contrast:
    """One comparison and what the design can say of it.

    arm, other: the two. seed, problem, rest: standard deviations of the difference, of one seed; problem's
    part does not shrink with seeds. source: where they come from. smallest: the effect that is found to help
    with 80 % probability. not_needed: the chance of this verdict if there is no effect. seeds_not_needed,
    seeds_margin: seeds for 80 % probability of "not needed" without an effect, and of "helps" at an effect of
    the margin; None: more than 1000. The first two are None with a single seed.
    """

    suspect: str
    on: str
    arm: str
    other: str
    seeds: int
    family: int
    seed: float
    problem: float
    rest: float
    source: str
    smallest: float | None
    not_needed: float | None
    seeds_not_needed: int | None
    seeds_margin: int | None


@dataclass(frozen=True)
class Outline:
    """A plan. states: how many runs are finished, unfinished, failed and new. flops: of all runs, by purpose,
    evaluation and missing warm starts included; left: of the runs that are left; both None in part for arms
    whose split is not known. bytes: of all runs; free: on the disk now."""

    schema: int
    command: tuple[str, ...]
    experiment: str
    task: str
    model: str
    parameters: float
    cap: int
    length: float
    steps: float
    split: str
    problems: int
    samples: int
    evaluations: int
    states: dict[str, int]
    arms: tuple[Arm, ...]
    warm_starts: WarmStarts | None
    flops: dict[str, float]
    left: dict[str, float]
    time: Time
    bytes: float
    free: float | None
    margin: float
    contrasts: tuple[Contrast, ...]
    notes: tuple[str, ...]
