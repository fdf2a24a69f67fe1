"""What a report says of test-time compute, of length and of long training; a part of `content`, whose schema
it shares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """A mean or a slope. interval: 95 %; None where nothing varies that it could come from. over: what is
    random in it: "seeds and problems"; "problems", where there is one seed and nothing tells how far another
    one would be off; "seeds", where there is one value per run."""

    value: float
    interval: tuple[float, float] | None
    seeds: int
    problems: int
    over: str


@dataclass(frozen=True)
class Bucket:
    """Answers of a range of lengths: of a power of two from `low` to `high` tokens, or, within problems, of
    multiples of the problem's mean length. centre: the geometric mean. accuracy: None where there are too few
    of them even after merging."""

    low: float
    high: float
    centre: float
    samples: int
    accuracy: Reading | None


@dataclass(frozen=True)
class CapPoint:
    """Share of answers that end, right, within so many tokens."""

    tokens: int
    accuracy: Reading


@dataclass(frozen=True)
class LengthCurves:
    """Length and accuracy of one arm's answers, three ways; none of them is what a longer answer would do.

    arm: its name; times: the runs' budget as a multiple of the declared one. source: "natural samples", or
    "evaluation". truncated: share of answers cut off, which are in no bucket and in no slope. pooled: by
    length; within: by the length relative to the same problem's other answers, accuracies as differences from
    the problem's. Slopes: of being right per doubling of the length; pooled_slope between answers of a seed,
    within_slope between answers of a seed to a problem. left_out: share of a seed's problems with too few
    answers for that. caps, start: solved within so many tokens, after training and before. beyond: per
    doubling of the cap from the training cap on, up to `longest`.
    """

    arm: str
    times: float
    seeds: tuple[int, ...]
    source: str
    problems: int
    samples: int
    truncated: float
    pooled: tuple[Bucket, ...]
    pooled_slope: Reading | None
    within: tuple[Bucket, ...]
    within_slope: Reading | None
    left_out: float
    cap: int
    longest: int
    caps: tuple[CapPoint, ...]
    start: tuple[CapPoint, ...]
    beyond: Reading | None


@dataclass(frozen=True)
class Followed:
    """What became of a request for at most `asked` tokens. tokens: mean length of an answer, or of its
    thoughts where they end with a tag; ratio: of that to what was asked for; within: share of answers that
    ended by then; ended: at all."""

    asked: int
    tokens: float
    ratio: float
    within: float
    ended: float


@dataclass(frozen=True)
class MethodCurve:
    """One method at test time, means over an arm's runs at each setting, the cheapest first.

    oracle: an answer that knows the verdict was chosen: an upper bound. flops, tokens: per problem,
    everything that the method uses; accuracy_se: over seeds, or over problems if there is one. fit_flops:
    spent once on its scorer, beside these. followed: where a length was asked for.
    """

    method: str
    guide: str | None
    label: str
    oracle: bool
    settings: tuple[str, ...]
    flops: tuple[float, ...]
    tokens: tuple[float, ...]
    accuracy: tuple[float, ...]
    accuracy_se: tuple[float | None, ...]
    fit_flops: float
    followed: tuple[Followed | None, ...] = ()


@dataclass(frozen=True)
class Gain:
    """A method at a budget of FLOPs per problem, and minus plain sampling with a majority vote of the same
    policy at the same cost. reason: why there is none."""

    label: str
    oracle: bool
    level: float | None
    accuracy: float | None
    gain: Reading | None
    reason: str = ""


@dataclass(frozen=True)
class Best:
    """The most accurate method at a budget of FLOPs per problem, oracles apart. multiple: of one plain
    sample. equal: others that were not shown to be worse (simultaneous 95 % intervals)."""

    stratum: str
    multiple: float
    level: float
    label: str
    accuracy: float
    equal: tuple[str, ...]


@dataclass(frozen=True)
class Overtake:
    """Where a method's curve crosses that of the majority vote, in FLOPs per problem; else as `Crossing`."""

    label: str
    level: float
    gains: bool
    interval: tuple[float | None, float | None]


@dataclass(frozen=True)
class Without:
    """A method that runs of an arm could not have, and why."""

    label: str
    arm: str
    seeds: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class ArmAtTest:
    """A trained arm at test time. times: its runs' budget as a multiple of the declared one."""

    arm: str
    times: float
    seeds: tuple[int, ...]
    curves: tuple[MethodCurve, ...]
    gains: tuple[Gain, ...]
    best: tuple[Best, ...]
    overtakes: tuple[Overtake, ...]


@dataclass(frozen=True)
class SetAtTest:
    """Accuracy against test-time compute on one set of problems ("heldout" or "hard"). strata: its difficulty
    classes. over: as in `Reading`. without: methods that were left out."""

    set: str
    problems: int
    strata: tuple[str, ...]
    over: str
    arms: tuple[ArmAtTest, ...]
    without: tuple[Without, ...] = ()


@dataclass(frozen=True)
class Change:
    """A figure at its arm's best evaluation and at the last one. difference: the last minus the best."""

    name: str
    at_best: float
    at_last: float
    difference: Reading


@dataclass(frozen=True)
class LongArm:
    """One setting of a long training. best: the share of the budget at which its accuracy was highest before
    the end, by the mean over runs. accuracy, changes: the last evaluation against the best one before it,
    which for each seed the others choose (with one seed: for each half of the problems, the other half), so
    that being chosen does not flatter it. entropy: (share of the budget, nats per token) of training batches.
    word: what the interval of the change in accuracy says."""

    arm: str
    kl: float
    problems: int | None
    seeds: tuple[int, ...]
    best: float
    accuracy: Change
    changes: tuple[Change, ...]
    entropy: tuple[tuple[float, float], ...]
    word: str


@dataclass(frozen=True)
class Longer:
    """Training far past the plateau, by setting; accuracy intervals of all arms hold together. effects:
    (what, reading) of the penalty and of the number of problems on the change in accuracy, where all four
    settings ran."""

    arms: tuple[LongArm, ...]
    effects: tuple[tuple[str, Reading], ...]
