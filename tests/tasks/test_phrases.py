"""Phrases of reflection: what counts, what does not, and how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.tasks.phrases import reflections

COUNTED = [
    ("Wait, that gives 12. WAIT... wait!", {"wait": 3}),
    ("Hmm, hmmm. Hold on \u2014 oops", {"wait": 4}),
    ("Let me check. Let's  verify\nit. Let\u2019s just make sure", {"check": 3}),
    ("Let me double-check", {"check": 1}),
    ("recheck it, double check it, verify again, go over the steps", {"check": 4}),
    ("Actually, I made a mistake; that's wrong, so reconsider and re-evaluate", {"rethink": 5}),
    ("Alternatively, try another way", {"alternative": 2}),
    (
        "Wait, actually, let me verify: alternatively",
        dict.fromkeys(("wait", "check", "rethink", "alternative"), 1),
    ),
    # parts of words, and words that only look alike
    ("await waiting waited wait-list wait_for", {}),
    ("the actual check is 3; mistaken; an alternative; hm3; reconsidered", {}),
    ("Check: 3 + 4 = 7. I verify nothing.", {}),
    ("", {}),
]


@pytest.mark.parametrize(("text", "expected"), COUNTED)
def test_counts(text, expected):
    found = reflections(text)
    assert {kind: n for kind, n in found.items() if n} == expected
    assert found.keys() == reflections("").keys()  # every kind, always: a task's columns do not vary


phrases = st.sampled_from(["wait", "hmm", "let me check", "double-check", "actually", "alternatively"])
fillers = st.sampled_from(["so", "3 + 4 = 7", "awaits", "the factual", "checks", "\n", "\u00e9t\u00e9"])
KIND = {
    "wait": "wait",
    "hmm": "wait",
    "let me check": "check",
    "double-check": "check",
    "actually": "rethink",
    "alternatively": "alternative",
}


@given(st.lists(st.one_of(phrases, fillers)), st.sampled_from([", ", " ", ". ", "\n", "... "]), st.booleans())
def test_counts_add_up_whatever_stands_between(parts, between, upper):
    text = between.join(parts)
    found = reflections(text.upper() if upper else text)
    for kind in found:
        assert found[kind] == sum(KIND.get(part) == kind for part in parts)
