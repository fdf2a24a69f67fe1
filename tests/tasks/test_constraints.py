"""Several rules at once: they can be kept together, and are drawn alike everywhere."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.tasks.compliance import AVOIDED, ENDINGS, FILLER, KEYWORDS, OPENINGS, comply, draw
from ablate.tasks.constraints import Constraints
from ablate.tasks.rules import words
from ablate.types import UserError

TASK = Constraints()


@settings(max_examples=300)
@given(st.integers(0, 2**64 - 1), st.integers(1, 8))
def test_all_rules_of_a_draw_can_be_kept_at_once(seed, most):
    rules = draw(Random(seed), 1, most)
    text = comply(rules)
    assert [rule.text() for rule in rules if not rule.holds(text)] == []
    assert 1 <= len(rules) <= most and len({type(rule) for rule in rules}) == len(rules)


def test_every_rule_is_drawn_and_refuses_something():
    """None holds for whatever is written: each is broken by the texts that keep others."""
    drawn = [TASK.problem(0, "train", i) for i in range(400)]
    texts = [TASK.solutions(problem)[0] for problem in drawn[:60]]
    kinds = Counter(type(rule).__name__ for problem in drawn for rule in problem.answer["rules"])
    assert len(kinds) == 15 and min(kinds.values()) >= 5
    odd = ["", "very good thing, really 1 because people", "Really VERY little"]
    for problem in drawn:
        for rule in problem.answer["rules"]:
            assert not all(rule.holds(text) for text in texts + odd)


def test_what_is_avoided_is_nowhere_else():
    own = {
        word.strip(".,").casefold()
        for text in (*KEYWORDS, *OPENINGS, *ENDINGS, *FILLER)
        for word in words(text)
    }
    assert not own & set(AVOIDED)


def test_problems_are_pure_functions_and_hashed():
    again = Constraints()
    for split in ("train", "tuning", "heldout"):
        assert [TASK.problem(5, split, i) for i in range(30)] == [
            again.problem(5, split, i) for i in range(30)
        ]
    stream = [TASK.problem(0, "train", i).prompt for i in range(300)]
    near = [TASK.problem(1, "train", i).prompt for i in range(300)]
    assert len(set(stream) & set(near)) < 5 and len(set(stream)) > 290  # `seed + index` would share 299
    heldout = [TASK.problem(0, "heldout", i) for i in range(50)]
    assert heldout == [TASK.problem(7, "heldout", i) for i in range(50)]
    assert Constraints(most=5).problem(0, "heldout", 0) != heldout[0]


def test_pinned():
    """The same on every machine and in every version: a change here changes every experiment."""
    assert TASK.problem(0, "heldout", 0).prompt.splitlines() == [
        "Write an invitation about learning to swim.",
        "- Include at least 3 different placeholders in square brackets, such as [name].",
        "- Write at least 60 words.",
        '- Put your whole answer in double quotation marks (").',
    ]


def test_splits_share_no_text():
    pools = {
        s: {TASK.problem(s_, s, i).cluster for s_ in (0, 1) for i in range(300)}
        for s in ("train", "tuning", "heldout")
    }
    assert not pools["train"] & pools["tuning"] and not pools["heldout"] & (pools["train"] | pools["tuning"])


def test_every_rule_counts_and_thoughts_do_not():
    for i in range(40):
        problem = TASK.problem(0, "train", i)
        text = TASK.solutions(problem)[0]
        assert TASK.verify(problem, text) and TASK.verify(
            problem, f"<think>1, 2, A very GOOD [thing]</think>\n{text}\n"
        )
        assert not TASK.verify(problem, f"<think>{text}") and not TASK.verify(problem, "")
        found = TASK.behaviours(problem, text)
        assert found["rules_held"] == 1.0 and found["answered"] == 1.0
        share = TASK.behaviours(problem, "A, 1")["rules_held"]
        assert share == sum(TASK.held(problem, "A, 1")) / len(problem.answer["rules"])


@given(st.integers(0, 300), st.text())
def test_every_text_can_be_judged(index, text):
    problem = TASK.problem(0, "train", index)
    assert isinstance(TASK.verify(problem, text), bool)
    assert set(TASK.behaviours(problem, text)) == set(TASK.behaviours(problem, ""))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"fewest": 5}, "task.most=4 must be in 5..8 (nearest: 5)"),
        ({"most": 9}, "task.most=9 must be in 2..8"),
        ({"heldout_problems": 0}, "task.heldout_problems=0 must be in 1.."),
        ({"epoch": 0}, "task.epoch=0 must be in 1.."),
    ],
)
def test_a_bad_setting_is_named(chosen, message):
    with pytest.raises(UserError) as caught:
        Constraints(**chosen)
    assert message in str(caught.value)


def test_a_generator_with_nothing_for_a_split_is_told(monkeypatch):
    task = Constraints()
    monkeypatch.setattr("ablate.tasks.generated.MOST_DRAWS", 20)
    monkeypatch.setattr(task, "_split_of", lambda key: "train")
    with pytest.raises(UserError, match="no problem of 20 is for the heldout split"):
        task.problem(0, "heldout", 0)


def test_indices_that_are_none():
    with pytest.raises(IndexError, match="there is no number 500"):
        TASK.problem(0, "heldout", 500)
    with pytest.raises(ValueError, match="no problem -1"):
        TASK.problem(0, "train", -1)
    with pytest.raises(ValueError, match="unknown split"):
        TASK.size("test")
