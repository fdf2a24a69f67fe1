"""Trajectories as training rows: their tokens, cut into micro-batches and padded into TRL's tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablate.types import Group

UNSAMPLED = math.nan  # log-probability of a token to imitate, which the policy did not sample


@dataclass(frozen=True)
class Row:
    """One training row: prompt, completion (T tokens), and per completion token: is it the policy's own,
    its log-probability when sampled (NaN: to imitate), its advantage. penalties: what is taken off the
    advantage, whatever that is scaled by; () for none."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    advantages: tuple[float, ...]
    penalties: tuple[float, ...] = ()

    def own(self) -> list[float]:
        """The advantages of tokens that the policy sampled itself."""
        sampled = zip(self.advantages, self.mask, self.logprobs, strict=True)
        return [a for a, m, p in sampled if m and not math.isnan(p)]

    @property
    def length(self) -> int:
        """Tokens, prompt included."""
        return len(self.prompt) + len(self.completion)

    @property
    def learned(self) -> int:
        """Tokens from the first that is the policy's own: those before it need no output head."""
        foreign = next((i for i, own in enumerate(self.mask) if own), 0)
        return len(self.completion) - foreign

    @property
    def credited(self) -> bool:
        """Does any unmasked token carry an advantage?"""
        return any(a != 0.0 and m for a, m in zip(self.advantages, self.mask, strict=True))

    @property
    def signal(self) -> bool:
        """Is there anything to learn from: an advantage, or a penalty?"""
        return self.credited or any(self.penalties)


def rows_of(groups: Sequence[Group]) -> list[Row]:
    """One Row per trajectory that has anything to learn from.

    A Step's advantage goes to each of its tokens, times the Step's weight. Tokens to imitate have the
    advantage `imitate` where the answer is right, and no log-probability: the ratio of policies is 1 there,
    which makes the loss's gradient that of their likelihood. Raises ValueError, with counts, where advantages
    do not match steps or log-probabilities tokens.
    """
    rows = []
    for g, group in enumerate(groups):
        for i, trajectory in enumerate(group):
            where = f"group {g}, trajectory {i} ({trajectory.problem.id})"
            if len(trajectory.advantages) != len(trajectory.steps):
                raise ValueError(
                    f"{where}: {len(trajectory.advantages)} advantages for {len(trajectory.steps)} steps"
                )
            mask: list[bool] = []
            logprobs: list[float] = []
            advantages: list[float] = []
            for s, (step, advantage) in enumerate(zip(trajectory.steps, trajectory.advantages, strict=True)):
                if step.logprobs is not None and len(step.logprobs) != len(step.tokens):
                    raise ValueError(
                        f"{where}: step {s} has {len(step.logprobs)} logprobs for {len(step.tokens)} tokens"
                    )
                taught = step.logprobs is None and step.imitate > 0.0 and bool(trajectory.solved)
                count = len(step.tokens)
                mask += [step.logprobs is not None or taught] * count
                logprobs += step.logprobs or [UNSAMPLED if taught else 0.0] * count
                advantages += [step.imitate if taught else advantage * step.weight] * count
            if any(mask):
                prompt, completion = trajectory.problem.tokens, trajectory.completion
                rows.append(Row(prompt, completion, tuple(mask), tuple(logprobs), tuple(advantages)))
    return rows


def penalised(rows: Sequence[Row], reference: Sequence[Sequence[float]], coefficient: float) -> list[Row]:
    """The rows with a penalty of coefficient x (log p_policy - log p_reference) on every token that the
    policy sampled. reference: log-probabilities of the completions' tokens by the policy as it was at the
    start.

    In expectation over the token sampled, the gradient is that of coefficient x KL(policy || reference) of
    the next token's distribution at each place that the answers came by (k1 of Schulman 2020,
    joschu.net/blog/kl-approx.html, in the advantage instead of the loss).
    """
    return [
        replace(
            row,
            penalties=tuple(
                coefficient * (now - start) if own and not math.isnan(now) else 0.0
                for now, start, own in zip(row.logprobs, given, row.mask, strict=True)
            ),
        )
        for row, given in zip(rows, reference, strict=True)
    ]


def micro_batches(rows: Sequence[Row], limit: int) -> list[list[Row]]:
    """Rows by length, cut so that rows x longest stays within `limit` tokens (at least one row each)."""
    out: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: row.length):
        if out and (len(out[-1]) + 1) * row.length <= limit:
            out[-1].append(row)
        else:
            out.append([row])
    return out


def collate(rows: Sequence[Row], pad: int, scale: float, device: Any) -> dict[str, Any]:
    """TRL's tensors, prompts (B, P) and completions (B, T); advantages times `scale`, except of tokens to
    imitate, minus penalties.

    P is where the first row's own tokens begin; what else comes before another's begins its completion,
    masked. So all padding is on the right: causal attention needs no mask, and positions are those of the
    sampler.
    """
    import torch

    shared = min(row.length - row.learned for row in rows)
    longest = max(row.length for row in rows) - shared

    def completions(values: list[Sequence[Any]], fill: Any, dtype: Any) -> Any:
        padded = []
        for row, value in zip(rows, values, strict=True):
            left = row.length - shared
            kept = [fill] * (left - len(value)) + list(value[-left:])
            padded.append(kept + [fill] * (longest - left))
        return torch.tensor(padded, dtype=dtype, device=device)

    prompts = torch.tensor([(row.prompt + row.completion)[:shared] for row in rows], device=device)
    tokens = completions([(row.prompt + row.completion)[shared:] for row in rows], pad, torch.long)
    logprobs = completions([row.logprobs for row in rows], 0.0, torch.float32)
    advantages = completions([row.advantages for row in rows], 0.0, torch.float32)
    penalties = completions(
        [row.penalties or (0.0,) * len(row.completion) for row in rows], 0.0, torch.float32
    )
    return {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": tokens,
        "completion_mask": torch.ones_like(tokens),
        "tool_mask": completions([row.mask for row in rows], 0, torch.long),
        "old_per_token_logps": logprobs,
        "advantages": torch.where(logprobs.isnan(), advantages, advantages * scale) - penalties,
    }
