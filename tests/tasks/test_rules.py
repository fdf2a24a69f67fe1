"""Rules that a text keeps or does not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.tasks import rules
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
    Sentences,
    Starts,
    Title,
    Without,
    Words,
)

KEPT = [
    (Words(2, 3), ["a b", "a, b - c!", "1 2\n3"], ["a", "a b c d", "- - -", ""]),
    (Words(None, 2), ["a", "a b"], ["", "a b c", "..."]),
    (Words(2, None), ["a b", "a b c d"], ["a", ""]),
    (
        Sentences(2),
        ["A b. C d!", "A? B.", "Is 3.5 much? Yes...", '"A. B."'],
        ["A.", "A. B", "A. B. C.", "", "a b"],
    ),
    (Paragraphs(2), ["a\n\nb", "a\nb\n \n\n c\n", "\n\na\n\nb\n\n"], ["a\nb", "a\n\nb\n\nc", "a\n\n...", ""]),
    (
        Bullets(2),
        ["- a\n- b", "x:\n- a\n- b\n"],
        ["- a", "- a\n* b", "- a\n- ", " - a\n- b", "- a\n- b\n- c"],
    ),
    (
        Keyword("copper", 2),
        ["Copper, copper.", "COPPER\ncopper"],
        ["copper", "coppers copper", "copper-copperx", ""],
    ),
    (Without(("very", "good")), ["a goody", "everyday"], ["very", "a GOOD one", "x-very", ""]),
    (Starts("Once"), ["Once upon", "ONCE", ' "once, a', "Once"], ["Oncely", "x Once", ""]),
    (
        Ends("The end."),
        ["So: the end.", 'x "The end."', "THE END. \n"],
        ["The end", "Bathe end.", "The end. x", ""],
    ),
    (Case("lower"), ["abc 1!", "ä"], ["Abc", "", "123"]),
    (Case("upper"), ["ABC 1!", "Ä"], ["ABc", "", "123"]),
    (NoCommas(), ["a b"], ["a, b", ""]),
    (NoDigits(), ["one"], ["1", "x2", "٣", ""]),
    (Quoted(), ['"a b"', ' "a"\n'], ['"', '""', '"a', 'a"', "“a”", '"."', ""]),
    (Title(), ["<<A title>> x", "x <<y>>"], ["<<>>", "<< >>", "<a>", "<<a\nb>>", ""]),
    (
        Placeholders(2),
        ["[name] [place]", "a [b c] d [e]"],
        ["[name]", "[a] [a]", "[a] [A]", "[] []", "[.] [a]"],
    ),
    (
        JsonObject(("a", "b")),
        ['{"a": "x", "b": "y"}', ' {"b": "x",\n"a": "y"} '],
        [
            '{"a": "x"}',
            '{"a": "x", "b": 1}',
            '{"a": "x", "b": ""}',
            '{"a": "x", "b": "y", "c": "z"}',
            "[]",
            "",
            "a",
            '```json\n{"a": "x", "b": "y"}\n```',
            '{"a": "x", "b": "y"} ok',
            "[" * 100_000,
            "null",
            "NaN",
        ],
    ),
]


@pytest.mark.parametrize(("rule", "kept", "broken"), KEPT, ids=lambda value: type(value).__name__)
def test_what_keeps_a_rule_and_what_breaks_it(rule, kept, broken):
    for text in kept:
        assert rule.holds(text), text
    for text in broken:
        assert not rule.holds(text), text
    assert rule.text().endswith((".", '."')) and "\n" not in rule.text()


def test_every_rule_is_tried():
    kinds = {value for value in vars(rules).values() if isinstance(value, type) and hasattr(value, "holds")}
    assert {type(rule) for rule, _, _ in KEPT} == kinds - {rules.Rule}


@given(st.text())
def test_every_text_can_be_judged(text):
    for rule, _, _ in KEPT:
        assert isinstance(rule.holds(text), bool)


words = st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=30)


@given(words, st.integers(1, 40), st.integers(0, 20))
def test_words_are_counted(found, low, room):
    assert Words(low, low + room).holds("  ".join(found)) == (low <= len(found) <= low + room)


@given(st.lists(words, min_size=1, max_size=6), st.integers(1, 6))
def test_sentences_paragraphs_and_bullets_are_counted(parts, count):
    lines = [" ".join(part) for part in parts]
    assert Sentences(count).holds(" ".join(f"{line}." for line in lines)) == (len(lines) == count)
    assert Paragraphs(count).holds("\n\n".join(lines)) == (len(lines) == count)
    assert Bullets(count).holds("\n".join(f"- {line}" for line in lines)) == (len(lines) == count)


@given(words, st.sampled_from(["copper", "Copper", "COPPER"]), st.integers(0, 5), st.integers(1, 4))
def test_keywords_are_counted_whole(found, word, times, count):
    others = [other for other in found if "copper" not in other] or ["x"]
    text = " ".join([*others, *[word] * times, "coppery", "xcopper"])
    assert Keyword("copper", count).holds(text) == (times >= count)
    assert Without(("copper",)).holds(text) == (times == 0)


@given(st.dictionaries(st.sampled_from("abcd"), st.from_regex(r"\w+", fullmatch=True), min_size=1))
def test_json_objects_are_read_by_their_keys(values):
    assert JsonObject(tuple(values)).holds(json.dumps(values))
    assert not JsonObject((*values, "more")).holds(json.dumps(values))
    assert not JsonObject(tuple(values)).holds(json.dumps([values]))
