"""A chain: several independent Countdown problems in one episode, right only if all of them are.

A positive control: credit for each link must beat credit for the whole. The prompt poses all links, each
under a label; the answer opens each link by repeating its line, and then answers it as in Countdown::

    #1 8 9 4 : 44       prompt
    #2 3 5 7 : 22
    #1 8 9 4 : 44       answer
    4 * 9 = 36 , 8
    36 + 8 = 44
    44 ok
    #2 3 5 7 : 22
    ...

`no` restarts the link that it stands in. Links are opened in the order of their labels, each once. What
breaks that makes single links wrong, so that a chain is right exactly if all its parts are: a link that is
skipped, one whose line is misquoted, one that contains the label of an earlier link, and the first one if
anything stands before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import prod
from random import Random

from ablate.tasks import derivation
from ablate.tasks.arithmetic import tercile_bounds
from ablate.tasks.countdown import Countdown, check_range, terms
from ablate.tasks.demonstrate import Demonstrator
from ablate.tasks.derivation import Line, read_lines, write
from ablate.tasks.streams import stream_hash
from ablate.types import Problem, UserError


@dataclass
class _Link:
    """What an answer says about one link; `spoiled`: it cannot become right any more."""

    spoiled: bool
    lines: list[Line] = field(default_factory=list)


@dataclass
class Chain:
    """`links` problems of `base` in one episode; the splits are those of `base`."""

    links: int = 6
    base: Countdown = field(default_factory=Countdown)

    # without annotations, these are no fields of the configuration
    name = "chain"
    step_boundary = Countdown.step_boundary
    correction = Countdown.correction

    def __post_init__(self) -> None:
        check_range("links", self.links, 2, 64)

    def vocabulary(self) -> list[str]:
        """Every word of prompts and answers: those of `base` and a label for each link."""
        return [*self.base.vocabulary(), *self._labels]

    def size(self, split: str) -> int:
        """train, tuning: chains until the problems of `base` are used up once; heldout: fixed chains."""
        problems = self.base.size(split)
        if problems < self.links:
            raise UserError(f"task.links={self.links} needs more than the {problems} {split} problems there are")
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

    def parts(self, problem: Problem, completion: str) -> list[bool]:
        """Which links are right: the primary metric is their mean."""
        lines, unfinished = read_lines(completion)
        found, last = self._read(problem, lines)
        return [
            link is not None and self._accepted(part, link) and not (unfinished and i == last)
            for i, (part, link) in enumerate(zip(_parts(problem), found, strict=True))
        ]

    def oracle(self, problem: Problem, completion_prefix: str) -> float:
        """The share of links that are right or can still become so without a restart.

        A link that the prefix has left counts if it is right, the one it stands in if the attempt at the end
        can still be accepted, and one still ahead always. This is the value of the mean of `parts` under best
        play without restarts, not of the all-or-nothing reward: it gives credit link by link.
        """
        lines, _ = read_lines(completion_prefix)
        found, last = self._read(problem, lines)
        values = []
        for i, (part, link) in enumerate(zip(_parts(problem), found, strict=True)):
            if link is None:
                values.append(i > last)
            elif i < last:
                values.append(self._accepted(part, link))
            else:
                values.append(not link.spoiled and derivation.reachable(link.lines, *terms(part), self.base.ceiling))
        return sum(values) / self.links

    def behaviours(self, problem: Problem, completion: str) -> dict[str, float]:
        """Countdown's counts, summed over links (gave_up: how many links were given up); and links_begun,
        links_right."""
        lines, unfinished = read_lines(completion)
        found, last = self._read(problem, lines)
        counts: Counter[str] = Counter()
        for i, (part, link) in enumerate(zip(_parts(problem), found, strict=True)):
            begun = link or _Link(spoiled=True)
            rest = unfinished if i == last else []
            counts.update(asdict(derivation.conduct(begun.lines, rest, *terms(part), self.base.ceiling)))
        counts.update(links_begun=sum(link is not None for link in found))
        counts.update(links_right=sum(self.parts(problem, completion)))
        return {name: float(count) for name, count in counts.items()}
