"""Compute by purpose: one ledger per run, charged by the engine, the scorers' models and the learner only.

Two conventions (both recorded; the budget is in cached FLOPs unless tokens or seconds are chosen):

- *logical*: each request pays for its whole prefix once and for its new tokens;
- *cached*: each distinct prefix position is paid for once per policy version, as with a perfect prefix cache.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from ablate import ranks
from ablate.models.flops import PassCost

# what counts against the budget ...
BUDGETED = ("rollout", "label", "score", "judge", "update", "auxiliary_update")
# ... and what has an account of its own
SEPARATE = ("warm_start", "tuning", "evaluate")
# purposes whose new tokens count for a budget in tokens: generated, or read by a scorer
TOKEN_PURPOSES = ("rollout", "label", "score", "judge")
UNITS = ("flops", "tokens", "seconds")


@dataclass
class Account:
    """Totals of one purpose.

    flops, logical_flops: FLOPs under the cached and the logical convention.
    tokens: tokens generated, scored or trained on. processed, logical_processed: positions that went through
    the model, prefixes included, under either convention.
    """

    flops: float = 0.0
    logical_flops: float = 0.0
    tokens: int = 0
    processed: int = 0
    logical_processed: int = 0

    def add(self, other: Account) -> None:
        """Add the totals of `other` in place."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for JSON."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


