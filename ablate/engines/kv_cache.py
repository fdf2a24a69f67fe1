"""A key-value cache that is allocated once per batch and written in place."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from ablate.types import UserError


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, capacity, head size); `keys` and `values` are views."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.used = capacity, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate for the shapes of the first call."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys = key_states.new_empty((*key_states.shape[:2], self.capacity, key_states.shape[3]))
        self._values = value_states.new_empty((*value_states.shape[:2], self.capacity, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new positions; return all that are in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, self.used = self.used, self.used + key_states.shape[2]
        self._keys[:, :, begin : self.used] = key_states
        self._values[:, :, begin : self.used] = value_states
        self.keys, self.values = self._keys[:, :, : self.used], self._values[:, :, : self.used]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Positions in use."""
        return self.used

    def select(self, rows: torch.Tensor) -> None:
        """Keep, reorder or repeat rows, copying only what is in use."""
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            new = old.new_empty((len(rows), *old.shape[1:]))
            new[:, :, : self.used] = old[:, :, : self.used].index_select(0, rows)
            setattr(self, name, new)


def new_cache(model: Any, capacity: int) -> Cache:
    """Room for `capacity` positions in every layer of `model`.

    Raises UserError for models whose layers do not all attend to the whole context.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UserError(
            f"engine=hf decodes models with full attention in every layer; {config.model_type} has "
            f"{', '.join(sorted(kinds))}: use engine=vllm"
        )
    return Cache(layers=[PreallocatedLayer(capacity) for _ in range(config.num_hidden_layers)])
