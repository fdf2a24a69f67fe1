"""What passes cost, read off a model, against what torch executes."""

import pytest
import torch
from tiny import SHAPE, WORDS, tiny_policy
from torch.utils.flop_counter import FlopCounterMode

from ablate.models.flops import PassCost
from ablate.models.tiny import TinyModel
from ablate.tasks.chain import Chain
from ablate.tasks.countdown import Countdown
from ablate.types import UserError

SIZES = {
    "vocab_size": 32,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
}
SPECIALS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def untied_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES, **SPECIALS, tie_word_embeddings=False))


def qwen():
    """Grouped queries, a head size of its own, biases."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**SIZES, **SPECIALS, head_dim=10, attention_bias=True))


def gpt2():
    """Linear layers that are stored as transposed convolutions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=24, n_layer=2, n_head=4, **SPECIALS))


@pytest.mark.parametrize("make", [untied_llama, qwen, gpt2, lambda: tiny_policy().model])
def test_linear_head_and_attention_are_what_torch_executes(make):
    model = make().eval()
    model.set_attn_implementation("eager")
    cost, length = PassCost.of(model), 20
    ids = torch.arange(length)[None]
    counted = []
    for keep in (length, 1):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(input_ids=ids, logits_to_keep=keep, use_cache=False)
        counts, aten = counter.get_flop_counts()["Global"], torch.ops.aten
        counted.append((counts.get(aten.mm, 0) + counts.get(aten.addmm, 0), counts[aten.bmm]))
    (linear, attention), (short, _) = counted
    assert linear == 2 * (cost.linear + cost.head) * length
    assert linear - short == 2 * cost.head * (length - 1)
    # eager attention computes the masked half as well
    assert attention == pytest.approx(4 * cost.attention * length**2, rel=0.02)


@pytest.mark.parametrize("task", [Countdown(), Countdown(numbers=4, largest=12), Chain(links=3)])
@pytest.mark.parametrize("shape", [TinyModel(), TinyModel(hidden=48, layers=1, heads=3, feedforward=100)])
def test_the_cost_is_known_before_the_model(task, shape):
    assert shape.cost(task) == tiny_policy(vocabulary=task.vocabulary(), shape=shape).cost


def test_a_mixture_of_experts_is_refused():
    from transformers import MixtralConfig, MixtralForCausalLM

    with pytest.raises(UserError, match=r"mixtral.*dense"):
        PassCost.of(MixtralForCausalLM(MixtralConfig(**SIZES, **SPECIALS, num_local_experts=2)))


def test_a_pass_is_the_sum_of_its_tokens():
    cost = tiny_policy(vocabulary=WORDS, shape=SHAPE).cost
    whole = cost.forward(7, 5, 5)
    assert whole == sum(cost.forward(7 + i, 1, 1) for i in range(5))
    assert cost.forward(0, 12, 5) == cost.forward(0, 7, 0) + whole
    assert cost.train(12, 5) == 3 * cost.forward(0, 12, 5)
    assert cost.forward(9, 0, 0) == 0.0
