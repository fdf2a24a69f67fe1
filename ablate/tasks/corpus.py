"""Tasks whose problems are rows of a data set: read, told apart by their text, and split once and for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from ablate.randomness import hash64
from ablate.tasks.arithmetic import tercile_bounds
from ablate.tasks.prose import Prose, need_split, text_key
from ablate.tasks.sources import Row, Source, local_rows
from ablate.tasks.streams import permuted
from ablate.types import Problem, UserError


@dataclass
class Corpus(Prose):
    """path: a file or folder of problems of your own, instead of `train` and `heldout`. train, heldout: data
    sets of the hub to train and tune on, and to be judged on; where there are no held-out rows, they are
    taken from the others.

    A problem is its text, but for case and white space: problems that are the same are in one split and in
    one cluster, and one that is held out is not trained on, whatever the data sets say.
    """

    path: str | None = None
    train: Source = field(default_factory=Source)
    heldout: Source = field(default_factory=lambda: Source(split="test"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None and self.train.dataset is None:
            raise UserError("task.path is not set: name a .jsonl file or a folder, or set task.train.dataset")

    def size(self, split: str) -> int:
        """Number of problems in a split. Raises UserError for rows that cannot be read."""
        need_split(split)
        return len(self._pool[split])

    def problem(self, seed: int, split: str, index: int) -> Problem:
        """A pure function. train and tuning: every `size` indices are a permutation of the split, another one
        for each seed and epoch. heldout: the index-th of a fixed list in random order; the seed is ignored.

        Raises IndexError past the end of heldout, ValueError for an unknown split or an empty one.
        """
        need_split(split)
        problems = self._pool[split]
        if split == "heldout":
            if not 0 <= index < len(problems):
                raise IndexError(f"heldout has {len(problems)} problems, there is no number {index}")
            return problems[index]
        return problems[permuted(seed, split, index, len(problems))]

    def left_out(self) -> int:
        """How many rows were not taken for training, because the same problems are held out."""
        return self._sorted[1]

    @property
    def _pool(self) -> dict[str, tuple[Problem, ...]]:
        return self._sorted[0]

    @cached_property
    def _sorted(self) -> tuple[dict[str, tuple[Problem, ...]], int]:
        rows = self._rows()
        drawn = "heldout" not in rows  # the data set does not say what is held out
        pools: dict[str, list[Problem]] = {"train": [], "tuning": [], "heldout": []}
        pools["heldout"] = [self._keyed(row) for row in rows.get("heldout", ())]
        taken = {problem.cluster for problem in pools["heldout"]}
        left_out = 0
        for row in rows["train"]:
            problem = self._keyed(row)
            split = self._split_of(problem.cluster)
            if problem.cluster in taken:
                left_out += 1
            elif split == "heldout" and not drawn:
                pools["train"].append(problem)
            else:
                pools[split].append(problem)
        for split in ("train", "heldout"):
            if not pools[split]:
                raise UserError(f"{self._origin}: no problem is left for the {split} split; add problems")
        pools["heldout"].sort(key=lambda problem: hash64("heldout", problem.cluster))
        named = _numbered(pools)
        return _with_strata(named), left_out

    def _rows(self) -> dict[str, list[Row]]:
        """Rows by split: train, and heldout where the data set says so."""
        if self.path is None:
            found = {"train": self.train.rows("task.train")}
            if self.heldout.dataset is not None:
                found["heldout"] = self.heldout.rows("task.heldout")
            return found
        given = local_rows(self.path)
        if len(given) == 2:
            return {"train": given["train"], "heldout": given["test"]}
        rows = [row for rows in given.values() for row in rows]
        if not rows:
            raise UserError(f"task.path={self.path}: holds no problems")
        return {"train": rows}

    @property
    def _origin(self) -> str:
        return (
            f"task.path={self.path}" if self.path is not None else f"task.train.dataset={self.train.dataset}"
        )

    def _keyed(self, row: Row) -> Problem:
        problem = self._problem(row)
        return replace(problem, cluster=text_key(problem.id))

    def _problem(self, row: Row) -> Problem:
        """The problem in a row; its `id` is the text that it is told apart by. Raises UserError, naming the
        row."""
        raise NotImplementedError


def _numbered(pools: dict[str, list[Problem]]) -> dict[str, tuple[Problem, ...]]:
    """Each problem named after its text; of several with the same, by their order, too."""
    seen: Counter[str] = Counter()
    found: dict[str, tuple[Problem, ...]] = {}
    for split, problems in pools.items():
        named = []
        for problem in problems:
            seen[problem.cluster] += 1
            count = seen[problem.cluster]
            named.append(replace(problem, id=problem.cluster + (f"-{count}" if count > 1 else "")))
        found[split] = tuple(named)
    return found


def _with_strata(pools: dict[str, tuple[Problem, ...]]) -> dict[str, tuple[Problem, ...]]:
    """easy, medium and hard: a third of all problems each, as nearly as ties allow, where every problem has a
    difficulty."""
    known = [problem.difficulty for problems in pools.values() for problem in problems]
    if None in known or len(set(known)) < 3:
        return pools
    easy, medium = tercile_bounds([value for value in known if value is not None])

    def stratum(value: float | None) -> str:
        assert value is not None
        return "easy" if value <= easy else "medium" if value <= medium else "hard"

    def stratified(problems: Iterable[Problem]) -> tuple[Problem, ...]:
        return tuple(replace(problem, stratum=stratum(problem.difficulty)) for problem in problems)

    return {split: stratified(problems) for split, problems in pools.items()}
