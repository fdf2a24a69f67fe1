"""Countdown: reach a target from a few numbers, each used once. The embedded default task.

The text of problems and answers is described in `derivation`, the rules of the game in `arithmetic`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from math import factorial
from random import Random

from ablate.randomness import hash64
from ablate.tasks import arithmetic, derivation
from ablate.tasks.arithmetic import Instance, Numbers, Pool
from ablate.tasks.demonstrate import Demonstrator
from ablate.tasks.derivation import LARGEST_CEILING, SYMBOLS, read_lines, write, write_check, write_step
from ablate.tasks.jsonl import read_jsonl
from ablate.tasks.streams import permuted
from ablate.types import Problem, UserError

SPLITS = ("train", "tuning", "heldout")


@dataclass
class Countdown:
    """Problems over `numbers` numbers in 1..`largest`; every result is a whole number in 1..`ceiling`.

    Problems are split by their multiset of numbers: `heldout_percent` of the multisets (by checksum) are
    judged on, `tuning_percent` serve to tune learning rates, and the others are trained on. Where a
    configuration has more than `arithmetic.MOST_MULTISETS` multisets, that many are drawn, always the same.

    problem_file: JSON lines `{"numbers": [8, 9, 4], "target": 44}` to train on instead; tuning and held-out
        problems stay as they are, and a line that uses one of their multisets is refused.
    """

    numbers: int = 3
    largest: int = 20
    ceiling: int = 49
    heldout_percent: int = 15
    tuning_percent: int = 5
    problem_file: str | None = None

    # without annotations, these are no fields of the configuration
    name = "countdown"
    step_boundary = derivation.NEWLINE
    correction = write(derivation.RESTART)

    def __post_init__(self) -> None:
        check_range("numbers", self.numbers, 2, 5)
        check_range("ceiling", self.ceiling, 2, LARGEST_CEILING)
        check_range("largest", self.largest, 2, self.ceiling)
        check_range("heldout_percent", self.heldout_percent, 1, 98)
        check_range("tuning_percent", self.tuning_percent, 0, 99 - self.heldout_percent)

    def vocabulary(self) -> list[str]:
        """Every word of prompts and answers, numbers first; special tokens are the model's."""
        return [*map(str, range(self.ceiling + 1)), *SYMBOLS]

    @cached_property
    def pool(self) -> Pool:
        """All enumerated problems; made at first use, shared by equal configurations."""
        pool = arithmetic.pool(
            self.numbers, self.largest, self.ceiling, self.heldout_percent, self.tuning_percent
        )
        for split in ("train", "heldout"):
            if not pool.splits[split]:
                raise UserError(
                    f"task.largest={self.largest} leaves the {split} split empty: use a larger one"
                )
        return pool

    def size(self, split: str) -> int:
        """Number of distinct problems in a split."""
        return len(self._instances(split))

    def problem(self, seed: int, split: str, index: int) -> Problem:
        """A pure function. train and tuning: every `size` indices are a permutation of the split, another one
        for each seed and epoch. heldout: the index-th of a fixed list in random order; the seed is ignored.

        Raises IndexError past the end of heldout, ValueError for an unknown split or an empty one.
        """
        instances = self._instances(split)
        if split == "heldout":
            if not 0 <= index < len(instances):
                raise IndexError(f"heldout has {len(instances)} problems, there is no number {index}")
            return self._problem(instances[index])
        return self._problem(instances[permuted(seed, split, index, len(instances))])

    def verify(self, problem: Problem, completion: str) -> bool:
        """Is the attempt that stands at the end right? See `derivation`. Never raises on any text."""
        lines, unfinished = read_lines(completion)
        return not unfinished and derivation.accepts(lines, *terms(problem), self.ceiling)

    def answer(self, problem: Problem, completion: str) -> str:
        """What majority votes are counted over: the attempt that stands at the end."""
        lines, unfinished = read_lines(completion)
        return derivation.standing(lines) + " ".join(unfinished)

    def oracle(self, problem: Problem, completion_prefix: str) -> float:
        """1.0 if the attempt that stands at the end of the prefix can still be accepted, else 0.0.

        Exact. An illegal line makes it 0.0 until a restart, which makes it 1.0 again; a line that is not
        complete yet is not read.
        """
        lines, _ = read_lines(completion_prefix)
        return float(derivation.reachable(lines, *terms(problem), self.ceiling))

    def behaviours(self, problem: Problem, completion: str) -> dict[str, float]:
        """Counts of complete lines: attempts, restarts, steps, illegal_steps, checks, wrong_checks; and
        gave_up (1.0 if the answer ends on a check of its own that is not `ok`)."""
        lines, unfinished = read_lines(completion)
        found = derivation.conduct(lines, unfinished, *terms(problem), self.ceiling)
        return {name: float(count) for name, count in asdict(found).items()}

    def demonstrations(
        self,
        seed: int,
        count: int,
        skill: float = 0.1,
        persistence: float = 0.6,
        bail: float = 0.05,
        longest: int = 128,
    ) -> Iterator[tuple[Problem, str]]:
        """`count` training problems with a mediocre demonstrator's answers (without an end token).

        The chances are those of `demonstrate.Demonstrator`. A pure function of its arguments.
        """
        demonstrator = Demonstrator(skill, persistence, bail, longest)
        stream = hash64("demonstrations", seed)
        for index in range(count):
            problem = self.problem(stream, "train", index)
            rng = Random(hash64("demonstration", seed, index))
            yield problem, demonstrator.answer(*terms(problem), self.ceiling, rng)

    def demonstrate(self, problem: Problem, rng: Random) -> str:
        """One answer of the mediocre demonstrator with its default settings (without an end token)."""
        return Demonstrator().answer(*terms(problem), self.ceiling, rng)

    def solutions(self, problem: Problem, most: int | None = None) -> list[str]:
        """Correct answers of one attempt, at most `most` of them; sums and products in one order only."""
        numbers, target = terms(problem)
        return list(islice(self._derivations(numbers, target), most))

    def _derivations(self, left: Numbers, target: int) -> Iterator[str]:
        if len(left) == 1:
            yield write_check(target, target)
            return
        written = set()  # equal numbers at different positions make the same step
        for move in arithmetic.moves(left, self.ceiling):
            step = write_step(move)
            if step not in written and target in arithmetic.chances(move.after, self.ceiling):
                written.add(step)
                yield from (step + rest for rest in self._derivations(move.after, target))

    def _instances(self, split: str) -> tuple[Instance, ...]:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
        if split == "train" and self.problem_file is not None:
            return self._own_problems
        return self.pool.splits[split]

    @cached_property
    def _own_problems(self) -> tuple[Instance, ...]:
        assert self.problem_file is not None
        seen: dict[tuple[Numbers, int], str] = {}
        found = []
        for where, item in read_jsonl(self.problem_file):
            instance = self._own_problem(item, where)
            first = seen.setdefault(instance[:2], where)
            if first != where:
                raise UserError(f"{where}: the same problem as {first}")
            found.append(instance)
        if not found:
            raise UserError(f"{self.problem_file}: holds no problems")
        return tuple(found)

    def _own_problem(self, item: dict, where: str) -> Instance:
        for key in ("numbers", "target"):
            if key not in item:
                raise UserError(f"{where}: no {key!r} among {', '.join(map(repr, item)) or 'no keys'}")
        numbers, target = item["numbers"], item["target"]
        if not isinstance(numbers, list) or len(numbers) != self.numbers:
            raise UserError(f"{where}: numbers={numbers!r} must be a list of task.numbers={self.numbers}")
        for number in (*numbers, target):
            if type(number) is not int or not 1 <= number <= self.ceiling:
                raise UserError(f"{where}: {number!r} is not a whole number in 1..{self.ceiling}")
        split = arithmetic.split_of(tuple(numbers), self.heldout_percent, self.tuning_percent)
        if split != "train":
            raise UserError(f"{where}: numbers={numbers} belong to the {split} split, not to be trained on")
        if target not in arithmetic.chances(tuple(numbers), self.ceiling):
            raise UserError(f"{where}: target={target} cannot be reached from numbers={numbers}")
        return arithmetic.instance(tuple(numbers), target, self.ceiling)

    def _problem(self, instance: Instance) -> Problem:
        numbers = _shuffled(instance.numbers, instance.target)
        cluster = ",".join(map(str, instance.numbers))
        return Problem(
            id=f"{cluster}:{instance.target}",
            prompt=write(*numbers, ":", instance.target),
            answer={"numbers": numbers, "target": instance.target},
            cluster=cluster,
            difficulty=instance.chance,
            stratum=self.pool.stratum(instance.chance),
        )


def terms(problem: Problem) -> tuple[Numbers, int]:
    """The numbers of a Countdown problem, in the prompt's order, and its target."""
    return problem.answer["numbers"], problem.answer["target"]


def _shuffled(numbers: Numbers, target: int) -> Numbers:
    """A fixed random order for each problem, so that the position of a number says nothing."""
    code = hash64("shuffle", numbers, target) % factorial(len(numbers))
    left, order = list(numbers), []
    while left:
        code, place = divmod(code, len(left))
        order.append(left.pop(place))
    return tuple(order)


def check_range(key: str, value: int, low: int, high: int) -> None:
    """Raises UserError unless low <= value <= high."""
    if not low <= value <= high:
        nearest = min(max(value, low), high)
        raise UserError(f"task.{key}={value} must be in {low}..{high} (nearest: {nearest})")
