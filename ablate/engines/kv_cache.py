"""A key-value cache that is written in place, in room that doubles as it is used up."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from ablate.types import UserError

SPARE = 256  # positions beyond the first call's


class InPlaceLayer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, room, head size); `keys` and `values` are views.

    capacity: most positions. Room for SPARE is there from the start, and doubles as it is used up.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.used = capacity, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate for the shapes of the first call, in the type that attention computes in: rotated keys
        come in single precision under autocast, and would take twice the memory."""
        kind = key_states.device.type
        low = torch.is_autocast_enabled(kind)
        self.dtype = torch.get_autocast_dtype(kind) if low else key_states.dtype
        self.device = key_states.device
        room = min(self.capacity, key_states.shape[2] + SPARE)
        self._keys, self._values = (
            states.new_empty((*states.shape[:2], room, states.shape[3]), dtype=self.dtype)
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new positions; return all that are in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, self.used = self.used, self.used + key_states.shape[2]
        if self.used > self._keys.shape[2]:
            self._grow(begin)
        self._keys[:, :, begin : self.used] = key_states
        self._values[:, :, begin : self.used] = value_states
        self.keys, self.values = self._keys[:, :, : self.used], self._values[:, :, : self.used]
        return self.keys, self.values

    def _grow(self, begin: int) -> None:
        room = min(self.capacity, max(self.used, 2 * self._keys.shape[2]))
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            new = old.new_empty((*old.shape[:2], room, old.shape[3]))
            new[:, :, :begin] = old[:, :, :begin]
            setattr(self, name, new)

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
    return Cache(layers=[InPlaceLayer(capacity) for _ in range(config.num_hidden_layers)])
