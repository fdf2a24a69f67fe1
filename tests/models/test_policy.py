"""Tokens, texts and stop strings of a policy."""

import pytest
from tiny import tiny_policy

from ablate.types import UserError


def test_decode_drops_one_end_token(policy):
    eos = policy.eos
    word = policy.encode("7")
    rows = [(*word, eos), word, (*word, eos, eos), (eos, *word), (), (eos,)]
    assert policy.decode(rows) == ["7", "7", "7 </s>", "</s> 7", "", ""]
    assert policy.decode([()]) == [""] and policy.decode([]) == []


def test_a_prompt_begins_with_the_begin_token_where_there_is_one(policy):
    assert policy.encode("1 + 1") == policy.prompt("1 + 1")[1:]
    assert policy.prompt("1 + 1")[0] == policy.tokenizer.bos_token_id
    policy.tokenizer.bos_token = None
    assert policy.prompt("1 + 1") == policy.encode("1 + 1")


def test_a_step_stops_with_any_token_that_holds_the_stop_string():
    policy = tiny_policy(vocabulary=["7", "\n", "\n\n", ".\n", "no", "#1"])
    tokens = policy.tokenizer.convert_tokens_to_ids
    assert policy.stop_tokens("\n") == set(tokens(["\n", "\n\n", ".\n"]))
    assert policy.stop_tokens("\n\n") == set(tokens(["\n\n"]))
    assert policy.stop_tokens("no") == set(tokens(["no"]))
    with pytest.raises(UserError, match="'7 no'"):  # it would never stop
        policy.stop_tokens("7 no")
