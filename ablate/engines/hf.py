"""Text generation with the transformers model itself: no second copy of the weights.

Each distinct prefix is read once; its key-value cache is shared out to the samples drawn from it. Rows that
finish leave the batch. The cache is written in place: growing it by concatenation, as `DynamicCache` does,
makes small models much slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.engines.base import Engine
from ablate.randomness import uniforms
from ablate.types import Step, UserError


@dataclass
class HFEngine(Engine):
    """Batched decoding over a transformers forward pass.

    max_rows: most rows decoded at a time; more are taken in turn, the longest prefixes first.
    """

    max_rows: int = 1024

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise UserError(f"engine.max_rows={self.max_rows} must be at least 1")

    def _sample(
        self,
        prefixes: Sequence[tuple[int, ...]],
        counts: Sequence[int],
        max_new: Sequence[int],
        streams: Sequence[tuple[int, int]],
        temperature: float,
        stops: frozenset[int],
        workers: int | None,
    ) -> list[list[Step]]:
        """See `Engine.generate`. workers: processes that take batches, see `shards.processes`; each batch is
        the same in all of them."""
        import torch

        from ablate.engines.shards import processes, shared, spread

        ends = torch.tensor(sorted(stops), device=self._policy.device)
        order = sorted(range(len(prefixes)), key=lambda i: -len(prefixes[i]))
        every = [(i, j) for i in order for j in range(counts[i])]  # prefix, sample
        keys = np.array([streams[i][0] % 2**64 for i, _ in every], dtype=np.uint64)
        numbers = np.array([streams[i][1] + j for i, j in every])
        begins = range(0, len(every), self.max_rows)
        shape = (len(every), max(max_new))
        tokens, logprobs, lengths = shared(shape, np.int32), shared(shape, np.float32), shared(shape[:1], int)

        def decode(batch: int) -> None:
            here = slice(begins[batch], min(begins[batch] + self.max_rows, len(every)))
            rows = every[here]
            room = [max_new[i] for i, _ in rows]
            noise = uniforms(keys[here], numbers[here], max(room))
            tokens[here, : max(room)], logprobs[here, : max(room)], lengths[here] = self._decode(
                [prefixes[i] for i, _ in rows], room, noise, temperature, ends
            )

        with self._policy.reading(), torch.inference_mode():
            count = processes(workers, len(begins), self._policy.device)
            if count > 1:  # whatever a first pass imports is imported before the fork
                self._decode([prefixes[0]] * 2, [2, 1], np.zeros((2, 2)), temperature, ends)
            spread(decode, len(begins), count)
        drawn = {
            row: Step(tuple(tokens[at, :length].tolist()), tuple(logprobs[at, :length].tolist()))
            for at, (row, length) in enumerate(zip(every, lengths.tolist(), strict=True))
        }
        return [[drawn[i, j] for j in range(count)] for i, count in enumerate(counts)]

    def _decode(
        self,
        prefixes: list[tuple[int, ...]],
        room: list[int],
        noise: np.ndarray,
        temperature: float,
        stops: Any,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One batch: read the distinct prefixes, then draw a token per row and pass until all have finished.

        prefixes, room: per row. noise: uniform numbers, (rows, longest room). Returns tokens and their
        log-probabilities, (rows, longest room), and how many of them are a row's.
        """
        import torch

        from ablate.engines.kv_cache import new_cache

        device = self._policy.device
        distinct = list(dict.fromkeys(prefixes))
        where = {prefix: i for i, prefix in enumerate(distinct)}
        share = torch.tensor([where[prefix] for prefix in prefixes], device=device)
        width, longest = max(map(len, distinct)), max(room)
        pad = torch.tensor([width - len(prefix) for prefix in distinct], device=device)
        ids = torch.full((len(distinct), width), self._policy.eos, device=device)
        for i, prefix in enumerate(distinct):
            ids[i, width - len(prefix) :] = torch.tensor(prefix, device=device)
        ragged = bool(pad.any())
        columns = torch.arange(width + longest, device=device)
        # positions start at 0 on the first real token; padding is masked, so its position is immaterial
        positions = (columns[None, :] - pad[:, None]).clamp(min=0)
        mask = (columns[None, :] >= pad[:, None]).long() if ragged else None

        cache: Any = new_cache(self._policy.model, width + longest)
        logits = self._forward(ids, positions[:, :width], None if mask is None else mask[:, :width], cache)
        logits = logits[share]
        for layer in cache.layers:
            layer.select(share)
        positions = positions[share]
        mask = None if mask is None else mask[share]

        rows = len(share)
        tokens = torch.zeros((rows, longest), dtype=torch.long, device=device)
        logprobs = torch.zeros((rows, longest), device=device)
        lengths = torch.tensor(room, device=device)
        random = torch.from_numpy(noise).to(device=device, dtype=torch.float32)
        alive = torch.arange(rows, device=device)  # the rows still in the batch
        done = torch.zeros(rows, dtype=torch.bool, device=device)  # among those
        for t in range(longest):
            chosen, logp = _draw(logits, random[alive, t], temperature)
            tokens[alive, t], logprobs[alive, t] = chosen, logp
            ends = (torch.isin(chosen, stops) | (lengths[alive] == t + 1)) & ~done
            lengths[alive[ends]] = t + 1
            done |= ends
            left = len(done) - int(done.sum())
            if left == 0:
                break
            # a finished row is carried along until an eighth of the batch has finished: leaving costs a copy
            if left <= 0.875 * len(done):
                stay = (~done).nonzero().squeeze(1)
                alive, chosen, positions, done = alive[stay], chosen[stay], positions[stay], done[stay]
                mask = None if mask is None else mask[stay]
                for layer in cache.layers:
                    layer.select(stay)
            at = width + t
            logits = self._forward(
                chosen[:, None],
                positions[:, at : at + 1],
                None if mask is None else mask[:, : at + 1],
                cache,
            )
        return tokens.cpu().numpy(), logprobs.cpu().numpy(), lengths.cpu().numpy()

    def _forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> Any:
        """Logits of the last position, float32, shape (rows, vocabulary)."""
        return (
            self._policy.model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )


def _draw(logits: Any, uniform: Any, temperature: float) -> tuple[Any, Any]:
    """Sample by inverting the cumulative distribution: one uniform number per row.

    logits: (R, V). Returns token ids (R,) and their log-probabilities (R,). Temperature 0 takes the best.
    """
    import torch

    if temperature == 0.0:
        best = logits.argmax(-1)
        return best, torch.zeros_like(best, dtype=logits.dtype)
    logps = (logits / temperature).log_softmax(-1)
    cumulative = logps.exp().cumsum(-1)
    # float32 sums do not end exactly at 1, and a number just below 1 may round to it: scaled, and kept below
    # the end, it never falls on a token without probability
    total = cumulative[:, -1:]
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    chosen = torch.searchsorted(cumulative, target, right=True)
    return chosen.squeeze(-1), logps.gather(-1, chosen).squeeze(-1)
