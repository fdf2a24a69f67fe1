"""Accuracy against test-time compute: curves, gains over a majority vote, and which method is best where.

What is compared is compared at equal FLOPs per problem: a curve is read between two settings, linearly in the
logarithm of FLOPs, problem by problem, and never beyond its ends. Every gain is over plain sampling with a
majority vote by the same policy, paired by problem.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ablate.report import verdict
from ablate.report.answers.content import (
    ArmAtTest,
    Best,
    Followed,
    Gain,
    MethodCurve,
    Overtake,
    Reading,
    SetAtTest,
    Without,
)
from ablate.report.answers.files import SETS, Answered, Setting, TestFiles
from ablate.report.answers.readings import BOTH, PROBLEMS, reading
from ablate.report.runs import NEAR, Experiment
from ablate.report.wording import SCORERS

Kind = tuple[str, str | None]

BASELINE: Kind = ("majority", None)
NATURAL = "natural"  # plain samples for the length curves: no method of its own
METHODS = {
    "majority": "majority vote",
    "best_of_n": "best of n",
    "depth1": "depth-1 search",
    "beam": "beam search",
    "dvts": "DVTS",
    "rebase": "REBASE",
    "mcts": "MCTS",
    "length_prompt": "asked for a length",
    "budget_forcing:stop": "stopped early",
    "budget_forcing:wait": "forced to go on",
    "revision:last": "revision, the last answer",
    "revision:majority": "revision, a vote",
}
GUIDES = {**SCORERS, "value": "value head", "verifier": "verifier"}
REACH = 1.5  # how far from the common budget a run may have ended: it is read there, against a vote there
STRATA = ("easy", "medium", "hard")
FEWEST = 30  # problems of a difficulty class, for a statement of its own


def named(kind: Kind) -> str:
    """`beam search, learned`"""
    method, guide = kind
    if method.startswith("length_prompt:"):
        return f"asked: {' '.join(method.partition(':')[2].split())}"
    name = METHODS.get(method, method.replace("_", " "))
    return name if guide is None else f"{name}, {GUIDES.get(guide, guide)}"


@dataclass(frozen=True)
class Path:
    """A method on one run, the cheapest setting first."""

    settings: tuple[Setting, ...]
    mask: np.ndarray  # problems that count

    @cached_property
    def flops(self) -> np.ndarray:
        """Mean FLOPs per problem of each setting."""
        return np.array([float(each.flops[self.mask].mean()) for each in self.settings])

    def within(self, level: float) -> float:
        """The nearest level that it was run at."""
        return float(np.clip(level, self.flops[0], self.flops[-1]))

    def at(self, level: float) -> np.ndarray | None:
        """Solved, per problem, at FLOPs per problem; None beyond its ends, but for rounding."""
        flops = self.flops
        if not (1 - NEAR) * flops[0] <= level <= (1 + NEAR) * flops[-1]:
            return None
        level = self.within(level)
        after = int(np.searchsorted(flops, level))
        high = self.settings[after].solved[self.mask]
        if after == 0 or flops[after] <= flops[after - 1]:
            return high
        low = self.settings[after - 1].solved[self.mask]
        share = np.log(level / flops[after - 1]) / np.log(flops[after] / flops[after - 1])
        return (1 - share) * low + share * high


@dataclass(frozen=True)
class Policies:
    """One arm's runs at test time, on the same problems."""

    arm: str
    times: float
    runs: tuple[Answered, ...]

    @property
    def clusters(self) -> np.ndarray:
        """Of the problems."""
        return self.runs[0].clusters

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs, in order."""
        return tuple(run.run.seed for run in self.runs)

    def kinds(self) -> dict[Kind, bool]:
        """Curve -> is it an oracle's; those that every run has, the baseline first."""
        found: dict[Kind, bool] = {}
        for run in self.runs:
            for each in run.settings:
                if each.method != NATURAL:
                    found[each.kind] = found.get(each.kind, False) or each.oracle
        everywhere = [
            kind for kind in found if all(any(s.kind == kind for s in run.settings) for run in self.runs)
        ]
        return {kind: found[kind] for kind in sorted(everywhere, key=_place)}

    def paths(self, kind: Kind, mask: np.ndarray | None = None) -> list[Path]:
        """Of each run; mask: some of the problems."""
        chosen = np.ones(len(self.clusters), bool) if mask is None else mask
        out = []
        for run in self.runs:
            own = [each for each in run.settings if each.kind == kind]
            own.sort(key=lambda each: float(each.flops[chosen].mean()))
            out.append(Path(tuple(own), chosen))
        return out


def _place(kind: Kind) -> tuple[int, int, str]:
    known, scorers = list(METHODS), list(GUIDES)
    method, guide = kind
    return (
        known.index(method) if method in known else len(known),
        scorers.index(guide) if guide in scorers else -1,
        f"{method} {guide}",
    )


def testtime(experiment: Experiment, files: TestFiles) -> tuple[SetAtTest, ...]:
    """The report's content, for each set of problems that was run."""
    found = []
    for each in SETS:
        answered = [run for run in files.answered if run.set == each]
        if answered:
            found.append(_of_set(each, experiment, answered, _without(files, answered)))
    return tuple(found)


