"""Prompts as chat templates and plain texts make them, and the part of an answer that counts."""

import pytest
from word_problems import make_tokenizer

from ablate.models.format import Format
from ablate.types import UserError


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def test_a_chat_template_is_the_tokenizers_own(tokenizer):
    assert Format().render("1 + 1?", tokenizer) == (
        "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    )
    asked = Format(system="You add.", instruction="Think first.", begin="<think>\n")
    assert asked.render("1 + 1?", tokenizer) == (
        "<|im_start|>system\nYou add.<|im_end|>\n<|im_start|>user\n1 + 1?\nThink first.<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )
    asked.check(tokenizer)


def test_options_reach_the_template(tokenizer):
    tokenizer.chat_template += "{% if enable_thinking is false %}<think></think>{% endif %}"
    assert Format(options={"enable_thinking": False}).render("1", tokenizer).endswith("<think></think>")
    assert "think" not in Format(options={"enable_thinking": True}).render("1", tokenizer)


def test_a_template_that_closes_the_thoughts_itself_leaves_no_tag_to_wait_for(tokenizer):
    tokenizer.chat_template += "{% if enable_thinking is false %}<think></think>{% endif %}"
    Format(options={"enable_thinking": True}, end_of_thought="</think>").check(tokenizer)
    with pytest.raises(UserError, match=r"end_of_thought=</think> stands in the prompt already"):
        Format(options={"enable_thinking": False}, end_of_thought="</think>").check(tokenizer)


def test_a_plain_prompt_takes_the_templates_place(tokenizer):
    plain = Format(prompt="Q: {problem}\nA: {{", instruction="Be brief.", begin=" ")
    assert plain.render("a {b}", tokenizer) == "Q: a {b}\nBe brief.\nA: { "
    tokenizer.chat_template = None
    plain.check(tokenizer)
    with pytest.raises(UserError, match=r"no chat template: set model\.format\.prompt"):
        Format().check(tokenizer)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role') }}", "chat template fails: no system role"),
        ("{{ messages[-1].content }}", "leaves out 'You add.': put it into model.format.instruction"),
        ("{{ messages[0].content }}", "leaves out '1 [+] 1'"),
    ],
)
def test_a_template_that_cannot_serve_is_refused(tokenizer, template, message):
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=message):
        Format(system="You add.").check(tokenizer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "Answer!"}, "must have the field {problem}"),
        ({"prompt": "{problem} {answer}"}, "must have the field {problem}, once, and no other"),
        ({"prompt": "{problem"}, "cannot be read"),
        ({"prompt": "{problem}", "system": "x"}, "system belongs to a chat template"),
        ({"prompt": "{problem}", "options": {"a": True}}, "options belongs to a chat template"),
    ],
)
def test_a_prompt_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Format(**settings)


def test_only_what_follows_the_reasoning_is_the_answer():
    thinking = Format(end_of_thought="</think>")
    assert thinking.answer("7?\n</think>\n#### 8") == "\n#### 8"
    assert thinking.answer("a</think>b</think>c") == "c"
    assert thinking.answer("#### 8") == ""
    assert Format().answer("#### 8") == "#### 8"
