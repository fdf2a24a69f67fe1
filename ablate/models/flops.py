"""What a pass through a causal transformer costs, in floating-point operations and tokens.

One multiply-add counts as two FLOPs. A token pays for every linear layer once (2 per weight), for attention
over exactly the positions it can see (4 x heads x head size per position and layer: scores and mixture),
and for the output head only where logits are needed. Embedding look-ups, norms and softmax are left out, as
in Kaplan et al. (2020, arXiv:2001.08361, table 1) and `torch.utils.flop_counter`. Attention is counted
causally: a dense kernel also computes the masked half, an optimised one does not, and the cost of a token
must not depend on whether it was decoded or scored.

A backward pass costs twice the forward pass: gradients for activations and for weights. A frozen weight needs
no gradient of its own, so under LoRA (Hu et al. 2021, arXiv:2106.09685) its linear layer costs 2 FLOPs per
weight forward and 2 backward instead of 4; adapters are linear layers like any other, also in engines that
merge them. What gradient checkpointing computes again is not counted: these are the model's FLOPs, not the
hardware's (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass

from ablate.types import UserError

BACKWARD = 2.0  # gradients for activations and for weights


@dataclass(frozen=True)
class PassCost:
    """FLOPs of one model, from its sizes.

    linear: weights in linear layers applied to every token, output head excluded.
    attention: heads x head size, summed over layers.
    head: weights of the output head (hidden size x vocabulary), 0 for a headless model.
    frozen, frozen_head: how many weights of `linear` and of `head` are not trained.
    """

    linear: int
    attention: int
    head: int
    frozen: int = 0
    frozen_head: int = 0

    def forward(self, start: int, new: int, heads: int) -> float:
        """FLOPs for `new` tokens after `start` cached ones, `heads` of which need the output head."""
        seen = new * start + new * (new + 1) / 2  # positions attended to, summed over the new tokens
        return 2.0 * (self.linear * new + self.head * heads) + 4.0 * self.attention * seen

    def train(self, length: int, heads: int) -> float:
        """FLOPs of forward and backward over one row of `length` tokens."""
        spared = 2.0 * (self.frozen * length + self.frozen_head * heads)
        return (1.0 + BACKWARD) * self.forward(0, length, heads) - spared

    @classmethod
    def of(cls, model) -> PassCost:
        """Read the sizes off a transformers model (decoder-only, dense).

        Raises UserError for a model with weights that this count would miss (a mixture of experts, say).
        """
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        head = model.get_output_embeddings()
        linear = frozen = 0
        known = set() if head is None else {id(head.weight)}
        for module in model.modules():
            if isinstance(module, nn.Linear | Conv1D) and module is not head:
                linear += module.weight.numel()
                frozen += 0 if module.weight.requires_grad else module.weight.numel()
            if isinstance(module, nn.Linear | Conv1D | nn.Embedding):
                known.add(id(module.weight))
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and id(weight) not in known:
                raise UserError(
                    f"model: the cost of a pass through {model.config.model_type} is not known, since {name} "
                    "is neither a linear layer nor an embedding; use a dense decoder-only model"
                )
        config = model.config.get_text_config()
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            linear=linear,
            attention=config.num_hidden_layers * config.num_attention_heads * head_size,
            head=0 if head is None else head.weight.numel(),
            frozen=frozen,
            frozen_head=0 if head is None or head.weight.requires_grad else head.weight.numel(),
        )
