"""Effects and verdicts of one experiment's contrasts, read at equal spend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from ablate.report.content import Account, Claim, Crossing, Effect, Word, Worth
from ablate.report.contrasts import Contrast, added
from ablate.report.learned import caveats as of_learning
from ablate.report.learned import seeds_that_learned
from ablate.report.looks import Looks
from ablate.report.runs import NEAR, Axis, Experiment, Run
from ablate.report.statistics import chances, estimate, seeds_to_settle
from ablate.report.verdict import LONGER, crossings, decide, worth

SEVERAL = "needed not tested: no single arm stands without it"
NOTHING_LEARNED = "none of its arms learned anything: that tells nothing"
DIFFICULTIES = ("easy", "medium", "hard")
TIMES: dict[Axis, str] = {
    "budget": "the budget",
    "flops": "the FLOPs",
    "logical_flops": "the logical FLOPs",
    "updates": "the updates",
}
Pairs = dict[int, np.ndarray]  # seed -> differences per problem


@dataclass
class Effects:
    """Effects and claims of one experiment. looks: declared numbers of seeds, at which alone there are
    verdicts, each with the intervals of its look."""

    experiment: Experiment
    margin: float
    looks: Looks | None = None

    def pairs(self, weights: tuple[tuple[str, float], ...], axis: Axis, levels: Mapping[str, float]) -> Pairs:
        """The weighted differences of each seed that all arms have at their levels: the mean over the
        sampling seeds that they share."""
        found: dict[int, list[np.ndarray]] = {}
        for key in self._keys(weights):
            parts = [self.experiment.read(arm, key, axis, levels[arm]) for arm, _ in weights]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                difference = sum(w * part for (_, w), part in zip(weights, known, strict=True))
                found.setdefault(key[0], []).append(np.asarray(difference))
        return {seed: np.mean(each, axis=0) for seed, each in sorted(found.items())}

    def _keys(self, weights: tuple[tuple[str, float], ...]) -> list[tuple[int, int]]:
        return sorted(set.intersection(*(set(self.experiment.arm(arm)) for arm, _ in weights)))

    def effect(
        self, pairs: Pairs, axis: Axis, level: float, family: int, problems: Any = None
    ) -> Effect | None:
        """The effect over paired seeds; problems: a mask."""
        if not pairs:
            return None
        mask = np.ones(len(self.experiment.problems.ids), bool) if problems is None else problems
        found = estimate(np.stack(list(pairs.values()))[:, mask], self.experiment.problems.clusters[mask])
        whole, alone = (found.interval(size, self._confidence(len(pairs), size)) for size in (family, 1))
        return Effect(axis, level, tuple(pairs), found, family, whole, alone)

    def decide(
        self, effect: Effect, extended: Effect | None = None, at: str = "the budget"
    ) -> tuple[Word, tuple[str, ...]]:
        """The verdict on an effect, if its seeds are a declared look's."""
        if self.looks is not None:
            declared = f"declared: {', '.join(map(str, self.looks.at))}"
            seeds = len(effect.seeds)
            if self.looks.number(seeds) is None:
                return "no verdict", (f"{seeds} paired seeds are no declared look ({declared})",)
            if effect.seeds != self.experiment.seeds[:seeds]:
                return "no verdict", (f"its {seeds} seeds are not the first {seeds} ({declared})",)
        return decide(effect, self.margin, extended, at)

    def _confidence(self, seeds: int, family: int) -> float | None:
        """Of one interval at a look; of seeds that are none, as if the next look were due. None: no looks."""
        if self.looks is None:
            return None
        later = [i for i, at in enumerate(self.looks.at, 1) if at >= seeds] or [len(self.looks.at)]
        return self.looks.confidence(later[0], family)

    def at(self, contrast: Contrast, axis: Axis, level: float, family: int) -> Effect | None:
        """The effect with all arms at one level."""
        pairs = self.pairs(contrast.weights, axis, {arm: level for arm, _ in contrast.weights})
        return self.effect(pairs, axis, level, family)

    def claim(self, contrast: Contrast, family: int, extend: bool = True) -> Claim:
        """A contrast's effect, verdict and everything beside it. extend: also what it is worth in compute,
        and at other budgets."""
        budget = self.experiment.budget
        adds = added(self.experiment, contrast.weights)
        named = contrast.title, contrast.suspect, contrast.on, contrast.weights, adds
        effect = self.at(contrast, "budget", budget, family)
        if effect is None:
            why = "no seed that its arms have in common"
            return Claim(*named, None, "no verdict", (why,))
        pair = contrast.pair
        extended = self._extended(pair, "budget", budget, family) if pair else None
        word, caveats = self.decide(effect, extended)
        if pair is None and extended is None and any(each.startswith("needed") for each in caveats):
            caveats = (SEVERAL,)
        word, caveats = self._where_learned(contrast, effect, word, caveats)
        settle = power = None
        if parts := effect.estimate.components:
            seeds = len(effect.seeds)
            confidence = self._confidence(seeds, family)
            power = chances(0.0, self.margin, parts, seeds, family, confidence)["not needed"]
            if word == "inconclusive" and self.looks is None:
                settle = seeds_to_settle(effect.estimate.value, self.margin, parts, family)
        claim = Claim(*named, effect, word, caveats, power, settle)
        if not extend or pair is None:
            return claim
        by_budget = self._by_budget(contrast, family)
        shares = [share for share, _ in by_budget]
        return replace(
            claim,
            worth=self._worth(pair, effect) if effect.interval else None,
            extended=extended,
            accounts=() if caveats == (NOTHING_LEARNED,) else self._accounts(contrast, pair, family),
            by_budget=by_budget,
            slope=self._slope(contrast, family, shares),
            crossings=self._crossings(contrast, family, shares),
            by_difficulty=self._by_difficulty(contrast, family),
        )

    def _where_learned(
        self, contrast: Contrast, effect: Effect, word: Word, caveats: tuple[str, ...]
    ) -> tuple[Word, tuple[str, ...]]:
        """The verdict with what must be said of arms that did not learn on every seed."""
        if effect.interval is None or word == "no verdict":
            return word, caveats
        keys = self._keys(contrast.weights)
        learned = {arm: seeds_that_learned(self.experiment, arm, keys) for arm, _ in contrast.weights}
        if word == "not needed" and not any(learned.values()):
            return "no verdict", (NOTHING_LEARNED,)
        return word, (*caveats, *of_learning(learned, len(effect.seeds)))

    def _extended(self, pair: tuple[str, str], axis: Axis, level: float, family: int) -> Effect | None:
        """Against four times the level of the arm without the suspect."""
        levels = {pair[0]: level, pair[1]: LONGER * level}
        pairs = self.pairs(((pair[0], 1.0), (pair[1], -1.0)), axis, levels)
        return self.effect(pairs, axis, level, family)

    def _paired(self, arms: Iterable[str]) -> dict[str, list[list[Run]]]:
        """Arm -> its runs of each key that all of these arms have, the smallest budget first. Others, as of
        another sampling seed, are no part of a comparison."""
        known = {arm: self.experiment.arm(arm) for arm in arms}
        keys = sorted(set.intersection(*map(set, known.values())))
        return {arm: [runs[key] for key in keys] for arm, runs in known.items()}

    def _worth(self, pair: tuple[str, str], effect: Effect) -> Worth | None:
        budget, seeds = self.experiment.budget, set(effect.seeds)
        others = self._paired(pair)[pair[1]]
        least = (
            max(max(min(s for s in run.spent("budget") if s > 0) for run in runs) for runs in others) / budget
        )
        most = min(max(run.spent("budget")[-1] for run in runs) for runs in others) / budget

        def difference(multiple: float) -> tuple[float, float, float] | None:
            levels = {pair[0]: budget, pair[1]: multiple * budget}
            pairs = self.pairs(((pair[0], 1.0), (pair[1], -1.0)), "budget", levels)
            found = self.effect(pairs, "budget", budget, effect.family) if seeds <= set(pairs) else None
            return None if found is None or not found.interval else (found.estimate.value, *found.interval)

        return worth(difference, least, most) if least < most else None

    def _accounts(self, contrast: Contrast, pair: tuple[str, str], family: int) -> tuple[Account, ...]:
        """The verdict by other accounts: where all have spent the declared budget in logical FLOPs, if it is
        one in FLOPs, else what the thriftiest run spent, or a quarter of what one with four times the budget
        did."""
        axes: list[Axis] = ["flops", "logical_flops", "updates"]
        runs = [run for lists in self._paired(pair).values() for runs in lists for run in runs]
        longer = [run for run in runs if run.budget[1] >= (1 - NEAR) * LONGER * self.experiment.budget]
        found = []
        for axis in axes[self.experiment.unit == "flops" :]:
            ends = [float(run.spent(axis)[-1]) for run in runs]
            ends += [float(run.spent(axis)[-1]) / LONGER for run in longer]
            if axis == "logical_flops" and self.experiment.unit == "flops":
                ends.append(self.experiment.budget)
            if effect := self.at(contrast, axis, min(ends), family):
                extended = self._extended(pair, axis, min(ends), family)
                word, caveats = self.decide(effect, extended, TIMES[axis])
                found.append(Account(effect, word, caveats, extended))
        return tuple(found)

    def _by_budget(self, contrast: Contrast, family: int) -> tuple[tuple[float, Effect], ...]:
        """At the shares of the budget at which the runs were evaluated; before all of them were, nothing can
        be read, so that what was due earlier is read there."""
        budget, found = self.experiment.budget, []
        paired = self._paired(arm for arm, _ in contrast.weights)
        runs = [runs[0] for lists in paired.values() for runs in lists]
        shares = {float(row["milestone"]) * run.budget[1] / budget for run in runs for row in run.milestones}
        first = float(max(run.spent("budget")[1] for run in runs)) / budget
        due = {share for share in shares if share >= (1 - NEAR) * first}
        missed = any(0 < share < (1 - NEAR) * first for share in shares)
        if missed and min(due, default=inf) > (1 + NEAR) * first:
            due.add(first)
        for share in sorted(due):
            if share <= 1 and (effect := self.at(contrast, "budget", share * budget, family)):
                found.append((share, effect))
        return tuple(found)

    def _slope(self, contrast: Contrast, family: int, shares: list[float]) -> Effect | None:
        """How much the effect grows per doubling of compute: the least-squares line through its values at
        these shares of the budget, seed by seed and problem by problem."""
        if len(shares) < 2:
            return None
        budget, doublings = self.experiment.budget, np.log2(shares) - np.log2(shares).mean()
        each = [
            self.pairs(contrast.weights, "budget", {arm: share * budget for arm, _ in contrast.weights})
            for share in shares
        ]
        common = sorted(set.intersection(*map(set, each)))
        rates = doublings / (doublings**2).sum()
        slopes = {
            seed: np.tensordot(rates, np.stack([pairs[seed] for pairs in each]), axes=1) for seed in common
        }
        return self.effect(slopes, "budget", budget, family)

    def _crossings(self, contrast: Contrast, family: int, shares: list[float]) -> tuple[Crossing, ...]:
        """Where the two arms' curves cross, between the smallest and the largest of these shares."""
        if len(shares) < 2:
            return ()

        def difference(share: float) -> tuple[float, float, float] | None:
            found = self.at(contrast, "budget", share * self.experiment.budget, family)
            # one seed has no interval, and its curves cross all the same
            return None if found is None else (found.estimate.value, *(found.interval or (-inf, inf)))

        return crossings(difference, shares[0], shares[-1])

    def _by_difficulty(self, contrast: Contrast, family: int) -> tuple[tuple[str, Effect], ...]:
        budget, strata = self.experiment.budget, self.experiment.problems.strata
        pairs = self.pairs(contrast.weights, "budget", {arm: budget for arm, _ in contrast.weights})
        found = [
            (name, self.effect(pairs, "budget", budget, family, strata == name))
            for name in DIFFICULTIES
            if (strata == name).any()
        ]
        return tuple((name, effect) for name, effect in found if effect is not None)

    def replicate(self, arm: str) -> Claim | None:
        """A/A: the second sampling seed of each seed minus the first, if any seed has two."""
        runs, budget = self.experiment.arm(arm), self.experiment.budget
        pairs: Pairs = {}
        for seed in sorted({key[0] for key in runs}):
            read = [
                self.experiment.read(arm, key, "budget", budget) for key in sorted(runs) if key[0] == seed
            ]
            known = [part for part in read if part is not None]
            if len(known) > 1:
                pairs[seed] = known[1] - known[0]
        effect = self.effect(pairs, "budget", budget, 1)
        if effect is None:
            return None
        named = "A/A", "none", f"{arm}, another sampling seed", ((arm, 1.0), (arm, -1.0)), ()
        word, caveats = decide(effect, self.margin)
        if word == "not needed" and not seeds_that_learned(self.experiment, arm, sorted(runs)):
            word, caveats = "no verdict", (NOTHING_LEARNED,)
        return Claim(*named, effect, word, caveats)
