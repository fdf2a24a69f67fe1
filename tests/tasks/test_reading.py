"""Where the answer is read from: the strict order, and texts of every kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.tasks.reading import PLACES, after_thoughts, boxed, check_order, code_block, last_number, read
from ablate.types import UserError

ORDER = ["boxed", "hash", "last_number"]

READ = [
    ("so it is \\boxed{5}", "5"),
    ("\\boxed{4} no, \\boxed{ 5 }", "5"),
    ("\\boxed{\\frac{1}{2}} and 7", "\\frac{1}{2}"),
    ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
    ("\\fbox{5}", "5"),
    ("#### 5 eggs\nbye 7", "5 eggs"),
    ("#### 4\n#### 5", "5"),
    ("it is 5.", "5"),
    ("from 3 to -4,500.25 dollars", "-4,500.25"),
    ("10-5", "5"),
    ("x = -5", "-5"),
    # the first place that occurs decides, whatever follows, even if nothing is in it
    ("\\boxed{5} #### 6", "5"),
    ("#### 6 \\boxed{5}", "5"),
    ("\\boxed{} #### 6", None),
    ("\\boxed{5", None),
    ("\\boxed{4} \\boxed{5", None),
    ("####\n6", None),
    # thoughts are no answer
    ("<think>\\boxed{4}</think>\\boxed{5}", "5"),
    ("\\boxed{4}</think>it is 5", "5"),
    ("<think>\\boxed{4}", None),
    ("a</think>b 4<think>5", None),
    ("<think>4</think>", None),
    ("", None),
    ("none", None),
]


@pytest.mark.parametrize(("text", "answer"), READ)
def test_the_order_is_strict(text, answer):
    assert read(text, ORDER) == answer


def test_other_orders_and_other_tags():
    text = "<answer>1</answer> \\boxed{2} #### 3\nlast 4"
    expected = {"boxed": "2", "hash": "3", "tag": "1", "last_number": "4", "last_line": "last 4"}
    for place, answer in expected.items():
        assert read(text, [place]) == answer
    assert read(text, ["whole"]) == text
    assert read("<answer>1</answer><answer>2", ["tag", "last_number"]) is None
    assert read("[THINK]4[/THINK]5", ["whole"], ["[THINK]", "[/THINK]"]) == "5"
    assert read("<think>4", ["whole"], ["[THINK]", "[/THINK]"]) == "<think>4"


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["boxd"], "unknown place boxd; did you mean boxed?; choices: boxed, hash"),
        ([], "must name at least one place"),
        (["boxed", "boxed"], "each only once"),
    ],
)
def test_a_wrong_order_is_told(order, message):
    with pytest.raises(UserError, match=r"task\.read") as caught:
        check_order("task.read", order)
    assert message in str(caught.value)


PIECES = "\\boxed{ } { \\ #### <think> </think> <answer> </answer> ``` 5 - $ , . 1,000 x \\} ٣ \ud800 \x00"
pieces = st.sampled_from([*PIECES.split(" "), " ", "\n", "```python\n"])
texts = st.one_of(st.text(), st.lists(pieces).map("".join))


@given(texts, st.permutations(sorted(PLACES)))
def test_every_text_can_be_read(text, order):
    found = read(text, order)
    assert found is None or (found and found == found.strip() and found in text)
    block = code_block(text)
    assert block is None or block in text
    assert after_thoughts(text) in text


balanced = st.recursive(
    st.text(st.characters(exclude_characters="{}\\")),
    lambda inner: st.tuples(inner, inner).map("{%s}%s".__mod__),
)


@given(texts, balanced)
def test_a_closed_box_is_read_back(before, inside):
    assert boxed(f"{before}\\boxed{{{inside}}}") == inside


@given(st.integers(-(10**12), 10**12), st.booleans())
def test_the_last_number_is_read_whole(value, separated):
    text = f"{value:,}" if separated else str(value)
    assert last_number(f"first 17, then {text} of them.") == text


def test_the_last_closed_block_is_the_program():
    assert code_block("```python\na\n```\nthen\n```\nb\n```\n") == "b\n"
    assert code_block("````py\n```\na\n```\n````") == "```\na\n```\n"
    assert code_block("<think>```\na\n```</think> done") is None
    assert code_block("```python\na") is None
    assert code_block("x = 1") is None


def test_long_texts_are_read_quickly():
    for part in ("\\boxed{", "{", "```\n", "9", "1,", "<think>", "<answer>", "#### ", "\\", "-"):
        text = part * 50_001
        for place in PLACES:
            read(text, [place])
        code_block(text)
