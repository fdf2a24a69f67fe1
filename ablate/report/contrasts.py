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

Cell = tuple[int, int, int]  # (search, correct, process): 1 with it, 0 without

PARTS = ("source", "recovery", "credit")  # of a strategy
FACTORS = ("search", "correct", "process")
AXES = (("sample", "tree"), ("none", "correct"), ("outcome", "process"))
ALONE: dict[str, Cell] = {"process": (0, 0, 1), "search": (1, 0, 0), "correct": (0, 1, 0)}
NOTHING: Cell = (0, 0, 0)
TITLES = {
    "search": "Search",
    "correct": "Learning to correct",
    "process": "Process rewards",
    "full": "All suspects at once",
}
NAMES: dict[Cell, tuple[str, ...]] = {
    (0, 0, 0): ("guess_check",),
    (0, 0, 1): ("process_rewards",),
    (0, 1, 0): ("learn_to_correct", "essay"),
    (0, 1, 1): ("full_minus_search",),
    (1, 0, 0): ("mcts",),
    (1, 0, 1): ("full_minus_correct",),
    (1, 1, 0): ("full_minus_process",),
    (1, 1, 1): ("full",),
}
# strategies of a cell, its name in a sweep over the axes (tree+none+outcome) included; the first that ran
# stands for it
CELLS: dict[Cell, tuple[str, ...]] = {
    cell: (*names, "+".join(axis[chosen] for axis, chosen in zip(AXES, cell, strict=True)))
    for cell, names in NAMES.items()
}
CELL_OF = {name: cell for cell, names in CELLS.items() for name in names}
# suspect -> its placebos, which spend the same without the idea
PLACEBOS = {
    "process": ("process_shuffled",),
    "search": ("mcts_uniform",),
    "correct": ("correct_resampled", "correct_always"),
}
# what any use of the compute should beat
FLOORS = ("guess_check_wide", "rejection_sft", "more_demonstrations")
ON_ESSAY = "the essay's recipe"
ESSAY = "essay"  # learn_to_correct by another name: what others are added to
OUTSIDE = ".Turns"  # credit of two-turn answers: plain decoding does not rank them (SCoRe)
SIMPLE = "simple effect"  # of the factorial: it has no verdict of its own
PRIVILEGED = "oracle"
OWN_VALUES = "monte_carlo"  # the scorer whose values are the policy's own


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


def against(arm: str, other: str, suspect: str, on: str, title: str = "") -> Contrast:
    """One arm minus another."""
    return Contrast(title or TITLES.get(suspect, suspect), suspect, on, ((arm, 1.0), (other, -1.0)))


def role(name: str, strategy: Mapping[str, Any]) -> str:
    """base | suspect | combination | placebo | floor | upper bound | outside, from an arm's name and its
    strategy's config.

    upper bound: something in it is chosen to be the exact oracle, which is free and knows the answers.
    """
    if PRIVILEGED in _values(strategy):
        return "upper bound"
    if str(strategy["credit"]["_target_"]).endswith(OUTSIDE):
        return "outside"
    if name in CELL_OF:
        suspects = len(FACTORS) if name == ESSAY else sum(CELL_OF[name])
        return ("base", "suspect", "combination", "combination")[suspects]
    if name in FLOORS:
        return "floor"
    return "placebo" if any(name in names for names in PLACEBOS.values()) else "suspect"


def _values(node: Any) -> Iterator[Any]:
    for item in node.values() if isinstance(node, Mapping) else [node]:
        yield from _values(item) if isinstance(item, Mapping) else (item,)


def roles(experiment: Experiment) -> dict[str, str]:
    """The role of every arm; "variant": one strategy's runs at settings that differ from others' of it."""
    return {
        run.arm: "variant" if run.label else role(run.arm, run.config["strategy"]) for run in experiment.runs
    }


