"""The runs of an experiment, read at any amount of compute.

Accuracy is the share of solved answers (pass@1), or the mean of the task's own score where it has one. A
run's accuracy per problem can be read at its start, and at any amount of compute from its first milestone
to its end: it is interpolated between the two milestones beside it, linearly in the logarithm of the
compute, as rule 2 of the experiment says. Between the start and the first milestone nothing is read: most is
learned there, and a straight line would understate it by many points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ablate.record import load_evaluation, primary
from ablate.types import UserError

# budget: in the unit of the declared budget
Axis = Literal["budget", "flops", "logical_flops", "updates"]
COLUMNS: dict[Axis, str] = {
    "flops": "budget/flops",
    "logical_flops": "budget/logical_flops",
    "updates": "step",
}

# a milestone this close to a level stands for it where its neighbours have no outcomes per problem
NEAR = 0.02


@dataclass(frozen=True)
class Problems:
    """The evaluation set: ids in order, with the cluster and the difficulty class of each."""

    ids: np.ndarray
    clusters: np.ndarray
    strata: np.ndarray


@dataclass
class Run:
    """One finished run."""

    folder: Path
    config: dict[str, Any]
    meta: dict[str, Any]
    summary: dict[str, Any]
    milestones: list[dict[str, Any]]  # rows of evaluations.jsonl
    problems: Problems
    label: str = ""  # what tells it from other runs of its strategy, where these are compared
    _outcomes: dict[int, np.ndarray | None] = field(default_factory=dict)

    @property
    def arm(self) -> str:
        """The strategy's name, or what runs of one strategy are told apart by."""
        return self.label or self.strategy

    @property
    def strategy(self) -> str:
        """The strategy's name."""
        return str(self.config["strategy"]["name"])

    @property
    def setting(self) -> tuple[float, float]:
        """(penalty, number of problems) of the learner, the defaults first."""
        learner = self.config["learner"]
        return float(learner.get("kl") or 0.0), -float(learner.get("distinct_problems") or np.inf)

    @property
    def seed(self) -> int:
        """Warm start and problem stream."""
        return int(self.config["seed"])

    @property
    def key(self) -> tuple[int, int]:
        """(seed, sampling seed): runs of different arms with the same key are a pair."""
        sampling = self.config["sampling_seed"]
        return self.seed, self.seed if sampling is None else int(sampling)

    @property
    def primary(self) -> str:
        """The held-out figure that is its accuracy: "pass@1", or "score" where the task has its own."""
        return primary(self.milestones[-1])

    @property
    def metric(self) -> str:
        """What people call it."""
        return str(self.summary.get("metric", "score")) if self.primary == "score" else "pass@1"

    @property
    def budget(self) -> tuple[str, float]:
        """(unit, declared)."""
        declared = self.summary["budget"]
        return str(declared["unit"]), float(declared["declared"])

    def spent(self, axis: Axis) -> np.ndarray:
        """How much had been spent at each milestone."""
        if axis == "budget":
            return np.array([row["budget/spent"] * self.budget[1] for row in self.milestones])
        return np.array([row[COLUMNS[axis]] for row in self.milestones], dtype=float)

    def heldout(self, name: str) -> np.ndarray:
        """A held-out figure at each milestone; NaN where there is none."""
        return np.array([row.get(f"heldout/{name}", np.nan) for row in self.milestones], dtype=float)

    def figure(self, column: str, axis: Axis, level: float) -> float:
        """A column of evaluations.jsonl when `level` had been spent, at most all."""
        spent, values = self.spent(axis), [float(row[column]) for row in self.milestones]
        after = min(max(int(np.searchsorted(spent, level)), 1), len(spent) - 1)
        level, low, high = min(level, spent[after]), spent[after - 1], spent[after]
        heldout = column.startswith("heldout/")  # what is counted grows with the compute itself
        weight = _position(level, low, high) if heldout else (level - low) / (high - low)
        return (1 - weight) * values[after - 1] + weight * values[after]

    def accuracy(self, index: int) -> np.ndarray | None:
        """Accuracy per problem at a milestone, the mean over its samples; None if its file was not kept."""
        if index not in self._outcomes:
            step = int(self.milestones[index]["step"])
            kept = (self.folder / "evaluations" / f"{step:06d}.parquet").exists()
            column = "score" if self.primary == "score" else "solved"
            self._outcomes[index] = _per_problem(self.folder, step, self.problems, column) if kept else None
        return self._outcomes[index]

    def at(self, axis: Axis, level: float) -> np.ndarray | None:
        """Accuracy per problem when `level` had been spent; None where the record does not tell."""
        spent = self.spent(axis)
        if len(spent) > 1 and spent[0] < level < (1 - NEAR) * spent[1]:
            return None
        if level <= spent[-1]:
            after = int(np.searchsorted(spent, level))
            weight = _position(level, spent[after - 1], spent[after]) if after else 1.0
            high = self.accuracy(after)
            low = high if weight == 1.0 else self.accuracy(after - 1)
            if low is not None and high is not None:
                return (1 - weight) * low + weight * high
        close = int(np.argmin(np.abs(spent - level)))
        return self.accuracy(close) if abs(spent[close] - level) <= NEAR * level else None