testtime.__test__ = False  # type: ignore[attr-defined]  # to pytest


def _without(files: TestFiles, answered: Sequence[Answered]) -> tuple[Without, ...]:
    """What these runs could not have, alike for all runs of an arm or told by seed."""
    here = {run.run.folder.name for run in answered}
    found: dict[tuple[Kind, str, str], list[int]] = {}
    for run, kind, why in files.without:
        if run.folder.name in here:
            found.setdefault((kind, why, run.arm), []).append(run.seed)
    return tuple(
        Without(named(kind), arm, tuple(sorted(set(seeds))), why)
        for (kind, why, arm), seeds in sorted(found.items(), key=lambda item: _place(item[0][0]))
    )


def _of_set(
    name: str, experiment: Experiment, answered: list[Answered], without: tuple[Without, ...]
) -> SetAtTest:
    common = np.array(sorted(set.intersection(*(set(run.problems) for run in answered))))
    arms = policies(experiment, [run.among(common) for run in answered])
    strata = arms[0].runs[0].strata
    classes = tuple(each for each in STRATA if (strata == each).sum() >= FEWEST)
    levels = _levels(arms)
    several = max(len(arm.runs) for arm in arms) > 1
    return SetAtTest(
        set=name,
        problems=len(common),
        strata=classes,
        over=BOTH if several else PROBLEMS,
        without=without,
        arms=tuple(
            ArmAtTest(
                arm=arm.arm,
                times=arm.times,
                seeds=arm.seeds,
                curves=tuple(_curve(arm, kind, oracle) for kind, oracle in arm.kinds().items()),
                gains=tuple(_gain(arm, kind, level) for kind, level in levels.items()),
                best=tuple(_best(arm, strata, classes)),
                overtakes=tuple(_overtakes(arm)),
            )
            for arm in arms
        ),
    )


def policies(experiment: Experiment, answered: Iterable[Answered]) -> list[Policies]:
    """Runs by arm and budget, in the order of arms; one run per seed."""

    def arm(run: Answered) -> tuple[str, float]:
        return run.run.arm, round(run.run.budget[1] / experiment.budget, 3)

    place = {name: i for i, name in enumerate(experiment.arms)}
    ordered = sorted(answered, key=lambda run: (place[run.run.arm], arm(run), run.run.key))
    found: dict[tuple[str, float], dict[int, Answered]] = {}
    for run in ordered:
        found.setdefault(arm(run), {}).setdefault(run.run.seed, run)
    return [Policies(*key, tuple(by_seed.values())) for key, by_seed in found.items()]


def _curve(arm: Policies, kind: Kind, oracle: bool) -> MethodCurve:
    """Means at the settings that all runs have."""
    paths = arm.paths(kind)
    names = set.intersection(*({each.setting for each in path.settings} for path in paths))
    shared = [
        [next(each for each in path.settings if each.setting == name) for path in paths] for name in names
    ]
    shared.sort(key=lambda settings: float(np.mean([each.flops.mean() for each in settings])))
    solved = [np.stack([each.solved for each in settings]) for settings in shared]
    return MethodCurve(
        method=kind[0],
        guide=kind[1],
        label=named(kind),
        oracle=oracle,
        settings=tuple(settings[0].setting for settings in shared),
        flops=tuple(float(np.mean([each.flops.mean() for each in settings])) for settings in shared),
        tokens=tuple(float(np.mean([each.tokens for each in settings])) for settings in shared),
        accuracy=tuple(float(each.mean()) for each in solved),
        accuracy_se=tuple(_error(each, arm.clusters) for each in solved),
        fit_flops=float(np.mean([settings[0].fit_flops for settings in shared])) if shared else 0.0,
        followed=tuple(_followed(settings) for settings in shared),
    )


def _followed(settings: Sequence[Setting]) -> Followed | None:
    """Means over runs."""
    each = [setting.followed for setting in settings if setting.followed is not None]
    if not each:
        return None
    keys = ("tokens", "ratio", "within", "ended")
    means = {key: float(np.mean([found[key] for found in each])) for key in keys}
    return Followed(json.loads(settings[0].setting)["ask"], **means)


def _error(solved: np.ndarray, clusters: np.ndarray) -> float | None:
    """Of the mean: over seeds, or over problems where there is one."""
    if len(solved) > 1:
        return float(solved.mean(1).std(ddof=1) / np.sqrt(len(solved)))
    _, label = np.unique(clusters, return_inverse=True)
    sums = np.bincount(label, weights=solved[0] - solved.mean())
    count = len(sums)
    return float(np.sqrt((sums**2).sum() * count / (count - 1)) / solved.shape[1]) if count > 1 else None


# -- trained arms under every method -------------------------------------------------------------------------


