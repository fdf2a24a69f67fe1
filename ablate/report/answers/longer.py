"""Training far past the plateau: which settings get worse, and in what.

For each setting the last evaluation stands against the best one before it. The best of many evaluations is
flattered by chance, so the one that counts for a seed is chosen by the other seeds; with a single seed, the
one that counts for half of the problems (by cluster) is chosen by the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from ablate.record import load_evaluation, read_jsonl
from ablate.report.answers.content import Change, LongArm, Longer, Reading
from ablate.report.answers.readings import SEEDS, reading
from ablate.report.runs import Experiment, Run, first_draws
from ablate.report.statistics import critical
from ablate.report.wording import spaced

ENTROPY = "learner/entropy"
WINDOW = 0.1  # of the steps up to an evaluation: what entropy there is the mean over
BEHAVIOUR = "behaviour/"


def longer(experiment: Experiment) -> Longer | None:
    """The report's content, where runs of one strategy differ in the settings that are compared."""
    names = [name for name in experiment.arms if any(run.label for run in experiment.runs if run.arm == name)]
    arms = [(name, first_draws(runs[0] for runs in experiment.arm(name).values())) for name in names]
    arms = [(name, runs) for name, runs in arms if len(shares(runs)) > 2]
    found = [_arm(name, runs, len(arms)) for name, runs in arms]
    return Longer(tuple(found), tuple(_effects(arms))) if found else None


def shares(runs: Sequence[Run]) -> list[float]:
    """The evaluations that all runs have, as shares of the budget; the first is the start."""
    return sorted(set.intersection(*({float(row["milestone"]) for row in run.milestones} for run in runs)))


def _index(run: Run, share: float) -> int:
    return [float(row["milestone"]) for row in run.milestones].index(share)


def _arm(name: str, runs: list[Run], family: int) -> LongArm:
    learner, known = runs[0].config["learner"], shares(runs)
    curve = [np.mean([run.heldout(run.primary)[_index(run, share)] for run in runs]) for share in known]
    accuracy = _change(runs, "accuracy", _accuracy, runs[0].primary, family)
    steps = {run.folder: read_jsonl(run.folder / "steps.jsonl") for run in runs}

    def entropy(run: Run, share: float) -> float | None:
        return _entropy(steps[run.folder], run, share)

    along = [(share, _mean([entropy(run, share) for run in runs])) for share in known[1:]]
    return LongArm(
        arm=name,
        kl=float(learner.get("kl") or 0.0),
        problems=learner.get("distinct_problems"),
        seeds=tuple(run.seed for run in runs),
        best=known[1 + int(np.argmax(curve[1:-1]))],
        accuracy=accuracy,
        changes=tuple(_others(runs, entropy)),
        entropy=tuple((share, value) for share, value in along if value is not None),
        word=_word(accuracy.difference),
    )


def _word(found: Reading) -> str:
    if found.interval is None:
        return "no interval"
    low, high = found.interval
    return "worse" if high < 0 else "still better" if low > 0 else "no change shown"


Values = Callable[[Run, float], np.ndarray | None]  # per problem at a share of the budget


ByRun = Callable[[Run, float], float | None]  # one value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _accuracy(run: Run, share: float) -> np.ndarray | None:
    return run.accuracy(_index(run, share))


def _others(runs: list[Run], entropy: ByRun) -> Iterable[Change]:
    """Length, truncation, what the task counts, entropy, distance from the start."""
    yield _change(runs, "length (tokens)", partial(_column, column="tokens"), "length")
    yield _change(runs, "cut off at the cap (share)", partial(_column, column="truncated"), "truncated")
    for key in runs[0].milestones[-1]:
        name = key.removeprefix(f"heldout/{BEHAVIOUR}")
        if name != key:
            yield _change(runs, spaced(name), partial(_column, column=name), BEHAVIOUR + name)
    by_run: tuple[tuple[str, ByRun], ...] = (
        ("entropy (nats per token)", entropy),
        ("KL to the start (nats per answer)", lambda run, share: _heldout(run, share, "kl_per_answer")),
    )
    for name, of in by_run:
        if change := _by_seed(runs, name, of):
            yield change


def _column(run: Run, share: float, column: str) -> np.ndarray | None:
    """Means per problem of a column of an evaluation; None if that was not kept."""
    step = int(run.milestones[_index(run, share)]["step"])
    if not (run.folder / "evaluations" / f"{step:06d}.parquet").exists():
        return None
    columns = load_evaluation(run.folder, step)
    if column not in columns:
        return None
    ids, place = np.unique(columns["problem"].astype(str), return_inverse=True)
    if not np.array_equal(ids, run.problems.ids):
        return None
    return np.bincount(place, weights=columns[column].astype(float)) / np.bincount(place)


def _heldout(run: Run, share: float, name: str) -> float | None:
    value = run.milestones[_index(run, share)].get(f"heldout/{name}")
    return None if value is None else float(value)


