"""A chain: several independent Countdown problems in one episode, right only if all of them are.

A positive control: credit for each link must beat credit for the whole. The prompt poses all links, each
under a label, and opens the first one; the answer opens the others, in order, by repeating their lines::

    #1 8 9 4 : 44       prompt
    #2 3 5 7 : 22
    #1 8 9 4 : 44
    4 * 9 = 36 , 8      answer
    36 + 8 = 44
    44 ok
    #2 3 5 7 : 22
    3 * 5 = 15 , 7
    ...

A label closes the link before it and opens its own. What stands between two openings is read like an answer
to Countdown; `no` restarts the link it stands in. Links that are skipped are wrong. An opening that is not
the prompt's line is an illegal line of the link that it opens; a line whose label does not lead on is one of
the link that it stands in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import prod
from random import Random
from typing import Literal

from ablate.randomness import hash64
from ablate.tasks import derivation
from ablate.tasks.arithmetic import Numbers, tercile_bounds
from ablate.tasks.countdown import Countdown, check_range, terms
from ablate.tasks.demonstrate import Demonstrator
from ablate.tasks.derivation import Line, read_lines
from ablate.types import Problem, UserError

LABEL = "#"  # what a label begins with


@dataclass
class Chain:
    """`links` problems of `base` in one episode; the splits are those of `base`.

    steps: what a step is: a "line", or a "link" with the label that closes it, so that credit per step is
    credit per link.
    """

    links: int = 6
    base: Countdown = field(default_factory=Countdown)
    steps: Literal["line", "link"] = "line"

    # without annotations, these are no fields of the configuration
    name = "chain"
    step_boundary = Countdown.step_boundary
    correction = Countdown.correction
    metric = "links right"

    def __post_init__(self) -> None:
        check_range("links", self.links, 2, 64)
        if self.steps == "link":
            self.step_boundary = LABEL

    def vocabulary(self) -> list[str]:
        """Every word of prompts and answers: those of `base` and a label for each link."""
        return [*self.base.vocabulary(), *self._labels]

    def size(self, split: str) -> int:
        """train, tuning: chains until the problems of `base` are used up once; heldout: fixed chains."""
        problems = self.base.size(split)
        if problems < self.links:
            raise UserError(f"task.links={self.links} is more than there are {split} problems ({problems})")
        return len(self._heldout) if split == "heldout" else problems // self.links

    def problem(self, seed: int, split: str, index: int) -> Problem:
        """A pure function. train and tuning: consecutive problems of `base`'s stream.

        heldout: the index-th of a fixed list; the seed is ignored. A problem is in one chain at most, and
        chains of different clusters share no multiset. Raises like `Countdown.problem`.
        """
        if split == "heldout":
            if not 0 <= index < len(self._heldout):
                raise IndexError(f"heldout has {len(self._heldout)} chains, there is no number {index}")
            return self._chain([self.base.problem(seed, split, i) for i in self._heldout[index]])
        first = index * self.links
        return self._chain([self.base.problem(seed, split, first + i) for i in range(self.links)])

    def verify(self, problem: Problem, completion: str) -> bool:
        """Is every link right? Never raises on any text."""
        return all(self.parts(problem, completion))

    def score(self, problem: Problem, completion: str) -> float:
        """The share of links that are right, as the answer stands: the primary metric, because hardly any
        chain is right as a whole. Never raises."""
        return sum(self.parts(problem, completion)) / self.links

    def parts(self, problem: Problem, completion: str) -> list[bool]:
        """Which links are right."""
        links, last, unfinished = self._read(problem, completion)
        return [
            link is not None and self._accepts(part, link) and not (unfinished and i == last)
            for i, (part, link) in enumerate(zip(_parts(problem), links, strict=True))
        ]

    def oracle(self, problem: Problem, completion_prefix: str) -> float:
        """The share of links that are right or can still become so without a restart.

        A link that the prefix has left counts if it is right, the one it stands in if the attempt at the end
        can still be accepted, and one still ahead always. This is the value of the mean of `parts` under best
        play without restarts, not of the all-or-nothing reward: it gives credit link by link.
        """
        links, last, _ = self._read(problem, completion_prefix)
        alive = self.links - 1 - last
        for i, (part, link) in enumerate(zip(_parts(problem), links, strict=True)):
            if i < last:
                alive += link is not None and self._accepts(part, link)
            elif i == last:
                alive += derivation.reachable(link or [], *terms(part), self.base.ceiling)
        return alive / self.links

    def behaviours(self, problem: Problem, completion: str) -> dict[str, float]:
        """Countdown's counts, summed over links (gave_up: how many links were given up); and links_opened,
        links_right."""
        links, last, unfinished = self._read(problem, completion)
        counts: Counter[str] = Counter()
        for i, (part, link) in enumerate(zip(_parts(problem), links, strict=True)):
            rest = unfinished if i == last else []
            counts.update(asdict(derivation.conduct(link or [], rest, *terms(part), self.base.ceiling)))
        counts.update(links_opened=sum(link is not None for link in links))
        counts.update(links_right=sum(self.parts(problem, completion)))
        return {name: float(count) for name, count in counts.items()}

    def answer(self, problem: Problem, completion: str) -> str:
        """What majority votes are counted over: the attempt that stands at the end of each link."""
        links, _, unfinished = self._read(problem, completion)
        return " / ".join(derivation.standing(link or []) for link in links) + " ".join(unfinished)

    def demonstrations(
        self,
        seed: int,
        count: int,
        skill: float = 0.1,
        persistence: float = 0.6,
        bail: float = 0.05,
        longest: int = 128,
    ) -> Iterator[tuple[Problem, str]]:
        """`count` training chains, each link answered like a demonstration of Countdown.

        Every chain has a demonstrator of its own, whose persistence is uniform around the given mean: chains
        differ in length, and what is learned from them holds far beyond the mean. `longest` bounds the tokens
        of a link as if it stood alone.
        """
        Demonstrator(skill, persistence, bail, longest)  # refuses what is no chance
        spread = min(persistence, 1.0 - persistence)
        stream = hash64("demonstrations", seed)
        for index in range(count):
            problem = self.problem(stream, "train", index)
            rng = Random(hash64("demonstration", seed, index))
            own = rng.uniform(persistence - spread, persistence + spread)
            demonstrator = Demonstrator(skill, own, bail, longest)
            answers = (demonstrator.answer(*terms(part), self.base.ceiling, rng) for part in _parts(problem))
            yield problem, self._join(problem, answers)

    def demonstrate(self, problem: Problem, rng: Random) -> str:
        """Like Countdown's, link by link."""
        answers = (Demonstrator().answer(*terms(part), self.base.ceiling, rng) for part in _parts(problem))
        return self._join(problem, answers)

    def solutions(self, problem: Problem, most: int | None = None) -> list[str]:
        """Correct answers, at most `most`: the i-th strings together the i-th solution of every link."""
        by_link = [self.base.solutions(part, most) for part in _parts(problem)]
        return [self._join(problem, texts) for texts in zip(*by_link, strict=False)]

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {f"{LABEL}{i + 1}": i for i in range(self.links)}

    def _join(self, problem: Problem, texts: Iterable[str]) -> str:
        """The answer made of answers to the links; the prompt has opened the first one."""
        first, *others = zip(self._openings(_parts(problem)), texts, strict=True)
        return first[1] + "".join(opening + text for opening, text in others)

    def _openings(self, parts: Iterable[Problem]) -> list[str]:
        """The line that opens each link."""
        return [f"{label} {part.prompt}" for label, part in zip(self._labels, parts, strict=True)]

    def _chain(self, parts: list[Problem]) -> Problem:
        chance = prod(part.difficulty or 0.0 for part in parts)
        hard, medium = self._bounds
        openings = self._openings(parts)
        return Problem(
            id=" / ".join(part.id for part in parts),
            prompt="".join((*openings, openings[0])),
            answer={"parts": tuple(parts)},
            cluster=" / ".join(part.cluster for part in parts),
            difficulty=chance,
            stratum="hard" if chance <= hard else "medium" if chance <= medium else "easy",
        )

    @cached_property
    def _heldout(self) -> list[tuple[int, ...]]:
        """Indices of held-out problems by chain, in random order.

        Blocks of `links` multisets with about as many problems each; every chain takes one problem from each
        multiset of a block, so that a block is a cluster. What is left over goes unused.
        """
        by_multiset: dict[Numbers, list[int]] = {}
        for index, instance in enumerate(self.base.pool.splits["heldout"]):
            by_multiset.setdefault(instance.numbers, []).append(index)
        groups = sorted(by_multiset.values(), key=len)  # stable: random order among groups of one size
        blocks = [groups[i : i + self.links] for i in range(0, len(groups) - self.links + 1, self.links)]
        if not blocks:
            raise UserError(
                f"task.links={self.links} is more than there are held-out multisets ({len(groups)})"
            )
        chains = [chain for block in blocks for chain in zip(*block, strict=False)]
        return sorted(chains, key=lambda chain: hash64("chain", *chain))

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        """Terciles of the chance that random attempts hit every link of a held-out chain."""
        pool = self.base.pool.splits["heldout"]
        return tercile_bounds([prod(pool[i].chance for i in chain) for chain in self._heldout])

    def _accepts(self, part: Problem, link: list[Line]) -> bool:
        return derivation.accepts(link, *terms(part), self.base.ceiling)

    def _read(self, problem: Problem, text: str) -> tuple[list[list[Line] | None], int, Line]:
        """The lines of each link, None where it was not opened; the link that the text ends in; the words
        after the last line. A right opening is none of a link's lines, a wrong one is its first."""
        lines, unfinished = read_lines(text)
        openings = [read_lines(line)[0][0] for line in self._openings(_parts(problem))]
        links: list[list[Line] | None] = [None] * self.links
        here: list[Line] = []
        links[0], at = here, 0
        for line in lines:
            if label := self._leads_on(line, at):
                here, at = [] if line == openings[label] else [line], label
                links[at] = here
            else:
                here.append(line)
        if label := self._leads_on(unfinished, at):
            links[label], at = [], label
        return links, at, unfinished

    def _leads_on(self, line: Line, at: int) -> int:
        """The link that a line opens from link `at`, 0 if it opens none."""
        label = self._labels.get(line[0], 0) if line else 0
        return label if label > at else 0


def _parts(problem: Problem) -> tuple[Problem, ...]:
    return problem.answer["parts"]
