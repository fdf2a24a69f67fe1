"""What a budget buys an arm: its strategy, rehearsed on the stand-in for the policy (`stand_in`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ablate.ledger import BUDGETED, TOKEN_PURPOSES, Ledger, PrefixIndex
from ablate.models.flops import PassCost
from ablate.plan.stand_in import Engine, Manner, Policy, Rehearsal
from ablate.rows import rows_of
from ablate.types import UserError

if TYPE_CHECKING:
    from ablate.config import Config
    from ablate.strategy import Strategy
    from ablate.types import Task

SLICES = 8  # of the budget, a batch rehearsed for each
FEW = 8  # problems of the first batch, which tells what a batch takes
MOST_TOKENS = 200_000  # in all of them; beyond, with fewer problems


@dataclass(frozen=True)
class Spent:
    """What a run spends: FLOPs by purpose (cached), tokens as a budget counts them, updates; if rehearsed,
    forward passes of decoding, too, the rows that went through them and the FLOPs of reading prefixes."""

    flops: dict[str, float]
    tokens: float
    updates: float
    passes: float = 0.0
    rows: float = 0.0
    read: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        flops = {p: self.flops.get(p, 0.0) + other.flops.get(p, 0.0) for p in (*self.flops, *other.flops)}
        return Spent(
            flops,
            self.tokens + other.tokens,
            self.updates + other.updates,
            self.passes + other.passes,
            self.rows + other.rows,
            self.read + other.read,
        )

    def __mul__(self, factor: float) -> Spent:
        flops = {purpose: factor * value for purpose, value in self.flops.items()}
        rest = (factor * each for each in (self.tokens, self.updates, self.passes, self.rows, self.read))
        return Spent(flops, *rest)

    def amount(self, unit: str) -> float:
        """In FLOPs or in tokens."""
        return self.tokens if unit == "tokens" else sum(self.flops.values())


NOTHING = Spent({}, 0.0, 0.0)


class Stage:
    """Where one arm is rehearsed, batch by batch."""

    def __init__(
        self, config: Config, task: Task, strategy: Strategy, cost: PassCost, manner: Manner
    ) -> None:
        self._config, self._task, self._strategy, self._cost = config, task, strategy, cost
        self._ledger = Ledger()
        self._policy = policy = Policy(cost, partial(count_tokens, task))
        self._engine = Engine(policy, self._ledger, manner, getattr(config.engine, "max_rows", 1024))
        self._lab = Rehearsal(config, task, policy, self._engine, self._ledger)
        self._problems = min(FEW, config.learner.problems)  # rehearsed per batch
        self._number = 0

    def batch(self, fraction: float, updates: float) -> Spent:
        """What a batch takes at this share of the budget, after so many updates. Raises Unforeseen."""
        ledger, engine, lab, count = self._ledger, self._engine, self._lab, self._problems
        lab.fraction = fraction
        engine.learn(updates)
        before = {purpose: replace(account) for purpose, account in ledger.accounts.items()}
        engine.forget()
        first = self._number * count
        lab.begin(self._number)
        problems = [
            replace(problem, tokens=self._policy.prompt(problem.prompt, first + i))
            for i in range(count)
            for problem in [self._task.problem(0, "train", first + i)]
        ]
        iterations = self._config.learner.iterations
        kl, index = self._config.learner.kl, PrefixIndex()
        for row in rows_of(self._strategy.rollout(problems, lab)):
            if kl:  # the policy at the start reads every row, and every row is trained on
                heads = len(row.completion)
                ledger.charge_scoring("score", self._cost, row.prompt, row.completion, heads, index)
            if kl or row.signal:
                ledger.charge_training("update", self._cost, row.length, row.learned, iterations)
        ledger.new_policy_version()
        self._number += 1
        more = self._config.learner.problems / count
        taken = {p: more * (ledger.accounts[p].flops - before[p].flops) for p in BUDGETED}
        tokens = more * sum(ledger.accounts[p].tokens - before[p].tokens for p in TOKEN_PURPOSES)
        spent = Spent(
            taken, tokens, float(iterations), float(engine.passes), more * engine.rows, more * engine.read
        )
        most = MOST_TOKENS / SLICES / max(1.0, spent.rows)
        self._problems = max(1, int(self._config.learner.problems * min(1.0, most)))
        return spent


def rehearse(stage: Stage, unit: str, amount: float) -> Spent:
    """What a budget in FLOPs or tokens buys: an equal slice of it at the prices of each of some batches.

    Raises UserError if a batch takes none of the budget's unit, and Unforeseen.
    """
    batch, total = stage.batch(0.0, 0.0), NOTHING
    for i in range(SLICES):
        if not batch.amount(unit):
            raise UserError(
                f"budget.{unit}={amount:g} can never be spent: a batch of this strategy takes none of it"
            )
        middle = total.updates + 0.5 * batch.updates * amount / SLICES / batch.amount(unit)
        batch = stage.batch((i + 0.5) / SLICES, middle)
        total += batch * (amount / SLICES / batch.amount(unit))
    return total


def count_tokens(task: Task, text: str) -> int:
    """Tokens of a text: its words where the task lists them, else a quarter of its characters (a rule of
    thumb for English in byte-pair encodings)."""
    if hasattr(task, "vocabulary"):
        return sum(1 for word in text.split(" ") if word)
    return math.ceil(len(text) / 4)
