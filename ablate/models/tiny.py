"""The embedded default: a Llama small enough for a laptop, built in code, and its word tokenizer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from ablate.models.flops import PassCost
from ablate.models.policy import Policy
from ablate.models.warm_start import WarmStart, load_or_make
from ablate.types import UserError

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
SPECIALS = (PAD, BOS, EOS)


@dataclass
class TinyModel:
    """Sizes of the from-scratch model; `warm_start` says how it learns the format before RL.

    rope_theta: base of the rotary position embedding. Answers are short: at 100 the slowest of 8 frequencies
    turns about once in 350 positions; at Llama's 10,000 most of them would hardly turn at all.
    init: standard deviation of the initial weights. At 0.02, usual for wide models, so narrow a one
    learns arithmetic much later.
    """

    hidden: int = 64
    layers: int = 3
    heads: int = 4
    feedforward: int = 192
    positions: int = 1024
    rope_theta: float = 100.0
    init: float = 0.05
    warm_start: WarmStart = field(default_factory=WarmStart)

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "feedforward", "positions"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name}={getattr(self, name)} must be at least 1")
        if self.hidden % (2 * self.heads):
            raise UserError(
                f"model.hidden={self.hidden} must be a multiple of 2 x model.heads={self.heads} "
                f"(nearest: {max(1, round(self.hidden / (2 * self.heads))) * 2 * self.heads})"
            )

    def check(self, task, longest: int) -> None:
        """Raises UserError for a task without words of its own, or for answers of `longest` tokens that are
        more than there are positions."""
        if not hasattr(task, "vocabulary"):
            why = "is natural language, which model=tiny cannot read"
            raise UserError(f"task={task.name} {why}: it needs model=pretrained")
        if longest >= self.positions:
            raise UserError(
                f"answers of {longest} tokens (sampling.cap x evaluate.long_cap_factor) do not fit into "
                f"model.positions={self.positions}"
            )

    def cost(self, task) -> PassCost:
        """What a pass will cost, before there is a model."""
        block = 4 * self.hidden**2 + 3 * self.hidden * self.feedforward
        words = len(task.vocabulary()) + len(SPECIALS)
        return PassCost(self.layers * block, self.layers * self.hidden, _whole_registers(words) * self.hidden)

    def untrained(self, task, seed: int) -> Policy:
        """A new model with the task's words, from this random seed."""
        vocabulary = task.vocabulary()
        tokenizer = build_tokenizer(vocabulary)
        numbers = {tokenizer.convert_tokens_to_ids(w): int(w) for w in vocabulary if w.isdigit()}
        return Policy(build_model(self, tokenizer, numbers, seed), tokenizer)

    def load(self, task, seed: int, cache: Path, progress: bool = False):
        """The warm-started `Policy` for `task`, from the cache or made now."""
        return load_or_make(self, task, seed, cache, progress)


def _whole_registers(words: int) -> int:
    """The vocabulary's size, rounded up to whole vector registers."""
    return -(-words // 8) * 8


def build_tokenizer(vocabulary: list[str]):
    """A word-level fast tokenizer: words are separated by spaces, a newline is a word.

    `encode` adds no special tokens; the policy prepends `<s>` to prompts itself. Every row of the embedding
    has a word, if only `<unused0>`: a token without text would be sampled and then not be seen by a verifier.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIALS, *vocabulary]
    words += [f"<unused{i}>" for i in range(_whole_registers(len(words)) - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(shape: TinyModel, tokenizer, numbers: dict[int, int], seed: int):
    """A randomly initialised LlamaForCausalLM with tied embeddings.

    numbers: token id -> the number it stands for. Their embeddings start as Fourier features of the number:
    without them arithmetic is learned too late for the minutes that a laptop has.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.feedforward,
        max_position_embeddings=shape.positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        initializer_range=shape.init,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    weight: torch.Tensor = model.lm_head.weight.data  # tied: also the input embeddings
    scale = weight.std().item()
    half = shape.hidden // 2
    longest = 2.0 * (max(numbers.values(), default=1) + 1)
    # periods from 2 (parity) to twice the range, spaced evenly in the logarithm
    exponents = torch.arange(half) / max(1, half - 1)
    periods = 2.0 * torch.pow(longest / 2.0, exponents)
    for token, number in numbers.items():
        angle = 2.0 * math.pi * number / periods
        weight[token] = scale * math.sqrt(2.0) * torch.cat([angle.sin(), angle.cos()])
    return model
