"""Everything that a report says, without a word of how it is shown.

`verdict.json` is this, field by field: dataclasses are objects, tuples are lists, None is null. Its schema is
the definitions below; `schema` counts up when a field changes its meaning or goes.
Accuracies, effects and margins are shares (0.02 is 2 points) unless a field says otherwise. Accuracy is the
mean of `Report.metric`: pass@1, or the task's own score of answers that are right in part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ablate.report.answers.content import LengthCurves, Longer, SetAtTest
from ablate.report.statistics import Estimate

SCHEMA = 3

Word = Literal["harmful", "not needed", "needed", "helps", "inconclusive", "no verdict"]


@dataclass(frozen=True)
class Effect:
    """A difference of accuracies, as everything that compares arms.

    axis, level: where it was read: `level` spent in "budget" (the declared unit), "flops", "logical_flops" or
    "updates". seeds: those paired. interval: 95 %, simultaneous over `family` effects; alone: 95 % for this
    one effect; both over all looks, if there are several, and None with a single seed.
    """

    axis: str
    level: float
    seeds: tuple[int, ...]
    estimate: Estimate
    family: int
    interval: tuple[float, float] | None
    alone: tuple[float, float] | None


@dataclass(frozen=True)
class Worth:
    """Compute-equivalent gain: the multiple of the budget with which the arm without the suspect would be as
    good. 0: it is, before any training.

    interval: all multiples at which the two do not differ, at the effect's own level of confidence. least,
    most: multiples that were run. The value is None where it lies beyond them, on the side that `beyond`
    names: "less" where the arm without the suspect is better with all of them, "more" where it is worse. A
    bound is None where the interval goes on beyond them.
    """

    value: float | None
    beyond: Literal["less", "more"] | None
    interval: tuple[float | None, float | None]
    least: float
    most: float


@dataclass(frozen=True)
class Account:
    """An effect where all arms have spent the same on another account than the budget's, and the verdict on
    it. caveats, extended: as in `Claim`; four times the budget is four times `effect.level`."""

    effect: Effect
    word: Word
    caveats: tuple[str, ...]
    extended: Effect | None


@dataclass(frozen=True)
class Crossing:
    """Where an effect changes its sign: the arms' curves cross.

    share: of the budget, linearly in the logarithm of compute between evaluations. gains: the arm with the
    suspect is ahead from there on. interval: the shares around it at which the effect's interval holds zero;
    a bound is None where that goes on beyond what was read.
    """

    share: float
    gains: bool
    interval: tuple[float | None, float | None]


@dataclass(frozen=True)
class Claim:
    """One comparison and what it says.

    suspect, on, weights: as `contrasts.Contrast`. adds: which of "search", "correct" and "process" it adds.
    word: the verdict, at the declared budget. caveats: what must be said with it. power: the probability of
    "not needed" with as many seeds if the true effect is zero. seeds_to_settle: for "inconclusive", the
    fewest seeds that give a verdict with 80 % probability if the effect is what was found; None: more than
    1000. extended: the effect against the arm without the suspect at four times the budget. by_budget: at
    shares of the budget; slope: of these effects, per doubling of compute (least squares on its logarithm).
    by_difficulty: over problems of one class.
    """

    title: str
    suspect: str
    on: str
    weights: tuple[tuple[str, float], ...]
    adds: tuple[str, ...]
    effect: Effect | None
    word: Word
    caveats: tuple[str, ...] = ()
    power: float | None = None
    seeds_to_settle: int | None = None
    worth: Worth | None = None
    extended: Effect | None = None
    accounts: tuple[Account, ...] = ()
    by_budget: tuple[tuple[float, Effect], ...] = ()
    slope: Effect | None = None
    crossings: tuple[Crossing, ...] = ()
    by_difficulty: tuple[tuple[str, Effect], ...] = ()


@dataclass(frozen=True)
class Curve:
    """An arm's held-out figures at milestones that all its runs with one budget have: means over runs, and
    the standard error of the mean accuracy over seeds (None with one).

    declared: the runs' budget; share: of it. budget, flops, logical_flops, updates: mean spent. run: the
    runs' folders; accuracies: one row per run. metrics: every held-out figure by name.
    """

    declared: float
    run: tuple[str, ...]
    share: tuple[float, ...]
    budget: tuple[float, ...]
    flops: tuple[float, ...]
    logical_flops: tuple[float, ...]
    updates: tuple[float, ...]
    accuracy: tuple[float, ...]
    accuracy_se: tuple[float | None, ...]
    accuracies: tuple[tuple[float, ...], ...]
    metrics: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Arm:
    """One strategy: means over its runs, read where the declared budget was spent.

    role: see `contrasts.role`. before, after: accuracy at the start and at equal spend. against_base: None
    for the base. length, truncated: (before, after), tokens and share of answers. tokens: generated in
    training. shares: of the budgeted FLOPs by purpose; separate: FLOPs by purpose on accounts of their own,
    one run; tuning: FLOPs of the arm's trials, every value that a run recorded. settings: the strategy's own,
    by dotted key. logical: logical FLOPs over cached. overshoot: the most that a run spent beyond its budget,
    as a share of it; largest_batch: the most that one batch took. seconds: wall time of a run with the
    declared budget. lr: learning rates used. alarms: runs with one. curves: one per budget that its runs had.
    """

    name: str
    role: str
    seeds: tuple[int, ...]
    before: float
    after: float | None
    against_base: Effect | None
    length: tuple[float, float]
    truncated: tuple[float, float]
    updates: float
    tokens: float
    flops: float
    logical: float
    overshoot: float
    largest_batch: float | None
    shares: dict[str, float]
    separate: dict[str, float]
    tuning: tuple[float, ...]
    settings: dict[str, Any]
    seconds: float | None
    lr: tuple[float, ...]
    alarms: int
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Factorial:
    """The 2x2x2; main and interactions are empty while a cell is missing. Main effects and interactions are
    over the seeds that all cells have, simple effects over those of their two; only main effects have a
    verdict. Interactions are exploratory."""

    cells: tuple[tuple[tuple[int, int, int], str], ...]
    missing: tuple[str, ...]
    main: tuple[Claim, ...]
    simple: tuple[Claim, ...]
    interactions: tuple[Claim, ...]


@dataclass(frozen=True)
class Rung:
    """Process rewards by one scorer, everything else equal.

    scorer: "oracle", "verified", "monte_carlo", "learned" or "judge". at_budget, at_updates: the effect on
    guess + check at the declared budget, and after the updates that all rungs have made; intervals are each
    for itself. word, caveats: of the headline claim on this arm; none if there is none, as for a scorer that
    is free and knows the answers. price: share of the FLOPs that went into judging. quality: what the runs'
    records say of the scorer, means over runs, by name; each scorer against its own target.
    """

    arm: str
    scorer: str
    at_budget: Effect | None
    at_updates: Effect | None
    word: Word
    caveats: tuple[str, ...]
    price: float
    quality: dict[str, float]


@dataclass(frozen=True)
class ControlClaim:
    """A headline claim of another experiment's report; fields as in `Claim`, `Effect` and `Report`. settings:
    of the arm with the suspect, as in `Arm`."""

    title: str
    adds: tuple[str, ...]
    on: str
    word: Word
    value: float | None
    interval: tuple[float, float] | None
    seeds: int
    problems: int
    settings: dict[str, Any]
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Control:
    """Another experiment that shows what the instrument can see."""

    experiment: str
    task: str
    metric: str
    margin: float
    unit: str
    budget: float
    claims: tuple[ControlClaim, ...]


@dataclass(frozen=True)
class Look:
    """Where a sequential experiment stands (`looks`).

    at, spending: as declared; declared: by every run's own config, before it ran. seeds: that all headline
    claims have; number: which look that is, from 1, None if it is none. spent: share of false verdicts that
    the largest family may have made by then (0.05 in the end). stop: every headline verdict has been reached.
    runs, flops: so far; saved_runs, saved_flops: what every arm's missing seeds would have taken, 0 unless it
    stops.
    """

    at: tuple[int, ...]
    spending: str
    declared: bool
    seeds: int
    number: int | None
    spent: float | None
    stop: bool
    runs: int
    flops: float
    saved_runs: int
    saved_flops: float


@dataclass(frozen=True)
class Report:
    """An experiment's answer.

    metric: what accuracy is the mean of: "pass@1", or the name of the task's own score. claims: the headline
    families, each simultaneous within itself. replicates: A/A, runs of one arm that differ in their sampling
    seed alone. ladder: process rewards by several scorers, the most privileged first. seen: which of
    "search", "correct" and "process" the instrument has seen help, here or in a control. cluster_sizes:
    problems per cluster. left_out: (folder, reason). provenance: revisions, versions and machines, each with
    the number of runs. commands: what started the runs, those of a sweep as one; unrecorded: runs without a
    command; design: the sweep of the experiment's name, where there are some. hours: wall time of all runs.
    length, testtime, longer: of runs and of `python -m ablate.testtime`, where there are such files.
    look: None for an experiment that is read once, when it is complete.
    """

    schema: int
    experiment: str
    margin: float
    unit: str
    budget: float
    metric: str
    task: dict[str, Any]
    model: dict[str, Any]
    cap: int
    problems: int
    samples: int
    cluster_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    placebos: tuple[Claim, ...]
    replicates: tuple[Claim, ...]
    factorial: Factorial | None
    ladder: tuple[Rung, ...]
    controls: tuple[Control, ...]
    seen: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    provenance: dict[str, dict[str, int]]
    commands: tuple[str, ...]
    unrecorded: int
    design: str | None
    hours: float
    length: tuple[LengthCurves, ...] = ()
    testtime: tuple[SetAtTest, ...] = ()
    longer: Longer | None = None
    look: Look | None = None
