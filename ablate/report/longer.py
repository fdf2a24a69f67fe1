"""Training far past the plateau: which settings get worse, and in what.

For each setting the last evaluation stands against the best one before it. The best of many evaluations is
flattered by chance, so the one that counts for a seed is chosen by the other seeds; with a single seed, the one
that counts for half of the problems (by cluster) is chosen by the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ablate.record import load_evaluation, read_jsonl
from ablate.report.content_answers import Change, Longer, LongArm, Reading
from ablate.report.readings import BOTH, reading
from ablate.report.runs import Experiment, Run
from ablate.report.statistics import critical

ENTROPY = "learner/entropy"
WINDOW = 0.1  # of the steps up to an evaluation: what entropy there is the mean over
FIGURES = ("kl_per_answer",)  # of an evaluation, beside what it counts per answer
SKIPPED = ("problem", "cluster", "stratum", "sample", "solved", "score", "decoded", "ended", "right")


def longer(experiment: Experiment) -> Longer | None:
    """The report's content, where runs of one strategy differ in the settings that are compared."""
    names = [name for name in experiment.arms if any(run.label for run in experiment.runs if run.arm == name)]
    arms = [(name, _runs(experiment, name)) for name in names]
    arms = [(name, runs) for name, runs in arms if min(len(run.milestones) for run in runs) > 2]
    if not arms:
        return None
    found = [_arm(name, runs, len(arms)) for name, runs in arms]
    return Longer(tuple(found), tuple(_effects(arms)))


def _runs(experiment: Experiment, name: str) -> list[Run]:
    return [runs[0] for runs in experiment.arm(name).values()]


def _arm(name: str, runs: list[Run], family: int) -> LongArm:
    learner = runs[0].config["learner"]
    shares = [float(row["milestone"]) for row in runs[0].milestones]
    curve = np.mean([run.heldout(run.primary)[: len(shares)] for run in runs], axis=0)
    best = 1 + int(np.argmax(curve[1:-1]))
    accuracy = _change(runs, "accuracy", lambda run, index: run.accuracy(index), family)
    assert accuracy is not None, "evaluations that a report reads have outcomes per problem"
    return LongArm(
        arm=name,
        kl=float(learner.get("kl") or 0.0),
        problems=learner.get("distinct_problems"),
        seeds=tuple(run.seed for run in runs),
        best=shares[best],
        accuracy=accuracy,
        changes=tuple(_others(runs)),
        word=_word(accuracy.difference),
    )


def _word(found: Reading) -> str:
    if found.interval is None:
        return "no interval"
    low, high = found.interval
    return "worse" if high < 0 else "still better" if low > 0 else "no change shown"


Values = Callable[[Run, int], np.ndarray | None]  # per problem at a milestone


def _others(runs: list[Run]) -> Iterable[Change]:
    """Length, truncation, what the task counts, entropy, distance from the start."""
    columns = load_evaluation(runs[0].folder, int(runs[0].milestones[-1]["step"]))
    for column in columns:
        if column not in SKIPPED and np.issubdtype(columns[column].dtype, np.number | np.bool_):
            name = {"tokens": "length (tokens)"}.get(column, column.replace("_", " "))
            if change := _change(runs, name, lambda run, index, c=column: _per_problem(run, index, c)):
                yield change
    for name, of in (("entropy (nats per token)", _entropy), ("KL to the start (nats)", _divergence)):
        if change := _scalar(runs, name, of):
            yield change


def _per_problem(run: Run, index: int, column: str) -> np.ndarray | None:
    step = int(run.milestones[index]["step"])
    if not (run.folder / "evaluations" / f"{step:06d}.parquet").exists():
        return None
    columns = load_evaluation(run.folder, step)
    if column not in columns:
        return None
    ids, place = np.unique(columns["problem"].astype(str), return_inverse=True)
    if not np.array_equal(ids, run.problems.ids):
        return None
    return np.bincount(place, weights=columns[column].astype(float)) / np.bincount(place)


