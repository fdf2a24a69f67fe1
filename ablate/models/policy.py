"""The policy: a causal language model with its tokenizer, end token and cost per pass."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ablate.models.flops import PassCost
from ablate.types import UserError


class Policy:
    """What engines sample from and the learner trains: one model object, shared.

    model: a transformers causal LM. tokenizer: its fast tokenizer with an end token.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.cost = PassCost.of(model)
        self.eos: int = tokenizer.eos_token_id
        self._stops: dict[str, frozenset[int]] = {}

    @property
    def device(self) -> Any:
        """Where the weights are."""
        return self.model.device

    def encode(self, text: str) -> tuple[int, ...]:
        """Text as tokens, nothing added."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def prompt(self, text: str) -> tuple[int, ...]:
        """The tokens of a prompt, with the begin token where the tokenizer has one."""
        bos = self.tokenizer.bos_token_id
        return (() if bos is None else (bos,)) + self.encode(text)

    def decode(self, tokens: list[tuple[int, ...]]) -> list[str]:
        """Texts of completions; one trailing end token is removed."""
        if not tokens:
            return []  # the tokenizer would take it for one empty row
        return self.tokenizer.batch_decode(
            [row[:-1] if row and row[-1] == self.eos else row for row in tokens], skip_special_tokens=False
        )

    @cached_property
    def _pieces(self) -> list[str]:
        return [self.tokenizer.decode([i]) for i in range(len(self.tokenizer))]

    def stop_tokens(self, stop: str) -> frozenset[int]:
        """Tokens whose text contains the stop string: a step ends with the token that completes it.

        Raises UserError if no token does, since nothing would ever stop there.
        """
        if stop not in self._stops:
            self._stops[stop] = frozenset(i for i, piece in enumerate(self._pieces) if stop in piece)
            if not self._stops[stop]:
                raise UserError(f"stop={stop!r} is not part of any single token of the model's tokenizer")
        return self._stops[stop]