def _position(level: float, low: float, high: float) -> float:
    """Where a level lies between two milestones: 0 at the lower one, 1 at the upper one."""
    if low <= 0:
        return level / high
    return float(np.log(level / low) / np.log(high / low))


def _per_problem(folder: Path, step: int, problems: Problems, column: str) -> np.ndarray:
    columns = load_evaluation(folder, step)
    if column not in columns:
        raise UserError(f"{folder}: the evaluation at step {step} has no column {column}")
    ids, place = np.unique(columns["problem"].astype(str), return_inverse=True)
    if not np.array_equal(ids, problems.ids):
        raise UserError(f"{folder}: the evaluation at step {step} has other problems than the last one")
    return np.bincount(place, weights=columns[column].astype(float)) / np.bincount(place)


def first_draws(runs: Iterable[Run]) -> list[Run]:
    """One run of each seed, with the smallest sampling seed: other draws do not make a seed count twice."""
    found: dict[int, Run] = {}
    for run in sorted(runs, key=lambda run: run.key):
        found.setdefault(run.seed, run)
    return list(found.values())


@dataclass
class Experiment:
    """The runs of a folder that can be compared.

    budget: declared, the same for all arms; a base may have runs with a larger one too. left_out: folders
    with the reason. notes: what differs between runs without forbidding a comparison. seeds: of all finished
    runs in the folder, those not read included.
    """

    name: str
    folder: Path
    runs: list[Run]
    problems: Problems
    unit: str
    budget: float
    left_out: list[tuple[str, str]]
    notes: list[str]
    seeds: tuple[int, ...] = ()

    def arm(self, name: str) -> dict[tuple[int, int], list[Run]]:
        """The runs of an arm by key, the smallest budget first."""
        return self._by_arm.get(name, {})

    @cached_property
    def _by_arm(self) -> dict[str, dict[tuple[int, int], list[Run]]]:
        found: dict[str, dict[tuple[int, int], list[Run]]] = {}
        for run in sorted(self.runs, key=lambda run: run.budget[1]):
            found.setdefault(run.arm, {}).setdefault(run.key, []).append(run)
        return found

    @property
    def arms(self) -> list[str]:
        """Names of all arms that ran to the declared budget or beyond; settings of a strategy in order."""

        def place(run: Run) -> tuple[str, tuple[float, float], str]:
            return (run.strategy if run.label else run.arm), run.setting, run.arm

        return list(dict.fromkeys(run.arm for run in sorted(self.runs, key=place)))

    def read(self, arm: str, key: tuple[int, int], axis: Axis, level: float) -> np.ndarray | None:
        """Accuracy per problem of an arm's run at a level, from its shortest run that reaches it.

        A run with a larger budget stands in for a shorter one only if its learning rate did not depend on the
        budget.
        """
        for run in self.arm(arm).get(key, []):
            own = run.budget[1] <= self.budget * (1 + NEAR)
            if own or run.config["learner"]["schedule"] == "constant" or level > self.budget * (1 + NEAR):
                found = run.at(axis, level)
                if found is not None:
                    return found
        return None
