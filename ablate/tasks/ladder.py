"""A ladder: a secret of its own for every rung, and a fall that is easier to see than to avoid.

A control for search and for credit per step. The prompt names a rung for every height. Each step takes the
left or the right half of the next one, and one of them holds: a fixed secret of every kind of rung at every
height. A climb is right if every rung held. After a misstep the climber notices that they fell, and can do no
more::

    1c 2f 3a 4d :       prompt
    1c-left             answer
    2f-right            it held
    fell                2f did not

So a dead end is plain to see, but nothing in it says which half would have held instead; what a rung high up
has to teach is taught only to climbs that get there; and no rung teaches anything about another one. Chance
climbs `rungs` rungs once in 2^rungs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from string import ascii_lowercase

from ablate.randomness import hash64
from ablate.tasks.countdown import SPLITS, check_range
from ablate.tasks.derivation import NEWLINE, Line, read_lines, write
from ablate.tasks.streams import permuted
from ablate.types import Problem, UserError

SIDES = ("left", "right")
FELL = "fell"
OPENING = ": \n "  # ends a problem's prompt


@dataclass
class Ladder:
    """`rungs` heights with `kinds` kinds of rung each; `problems` different ladders, always the same ones, of
    which `heldout_percent` are judged on and `tuning_percent` serve to tune.

    seen: lines that follow a misstep say so; otherwise the climber goes on as if nothing had happened.
    """

    rungs: int = 14
    kinds: int = 8
    seen: bool = True
    problems: int = 10_000
    heldout_percent: int = 10
    tuning_percent: int = 5

    # without annotations, these are no fields of the configuration
    name = "ladder"
    step_boundary = NEWLINE

    def __post_init__(self) -> None:
        check_range("rungs", self.rungs, 2, 64)
        check_range("kinds", self.kinds, 2, len(ascii_lowercase))
        check_range("problems", self.problems, 100, 1_000_000)
        check_range("heldout_percent", self.heldout_percent, 1, 98)
        check_range("tuning_percent", self.tuning_percent, 0, 99 - self.heldout_percent)
        if self.kinds**self.rungs < 2 * self.problems:
            raise UserError(
                f"task.problems={self.problems} is more than half of the {self.kinds**self.rungs} ladders of "
                f"task.rungs={self.rungs} and task.kinds={self.kinds}"
            )

    def vocabulary(self) -> list[str]:
        """Every word of prompts and answers; special tokens are the model's."""
        rungs = [rung(height, kind) for height in range(self.rungs) for kind in range(self.kinds)]
        halves = [half(name, side) for name in rungs for side in SIDES]
        return [*rungs, *halves, FELL, ":", NEWLINE]

    def size(self, split: str) -> int:
        """Number of distinct problems in a split."""
        return len(self._range(split))

    def problem(self, seed: int, split: str, index: int) -> Problem:
        """A pure function. train and tuning: every `size` indices are a permutation of the split, another one
        for each seed and epoch. heldout: the index-th of a fixed list; the seed is ignored.

        Raises IndexError past the end of heldout, ValueError for an unknown split or an empty one.
        """
        numbers = self._range(split)
        if split != "heldout":
            index = permuted(seed, split, index, len(numbers))
        elif not 0 <= index < len(numbers):
            raise IndexError(f"heldout has {len(numbers)} problems, there is no number {index}")
        kinds = self._pool[numbers[index]]
        rungs = [rung(height, kind) for height, kind in enumerate(kinds)]
        holds = [self._secret[height][kind] for height, kind in enumerate(kinds)]
        slips = [SIDES[1 - SIDES.index(side)] for side in holds]
        return Problem(
            id=" ".join(rungs),
            cluster=" ".join(rungs),
            prompt=write(*rungs, ":"),
            answer={"holds": tuple(map(half, rungs, holds)), "slips": tuple(map(half, rungs, slips))},
            difficulty=0.5**self.rungs,
        )

    def verify(self, problem: Problem, completion: str) -> bool:
        """Did every rung hold? Never raises on any text."""
        lines, unfinished = read_lines(completion)
        return not unfinished and lines == [[word] for word in problem.answer["holds"]]

    def parts(self, problem: Problem, completion: str) -> list[bool]:
        """Which rungs held before the first misstep, in complete lines."""
        lines, _ = read_lines(completion)
        held = self._held(problem, lines)
        return [height < held for height in range(self.rungs)]

    def answer(self, problem: Problem, completion: str) -> str:
        """What majority votes are counted over: the whole climb."""
        return completion.strip(" ")

    def oracle(self, problem: Problem, completion_prefix: str) -> float:
        """1.0 if every rung held so far, in complete lines, else 0.0. Exact."""
        lines, _ = read_lines(completion_prefix)
        return float(self._held(problem, lines) == len(lines))

    def behaviours(self, problem: Problem, completion: str) -> dict[str, float]:
        """Counts of complete lines: steps; illegal_steps, which are not about where the climber is; and held,
        rungs before the first misstep, those in the prompt of a demonstration, too."""
        given = problem.prompt.partition(OPENING)[2]
        start = given.count(NEWLINE)
        lines, _ = read_lines(given + completion)
        fallen, illegal = False, 0
        for i, line in enumerate(lines[start:], start):
            if i >= self.rungs:
                illegal += 1
                continue
            holds, slips = problem.answer["holds"][i], problem.answer["slips"][i]
            illegal += line not in ([[FELL]] if fallen and self.seen else [[holds], [slips]])
            fallen = fallen or line != [holds]
        held = self._held(problem, lines)
        return {"steps": float(len(lines) - start), "illegal_steps": float(illegal), "held": float(held)}

    def demonstrations(
        self,
        seed: int,
        count: int,
        skill: float = 0.0,
        persistence: float = 1.0,
        bail: float = 0.0,
        longest: int = 128,
    ) -> Iterator[tuple[Problem, str]]:
        """`count` training problems with a climber's answers (without an end token).

        A demonstration begins at a random height: the climb up to there is part of its problem's prompt and
        so not learned. Otherwise rungs high up would hardly be seen: chance seldom gets there.

        skill: chance of taking the half that holds on purpose; otherwise a coin decides. persistence: chance,
        after a misstep and then after every line, of another line, up to one per rung. bail: chance to stop
        after a rung that held. longest: most tokens, with prompt, start and end token; raises UserError if a
        climb is longer.
        """
        tokens = 3 * self.rungs + 4  # rungs, colon, newline; two words a line; start and end
        if tokens > longest:
            need = f"use at least {tokens}"
            raise UserError(f"longest={longest} has no room for task.rungs={self.rungs}: {need}")
        stream = hash64("demonstrations", seed)
        for index in range(count):
            problem = self.problem(stream, "train", index)
            rng = Random(hash64("demonstration", seed, index))
            start = int(rng.random() * self.rungs)
            given = _text(problem.answer["holds"][:start])
            answer = self._attempt(problem, rng, skill, persistence, bail, start)
            yield replace(problem, prompt=problem.prompt + given), answer

    def demonstrate(self, problem: Problem, rng: Random) -> str:
        """One answer of the climber who knows nothing (without an end token)."""
        return self._attempt(problem, rng, 0.0, 1.0, 0.0)

    def solutions(self, problem: Problem, most: int | None = None) -> list[str]:
        """The one right answer."""
        return [_text(problem.answer["holds"])][:most]

    def _attempt(
        self, problem: Problem, rng: Random, skill: float, persistence: float, bail: float, start: int = 0
    ) -> str:
        """The lines of a climb from the height `start` on."""
        words: list[str] = []
        fallen = False
        for height in range(start, self.rungs):
            on_purpose, coin = rng.random() < skill, rng.random() < 0.5
            holds = on_purpose or coin
            words.append(
                FELL if fallen and self.seen else problem.answer["holds" if holds else "slips"][height]
            )
            fallen = fallen or not holds
            if rng.random() >= (persistence if fallen else 1.0 - bail):
                break
        return _text(words)

    def _held(self, problem: Problem, lines: Sequence[Line]) -> int:
        """How many rungs held before the first misstep."""
        held = 0
        for line, word in zip(lines, problem.answer["holds"], strict=False):
            if line != [word]:
                break
            held += 1
        return held

    def _range(self, split: str) -> range:
        """The pool's numbers of a split."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
        heldout = self.problems * self.heldout_percent // 100
        tuning = heldout + self.problems * self.tuning_percent // 100
        return {
            "heldout": range(heldout),
            "tuning": range(heldout, tuning),
            "train": range(tuning, self.problems),
        }[split]

    @cached_property
    def _pool(self) -> list[tuple[int, ...]]:
        """All ladders, as kinds by height, in random order."""
        rng = Random(hash64("ladders", self.rungs, self.kinds))
        pool: dict[tuple[int, ...], None] = {}
        while len(pool) < self.problems:
            pool[tuple(int(rng.random() * self.kinds) for _ in range(self.rungs))] = None
        return list(pool)

    @cached_property
    def _secret(self) -> list[list[str]]:
        """The half that holds, by height and kind; at every height each half holds as often as the other."""
        secret = []
        for height in range(self.rungs):
            order = sorted(range(self.kinds), key=lambda kind: hash64("rung", height, kind))
            secret.append([SIDES[order.index(kind) % 2] for kind in range(self.kinds)])
        return secret


def rung(height: int, kind: int) -> str:
    """The name of a kind of rung at a height, both from 0."""
    return f"{height + 1}{ascii_lowercase[kind]}"


def half(name: str, side: str) -> str:
    """The word for a step on a half of a rung."""
    return f"{name}-{side}"


def _text(words: Iterable[str]) -> str:
    return "".join(map(write, words))
