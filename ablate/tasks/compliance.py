"""Sets of rules that can be kept together, drawn at random, and a text that keeps them all.

The text is the proof that a problem can be solved; it is no good prose, and nothing is trained on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import cycle
from random import Random
from typing import TypeVar

from ablate.tasks.rules import (
    Bullets,
    Case,
    Ends,
    JsonObject,
    Keyword,
    NoCommas,
    NoDigits,
    Paragraphs,
    Placeholders,
    Quoted,
    Rule,
    Sentences,
    Starts,
    Title,
    Without,
    Words,
    words,
)
from ablate.tasks.streams import pick

FORMS = (
    "a short text", "a note", "a description", "a letter to a friend", "an advertisement", "a story",
    "a summary", "a diary entry", "a speech", "a review", "instructions", "a message to a colleague",
    "a news item", "a product page", "an apology", "an invitation",
)  # fmt: skip
SUBJECTS = (
    "a lighthouse", "learning to swim", "a broken bicycle", "the night train", "a village market",
    "growing tomatoes", "the first snow", "a lost key", "moving to a new city", "an old library",
    "baking bread", "a long bridge", "a class reunion", "the harbour at dawn", "repairing a roof",
    "a chess tournament", "a rainy weekend", "the school garden", "a surprising letter", "a museum visit",
    "the city's trams", "walking in the mountains", "a small orchestra", "a neighbour's dog",
    "working at night", "a house by the sea", "a new recipe", "the winter festival",
    "a forgotten photograph", "an early flight", "a crowded kitchen", "the weather station",
    "a bee keeper", "a football match", "an empty theatre", "a river in spring", "the last day of school",
    "a second-hand shop", "a power cut", "an island ferry",
)  # fmt: skip
KEYWORDS = (
    "copper", "window", "garden", "signal", "harvest", "morning", "paper", "silver", "engine", "candle",
    "river", "ladder", "market", "shadow", "blanket", "thunder", "pocket", "lantern", "mirror", "button",
    "island", "basket", "velvet", "hammer", "compass", "feather", "kettle", "meadow", "pencil", "rocket",
)  # fmt: skip
AVOIDED = (
    "very", "good", "thing", "really", "always", "never", "because", "people", "great", "just", "some",
    "much", "then", "maybe", "often", "little",
)  # fmt: skip
OPENINGS = ("Yesterday", "Imagine", "Tonight", "Finally", "Listen", "Today", "Surely", "Once", "Dear", "Here")
ENDINGS = (
    "That is all.", "Thank you for reading.", "We will see.", "Nothing else matters.", "The end.",
    "Please reply soon.", "It was worth it.", "And so it began.",
)  # fmt: skip
KEYS = ("title", "summary", "author", "place", "mood", "opening", "reason", "advice", "colour", "season")
FILLER = (
    "we", "saw", "a", "quiet", "place", "near", "the", "old", "road", "and", "walked", "on", "with",
    "open", "eyes", "until", "evening", "came", "down", "from", "hills",
)  # fmt: skip

R = TypeVar("R")


def draw(rng: Random, fewest: int, most: int) -> tuple[Rule, ...]:
    """Between `fewest` and `most` rules, no two on the same matter, that can all be kept at once."""
    count = fewest + int(rng.random() * (most - fewest + 1))
    structure = pick(rng, ("prose", "prose", "bullets", "json"))
    kinds = list(_MATTERS[structure])
    chosen = [kinds.pop(0)] if structure != "prose" else []
    while len(chosen) < count and kinds:
        chosen.append(kinds.pop(int(rng.random() * len(kinds))))
        if chosen[-1] in ("sentences", "paragraphs"):  # there may be fewer of the former than of the latter
            kinds = [kind for kind in kinds if kind not in ("sentences", "paragraphs")]
    return tuple(_drawn(kind, rng) for kind in chosen)


# what can be asked for together; the first of bullets and json is what makes them so
_MATTERS = {
    "prose": ("words", "sentences", "paragraphs", "keyword", "without", "starts", "ends", "case", "commas",
              "digits", "quoted", "title", "placeholders"),
    "bullets": ("bullets", "words", "keyword", "without", "case", "commas", "digits", "title",
                "placeholders"),
    "json": ("json", "keyword", "without", "digits"),
}  # fmt: skip


def _drawn(kind: str, rng: Random) -> Rule:
    def between(low: int, high: int) -> int:
        return low + int(rng.random() * (high - low + 1))

    match kind:
        case "words":
            low, room = between(40, 120), between(10, 40)
            return pick(rng, (Words(low, None), Words(None, low), Words(low, low + room)))
        case "sentences":
            return Sentences(between(2, 8))
        case "paragraphs":
            return Paragraphs(between(2, 5))
        case "bullets":
            return Bullets(between(2, 8))
        case "keyword":
            return Keyword(pick(rng, KEYWORDS), between(1, 4))
        case "without":
            first = int(rng.random() * len(AVOIDED))
            return Without(tuple(AVOIDED[(first + i) % len(AVOIDED)] for i in range(between(1, 3))))
        case "starts":
            return Starts(pick(rng, OPENINGS))
        case "ends":
            return Ends(pick(rng, ENDINGS))
        case "case":
            return Case(pick(rng, ("lower", "upper")))
        case "placeholders":
            return Placeholders(between(1, 4))
        case "json":
            keys = list(KEYS)
            return JsonObject(tuple(keys.pop(int(rng.random() * len(keys))) for _ in range(between(2, 5))))
        case "commas":
            return NoCommas()
        case "digits":
            return NoDigits()
        case "quoted":
            return Quoted()
    return Title()


def comply(rules: Sequence[Rule]) -> str:
    """A text that keeps all the rules of a draw."""
    keywords = [word for rule in _all(rules, Keyword) for word in [rule.word] * rule.count]
    shape = next(iter(_all(rules, JsonObject)), None)
    if shape is not None:
        values = dict.fromkeys(shape.keys, "a quiet place")
        values[shape.keys[0]] = " ".join([*keywords, "a quiet place"])
        return json.dumps(values)
    special = [*keywords, *("<<a quiet place>>" for _ in _all(rules, Title))]
    special += [f"[{FILLER[i]}]" for rule in _all(rules, Placeholders) for i in range(rule.count)]
    sentences = next((rule.count for rule in _all(rules, Sentences)), 0)
    paragraphs = next((rule.count for rule in _all(rules, Paragraphs)), 1)
    bullets = next((rule.count for rule in _all(rules, Bullets)), 0)
    ending = next((rule.phrase for rule in _all(rules, Ends)), "")
    opening = next((rule.word for rule in _all(rules, Starts)), "")
    pieces = bullets or (sentences - bool(ending) if sentences else max(2, paragraphs))
    low, high = next(((rule.low, rule.high) for rule in _all(rules, Words)), (None, None))
    fixed = sum(len(words(part)) for part in (*special, opening, ending))
    wanted = low if low is not None else min(high if high is not None else 40, 40)
    filler = max(0 if special or opening else 1, wanted - fixed, pieces - len(special) - bool(opening))
    source = cycle(FILLER)
    body = [*([opening] if opening else []), *special, *(next(source) for _ in range(filler))]
    parts = [f"{' '.join(part)}." for part in _shares(body, pieces)]
    if bullets:
        text = "\n".join(f"- {part}" for part in parts)
    else:
        text = "\n\n".join(
            " ".join(part) for part in _shares([*parts, *([ending] if ending else [])], paragraphs)
        )
    for rule in _all(rules, Case):
        text = text.lower() if rule.case == "lower" else text.upper()
    return f'"{text}"' if _all(rules, Quoted) else text


def _all(rules: Sequence[Rule], kind: type[R]) -> list[R]:
    return [rule for rule in rules if isinstance(rule, kind)]


def _shares(items: Sequence[str], count: int) -> Iterator[Sequence[str]]:
    """The items in `count` parts of nearly equal length, in order."""
    for i in range(count):
        yield items[i * len(items) // count : (i + 1) * len(items) // count]
