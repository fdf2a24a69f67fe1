"""Tasks whose problems are made on demand: pure functions of (seed, split, index), each hashed on its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ablate.randomness import hash64
from ablate.tasks.prose import Prose, check_range, need_split, text_key
from ablate.types import Problem, UserError

MOST_DRAWS = 2000  # until a problem falls into its split


@dataclass
class Generated(Prose):
    """heldout_problems, tuning_problems, epoch: sizes of the splits. The held-out problems are always the
    same; others are new at every index, and an epoch is no more than a number of problems.

    A problem belongs to a split by its text, so no text is in two splits; problems that are the same are in
    one cluster.
    """

    heldout_problems: int = 500
    tuning_problems: int = 200
    epoch: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("heldout_problems", "tuning_problems", "epoch"):
            check_range(key, getattr(self, key), 1, 10_000_000)

    def size(self, split: str) -> int:
        """heldout: number of problems; tuning, train: problems that count as an epoch."""
        need_split(split)
        return {"heldout": self.heldout_problems, "tuning": self.tuning_problems, "train": self.epoch}[split]

    def problem(self, seed: int, split: str, index: int) -> Problem:
        """A pure function; heldout ignores the seed.

        Raises IndexError past the end of heldout, ValueError for an unknown split or a negative index,
        UserError where the generator makes too few problems for a split.
        """
        need_split(split)
        if index < 0:
            raise ValueError(f"no problem {index}")
        if split == "heldout":
            if index >= self.heldout_problems:
                raise IndexError(f"heldout has {self.heldout_problems} problems, there is no number {index}")
            seed = 0
        for attempt in range(MOST_DRAWS):
            key = hash64(self._recipe(), seed, split, index, attempt)
            problem = self._made(key)
            cluster = text_key(problem.id)
            if self._split_of(cluster) == split:
                return replace(problem, id=f"{cluster}-{key:016x}", cluster=cluster)
        raise UserError(
            f"{self._recipe()}: no problem of {MOST_DRAWS} is for the {split} split: make it larger"
        )

    def _recipe(self) -> str:
        """What the problems are made by: other settings, other problems."""
        raise NotImplementedError

    def _made(self, key: int) -> Problem:
        """The problem of a 64-bit key; its `id` is the text that it is told apart by."""
        raise NotImplementedError
