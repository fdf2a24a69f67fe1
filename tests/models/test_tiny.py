"""The embedded model and its tokenizer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_policy

from ablate.models.policy import Policy
from ablate.models.tiny import SPECIALS, TinyModel, build_model, build_tokenizer
from ablate.tasks.chain import Chain
from ablate.tasks.countdown import Countdown
from ablate.types import UserError

TASKS = {
    "countdown": Countdown(),
    "four numbers": Countdown(numbers=4, largest=9, ceiling=99),
    "chain": Chain(links=3),
}
POLICIES = {name: tiny_policy(vocabulary=task.vocabulary()) for name, task in TASKS.items()}


@pytest.mark.parametrize("name", TASKS)
@given(
    seed=st.integers(0, 10**6), skill=st.floats(0, 1), persistence=st.floats(0, 0.9), bail=st.floats(0, 0.5)
)
@settings(max_examples=25, deadline=None)
def test_task_texts_survive_the_tokenizer(name, seed, skill, persistence, bail):
    policy, task = POLICIES[name], TASKS[name]
    for problem, text in task.demonstrations(seed, 3, skill, persistence, bail):
        for words in (problem.prompt, text):
            tokens = policy.encode(words)
            assert len(tokens) == words.count(" ") and min(tokens) >= len(SPECIALS)
            (again,) = policy.decode([tokens])
            assert again == words.removesuffix(" ")
            assert policy.encode(again) == tokens
        assert task.verify(problem, policy.decode([policy.encode(text)])[0]) == task.verify(problem, text)


@pytest.mark.parametrize("name", TASKS)
def test_every_token_has_a_text_and_every_word_one_token(name):
    policy, task = POLICIES[name], TASKS[name]
    size = len(policy.tokenizer)
    assert size == policy.model.config.vocab_size == policy.model.lm_head.weight.shape[0] and size % 8 == 0
    texts = policy.decode([(token,) for token in range(size) if token != policy.eos])
    assert len(set(texts)) == size - 1 and "" not in texts
    for word in task.vocabulary():
        assert len(policy.encode(word)) == 1
    assert all(len(policy.encode(word)) == 1 for word in SPECIALS)


def test_a_saved_policy_loads_with_plain_transformers(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = POLICIES["countdown"]
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    before, after = policy.model.state_dict(), model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = torch.tensor([policy.prompt("8 9 4 : 44 \n ")])
    with torch.no_grad():
        assert torch.equal(policy.model(ids).logits, model.eval()(ids).logits)
    loaded = Policy(model, tokenizer)
    assert (loaded.eos, loaded.cost) == (policy.eos, policy.cost)
    assert tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "padding_side"):
        assert getattr(tokenizer, name) == getattr(policy.tokenizer, name)
    text = "8 + 9 = 17 , 4 \n no \n"
    tokens = loaded.encode(text)
    assert tokens == policy.encode(text) and loaded.decode([tokens]) == policy.decode([tokens]) == [text]


def built(seed=0, hidden=32, highest=49):
    shape = TinyModel(hidden=hidden, layers=1, heads=4, feedforward=16)
    tokenizer = build_tokenizer([*map(str, range(highest + 1)), "+", "="])
    numbers = {tokenizer.convert_tokens_to_ids(str(n)): n for n in range(highest + 1)}
    return build_model(shape, tokenizer, numbers, seed), numbers


def test_numbers_start_as_fourier_features():
    """sin and cos of the number at periods from 2 to twice the range, as long as the other embeddings."""
    model, numbers = built()
    weight = model.get_input_embeddings().weight.detach().double().numpy()
    vectors = weight[list(numbers)]
    scale = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(scale, scale[0], rtol=1e-5)
    assert scale[0] == pytest.approx(0.05 * np.sqrt(32), rel=0.1)  # TinyModel.init
    waves = vectors / (scale[0] / np.sqrt(16))
    periods = np.geomspace(2, 100, 16)
    angles = 2 * np.pi * np.arange(50)[:, None] / periods
    np.testing.assert_allclose(waves, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=1e-4)
    # likeness depends on the difference alone, and no two numbers are alike
    likeness = vectors @ vectors.T / scale[0] ** 2
    for difference in range(1, 50):
        diagonal = np.diagonal(likeness, difference)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-4)
        assert diagonal[0] < 0.99
    # the addition of a constant is one rotation for all numbers, hence linear
    for k in (1, 7):
        turn, *_ = np.linalg.lstsq(waves[:-k], waves[k:], rcond=None)
        np.testing.assert_allclose(waves[:-k] @ turn, waves[k:], atol=1e-3)


def test_weights_are_a_function_of_the_seed():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two, other = built(3)[0], built(3)[0], built(4)[0]
    assert torch.equal(before, torch.random.get_rng_state())  # the global stream is left alone
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name])
    layer = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(one.state_dict()[layer], other.state_dict()[layer])


def test_impossible_sizes_are_refused():
    with pytest.raises(UserError, match=r"model\.hidden=60 .* \(nearest: 64\)"):
        TinyModel(hidden=60)
    for name in ("hidden", "layers", "heads", "feedforward", "positions"):
        with pytest.raises(UserError, match=rf"model\.{name}=0 .* at least 1"):
            TinyModel(**{name: 0})
