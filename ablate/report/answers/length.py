"""Length and accuracy of answers, three ways, none of which says what a longer answer would do.

1. pooled: many samples, in buckets by length, the mean accuracy of each against the logarithm of the length.
   Hard problems have long answers and are rarely solved, so this can fall, or rise, where length does nothing
   (Simpson's paradox).
2. within problems: the same with every problem's (and seed's) mean taken off both, a fixed-effects
   regression: the linear probability model, whose slope is in points. What is left is no effect either: a
   chain that succeeds stops.
3. the cap: of one long decode, what is solved within b tokens.

Answers that the cap cut off have no length of their own: they are in no bucket and no slope, and their share
is said. Slopes are per doubling of the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from ablate.record import load_evaluation
from ablate.report.answers.content import Bucket, CapPoint, LengthCurves, Reading
from ablate.report.answers.files import TestFiles
from ablate.report.answers.readings import Cells, reading
from ablate.report.runs import Experiment, Run, first_draws

FEWEST = 100  # answers in a bucket: fewer are merged with the next, or the bucket stays blank
LEAST = 4  # answers to a problem by a seed, for the curve within problems
STEP = 0.5  # doublings from one bucket's edge to the next
GRID = 4  # caps per doubling
FIRST_CAP = 8  # tokens
LONG = ("decoded", "ended", "right")  # columns of an evaluation that tell of longer caps
Answers = dict[str, np.ndarray]  # problem, cluster, tokens, ended, right


def lengths(experiment: Experiment, files: TestFiles) -> tuple[LengthCurves, ...]:
    """Per arm and budget: all three curves from natural samples, where there are some, else the cap's from
    the last evaluation of an arm's shortest runs, where that was decoded beyond the cap."""
    natural = {run.folder.name: columns for run, columns in files.natural}
    out = []
    for (arm, times), runs in _by_arm(experiment):
        cap = int(runs[0].config["sampling"]["cap"])
        having = [run for run in runs if run.folder.name in natural]
        start = [_evaluated(run, 0) for run in runs]
        if having:
            answers, source = [natural[run.folder.name] for run in having], "natural samples"
        else:
            first = min(run.budget[1] for each in experiment.arm(arm).values() for run in each)
            found = [_evaluated(run, -1) for run in runs]
            if runs[0].budget[1] > first or any(each is None for each in found):
                continue
            having, source = runs, "evaluation"
            answers = [each for each in found if each is not None]
        before = [each for each in start if each is not None]
        curves = _curves(arm, times, [run.seed for run in having], answers, source, cap)
        out.append((curves, before if len(before) == len(runs) else []))
    return tuple(_with_start(curves, before) for curves, before in out)


def _by_arm(experiment: Experiment) -> list[tuple[tuple[str, float], list[Run]]]:
    """By arm and the multiple of the declared budget."""
    place = {name: i for i, name in enumerate(experiment.arms)}

    def key(run: Run) -> tuple[str, float]:
        return run.arm, round(run.budget[1] / experiment.budget, 3)

    ordered = sorted(experiment.runs, key=lambda run: (place[run.arm], key(run), run.key))
    return [(each, first_draws(group)) for each, group in groupby(ordered, key=key)]


def _evaluated(run: Run, index: int) -> Answers | None:
    """A milestone's answers if they were decoded beyond the cap and kept."""
    step = int(run.milestones[index]["step"])
    if not (run.folder / "evaluations" / f"{step:06d}.parquet").exists():
        return None
    columns = load_evaluation(run.folder, step)
    if any(name not in columns for name in LONG):
        return None
    if columns["decoded"].max() <= int(run.config["sampling"]["cap"]):
        return None
    return {**columns, "tokens": columns["decoded"]}


def _curves(
    arm: str, times: float, seeds: Sequence[int], answers: Sequence[Answers], source: str, cap: int
) -> LengthCurves:
    """answers: of each run."""
    cells, tokens, ended, right = table(answers)
    longest = int(tokens.max())
    caps = caps_up_to(longest, cap)
    natural = source == "natural samples"
    pooled: Any = ((), None)
    within: Any = ((), None, 0.0)
    if natural:
        chosen = ended & (tokens > 0)
        pooled = pooled_curve(cells.among(chosen), tokens[chosen], right[chosen])
        within = within_curve(cells.among(chosen), tokens[chosen], right[chosen])
    solved = by_cap(answers, [cap, longest])
    beyond = None
    if longest > cap:
        gain = (solved[1][1] - solved[1][0]) / np.log2(longest / cap)
        beyond = reading(gain, solved[0])
    return LengthCurves(
        arm=arm,
        times=times,
        seeds=tuple(seeds),
        source=source,
        problems=len(cells.clusters),
        samples=len(tokens),
        truncated=float(1 - ended.mean()),
        pooled=pooled[0],
        pooled_slope=pooled[1],
        within=within[0],
        within_slope=within[1],
        left_out=within[2],
        cap=cap,
        longest=longest,
        caps=_points(answers, caps),
        start=(),
        beyond=beyond,
    )


