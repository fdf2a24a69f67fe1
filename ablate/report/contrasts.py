"""Which arms are compared, and which comparisons form a family.

The 2x2x2 of search, correction and process rewards has a name for every cell; a strategy with any other name
is a suspect of its own, compared with guess + check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from ablate.report.runs import Experiment

BASE = "guess_check"
FACTORS = ("search", "correct", "process")
TITLES = {
    "search": "Search",
    "correct": "Learning to correct",
    "process": "Process rewards",
    "full": "All suspects at once",
}
# (search, correct, process) -> strategies of that cell; the first that ran stands for it
CELLS: dict[tuple[int, int, int], tuple[str, ...]] = {
    (0, 0, 0): (BASE,),
    (0, 0, 1): ("process_rewards",),
    (0, 1, 0): ("learn_to_correct", "essay"),
    (0, 1, 1): ("full_minus_search",),
    (1, 0, 0): ("mcts",),
    (1, 0, 1): ("full_minus_correct",),
    (1, 1, 0): ("full_minus_process",),
    (1, 1, 1): ("full",),
}
COMBINATIONS = ("essay", "full", "full_minus_search", "full_minus_correct", "full_minus_process")
# arm -> its placebos, which spend the same without the idea
PLACEBOS = {
    "process_rewards": ("process_shuffled",),
    "mcts": ("mcts_uniform",),
    "learn_to_correct": ("correct_resampled", "correct_always"),
}
# what any use of the compute should beat
FLOORS = ("guess_check_wide", "rejection_sft", "more_demonstrations")
SUSPECT_OF = {"process_rewards": "process", "mcts": "search", "learn_to_correct": "correct"}

OUTSIDE = ".Turns"  # credit of two-turn answers: plain decoding does not rank them (SCoRe)
PRIVILEGED = "oracle"


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms' accuracies, the weights adding up to zero.

    suspect: "search", "process", "correct", "full", or a strategy's name. on: what it is added to. weights:
    (arm, weight).
    """

    title: str
    suspect: str
    on: str
    weights: tuple[tuple[str, float], ...]

    @property
    def pair(self) -> tuple[str, str] | None:
        """(with, without) if two arms are compared."""
        if len(self.weights) != 2:
            return None
        return self.weights[0][0], self.weights[1][0]


def against(arm: str, other: str, suspect: str, on: str) -> Contrast:
    """One arm minus another."""
    return Contrast(TITLES.get(suspect, suspect), suspect, on, ((arm, 1.0), (other, -1.0)))


def role(name: str, strategy: Mapping[str, Any]) -> str:
    """base | suspect | combination | placebo | floor | upper bound | outside, from an arm's name and its
    strategy's config.

    upper bound: something in it is chosen to be the exact oracle, which is free and knows the answers.
    """
    if PRIVILEGED in _values(strategy):
        return "upper bound"
    if str(strategy["credit"]["_target_"]).endswith(OUTSIDE):
        return "outside"
    if name == BASE:
        return "base"
    if name in COMBINATIONS:
        return "combination"
    if name in FLOORS:
        return "floor"
    return "placebo" if any(name in names for names in PLACEBOS.values()) else "suspect"


def _values(node: Any) -> Iterator[Any]:
    for item in node.values() if isinstance(node, Mapping) else [node]:
        yield from _values(item) if isinstance(item, Mapping) else (item,)


def roles(experiment: Experiment) -> dict[str, str]:
    """The role of every arm."""
    return {run.arm: role(run.arm, run.config["strategy"]) for run in experiment.runs}


def searches(experiment: Experiment, contrast: Contrast) -> bool:
    """Does the contrast add a tree?"""
    source = {run.arm: str(run.config["strategy"]["source"]["_target_"]) for run in experiment.runs}
    added = {source[arm] for arm, weight in contrast.weights if weight > 0}
    without = {source[arm] for arm, weight in contrast.weights if weight < 0}
    return contrast.suspect == "search" or any(name.endswith(".Tree") for name in added - without)


def families(arms: Mapping[str, str]) -> dict[str, list[Contrast]]:
    """The headline families, from the arms' roles: every suspect on top of guess + check, and on top of the
    essay's recipe (guess + check + correct)."""
    on_base = []
    if BASE in arms:
        suspects = [name for name in SUSPECT_OF if arms.get(name) == "suspect"]
        suspects += sorted(name for name in arms if arms[name] == "suspect" and name not in SUSPECT_OF)
        on_base = [against(name, BASE, SUSPECT_OF.get(name, name), "guess + check") for name in suspects]
        if "learn_to_correct" not in arms and "essay" in arms:
            on_base.append(against("essay", BASE, "correct", "guess + check"))
    recipe = next((name for name in ("essay", "learn_to_correct") if name in arms), None)
    on_essay = [
        against(name, recipe, suspect, "the essay's recipe")
        for name, suspect in (
            ("full_minus_search", "process"),
            ("full_minus_process", "search"),
            ("full", "full"),
        )
        if recipe and name in arms
    ]
    return {"guess + check": on_base, "the essay's recipe": on_essay}


def placebos(arms: Iterable[str]) -> list[Contrast]:
    """Every arm minus its placebos."""
    there = set(arms)
    return [
        against(name, placebo, SUSPECT_OF[name], f"its placebo {placebo}")
        for name, names in PLACEBOS.items()
        for placebo in names
        if {name, placebo} <= there
    ]


def cells(arms: Iterable[str]) -> tuple[dict[tuple[int, int, int], str], list[str]]:
    """(cell -> arm, the missing cells' strategies)."""
    there = set(arms)
    found = {cell: next((name for name in names if name in there), None) for cell, names in CELLS.items()}
    missing = [" or ".join(CELLS[cell]) for cell, name in found.items() if name is None]
    return {cell: name for cell, name in found.items() if name is not None}, missing


def simple_effects(grid: Mapping[tuple[int, int, int], str]) -> list[Contrast]:
    """Each factor's effect in every combination of the others whose two cells exist."""
    out = []
    for index, factor in enumerate(FACTORS):
        for cell in sorted(grid):
            partner = (*cell[:index], 1, *cell[index + 1 :])
            if cell[index] == 0 and partner in grid:
                out.append(against(grid[partner], grid[cell], factor, grid[cell]))  # type: ignore[index]
    return out


def main_effects(grid: Mapping[tuple[int, int, int], str]) -> list[Contrast]:
    """Each factor's effect, the mean of its four simple effects; `grid` is complete."""
    return [
        Contrast(
            TITLES[factor],
            factor,
            "the mean of all combinations",
            tuple((grid[cell], 0.25 if cell[index] else -0.25) for cell in sorted(grid, reverse=True)),
        )
        for index, factor in enumerate(FACTORS)
    ]


def interactions(grid: Mapping[tuple[int, int, int], str]) -> list[Contrast]:
    """How much one factor's effect changes with another; `grid` is complete. Exploratory."""
    out = []
    for (i, first), (j, second) in combinations(enumerate(FACTORS), 2):
        signs = {cell: (1 if cell[i] == cell[j] else -1) for cell in product((0, 1), repeat=3)}
        weights = tuple((grid[cell], 0.5 * signs[cell]) for cell in sorted(grid, reverse=True))  # type: ignore[index]
        out.append(Contrast(f"{TITLES[first]} x {TITLES[second].lower()}", f"{first} x {second}", "", weights))
    return out