def chosen(runs: Sequence[Run]) -> list[np.ndarray]:
    """Per run and problem, the milestone that counts as the best before the last: chosen without that run, or,
    if there is no other, without that half of the problems."""
    last = len(runs[0].milestones) - 1
    if len(runs) > 1:
        curves = np.array([run.heldout(run.primary)[1:last] for run in runs])
        return [
            np.full(len(run.problems.ids), 1 + int(np.argmax(np.delete(curves, i, axis=0).mean(0))))
            for i, run in enumerate(runs)
        ]
    run = runs[0]
    _, label = np.unique(run.problems.clusters, return_inverse=True)
    read = [(index, run.accuracy(index)) for index in range(1, last)]
    kept = [(index, values) for index, values in read if values is not None]
    out = np.full(len(label), 1)
    for half in (0, 1):
        other = label % 2 != half
        out[~other] = max(kept, key=lambda pair: float(pair[1][other].mean()))[0] if kept else 1
    return [out]


def differences(runs: Sequence[Run], values: Values) -> tuple[np.ndarray, np.ndarray] | None:
    """(at the best, at the last), each (runs, problems); None where something was not kept."""
    best, last = [], []
    for run, places in zip(runs, chosen(runs), strict=True):
        end = values(run, len(run.milestones) - 1)
        own = np.zeros(len(places))
        for index in set(places.tolist()):
            at = values(run, index)
            if at is None or end is None:
                return None
            own[places == index] = at[places == index]
        best.append(own)
        last.append(end)
    return np.stack(best), np.stack([each for each in last if each is not None])


def _change(runs: list[Run], name: str, values: Values, family: int = 1) -> Change | None:
    found = differences(runs, values)
    if found is None:
        return None
    best, last = found
    return Change(
        name, float(best.mean()), float(last.mean()), reading(last - best, runs[0].problems.clusters, family)
    )


def _scalar(runs: list[Run], name: str, of: Callable[[Run, int], float | None]) -> Change | None:
    """A figure with one value per run: its interval is over seeds alone."""
    best, last = [], []
    for run, places in zip(runs, chosen(runs), strict=True):
        at = [of(run, index) for index in sorted(set(places.tolist()))]
        end = of(run, len(run.milestones) - 1)
        known = [value for value in at if value is not None]
        if end is None or len(known) < len(at):
            return None
        best.append(float(np.mean(known)))
        last.append(end)
    differing = np.array(last) - np.array(best)
    value, interval, count = float(differing.mean()), None, len(differing)
    if count > 1:
        half = float(critical(count - 1) * differing.std(ddof=1) / np.sqrt(count))
        interval = (value - half, value + half)
    found = Reading(value, interval, count, 0, "seeds")
    return Change(name, float(np.mean(best)), float(np.mean(last)), found)


def _entropy(run: Run, index: int) -> float | None:
    """Of the policy's next token in training batches, over the last steps before an evaluation."""
    end = int(run.milestones[index]["step"])
    rows = [row for row in _steps(run) if end * (1 - WINDOW) < row["step"] <= end]
    values = [float(row[ENTROPY]) for row in rows if row.get(ENTROPY) is not None]
    return float(np.mean(values)) if values else None


def _steps(run: Run) -> list[dict]:
    if not hasattr(run, "_kept_steps"):
        run._kept_steps = read_jsonl(run.folder / "steps.jsonl")  # type: ignore[attr-defined]
    return run._kept_steps  # type: ignore[attr-defined]


def _divergence(run: Run, index: int) -> float | None:
    value = run.milestones[index].get("heldout/kl_per_answer")
    return None if value is None else float(value)


def _effects(arms: Sequence[tuple[str, list[Run]]]) -> Iterable[tuple[str, Reading]]:
    """What the penalty and the number of problems do to the change in accuracy, over the other's two settings;
    paired by seed, where exactly two of each ran together."""
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
        found = differences([run for run in runs if run.key in common], lambda run, i: run.accuracy(i))
        if found is None:
            return
        falls[key] = found[1] - found[0]
    clusters = arms[0][1][0].problems.clusters
    penalty = (falls[True, False] - falls[False, False] + falls[True, True] - falls[False, True]) / 2
    few = (falls[False, True] - falls[False, False] + falls[True, True] - falls[True, False]) / 2
    yield "with the penalty, minus without", reading(penalty, clusters, 2)
    yield "on few problems, minus on all", reading(few, clusters, 2)
