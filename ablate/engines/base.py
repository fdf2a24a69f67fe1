"""What every engine has in common: the interface, the accounts, and scoring by the policy itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ablate.ledger import PrefixIndex
from ablate.types import Step

if TYPE_CHECKING:
    from ablate.ledger import Ledger
    from ablate.models.policy import Policy

SCORED = 2**27  # most logits in one pass of `score`: 0.5 GB in single precision, of which it holds a few


class Engine:
    """Draws from the policy and scores with it; the only ones who charge the ledger for that are here.

    An engine of one's own implements `_sample`, and what it needs of `check`, `start`, `rest` and
    `weights_changed`.
    """

    def check(self) -> None:
        """Raises UserError, before anything is loaded, if the engine cannot work here."""

    def start(self, policy: Policy, ledger: Ledger) -> None:
        """Attach the engine to the policy that it samples from and the ledger that it charges."""
        self._policy, self._ledger = policy, ledger

    def weights_changed(self) -> None:
        """The learner has updated the policy: cached prefixes are void."""
        self._ledger.new_policy_version()

    def rest(self) -> None:
        """The learner works next: give it the memory that sampling needs."""

    def generate(
        self,
        prefixes: Sequence[tuple[int, ...]],
        n: int | Sequence[int],
        max_new: Sequence[int],
        *,
        key: int | Sequence[int],
        purpose: str,
        temperature: float = 1.0,
        stop: frozenset[int] = frozenset(),
        workers: int | None = 1,
        first: int = 0,
    ) -> list[list[Step]]:
        """Draw `n` continuations of each prefix.

        prefixes: P token tuples. n: of each, or one number (>= 1) per prefix. max_new: most new tokens, per
        prefix (>= 1). key: 64-bit random stream, whose rows from `first` on are all samples, prefix by
        prefix; or one stream per prefix, whose row j is its sample j, so that a draw depends on no other
        prefix. stop: tokens that end a continuation, besides the end tokens; the token that ends one is part
        of it. workers: processes that may take part, where an engine decodes in several. Returns P lists of n
        Steps with tokens and the log-probabilities they were sampled with (natural logarithm, at
        `temperature`).
        """
        if any(room < 1 for room in max_new):
            raise ValueError("every prefix needs room for at least one new token")
        _need_tokens(prefixes)
        stops = stop | self._policy.ends
        counts = [n] * len(prefixes) if isinstance(n, int) else list(n)
        if isinstance(key, int):
            streams = [(key, row) for row in list(accumulate(counts, initial=first))[:-1]]
        else:
            streams = [(each, 0) for each in key]
        if any(count < 1 for count in counts) or not len(prefixes) == len(counts) == len(streams):
            raise ValueError("every prefix needs at least one sample and, if they have streams, its own")
        drawn = (
            self._sample(prefixes, counts, max_new, streams, temperature, stops, workers) if prefixes else []
        )
        self.charge(purpose, prefixes, drawn)
        return drawn

    def charge(
        self, purpose: str, prefixes: Sequence[tuple[int, ...]], drawn: Sequence[Sequence[Step]]
    ) -> None:
        """Charge continuations of each prefix: those just drawn, or those drawn before and used again.

        In the caller's order, so that the accounts do not depend on the batching.
        """
        for prefix, steps in zip(prefixes, drawn, strict=True):
            self._ledger.charge_generation(
                purpose, self._policy.cost, prefix, [step.tokens for step in steps], purpose != "evaluate"
            )

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
        """`generate` for at least one prefix, without the accounts.

        counts: samples per prefix. streams: per prefix, the random stream and the number in it of the row
        that is its first sample. stops: all tokens that end a row.
        """
        raise NotImplementedError

    def score(
        self,
        prefixes: Sequence[tuple[int, ...]],
        continuations: Sequence[tuple[int, ...]],
        *,
        purpose: str,
        temperature: float = 1.0,
        batch_tokens: int = 16384,
        policy: Policy | None = None,
    ) -> list[tuple[float, ...]]:
        """Log-probabilities of given tokens: one float per token of each continuation.

        The model that the learner trains reads them, whatever samples: no other has these weights for
        certain. policy: another model than the one attached. Its passes share no cache with it, and neither
        does evaluation with training.
        """
        import torch

        _need_tokens(prefixes)
        own = policy in (None, self._policy) and purpose != "evaluate"
        index = None if own else PrefixIndex()
        policy = policy or self._policy
        batch_tokens = min(batch_tokens, SCORED // len(policy.tokenizer))
        order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]) + len(continuations[i]))
        out: list[tuple[float, ...]] = [()] * len(prefixes)
        batch: list[int] = []
        with policy.reading(), torch.inference_mode():
            for position, i in enumerate(order):
                batch.append(i)
                following = order[position + 1] if position + 1 < len(order) else None
                if (
                    following is None
                    or (len(batch) + 1) * (len(prefixes[following]) + len(continuations[following]))
                    > batch_tokens
                ):
                    rows = [(prefixes[k], continuations[k]) for k in batch]
                    for k, logps in zip(batch, _logprobs(policy, rows, temperature), strict=True):
                        out[k] = logps
                    batch = []
        for prefix, tokens in zip(prefixes, continuations, strict=True):
            self._ledger.charge_scoring(purpose, policy.cost, prefix, tokens, len(tokens), index)
        return out


def _logprobs(
    policy: Policy, rows: list[tuple[tuple[int, ...], tuple[int, ...]]], temperature: float
) -> list[tuple[float, ...]]:
    """One pass over (prefix, continuation) pairs: the log-probabilities of the continuations' tokens."""
    import torch

    whole: list[Any] = [prefix + tokens for prefix, tokens in rows]
    width = max(map(len, whole))
    ids = torch.tensor([row + (policy.eos,) * (width - len(row)) for row in whole])
    ids = ids.to(policy.device)  # right padding needs no mask under causal attention
    first = min(len(prefix) for prefix, _ in rows) - 1  # where logits are needed from
    logits = policy.model(input_ids=ids, use_cache=False, logits_to_keep=width - first).logits
    logps = (logits[:, :-1].float() / temperature).log_softmax(-1)
    kept = logps.gather(-1, ids[:, first + 1 :, None]).squeeze(-1).tolist()
    return [
        tuple(row[len(prefix) - 1 - first :][: len(tokens)])
        for (prefix, tokens), row in zip(rows, kept, strict=True)
    ]


def _need_tokens(prefixes: Sequence[tuple[int, ...]]) -> None:
    if not all(prefixes):
        raise ValueError("every prefix needs at least one token to predict the next one from")
