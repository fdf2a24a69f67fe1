"""A ledger with accounts by problem: what a batched method spent on each of its problems, exactly.

Every charge names the tokens that it is for, and these begin with a problem's prompt. Nothing is estimated:
the totals are the sums over problems. Each problem has caches of its own, so that what it costs does not
hang on whose prompt begins alike and came first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ablate.ledger import BUDGETED, Account, Ledger, PrefixIndex
from ablate.models.flops import PassCost

GENERATED = ("rollout", "label")  # purposes whose tokens the policy wrote


class Tally(Ledger):
    """`begin(prompts)` starts accounts for these problems; without any, only the totals are kept."""

    def __init__(self) -> None:
        super().__init__()
        self._prompts: dict[tuple[int, ...], int] = {}
        self._lengths: list[int] = []
        self._owner: int | None = None
        self._caches: dict[tuple[int, int], tuple[PrefixIndex | None, PrefixIndex]] = {}
        self._aside = False
        self.own: list[dict[str, Account]] = []

    def begin(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Nothing has been spent yet, no prefix been read. prompts: one per problem, all different."""
        if len(set(prompts)) < len(prompts):
            raise ValueError("two problems have the same prompt: what is spent on them cannot be told apart")
        self.new_policy_version()
        for purpose in self.accounts:
            self.accounts[purpose] = Account()
        self._caches.clear()
        self._prompts = {prompt: i for i, prompt in enumerate(prompts)}
        self._lengths = sorted({len(prompt) for prompt in prompts}, reverse=True)
        self.own = [{} for _ in prompts]

    @contextmanager
    def on(self, problem: int) -> Iterator[None]:
        """All charges in here are for this problem, whatever they read: a judge's questions."""
        self._owner = problem
        try:
            yield
        finally:
            self._owner = None

    def spent_on(self, problem: int) -> dict[str, Account]:
        """The accounts of a problem, by purpose; those that count against a budget."""
        return {name: account for name, account in self.own[problem].items() if name in BUDGETED}

    @contextmanager
    def judge_as(self, purpose: str) -> Iterator[None]:
        """See `Ledger`; no problem pays for it."""
        self._aside = True
        try:
            with super().judge_as(purpose):
                yield
        finally:
            self._aside = False

    @contextmanager
    def _booked(
        self, purpose: str, tokens: Sequence[int], index: PrefixIndex | None = None
    ) -> Iterator[PrefixIndex | None]:
        """What is charged in here goes to the owner of the tokens, and to the totals as ever. Yields the
        owner's own cache in place of `index`, if that is another model's."""
        if not self._prompts or self._aside:
            yield index
            return
        owner = self._whose(tokens)
        # `index` is kept beside, so that its id stays its own
        _, cache = self._caches.setdefault((owner, id(index)), (index, PrefixIndex()))
        whole, self.accounts[purpose] = self.accounts[purpose], Account()
        shared = self._prefixes
        if index is None:
            self._prefixes = cache
        try:
            yield None if index is None else cache
        finally:
            part, self.accounts[purpose], self._prefixes = self.accounts[purpose], whole, shared
            whole.add(part)
        self.own[owner].setdefault(purpose, Account()).add(part)

    def _whose(self, tokens: Sequence[int]) -> int:
        if self._owner is not None:
            return self._owner
        for length in self._lengths:
            found = self._prompts.get(tuple(tokens[:length]))
            if found is not None:
                return found
        raise ValueError("a charge for tokens that begin with no problem's prompt")

    def charge_generation(
        self,
        purpose: str,
        cost: PassCost,
        prefix: Sequence[int],
        samples: Iterable[Sequence[int]],
        cacheable: bool = True,
    ) -> None:
        """See `Ledger`."""
        with self._booked(purpose, prefix):
            super().charge_generation(purpose, cost, prefix, samples, cacheable)

    def charge_scoring(
        self,
        purpose: str,
        cost: PassCost,
        prefix: Sequence[int],
        tokens: Sequence[int],
        heads: int,
        index: PrefixIndex | None = None,
    ) -> None:
        """See `Ledger`."""
        with self._booked(purpose, prefix or tokens, index) as cache:
            super().charge_scoring(purpose, cost, prefix, tokens, heads, cache)

    def charge_account(self, purpose: str, account: Account) -> None:
        """See `Ledger`; goes to the problem of `on`."""
        with self._booked(purpose, ()):
            super().charge_account(purpose, account)

    def charge(self, purpose: str, flops: float, tokens: Sequence[int] = ()) -> None:
        """See `Ledger`."""
        with self._booked(purpose, tokens):
            super().charge(purpose, flops, tokens)