def _levels(arms: Sequence[Policies]) -> dict[Kind, tuple[bool, float | None]]:
    """Curve -> (is it an oracle's, the largest budget that all arms reach with it and with the vote).

    An arm's is the geometric mean of where its runs end: those of a search that stops when it has found
    something end sooner the better they are, and the best one must not set the others' budget.
    """
    out: dict[Kind, tuple[bool, float | None]] = {}
    for kind in dict.fromkeys(kind for arm in arms for kind in arm.kinds()):
        having = [arm for arm in arms if kind in arm.kinds()]
        ends = []
        for arm in having:
            if BASELINE in arm.kinds():
                pairs = zip(arm.paths(kind), arm.paths(BASELINE), strict=True)
                own = [min(path.flops[-1], vote.flops[-1]) for path, vote in pairs]
                ends.append(float(np.exp(np.log(own).mean())))
        oracle = any(arm.kinds()[kind] for arm in having)
        out[kind] = oracle, min(ends) if ends else None
    return dict(sorted(out.items(), key=lambda item: _place(item[0])))


def _gain(arm: Policies, kind: Kind, at: tuple[bool, float | None]) -> Gain:
    """At the common budget, or as near to it as a run came: always against the vote at the same FLOPs."""
    oracle, level = at
    if level is None:
        return Gain(named(kind), oracle, None, None, None, "no majority vote to compare it with")
    if kind not in arm.kinds() or BASELINE not in arm.kinds():
        return Gain(named(kind), oracle, level, None, None, "not run")
    own, base = [], []
    for path, vote in zip(arm.paths(kind), arm.paths(BASELINE), strict=True):
        near = min(path.within(level), float(vote.flops[-1]))
        if near > REACH * level or near < path.flops[0]:
            return Gain(named(kind), oracle, level, None, None, "its cheapest setting costs more")
        if near < level / REACH:
            return Gain(named(kind), oracle, level, None, None, "its dearest setting costs less on a seed")
        against = vote.at(near)
        if against is None:
            less = near < vote.flops[0]
            why = "costs less than a plain sample" if less else "no vote that costs as much: larger n needed"
            return Gain(named(kind), oracle, level, None, None, why)
        solved = path.at(near)
        assert solved is not None, "a level within its ends"
        own.append(solved)
        base.append(against)
    difference = None if kind == BASELINE else reading(np.stack(own) - np.stack(base), arm.clusters)
    return Gain(named(kind), oracle, level, float(np.mean(own)), difference)


# -- which method where --------------------------------------------------------------------------------------


def _best(arm: Policies, strata: np.ndarray, classes: Sequence[str]) -> Iterable[Best]:
    """Over all problems and by difficulty, at doublings of what one plain sample costs."""
    if BASELINE not in arm.kinds():
        return
    masks = [("all", np.ones(len(strata), bool)), *((each, strata == each) for each in classes)]
    fair = [kind for kind, oracle in arm.kinds().items() if not oracle]
    for name, mask in masks:
        paths = {kind: arm.paths(kind, mask) for kind in fair}
        one = float(np.mean([path.flops[0] for path in paths[BASELINE]]))
        most = min(path.flops[-1] for path in paths[BASELINE])  # nobody is ahead of a vote that was not run
        for power in range(int(np.log2(most / one) + 1e-9) + 1):
            level = one * 2.0**power
            found = {kind: _read(each, level) for kind, each in paths.items()}
            known = {kind: values for kind, values in found.items() if values is not None}
            if known:
                best = max(known, key=lambda kind: float(known[kind].mean()))
                equal = tuple(named(kind) for kind in _not_worse(best, known, arm.clusters[mask]))
                value = float(known[best].mean())
                yield Best(name, 2.0**power, level, named(best), value, equal)


def _read(paths: Sequence[Path], level: float) -> np.ndarray | None:
    """(seeds, problems) at a level, None unless all runs reach it."""
    found = [path.at(level) for path in paths]
    known = [each for each in found if each is not None]
    return np.stack(known) if len(known) == len(found) else None


def _not_worse(best: Kind, known: dict[Kind, np.ndarray], clusters: np.ndarray) -> list[Kind]:
    """Those whose interval of best minus them holds zero, or has none."""
    out = []
    for kind, values in known.items():
        if kind != best:
            bounds = reading(known[best] - values, clusters, len(known) - 1).interval
            if bounds is None or bounds[0] <= 0:
                out.append(kind)
    return out


def _overtakes(arm: Policies) -> Iterable[Overtake]:
    """Where curves cross the majority vote's, between the levels that both reach; oracles apart."""
    if BASELINE not in arm.kinds():
        return
    votes = arm.paths(BASELINE)
    for kind, oracle in arm.kinds().items():
        if oracle or kind == BASELINE:
            continue
        paths = arm.paths(kind)
        low = max(path.flops[0] for path in (*paths, *votes))
        high = min(path.flops[-1] for path in (*paths, *votes))
        if low < high:
            for each in verdict.crossings(_difference(paths, votes, arm.clusters), low, high):
                yield Overtake(named(kind), each.share, each.gains, each.interval)


def _difference(paths: list[Path], votes: list[Path], clusters: np.ndarray) -> Callable:
    def difference(level: float) -> tuple[float, float, float] | None:
        own, base = _read(paths, level), _read(votes, level)
        if own is None or base is None:
            return None
        found: Reading = reading(own - base, clusters)
        return None if found.interval is None else (found.value, *found.interval)

    return difference