class PrefixIndex:
    """Which prefixes a perfect cache would hold under the current policy version.

    Prefixes are kept as chained 64-bit hashes of their tokens; a set of prefixes is closed under taking
    prefixes, so the number of new positions of a sequence is its length minus its longest known prefix.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def clear(self) -> None:
        """Forget everything: the policy has changed."""
        self._seen.clear()

    def add(self, tokens: Sequence[int], start: int = 0, state: int = 0) -> tuple[int, int]:
        """Insert `tokens[start:]`, chained on the hash `state` of what came before.

        Returns the number of positions that were new, and the hash of the whole sequence.
        """
        seen, new = self._seen, 0
        for token in tokens[start:]:
            state = hash((state, token))
            if state not in seen:
                seen.add(state)
                new += 1
        return new, state


class Ledger:
    """Accounts by purpose, the budget, and the clock."""

    def __init__(self, unit: str = "flops", budget: float = float("inf")) -> None:
        if unit not in UNITS:
            raise ValueError(f"budget unit {unit!r} is not one of {UNITS}")
        self.unit, self.budget = unit, budget
        self.accounts = {purpose: Account() for purpose in (*BUDGETED, *SEPARATE)}
        self.seconds = 0.0  # wall time of training so far, evaluation and warm start excluded
        self.version = 0  # of the policy's weights
        self._prefixes = PrefixIndex()
        self._clock: float | None = None
        self._common = {purpose: Account() for purpose in self.accounts}  # as of the last `sync`

    def bring(self, purpose: str, account: Account) -> None:
        """Set an account to what was spent before this run; the same on every rank."""
        self.accounts[purpose], self._common[purpose] = account, replace(account)

    # -- charging -------------------------------------------------------------------------------------------

    def new_policy_version(self) -> None:
        """The weights have changed: caches are void."""
        self.version += 1
        self._prefixes.clear()

    def charge_account(self, purpose: str, account: Account) -> None:
        """What was spent elsewhere, as an endpoint tells it."""
        self.accounts[purpose].add(account)

    def charge_generation(
        self,
        purpose: str,
        cost: PassCost,
        prefix: Sequence[int],
        samples: Iterable[Sequence[int]],
        cacheable: bool = True,
    ) -> None:
        """One request: `prefix` is read once, each of `samples` (lists of new tokens) is decoded from it.

        The last token of a sample is never fed back, so it costs no pass. `cacheable=False` keeps requests
        that are never extended (evaluation) out of the index: they cost the same under both conventions.
        """
        start = len(prefix)
        fresh, state = self._prefixes.add(prefix) if cacheable else (start, 0)
        # even a fully cached prefix needs its last position for the logits of the first new token
        read = max(fresh, 1)
        account = Account(
            flops=cost.forward(start - read, read, 1),
            logical_flops=cost.forward(0, start, 1),
            processed=read,
            logical_processed=start,
        )
        for sample in samples:
            passes = max(len(sample) - 1, 0)
            fresh = self._prefixes.add(sample[:passes], 0, state)[0] if cacheable else passes
            account.tokens += len(sample)
            account.flops += cost.forward(start + passes - fresh, fresh, fresh)
            account.logical_flops += cost.forward(start, passes, passes)
            account.processed += fresh
            account.logical_processed += passes
        self.accounts[purpose].add(account)

    def charge_scoring(
        self,
        purpose: str,
        cost: PassCost,
        prefix: Sequence[int],
        tokens: Sequence[int],
        heads: int,
        index: PrefixIndex | None = None,
    ) -> None:
        """One forward pass over `prefix + tokens`, of which `tokens` are read for the first time.

        heads: at how many positions the output head is evaluated. index: what the cache of another model than
        the policy holds.
        """
        whole = [*prefix, *tokens]
        fresh = (self._prefixes if index is None else index).add(whole)[0]
        self.accounts[purpose].add(
            Account(
                flops=cost.forward(len(whole) - fresh, fresh, heads),
                logical_flops=cost.forward(0, len(whole), heads),
                tokens=len(tokens),
                processed=fresh,
                logical_processed=len(whole),
            )
        )

    def charge_training(self, purpose: str, cost: PassCost, length: int, heads: int, rows: int = 1) -> None:
        """Forward and backward over `rows` rows of `length` tokens; the head runs on `heads` positions each.

        Training shares no prefixes between rows, so both conventions agree.
        """
        flops = rows * cost.train(length, heads)
        tokens = rows * length
        self.accounts[purpose].add(Account(flops, flops, rows * heads, tokens, tokens))

    def charge(self, purpose: str, flops: float, tokens: Sequence[int] = ()) -> None:
        """FLOPs that are no pass of a transformer: a value head's. tokens: the sequence that they are spent
        on, for a ledger with accounts by problem."""
        self.accounts[purpose].add(Account(flops, flops))

    @contextmanager
    def judge_as(self, purpose: str) -> Iterator[None]:
        """What a judge costs in here is charged to another purpose, and leaves the caches as they were."""
        kept = self.accounts["judge"], self._prefixes
        self.accounts["judge"], self._prefixes = Account(), PrefixIndex()
        try:
            yield
        finally:
            self.accounts[purpose].add(self.accounts["judge"])
            self.accounts["judge"], self._prefixes = kept

    # -- the budget -----------------------------------------------------------------------------------------

    def resume_clock(self) -> None:
        """Training goes on."""
        self._clock = time.monotonic()

    def pause_clock(self) -> None:
        """Training waits (evaluation, checkpoint)."""
        self._tick()
        self._clock = None

    def sync(self) -> None:
        """Add up what the ranks of a run have charged since the last time; the clock is the first rank's.

        All ranks call it together, and have the same accounts then. Each keeps a prefix cache of its own.
        """
        if ranks.count() == 1:
            return
        self._tick()
        own = {
            purpose: [value - old for value, old in zip(_values(account), _values(before), strict=True)]
            for (purpose, account), before in zip(self.accounts.items(), self._common.values(), strict=True)
        }
        shares = ranks.gathered((own, self.seconds))
        self.seconds = shares[0][1]
        for charged, _ in shares:
            for purpose, values in charged.items():
                self._common[purpose].add(Account(*values))
        self.accounts = {purpose: replace(account) for purpose, account in self._common.items()}

    def _tick(self) -> None:
        if self._clock is not None:
            now = time.monotonic()
            self.seconds += now - self._clock
            self._clock = now

    @property
    def spent(self) -> float:
        """Spent so far, in the budget's unit."""
        if self.unit == "seconds":
            self._tick()
            return self.seconds
        if self.unit == "tokens":
            return float(sum(self.accounts[purpose].tokens for purpose in TOKEN_PURPOSES))
        return sum(self.accounts[purpose].flops for purpose in BUDGETED)

    @property
    def fraction(self) -> float:
        """Share of the budget spent, capped at 1."""
        return min(1.0, self.spent / self.budget)

    def totals(self) -> dict[str, float]:
        """Sums over the budgeted purposes: flops, logical_flops, tokens (generated and scored)."""
        return {
            "flops": sum(self.accounts[purpose].flops for purpose in BUDGETED),
            "logical_flops": sum(self.accounts[purpose].logical_flops for purpose in BUDGETED),
            "tokens": float(sum(self.accounts[purpose].tokens for purpose in TOKEN_PURPOSES)),
        }

    def by_purpose(self) -> dict[str, dict[str, float]]:
        """Every account that was used, as plain numbers."""
        return {name: account.to_dict() for name, account in self.accounts.items() if account.logical_flops}

    # -- state ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, taken when the policy has just changed: the prefix index is empty."""
        self._tick()
        return {
            "seconds": self.seconds,
            "accounts": {name: account.to_dict() for name, account in self.accounts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.seconds = state["seconds"]
        for name, values in state["accounts"].items():
            self.accounts[name] = Account(**values)
        self._common = {purpose: replace(account) for purpose, account in self.accounts.items()}
        self._prefixes.clear()


def _values(account: Account) -> list[Any]:
    return [getattr(account, item.name) for item in fields(account)]


def milestones(count: int) -> list[float]:
    """Log-spaced fractions of the budget, a factor of two apart, ending with 1."""
    return [2.0 ** (i - count + 1) for i in range(count)]
