"""What a model has read, position by position, so that none is read twice: a trie of keys and values.

The paths of a search begin alike, and each round makes them longer by a step. Of all these beginnings every
distinct position of a problem is computed once. In a pass, one row takes the new positions that hang on one
known path, siblings side by side, each seeing its own ancestors alone (tree attention, Miao et al. 2023,
arXiv:2305.09781, section 4.2).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

KEPT = 2**31  # bytes of keys and values, about, before all is forgotten and read again
WIDTH = 128  # most new positions that several paths share a row with; one path's own may be more
BATCH_TOKENS = 16384  # most new positions in a pass, padding included
BATCH_PAIRS = 2**25  # most entries of a pass's mask

# ids (R, Q), positions (R, Q), mask (R, 1, Q, P + Q), cache -> a number per position (R, Q), float32
Forward = Callable[[Any, Any, Any, Cache], torch.Tensor]


def can_share(model: Any) -> bool:
    """Can its attention be told which positions to see? It needs full attention in every layer, torch's own
    kernel and given positions."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        kinds == {"full_attention"}
        and config._attn_implementation == "sdpa"
        and "position_ids" in inspect.signature(model.base_model.forward).parameters
    )


def most_kept(model: Any) -> int:
    """How many positions fit into KEPT."""
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    weight = next(model.base_model.parameters())
    return KEPT // (2 * config.num_hidden_layers * heads * size * weight.element_size())


