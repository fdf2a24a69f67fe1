"""Instructions that a rule can check: what they say, and whether a text keeps them.

A word is what stands between white space and holds a letter or digit. A sentence ends with . ! or ? before
white space, a closing quotation mark, or the end. A paragraph is what stands between blank lines. Words are
found whole and in any case, since another rule may govern the case.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal, Protocol


class Rule(Protocol):
    """One instruction."""

    def text(self) -> str:
        """The instruction, as a sentence."""
        ...

    def holds(self, answer: str) -> bool:
        """Does the answer keep it? Never raises."""
        ...


def words(text: str) -> list[str]:
    """The words of a text."""
    return [word for word in text.split() if any(map(str.isalnum, word))]


def occurrences(word: str, text: str) -> int:
    """How often a word occurs, whole, in any case."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


@dataclass(frozen=True)
class Words:
    """low, high: the fewest and the most words, None: no limit."""

    low: int | None
    high: int | None

    def text(self) -> str:
        """The instruction."""
        if self.low is None:
            return f"Write at most {self.high} words."
        if self.high is None:
            return f"Write at least {self.low} words."
        return f"Write between {self.low} and {self.high} words."

    def holds(self, answer: str) -> bool:
        """Is the number of words in the range?"""
        count = len(words(answer))
        return (self.low or 1) <= count and (self.high is None or count <= self.high)


@dataclass(frozen=True)
class Sentences:
    """count: of sentences, exactly."""

    count: int

    def text(self) -> str:
        """The instruction."""
        return f"Write exactly {self.count} sentences, each ending with a period."

    def holds(self, answer: str) -> bool:
        """Is it that many, none of them unfinished?"""
        ends = len(re.findall(r"[.!?]+(?=[\s\"]|$)", answer))
        return ends == self.count and answer.rstrip().rstrip('"').endswith((".", "!", "?"))


@dataclass(frozen=True)
class Paragraphs:
    """count: of paragraphs, exactly."""

    count: int

    def text(self) -> str:
        """The instruction."""
        return f"Write exactly {self.count} paragraphs, separated by blank lines."

    def holds(self, answer: str) -> bool:
        """Is it that many?"""
        parts = re.split(r"\n[^\S\n]*(?:\n[^\S\n]*)+", answer.strip())
        return sum(bool(words(part)) for part in parts) == self.count == len(parts)


@dataclass(frozen=True)
class Bullets:
    """count: of bullet points, exactly."""

    count: int

    def text(self) -> str:
        """The instruction."""
        return f'Write exactly {self.count} bullet points: lines that begin with "- ".'

    def holds(self, answer: str) -> bool:
        """Is it that many, none of them empty?"""
        points = [line for line in answer.splitlines() if line.startswith("- ")]
        return len(points) == self.count and all(map(words, points))


@dataclass(frozen=True)
class Keyword:
    """word: to be used `count` times or more."""

    word: str
    count: int

    def text(self) -> str:
        """The instruction."""
        times = "once" if self.count == 1 else f"{self.count} times"
        return f'Use the word "{self.word}" at least {times}.'

    def holds(self, answer: str) -> bool:
        """Is it there often enough?"""
        return occurrences(self.word, answer) >= self.count


@dataclass(frozen=True)
class Without:
    """avoid: words not to be used."""

    avoid: tuple[str, ...]

    def text(self) -> str:
        """The instruction."""
        return "Do not use " + " or ".join(f'"{word}"' for word in self.avoid) + "."

    def holds(self, answer: str) -> bool:
        """Is none of them there?"""
        return not any(occurrences(word, answer) for word in self.avoid) and bool(words(answer))


@dataclass(frozen=True)
class Starts:
    """word: the first one."""

    word: str

    def text(self) -> str:
        """The instruction."""
        return f'Begin with the word "{self.word}".'

    def holds(self, answer: str) -> bool:
        """Does it stand first?"""
        start = answer.lstrip().lstrip('"').casefold()
        return bool(re.match(rf"{re.escape(self.word.casefold())}(?!\w)", start))


@dataclass(frozen=True)
class Ends:
    """phrase: the last words, with their punctuation."""

    phrase: str

    def text(self) -> str:
        """The instruction."""
        return f'End with the exact phrase "{self.phrase}" and write nothing after it.'

    def holds(self, answer: str) -> bool:
        """Does it stand last?"""
        end = answer.rstrip().removesuffix('"').casefold()
        phrase = re.escape(self.phrase.casefold())
        return bool(re.search(rf"(?<!\w){phrase}$", end))


@dataclass(frozen=True)
class Case:
    """case: of every letter."""

    case: Literal["lower", "upper"]

    def text(self) -> str:
        """The instruction."""
        kind = "small" if self.case == "lower" else "capital"
        return f"Write everything in {kind} letters."

    def holds(self, answer: str) -> bool:
        """Is no letter of the other kind?"""
        other = str.isupper if self.case == "lower" else str.islower
        return not any(map(other, answer)) and any(map(str.isalpha, answer))


@dataclass(frozen=True)
class NoCommas:
    """No commas."""

    def text(self) -> str:
        """The instruction."""
        return "Do not use any commas."

    def holds(self, answer: str) -> bool:
        """Is there none?"""
        return "," not in answer and bool(words(answer))


@dataclass(frozen=True)
class NoDigits:
    """No digits."""

    def text(self) -> str:
        """The instruction."""
        return "Do not use any digits."

    def holds(self, answer: str) -> bool:
        """Is there none?"""
        return not any(map(str.isdigit, answer)) and bool(words(answer))


@dataclass(frozen=True)
class Quoted:
    """Double quotation marks around everything."""

    def text(self) -> str:
        """The instruction."""
        return 'Put your whole answer in double quotation marks (").'

    def holds(self, answer: str) -> bool:
        """Is it in them?"""
        text = answer.strip()
        return len(text) > 2 and text.startswith('"') and text.endswith('"') and bool(words(text))


@dataclass(frozen=True)
class Title:
    """A title in double angular brackets."""

    def text(self) -> str:
        """The instruction."""
        return "Include a title in double angular brackets, such as <<title>>."

    def holds(self, answer: str) -> bool:
        """Is there one that is not blank?"""
        return any(words(title) for title in re.findall(r"<<([^<>\n]+)>>", answer))


@dataclass(frozen=True)
class Placeholders:
    """count: of placeholders in square brackets, at the least."""

    count: int

    def text(self) -> str:
        """The instruction."""
        some = "one placeholder" if self.count == 1 else f"{self.count} different placeholders"
        return f"Include at least {some} in square brackets, such as [name]."

    def holds(self, answer: str) -> bool:
        """Are there that many that differ?"""
        found = {inside.casefold() for inside in re.findall(r"\[([^\[\]\n]+)\]", answer) if words(inside)}
        return len(found) >= self.count


@dataclass(frozen=True)
class JsonObject:
    """keys: of an object that is the whole answer; every value is a text that is not blank."""

    keys: tuple[str, ...]

    def text(self) -> str:
        """The instruction."""
        names = ", ".join(f'"{key}"' for key in self.keys)
        return f"Answer with one JSON object and nothing else. Its keys are {names}; its values are texts."

    def holds(self, answer: str) -> bool:
        """Is it this object?"""
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            return False
        if not isinstance(found, dict) or tuple(sorted(found)) != tuple(sorted(self.keys)):
            return False
        return all(isinstance(value, str) and bool(words(value)) for value in found.values())