def parts(strategy: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of the three factors a strategy is made with."""
    source, recovery, credit = (str(strategy[part]["_target_"]) for part in PARTS)
    made = {
        "search": source.endswith(".Tree"),
        "correct": not recovery.endswith(".NoRecovery"),
        "process": credit.endswith(".Process"),
    }
    return tuple(factor for factor in FACTORS if made[factor])


def added(experiment: Experiment, weights: Iterable[tuple[str, float]]) -> tuple[str, ...]:
    """The factors that a contrast's arms have and those that they are compared with lack."""
    made = {run.arm: parts(run.config["strategy"]) for run in experiment.runs}
    sides = [[set(made[arm]) for arm, weight in weights if weight * sign > 0] for sign in (1, -1)]
    if not all(sides):
        return ()
    everywhere, anywhere = set.intersection(*sides[0]), set.union(*sides[1])
    return tuple(factor for factor in FACTORS if factor in everywhere - anywhere)


def rung(strategy: Mapping[str, Any]) -> str | None:
    """The scorer of a strategy that differs from guess + check in process rewards alone; None for any other,
    for placebos, and for the naive form, which is wrong on purpose."""
    credit, source = strategy["credit"], str(strategy["source"]["_target_"])
    scorer = credit.get("scorer")
    naive = credit.get("form") == "difference" and scorer != OWN_VALUES
    altered = credit.get("shuffle") or float(credit.get("until") or 1.0) < 1.0
    plain = parts(strategy) == ("process",) and source.endswith(".Sample")
    return str(scorer) if plain and scorer and not naive and not altered else None


def rungs(experiment: Experiment) -> dict[str, str]:
    """Arm -> scorer, of those on the oracle ladder."""
    roles_of = roles(experiment)
    found = {run.arm: rung(run.config["strategy"]) for run in experiment.runs}
    return {
        name: scorer
        for name, scorer in found.items()
        if scorer is not None and roles_of[name] in ("suspect", "upper bound")
    }


def base(arms: Mapping[str, str]) -> str | None:
    """The arm that all others are compared with, if it ran. arms: name -> role."""
    return cells(arms)[0].get(NOTHING)


def families(arms: Mapping[str, str], ladder: Iterable[str] = ()) -> list[list[Contrast]]:
    """The headline families: every suspect on top of guess + check, and on top of the essay's recipe (guess +
    check + correct). arms: name -> role.

    ladder: arms with process rewards by one scorer or another. Beside process_rewards itself they are no
    suspects of their own, and widen nobody's interval; without it, they stand for it.
    """
    grid, plain = cells(arms)[0], base(arms)
    on_base, on_essay = [], []
    if plain:
        known = [(grid[cell], suspect, "") for suspect, cell in ALONE.items() if cell in grid]
        own = [name for name in sorted(arms) if arms[name] == "suspect" and name not in CELL_OF]
        scorers = [name for name in own if name in set(ladder)]
        if ALONE["process"] not in grid:
            alone = len(scorers) == 1
            titles = [f"{TITLES['process']} ({name})" for name in scorers]
            stand_in = [
                (name, "process" if alone else name, title)
                for name, title in zip(scorers, titles, strict=True)
            ]
            known = stand_in + known
        known += [(name, name, "") for name in own if name not in scorers]
        on_base = [against(name, plain, suspect, "guess + check", title) for name, suspect, title in known]
    recipe = ESSAY if ESSAY in arms else grid.get(ALONE["correct"])
    if recipe:
        extra: tuple[tuple[str, Cell], ...]
        extra = (("process", (0, 1, 1)), ("search", (1, 1, 0)), ("full", (1, 1, 1)))
        on_essay = [against(grid[cell], recipe, suspect, ON_ESSAY) for suspect, cell in extra if cell in grid]
    return [on_base, on_essay]


def placebos(arms: Mapping[str, str]) -> list[Contrast]:
    """Every suspect's arm minus its placebos. arms: name -> role."""
    grid = cells(arms)[0]
    return [
        against(grid[ALONE[suspect]], placebo, suspect, f"its placebo {placebo}")
        for suspect, names in PLACEBOS.items()
        for placebo in names
        if ALONE[suspect] in grid and arms.get(placebo) == "placebo"
    ]


def cells(arms: Mapping[str, str]) -> tuple[dict[Cell, str], list[str]]:
    """(cell -> arm, the missing cells' strategies). arms: name -> role; upper bounds fill no cell."""
    there = {name for name, role in arms.items() if role in ("base", "suspect", "combination")}
    found = {cell: next((name for name in names if name in there), None) for cell, names in CELLS.items()}
    missing = [" or ".join(CELLS[cell]) for cell, name in found.items() if name is None]
    return {cell: name for cell, name in found.items() if name is not None}, missing


def simple_effects(grid: Mapping[Cell, str]) -> list[Contrast]:
    """Each factor's effect in every combination of the others whose two cells exist."""
    out = []
    for index, factor in enumerate(FACTORS):
        for cell in sorted(grid):
            search, correct, process = (max(value, k == index) for k, value in enumerate(cell))
            partner = search, correct, process
            if cell[index] == 0 and partner in grid:
                out.append(against(grid[partner], grid[cell], factor, grid[cell]))
    return out


def main_effects(grid: Mapping[Cell, str]) -> list[Contrast]:
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


def interactions(grid: Mapping[Cell, str]) -> list[Contrast]:
    """How much one factor's effect changes with another; `grid` is complete. Exploratory."""
    out = []
    for (i, first), (j, second) in combinations(enumerate(FACTORS), 2):
        signs = {cell: (1 if cell[i] == cell[j] else -1) for cell in product((0, 1), repeat=3)}
        weights = tuple((grid[cell], 0.5 * signs[cell]) for cell in sorted(grid, reverse=True))
        title = f"{TITLES[first]} x {TITLES[second].lower()}"
        out.append(Contrast(title, f"{first} x {second}", "the mean over the third", weights))
    return out
