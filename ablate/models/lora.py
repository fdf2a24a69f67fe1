"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on a pretrained policy, by peft.

The weights under the adapters stay frozen, so that they are the start of the run, too: no second copy of the
model is needed for a divergence from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

from ablate.models.flops import PassCost
from ablate.models.format import Format
from ablate.models.policy import Policy
from ablate.types import UserError

ADAPTER = "default"  # peft's name for the only one


@dataclass
class LoRA:
    """rank: of the adapters, 0 trains all weights instead. alpha: their output is scaled by alpha / rank.

    Every linear layer but the output head has one. There is no dropout: the sampler and the learner must
    agree on every probability.
    """

    rank: int = 0
    alpha: int = 32

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UserError(f"rank={self.rank} must not be negative; 0 trains all weights")
        if self.alpha <= 0:
            raise UserError(f"alpha={self.alpha} must be positive")

    def check(self) -> None:
        """Raises UserError if peft is needed and missing."""
        if self.rank and find_spec("peft") is None:
            raise UserError(
                f"lora.rank={self.rank} needs peft, which is not installed: pip install 'ablate[peft]', "
                "or set the rank to 0"
            )

    def on(self, model: Any, seed: int, revision: str | None = None) -> Any:
        """The model with fresh adapters, which change nothing yet; its other weights are frozen. revision: of
        those, which what is saved says that it belongs to."""
        import torch
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            exclude_modules="score" if hasattr(model, "score") else None,  # a classifier's head
            revision=revision,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return get_peft_model(model, config)


class AdaptedPolicy(Policy):
    """A policy of which only the adapters are trained."""

    def __init__(
        self, model: Any, tokenizer: Any, format: Format | None, ends: Iterable[int], bare: PassCost
    ) -> None:
        """bare: what a pass costs without the adapters."""
        super().__init__(model, tokenizer, format, ends)
        self._bare = bare

    @property
    def whole(self) -> Any:
        """The transformers model, with adapters in its layers."""
        return self.model.get_base_model()

    def weights(self, low: Any = None) -> Iterator[tuple[str, Any]]:
        """The whole model with its adapters merged in, one tensor at a time; the model stays as it is.

        low: as in `Policy.weights`. In bfloat16 the sums are dithered: the frozen weights lie on its grid, so
        that rounding to the nearest would give them back wherever a change is below half a step, as those of
        Adam's first steps are (tests/models/test_lora.py).
        """
        import torch

        base = self.whole
        adapted = {name: part for name, part in base.named_modules() if hasattr(part, "get_delta_weight")}
        for name, tensor in base.state_dict().items():
            if re.search(r"\.lora_\w+\.", name):
                continue
            owner, layer, kind = name.rpartition(".base_layer.")
            if layer and kind == "weight":
                with torch.no_grad():
                    delta = adapted[owner].get_delta_weight(ADAPTER)
                    tensor = _dithered(tensor.float() + delta.float(), low or tensor.dtype, name)
            yield (f"{owner}.{kind}" if layer else name), tensor

    def restore(self, folder: Path) -> None:
        """Take the adapters from a checkpoint."""
        self.model.load_adapter(str(folder), ADAPTER, is_trainable=True)

    def start(self) -> Policy:
        """The same weights without the adapters."""
        policy = Policy(_Bare(self.model), self.tokenizer, self.format, self._ends, self._bare)
        policy.bf16 = self.bf16
        return policy


def _dithered(values: Any, dtype: Any, name: str) -> Any:
    """float32 values in another type; to bfloat16, up or down with a probability that keeps the mean.

    The draws are the name's, the same after every update: a value moves when its change reaches them, and
    one that lies on the grid stays.
    """
    import torch

    if dtype != torch.bfloat16:
        return values.to(dtype)
    draws = torch.Generator(values.device).manual_seed(crc32(name.encode()))
    noise = torch.randint(0, 1 << 16, values.shape, generator=draws, device=values.device, dtype=torch.int32)
    # bfloat16 is the upper half of float32's bits
    bits = (values.contiguous().view(torch.int32) + noise) & -(1 << 16)
    return bits.view(torch.float32).to(dtype)


class _Bare:
    """An adapted model whose passes leave the adapters out."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, **inputs: Any) -> Any:
        with self._model.disable_adapter():
            return self._model(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