def _with_start(curves: LengthCurves, before: list[Answers]) -> LengthCurves:
    if not before:
        return curves
    longest = max(int(each["tokens"].max()) for each in before)
    grid = caps_up_to(min(longest, curves.longest), curves.cap)
    return replace(curves, start=_points(before, grid))


def table(answers: Sequence[Answers]) -> tuple[Cells, np.ndarray, np.ndarray, np.ndarray]:
    """(cells, tokens, ended, right) of all answers of all runs; a problem without a cluster is one of its
    own."""
    names = [each["problem"].astype(str) for each in answers]
    ids, place = np.unique(np.concatenate(names), return_inverse=True)
    given = np.concatenate([each["cluster"].astype(str) for each in answers])
    clusters = np.empty(
        len(ids), dtype=given.dtype if given.dtype.itemsize >= ids.dtype.itemsize else ids.dtype
    )
    clusters[place] = given
    clusters = np.where(clusters == "", ids, clusters)
    seed = np.repeat(np.arange(len(answers)), [len(each) for each in names])
    tokens, ended, right = (
        np.concatenate([each[name] for each in answers]) for name in ("tokens", "ended", "right")
    )
    return Cells(seed, place, clusters, len(answers)), tokens, ended.astype(bool), right.astype(float)


# -- buckets -------------------------------------------------------------------------------------------------


def pooled_curve(
    cells: Cells, tokens: np.ndarray, right: np.ndarray
) -> tuple[tuple[Bucket, ...], Reading | None]:
    """(buckets by length, slope between a seed's answers) of answers that ended."""
    if not len(tokens):
        return (), None
    x = np.log2(tokens)
    slope = cells.slope(cells.within_seed(x), cells.within_seed(right))
    return _buckets(cells, x, right), slope


def within_curve(
    cells: Cells, tokens: np.ndarray, right: np.ndarray
) -> tuple[tuple[Bucket, ...], Reading | None, float]:
    """(buckets by length relative to the problem's, slope between a seed's answers to a problem, share of
    problems with fewer than LEAST answers, which are left out)."""
    counts = cells.sums(np.ones(len(tokens)))
    few = (counts < LEAST).mean() if counts.size else 1.0
    enough = counts.ravel()[cells.cell] >= LEAST
    if not enough.any():
        return (), None, float(few)
    kept = cells.among(enough)
    x, y = kept.within(np.log2(tokens[enough])), kept.within(right[enough])
    return _buckets(kept, x, y), kept.slope(x, y), float(few)


def _buckets(cells: Cells, x: np.ndarray, y: np.ndarray) -> tuple[Bucket, ...]:
    """Ranges of x, a step wide, those with too few answers merged with the next."""
    first, last = np.floor(x.min() / STEP), np.floor(x.max() / STEP) + 1
    edges = STEP * np.arange(first, last + 1)
    out = []
    for low, high in merged(x, edges):
        inside = (x >= low) & (x < high)
        count = int(inside.sum())
        accuracy = cells.among(inside).mean(y[inside]) if count >= FEWEST else None
        centre = float(2.0 ** (x[inside].mean() if count else (low + high) / 2))
        out.append(Bucket(2.0**low, 2.0**high, centre, count, accuracy))
    return tuple(out)


def merged(x: np.ndarray, edges: np.ndarray) -> list[tuple[float, float]]:
    """Neighbouring ranges put together until each has FEWEST values; what is left over at the end joins the
    last. One range with fewer, if there are no more."""
    out: list[tuple[float, float]] = []
    low, count = edges[0], 0
    for high, number in zip(edges[1:], np.histogram(x, edges)[0], strict=True):
        count += int(number)
        if count >= FEWEST:
            out.append((float(low), float(high)))
            low, count = high, 0
    if count:
        start = out.pop()[0] if out else float(low)
        out.append((start, float(edges[-1])))
    # np.histogram closes the last range
    return [(a, b + 1e-9 if b == edges[-1] else b) for a, b in out]


# -- the cap -------------------------------------------------------------------------------------------------


def caps_up_to(longest: int, cap: int) -> list[int]:
    """A logarithmic grid of caps that goes through the training cap and the longest."""
    steps = int(np.floor(GRID * np.log2(max(longest, FIRST_CAP) / FIRST_CAP)))
    grid = {round(FIRST_CAP * 2 ** (i / GRID)) for i in range(steps + 1)}
    grid |= {round(cap * 2.0**i) for i in range(-8, 9)} | {longest}
    return sorted(each for each in grid if min(FIRST_CAP, longest) <= each <= longest)


def by_cap(answers: Sequence[Answers], caps: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """(clusters, share of answers that end, right, within each cap (seeds, problems)), on the problems that
    all runs have."""
    cells, tokens, ended, right = table(answers)
    count = cells.sums(np.ones(len(tokens)))
    common = (count > 0).all(0)
    solved = [cells.sums(right * (ended & (tokens <= cap))) for cap in caps]
    return cells.clusters[common], [each[:, common] / count[:, common] for each in solved]


def _points(answers: Sequence[Answers], caps: Sequence[int]) -> tuple[CapPoint, ...]:
    clusters, solved = by_cap(answers, caps)
    return tuple(CapPoint(cap, reading(each, clusters)) for cap, each in zip(caps, solved, strict=True))