class _Layer(DynamicLayer):
    """Known keys and values in front of a pass's own, which stay to be kept: `new`, (R, heads, Q, size)."""

    def __init__(self, known: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        super().__init__()
        self._known = known
        self.new: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All that this pass may see, (R, heads, P + Q, size)."""
        self.new = key_states, value_states
        if self._known is None:
            return self.new
        keys, values = self._known
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)

    def get_seq_length(self) -> int:
        """Known positions, padding included."""
        return 0 if self._known is None else self._known[0].shape[2]


@dataclass
class _Row:
    """above: nodes of the known path, from its start. nodes, tokens, places: of the new positions. chains:
    (index of the new position that it hangs on, or -1; first; one after the last)."""

    above: list[int]
    nodes: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    chains: list[tuple[int, int, int]] = field(default_factory=list)


class PrefixCache:
    """`read(rows)`: a number per row of tokens, that of its last position. most: positions that are kept.
    computed: positions that went through the model so far."""

    def __init__(self, forward: Forward, layers: int, most: int) -> None:
        self._forward, self._layers, self._most = forward, layers, most
        self._store: list[tuple[torch.Tensor, torch.Tensor]] = []  # per layer, (capacity, heads, size)
        self.computed = 0
        self.clear()

    def clear(self) -> None:
        """Nothing has been read yet."""
        self._children: dict[tuple[int, int], int] = {}  # (node, token) -> node; below 0, a problem's root
        self._roots: dict[str, int] = {}
        self._parents: list[int] = []
        self._found: list[float] = []

    def read(self, rows: Sequence[tuple[str, tuple[int, ...]]], device: Any) -> list[float]:
        """rows: the problem's id and its tokens so far. What problems have in common is read for each."""
        out: dict[tuple[str, tuple[int, ...]], float] = {}
        block: list[tuple[str, tuple[int, ...]]] = []
        room = self._most - len(self._parents)
        for row in sorted(set(rows), reverse=True):  # what begins alike side by side, the longer one first
            need = len(row[1]) - self._deepest(*row)[1]
            if block and need > room:
                out |= self._read(block, device)
                self.clear()
                block, room = [], self._most
            block.append(row)
            room -= need
        out |= self._read(block, device)
        if len(self._parents) > self._most:
            self.clear()
        return [out[row] for row in rows]

    def _deepest(self, problem: str, tokens: tuple[int, ...]) -> tuple[int, int]:
        """The last known node of a row, and its depth."""
        children = self._children
        node = self._roots.setdefault(problem, -1 - len(self._roots))
        for depth, token in enumerate(tokens):
            below = children.get((node, token))
            if below is None:
                return node, depth
            node = below
        return node, len(tokens)

    def _read(self, block: list[tuple[str, tuple[int, ...]]], device: Any) -> dict[Any, float]:
        pending = block
        while pending:
            rows, pending = self._planned(pending)
            for batch in _batches(rows):
                self._pass(batch, device)
        return {row: self._found[self._deepest(*row)[0]] for row in block}

    def _planned(self, pending: list[tuple[str, tuple[int, ...]]]) -> tuple[list[_Row], list[Any]]:
        """The rows of a pass, and what has to wait for it."""
        stored, rows, later = len(self._parents), [], []
        hanging: dict[int, _Row] = {}  # known node -> the row that new positions of its children go to
        where: dict[int, tuple[_Row, int]] = {}  # new node -> row, index in it
        for problem, tokens in pending:
            node, depth = self._deepest(problem, tokens)
            new = tokens[depth:]
            if not new:
                continue
            if node >= stored:
                row, at = where[node]
                if len(row.nodes) + len(new) > WIDTH:
                    later.append((problem, tokens))
                    continue
            else:
                row, at = hanging.get(node, _Row([])), -1
                if not row.nodes or len(row.nodes) + len(new) > WIDTH:
                    row = hanging[node] = _Row(self._above(node))
                    rows.append(row)
            begin = len(row.nodes)
            for token in new:
                below = self._children[node, token] = len(self._parents)
                self._parents.append(node)
                node = below
                where[node] = row, len(row.nodes)
                row.nodes.append(node)
            row.tokens += new
            row.places += range(depth, len(tokens))
            row.chains.append((at, begin, len(row.nodes)))
        self._found += [0.0] * (len(self._parents) - stored)
        return rows, later

    def _above(self, node: int) -> list[int]:
        path = []
        while node >= 0:
            path.append(node)
            node = self._parents[node]
        return path[::-1]

    def _pass(self, rows: list[_Row], device: Any) -> None:
        known, width = max(len(row.above) for row in rows), max(len(row.nodes) for row in rows)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        places, above = np.zeros_like(ids), np.zeros((len(rows), known), dtype=np.int64)
        mask = np.zeros((len(rows), width, known + width), dtype=bool)
        mask[:, range(width), range(known, known + width)] = True  # padding, too: it has to see something
        causal = np.tril(np.ones((width, width), dtype=bool))
        for r, row in enumerate(rows):
            count = len(row.nodes)
            ids[r, :count], places[r, :count], above[r, : len(row.above)] = row.tokens, row.places, row.above
            mask[r, :count, : len(row.above)] = True
            for at, begin, end in row.chains:
                if at >= 0:
                    mask[r, begin:end, known : known + begin] = mask[r, at, known : known + begin]
                mask[r, begin:end, known + begin : known + end] = causal[: end - begin, : end - begin]

        def sent(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        layers = [_Layer(None) for _ in range(self._layers)]
        if known:
            index = sent(above)
            layers = [_Layer(tuple(t[index].transpose(1, 2) for t in pair)) for pair in self._store]  # type: ignore[arg-type]
        found = self._forward(sent(ids), sent(places), sent(mask)[:, None], Cache(layers=[*layers]))
        filled = np.concatenate([r * width + np.arange(len(row.nodes)) for r, row in enumerate(rows)])
        nodes = np.concatenate([row.nodes for row in rows])
        self._keep(layers, sent(nodes), sent(filled))
        for node, value in zip(nodes.tolist(), found.flatten()[sent(filled)].tolist(), strict=True):
            self._found[node] = value
        self.computed += len(nodes)

    def _keep(self, layers: list[_Layer], nodes: torch.Tensor, filled: torch.Tensor) -> None:
        if not self._store:
            self._store = [(_room_like(layer, 0), _room_like(layer, 1)) for layer in layers]
        if len(self._parents) > len(self._store[0][0]):
            more = max(len(self._parents), 2 * len(self._store[0][0])) - len(self._store[0][0])
            self._store = [
                tuple(torch.cat([t, t.new_empty((more, *t.shape[1:]))]) for t in pair)  # type: ignore[misc]
                for pair in self._store
            ]
        for layer, pair in zip(layers, self._store, strict=True):
            assert layer.new is not None
            for kept, new in zip(pair, layer.new, strict=True):
                kept[nodes] = new.transpose(1, 2).flatten(0, 1)[filled]


def _room_like(layer: _Layer, which: int) -> torch.Tensor:
    assert layer.new is not None
    new = layer.new[which]
    return new.new_empty((1024, new.shape[1], new.shape[3]))


def _batches(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows of about equal width together."""
    batch: list[_Row] = []
    known = 0
    for row in sorted(rows, key=lambda row: (len(row.nodes), len(row.above))):
        width, known = len(row.nodes), max(known, len(row.above))
        count = (len(batch) + 1) * width
        if batch and (count > BATCH_TOKENS or count * (known + width) > BATCH_PAIRS):
            yield batch
            batch, known = [], len(row.above)
        batch.append(row)
    if batch:
        yield batch
