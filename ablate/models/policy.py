"""The policy: a causal language model with its tokenizer, end tokens and cost per pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.models.flops import PassCost
from ablate.types import UserError

if TYPE_CHECKING:
    from ablate.models.format import Format


class Policy:
    """What engines sample from and the learner trains: one model object, shared.

    model: a transformers causal LM. tokenizer: its fast tokenizer with an end token. format: how a problem is
    put to it; None: as it stands, after the begin token. ends: tokens that end an answer besides the
    tokenizer's own. cost: of a pass, if not all of the model's.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        format: Format | None = None,
        ends: Iterable[int] = (),
        cost: PassCost | None = None,
    ) -> None:
        self.model, self.tokenizer, self.format = model, tokenizer, format
        self.cost = cost or PassCost.of(model)
        self.eos: int = tokenizer.eos_token_id
        self.bf16 = False  # passes in bfloat16 (autocast), whatever the weights are kept in
        self._ends = frozenset(ends)
        self._stops: dict[str, frozenset[int]] = {}

    @property
    def device(self) -> Any:
        """Where the weights are."""
        return self.model.device

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._ends | {self.eos}

    # -- the model ------------------------------------------------------------------------------------------

    @property
    def whole(self) -> Any:
        """The transformers model, inside whatever adapts it."""
        return self.model

    @property
    def backbone(self) -> Any:
        """The model without its output head."""
        return self.whole.base_model

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Passes without dropout, in the policy's precision; the model's mode is restored."""
        was_training = self.model.training
        self.model.eval()
        try:
            with self.precision():
                yield
        finally:
            self.model.train(was_training)

    def precision(self) -> Any:
        """A context in which passes run in the policy's precision."""
        import torch

        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def weights(self, low: Any = None) -> Iterator[tuple[str, Any]]:
        """Names and tensors as a checkpoint of the whole model has them; a tied head under both names.

        low: the type that the reader of these tensors keeps, for policies that must round to it themselves.
        """
        yield from self.model.state_dict().items()

    def restore(self, folder: Path) -> None:
        """Take the weights from a checkpoint of this model."""
        from transformers import AutoModelForCausalLM

        saved = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())

    def start(self) -> Policy | None:
        """The policy as it was before training, where the weights still hold it; None where they do not."""
        return None

    # -- text -----------------------------------------------------------------------------------------------

    def encode(self, text: str) -> tuple[int, ...]:
        """Text as tokens, nothing added."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def prompt(self, text: str) -> tuple[int, ...]:
        """The tokens of a problem's prompt, with the begin token where the tokenizer adds one."""
        if self.format is not None:
            text = self.format.render(text, self.tokenizer)
        return self._begun(text)

    def question(self, text: str) -> tuple[int, ...]:
        """The tokens of a question that is no problem: as a prompt, without what problems are given along."""
        if self.format is None:
            return self.prompt(text)
        return self._begun(replace(self.format, instruction="", begin="").render(text, self.tokenizer))

    def _begun(self, text: str) -> tuple[int, ...]:
        tokens, bos = self.encode(text), self.tokenizer.bos_token_id
        begins = bos is not None and tokens[:1] != (bos,) and self._begins
        return (bos, *tokens) if begins else tokens

    @cached_property
    def _begins(self) -> bool:
        """Does the tokenizer put its begin token before a text? Some only name one: theirs was never read by
        the model there, or means something else (of chat templates, <|im_start|>)."""
        if self.format is None:  # the tiny model's own vocabulary
            return True
        return list(self.tokenizer("a").input_ids)[:1] == [self.tokenizer.bos_token_id]

    def decode(self, tokens: list[tuple[int, ...]]) -> list[str]:
        """Texts of completions; one trailing end token is removed."""
        if not tokens:
            return []  # the tokenizer would take it for one empty row
        ends = self.ends
        return self.tokenizer.batch_decode(
            [row[:-1] if row and row[-1] in ends else row for row in tokens], skip_special_tokens=False
        )

    def answers(self, tokens: list[tuple[int, ...]]) -> list[str]:
        """What the verifier reads of completions: all of their text, or what follows the reasoning."""
        texts = self.decode(tokens)
        return texts if self.format is None else [self.format.answer(text) for text in texts]

    @cached_property
    def _pieces(self) -> list[str]:
        return self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])

    def stop_tokens(self, stop: str) -> frozenset[int]:
        """Tokens whose text contains the stop string: a step ends with the token that completes it.

        A stop string that the model writes in several tokens stops nothing. Raises UserError if no token
        holds it, since nothing would ever stop there.
        """
        if stop not in self._stops:
            self._stops[stop] = frozenset(i for i, piece in enumerate(self._pieces) if stop in piece)
            if not self._stops[stop]:
                raise UserError(f"stop={stop!r} is not part of any single token of the model's tokenizer")
        return self._stops[stop]
