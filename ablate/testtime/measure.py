"""One run under every method: what is missing is measured, and stored as soon as it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ablate.config import build
from ablate.evaluate import clustered_se
from ablate.testtime.asked import followed, thought
from ablate.testtime.bench import Bench
from ablate.testtime.frame import Frame
from ablate.testtime.guides import (
    FITTED,
    Examples,
    Fitting,
    Guide,
    JudgeGuide,
    MonteCarloGuide,
    OracleGuide,
    VerifierGuide,
    examples,
    fit,
)
from ablate.testtime.methods import METHODS, NATURAL_SAMPLES, Job, privileged
from ablate.testtime.runs import Run
from ablate.testtime.store import Store
from ablate.types import Problem, Trajectory


class Measurement:
    """A run's policy at its bench, with the guides that were asked for so far."""

    def __init__(
        self,
        run: Run,
        which: str,
        most: int,
        fitting: Fitting,
        judge: Any,
        marker: str | None,
    ) -> None:
        self.run, self.which, self._fitting, self._judge = run, which, fitting, judge
        policy = run.load()
        bench = Bench(
            run.task, policy, build(run.config.engine), run.cap, run.config.sampling.temperature, run.seed
        )
        if ready := getattr(run.task, "ready", None):
            ready(bench)
        problems = [bench.problem(problem) for problem in run.problems(which, most)]
        text = run.marker(marker)
        tokens = policy.encode(text) if text is not None else ()
        self.frame = Frame(bench, problems, run.longest(), tokens)
        self._guides: dict[tuple[str, int], Guide] = {}
        self._examples: Examples | None = None

    def guide(self, name: str, setting: dict[str, Any]) -> Guide:
        """The guide of this name, made or fitted at first use."""
        key = (name, setting.get("rollouts", 0))
        if key not in self._guides:
            self._guides[key] = self._made(name, key[1])
        return self._guides[key]

    def _made(self, name: str, rollouts: int) -> Guide:
        if name in FITTED:
            if self._examples is None:
                self._examples = examples(self.frame.bench, self._fitting)
            return fit(name, self.frame.bench, self._examples, self._fitting)
        if name == "monte_carlo":
            return MonteCarloGuide(rollouts)
        if name == "judge":
            from ablate.scorers.judge import Judge

            return JudgeGuide(self._judge or Judge())
        return OracleGuide() if name == "oracle" else VerifierGuide()

    def measure(self, job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
        """A row of points.jsonl, and its columns per problem."""
        bench, problems = self.frame.bench, self.frame.problems
        guide = None if job.guide is None else self.guide(job.guide, job.setting)
        repeats, solved = 0, np.zeros(len(problems))
        sums: dict[str, np.ndarray] = {}
        begun = time.perf_counter()
        compute: dict[str, np.ndarray] = {}
        lengths, ended = [], []  # of answers that were asked for a length, by repeat
        for answers in METHODS[job.method].run(self.frame, guide, job.setting):
            costs = bench.costs()
            solved += self._judged(answers)
            for name in ("tokens", "flops", "logical_flops"):
                sums[name] = sums.get(name, 0.0) + costs[name]
            for purpose, flops in costs["compute"].items():
                compute[purpose] = compute.get(purpose, 0.0) + flops
            repeats += 1
            if "ask" in job.setting:
                lengths.append([thought(answer, bench) for answer in answers])
                ended.append([answer.completion[-1] in bench.policy.ends for answer in answers])
        columns = {
            **_names(problems),
            "solved": solved / repeats,
            **{name: total / repeats for name, total in sums.items()},
        }
        point = {
            **self.place(job),
            "oracle": privileged(job.guide),
            **_figures(columns),
            "compute": {purpose: float(flops.mean()) / repeats for purpose, flops in compute.items()},
            "fit_flops": 0.0 if guide is None else guide.fit_flops,
            "strata": _strata(columns),
            **({"followed": followed(lengths, ended, job.setting["ask"])} if lengths else {}),
            "seconds": time.perf_counter() - begun,
        }
        return point, columns

    def place(self, job: Job) -> dict[str, Any]:
        """What tells a row from others."""
        return place(self.run, self.which, len(self.frame.problems), job)

    def natural(self) -> dict[str, Any]:
        """The plain samples of the pool, as columns of one entry per problem and sample."""
        bench, problems, longest = self.frame.bench, self.frame.problems, self.frame.longest
        drawn = self.frame.pool.answers(NATURAL_SAMPLES, longest)
        answers = [Trajectory(p, (step,)) for p, steps in zip(problems, drawn, strict=True) for step in steps]
        texts = bench.policy.decode([answer.completion for answer in answers])
        pairs = zip(answers, texts, strict=True)
        counts = [bench.task.behaviours(answer.problem, text) for answer, text in pairs]
        ends = bench.policy.ends
        return {
            **{name: np.repeat(values, NATURAL_SAMPLES) for name, values in _names(problems).items()},
            "sample": np.tile(np.arange(NATURAL_SAMPLES, dtype=np.int32), len(problems)),
            "tokens": np.array([answer.length for answer in answers], dtype=np.int32),
            "ended": np.array([answer.completion[-1] in ends for answer in answers]),
            "right": self._judged(answers),
            **{name: np.array([count[name] for count in counts]) for name in counts[0]},
        }

    def _judged(self, answers: list[Trajectory]) -> np.ndarray:
        with self.frame.bench.room(sys.maxsize):  # how long an answer may be was the method's to say
            return np.array(self.frame.bench.judged(answers))


def place(run: Run, which: str, problems: int, job: Job) -> dict[str, Any]:
    """What tells a row of points.jsonl from others."""
    return {
        "run": run.folder.name,
        "strategy": run.strategy,
        "seed": run.seed,
        "method": job.method,
        "guide": job.guide,
        "setting": job.setting,
        "options": job.options,
        "set": which,
        "problems": problems,
        "policy": run.policy,
    }


def measure_missing(
    make: Callable[[], Measurement],
    run: Run,
    which: str,
    problems: int,
    jobs: list[Job],
    store: Store,
    done: Callable[[Job, dict[str, Any] | None], None],
) -> None:
    """All jobs of a run that the store lacks; the policy is loaded if there is one. done(job, point): after
    each, with None for those that were there."""
    measurement: Measurement | None = None
    natural = False
    for job in jobs:
        if store.has(place(run, which, problems, job)):
            done(job, None)
            continue
        measurement = measurement or make()
        if job.method == "natural" and not natural:
            store.add_natural(run.folder.name, which, measurement.natural())
            natural = True
        point, columns = measurement.measure(job)
        store.add(point, columns)
        done(job, point)


def _names(problems: list[Problem]) -> dict[str, np.ndarray]:
    return {
        "problem": np.array([problem.id for problem in problems]),
        "cluster": np.array([problem.cluster or problem.id for problem in problems]),
        "stratum": np.array([problem.stratum for problem in problems]),
    }


def _figures(columns: dict[str, Any]) -> dict[str, float]:
    return {
        "accuracy": float(columns["solved"].mean()),
        "accuracy_se": clustered_se(columns["solved"], columns["cluster"]),
        **{name: float(columns[name].mean()) for name in ("tokens", "flops", "logical_flops")},
    }


def _strata(columns: dict[str, Any]) -> dict[str, dict[str, float]]:
    out = {}
    for name in dict.fromkeys(columns["stratum"].tolist()):
        here = columns["stratum"] == name
        out[name] = {
            "accuracy": float(columns["solved"][here].mean()),
            "flops": float(columns["flops"][here].mean()),
            "problems": int(here.sum()),
        }
    return out