def _entropy(steps: list[dict], run: Run, share: float) -> float | None:
    """Of the policy's next token in training batches, over the last steps before an evaluation."""
    end = int(run.milestones[_index(run, share)]["step"])
    rows = [row for row in steps if end * (1 - WINDOW) < row["step"] <= end]
    values = [float(row[ENTROPY]) for row in rows if row.get(ENTROPY) is not None]
    return float(np.mean(values)) if values else None


def chosen(runs: Sequence[Run]) -> list[np.ndarray]:
    """Per run and problem, the evaluation (a share of the budget) that counts as the best before the last:
    chosen without that run, or, if there is no other, without that half of the problems."""
    between = shares(runs)[1:-1]
    curves = np.array([[run.heldout(run.primary)[_index(run, share)] for share in between] for run in runs])
    if len(runs) > 1:
        return [
            np.full(len(run.problems.ids), between[int(np.argmax(np.delete(curves, i, axis=0).mean(0)))])
            for i, run in enumerate(runs)
        ]
    run = runs[0]
    read = [(share, _accuracy(run, share)) for share in between]
    kept = [(share, values) for share, values in read if values is not None]
    out = np.full(len(run.problems.ids), between[int(np.argmax(curves[0]))])
    if len(kept) == len(read):
        _, label = np.unique(run.problems.clusters, return_inverse=True)
        for half in (label % 2 == 0, label % 2 == 1):
            if half.any() and not half.all():
                out[half] = max(kept, key=lambda pair: float(pair[1][~half].mean()))[0]
    return [out]


def differences(runs: Sequence[Run], values: Values) -> tuple[np.ndarray, np.ndarray] | None:
    """(at the best, at the last), each (runs, problems); None where something was not kept."""
    best, last, end = [], [], shares(runs)[-1]
    for run, places in zip(runs, chosen(runs), strict=True):
        final, own = values(run, end), np.zeros(len(places))
        for share in set(places.tolist()):
            at = values(run, share)
            if at is None or final is None:
                return None
            own[places == share] = at[places == share]
        best.append(own)
        last.append(final)
    return np.stack(best), np.stack([each for each in last if each is not None])


def _change(runs: list[Run], name: str, values: Values, figure: str, family: int = 1) -> Change:
    """From outcomes per problem, or, where those were not all kept, from the runs' own held-out figures."""
    found = differences(runs, values)
    if found is None:
        change = _by_seed(runs, name, lambda run, share: _heldout(run, share, figure), family)
        assert change is not None, f"an evaluation without {figure} is not loaded"
        return change
    best, last = found
    difference = reading(last - best, runs[0].problems.clusters, family)
    return Change(name, float(best.mean()), float(last.mean()), difference)


def _by_seed(
    runs: list[Run], name: str, of: Callable[[Run, float], float | None], family: int = 1
) -> Change | None:
    """A figure with one value per run: its interval is over seeds alone."""
    best, last, end = [], [], shares(runs)[-1]
    for run, places in zip(runs, chosen(runs), strict=True):
        at, final = [of(run, share) for share in sorted(set(places.tolist()))], of(run, end)
        known = [value for value in at if value is not None]
        if final is None or len(known) < len(at):
            return None
        best.append(float(np.mean(known)))
        last.append(final)
    gaps = np.array(last) - np.array(best)
    value, count, interval = float(gaps.mean()), len(gaps), None
    if count > 1:
        half = float(critical(count - 1, family) * gaps.std(ddof=1) / np.sqrt(count))
        interval = (value - half, value + half)
    return Change(name, float(np.mean(best)), float(np.mean(last)), Reading(value, interval, count, 0, SEEDS))


def _effects(arms: Sequence[tuple[str, list[Run]]]) -> Iterable[tuple[str, Reading]]:
    """What the penalty and the number of problems do to the change in accuracy, over the other's two
    settings; paired by seed, where exactly two of each ran together."""
    by: dict[tuple[bool, bool], list[Run]] = {}
    for _, runs in arms:
        learner = runs[0].config["learner"]
        by[bool(learner.get("kl")), learner.get("distinct_problems") is not None] = runs
    if len(by) < 4 or len(arms) > 4:
        return
    common = sorted(set.intersection(*({run.key for run in runs} for runs in by.values())))
    if not common:
        return
    falls = {}
    for key, runs in by.items():
        found = differences([run for run in runs if run.key in common], _accuracy)
        if found is None:
            return
        falls[key] = found[1] - found[0]
    clusters = arms[0][1][0].problems.clusters
    penalty = (falls[True, False] - falls[False, False] + falls[True, True] - falls[False, True]) / 2
    few = (falls[False, True] - falls[False, False] + falls[True, True] - falls[True, False]) / 2
    yield "with the penalty, minus without", reading(penalty, clusters, 2)
    yield "on few problems, minus on all", reading(few, clusters, 2)
