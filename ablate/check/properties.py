"""What a strategy owes the laboratory, property by property: see `ablate.types` and `ablate.check`.

Each function holds what a strategy returned against one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

from ablate.check.watched import Bench, Crash, Setup, Verdicts, places
from ablate.engines.hf import HFEngine
from ablate.ledger import BUDGETED, Ledger
from ablate.schema import one_line
from ablate.types import Group, Step, Trajectory

TOLERANCE = 1e-3  # of log-probabilities in float32
LOW_PRECISION_TOLERANCE = 0.1  # in shorter formats, where a pass depends on what else is in it


@dataclass(frozen=True)
class Finding:
    """A property of a strategy. wrong: every place where it does not hold; note: what was measured."""

    rule: str
    wrong: tuple[str, ...] = ()
    note: str = ""

    @property
    def ok(self) -> bool:
        """Does it hold?"""
        return not self.wrong

    def __str__(self) -> str:
        if self.ok:
            return f"ok      {self.rule}" + (f" ({self.note})" if self.note else "")
        more = f" (and {len(self.wrong) - 1} more)" if len(self.wrong) > 1 else ""
        return f"FAILED  {self.rule}: {self.wrong[0]}{more}"


Placed = list[tuple[str, Trajectory]]  # trajectories with the words that say where they are


def placed(groups: list[Group]) -> Placed:
    """Every trajectory, with its place and its problem."""
    return [
        (f"group {g}, trajectory {i} ({t.problem.id})", t)
        for g, group in enumerate(groups)
        for i, t in enumerate(group)
    ]


def advantages(rule: str, placed: Placed, setup: Setup) -> Finding:
    """An advantage per step, and every number of the loss finite."""
    wrong, signal = [], 0
    for where, t in placed:
        if _size(t.advantages) != len(t.steps):
            wrong.append(f"{where} has {_count(t.advantages, 'advantage')} for {_count(t.steps, 'step')}")
            continue
        factors = [(a, step.weight, step.imitate) for a, step in zip(t.advantages, t.steps, strict=True)]
        odd = [s for s, numbers in enumerate(factors) if not all(map(_finite, numbers))]
        if odd:
            advantage, weight, imitate = factors[odd[0]]
            wrong.append(f"{where}, step {odd[0]}: advantage={advantage}, {weight=}, {imitate=}")
        else:
            signal += any(a * w for a, w, _ in factors)
    culprit = f"strategy.credit={setup.config.strategy.credit._target_}"
    return Finding(rule, tuple(f"{culprit}: {line}" for line in wrong), f"{signal} trajectories with signal")


def logprobs(placed: Placed) -> Finding:
    """As many log-probabilities as tokens, where there are any."""
    wrong = tuple(f"{where}, {ragged(t)}" for where, t in placed if ragged(t))
    return Finding("one log-probability per sampled token", wrong)


def ragged(t: Trajectory) -> str:
    """Which step has log-probabilities that are not as many as its tokens. Empty if none has."""
    for s, step in enumerate(t.steps):
        if step.logprobs is not None and _size(step.logprobs) != len(step.tokens):
            return f"step {s} has {_count(step.logprobs, 'logprob')} for {_count(step.tokens, 'token')}"
    return ""


def tokens(placed: Placed, setup: Setup) -> Finding:
    """Whole numbers that the tokenizer knows."""
    wrong = tuple(f"{where}, {unreadable(t, setup)}" for where, t in placed if unreadable(t, setup))
    return Finding("every token is the tokenizer's", wrong, f"{sum(t.length for _, t in placed)} tokens")


def unreadable(t: Trajectory, setup: Setup) -> str:
    """What about the trajectory cannot be read: a token that no text belongs to. Empty if all can."""
    if not t.problem.tokens:
        return "its problem has no tokens: it is none of those that the source was given"
    known = len(setup.policy.tokenizer)
    for s, step in enumerate(t.steps):
        for token in step.tokens:
            if not isinstance(token, int) or not 0 <= token < known:
                return f"step {s} has the token {token!r}, which is no whole number in 0..{known - 1}"
    return ""


def masks(sound: Placed, bench: Bench) -> Finding:
    """Only what the policy sampled, where it stands, has log-probabilities."""
    wrong, own = [], 0
    for where, t in sound:
        for s, step, sampled in _sampled_here(t, bench):
            own += sum(sampled)
            if not all(sampled):
                foreign = len(sampled) - sum(sampled)
                wrong.append(
                    f"{where}, step {s}: has logprobs, but the policy did not sample {foreign} of its "
                    f"{_count(step.tokens, 'token')} here"
                )
    return Finding("what the policy did not sample is masked", tuple(wrong), f"{own} sampled tokens")


def _sampled_here(t: Trajectory, bench: Bench) -> Iterator[tuple[int, Step, list[bool]]]:
    """Every step that has log-probabilities, and for each of its tokens: did the policy sample it here?"""
    marks = places(t.problem.tokens, t.completion)
    for s, step in enumerate(t.steps):
        found = [next(marks) in bench.watch.sampled for _ in step.tokens]
        if step.logprobs is not None:
            yield s, step, found


def rescoring(sound: Placed, bench: Bench, setup: Setup) -> Finding:
    """Log-probabilities of sampled tokens against a second reading."""
    engine = HFEngine()
    engine.start(setup.policy, Ledger())
    again = engine.score(
        [t.problem.tokens for _, t in sound],
        [t.completion for _, t in sound],
        purpose="score",
        temperature=setup.config.sampling.temperature,
    )
    exact = str(setup.policy.model.dtype) in ("torch.float32", "torch.float64")
    allowed = TOLERANCE if exact else LOW_PRECISION_TOLERANCE
    wrong, largest = [], 0.0
    for (where, t), scores in zip(sound, again, strict=True):
        starts = [0, *accumulate(len(step.tokens) for step in t.steps)]
        for s, step, sampled in _sampled_here(t, bench):
            assert step.logprobs is not None
            pairs = list(zip(step.logprobs, scores[starts[s] :], strict=False))
            # `not <=`: NaN is wrong, too
            odd = [k for k, (a, b) in enumerate(pairs) if sampled[k] and not abs(a - b) <= allowed]
            largest = max([largest, *(abs(a - b) for (a, b), own in zip(pairs, sampled, strict=True) if own)])
            if odd:
                a, b = pairs[odd[0]]
                wrong.append(f"{where}, step {s}: logprob {odd[0]} is {a:.4f}, the policy's {b:.4f}")
    return Finding(
        "log-probabilities are the policy's", tuple(wrong), f"largest difference {largest:.1e} of {allowed:g}"
    )


def verdicts(sound: Placed, bench: Bench) -> Finding:
    """Judged again, every trajectory is what it says it is."""
    judged = bench.lab.verify([t for _, t in sound])
    wrong = []
    for (where, t), verdict in zip(sound, judged, strict=True):
        if t.solved is None and t.reward is None:
            wrong.append(f"{where} was not verified and has no reward")
        elif t.solved is not None and t.solved != verdict.solved:
            wrong.append(f"{where} says solved={t.solved}, the verifier {verdict.solved}")
    return Finding(
        "solved is the verifier's verdict", tuple(wrong), f"{sum(bool(t.solved) for _, t in sound)} solved"
    )


def groups(batches: list[list[Group]]) -> Finding:
    """A group is one baseline: of one problem."""
    wrong = []
    for b, groups in enumerate(batches):
        for g, group in enumerate(groups):
            problems = list(dict.fromkeys(t.problem.id for t in group))
            if len(problems) > 1:
                wrong.append(f"batch {b}, group {g} mixes {len(problems)} problems: {', '.join(problems)}")
    return Finding(
        "trajectories of a group share their problem", tuple(wrong), f"{sum(map(len, batches))} groups"
    )


def cap(placed: Placed, setup: Setup) -> Finding:
    """Tokens after the prompt, against the cap that all arms share."""
    wrong = (
        f"{where} has {t.length} tokens, the cap is {setup.cap}"
        for where, t in placed
        if t.length > setup.cap
    )
    return Finding("no trajectory is longer than the cap", tuple(wrong))


def ledger(bench: Bench) -> Finding:
    """Two counts of tokens, by purpose; and nobody ran the policy without paying."""
    watch, wrong = bench.watch, []
    if watch.strays:
        wrong.append(f"the policy was run {watch.strays} times past the engine, with nothing on the ledger")
    for purpose, account in bench.ledger.accounts.items():
        counted = watch.tokens[purpose]
        if account.tokens != counted:
            wrong.append(f"{account.tokens} tokens on the account {purpose}, {counted} counted at the engine")
        if counted and purpose not in BUDGETED:
            wrong.append(f"{counted} tokens on the account {purpose}, which is no part of the budget")
    paid = ", ".join(f"{watch.tokens[p]} {p}" for p in BUDGETED if watch.tokens[p])
    return Finding("every token is on the ledger", tuple(wrong), paid)


def figures(batches: list[list[Group]], bench: Bench) -> Finding:
    """What a run records of every batch."""
    rule = "a run can report on the groups"
    try:
        for groups in batches:
            bench.lab.report(groups)
    except Exception as error:
        return Finding(rule, (f"{type(error).__name__}: {one_line(error)}",))
    return Finding(rule)


def repeated(
    rule: str, setup: Setup, groups: list[Group], batch: int, state: dict[str, Any] | None = None
) -> Finding:
    """A new strategy in a new laboratory returns the same, bit for bit."""
    try:
        again = Bench(setup, state=state).rollout(batch)
    except Crash as crash:
        return Finding(rule, (str(crash),))
    shapes = [len(group) for group in groups], [len(group) for group in again]
    if shapes[0] != shapes[1]:
        return Finding(rule, (f"batch {batch}: groups of {shapes[0]}, and then of {shapes[1]}",))
    wrong = []
    for (where, one), (_, two) in zip(placed(groups), placed(again), strict=True):
        # by repr, which is exact for floats and takes NaN for equal to itself
        names = [f.name for f in fields(one) if repr(getattr(one, f.name)) != repr(getattr(two, f.name))]
        if names:
            wrong.append(f"batch {batch}, {where}: other {', '.join(names)} than before")
    return Finding(rule, tuple(wrong))


def another_seed(setup: Setup, groups: list[Group]) -> Finding:
    """Draws come from the sampling seed."""
    rule = "another sampling seed gives others"
    try:
        others = Bench(setup, seed=setup.seed + 1).rollout(0)
    except Crash as crash:
        return Finding(rule, (str(crash),))
    tokens = [[t.completion for _, t in placed(each)] for each in (groups, others)]
    same = bool(tokens[0]) and tokens[0] == tokens[1]
    return Finding(rule, ("sampling_seed makes no difference: the tokens are the same",) if same else ())


def extreme(rule: str, setup: Setup, verdicts: Verdicts) -> Finding:
    """A batch with one verdict for all is survived, with an advantage per step."""
    try:
        groups = Bench(setup, verdicts=verdicts).rollout(0)
    except Crash as crash:
        return Finding(rule, (str(crash),))
    return advantages(rule, placed(groups), setup)


def _size(values: Any) -> int | None:
    return len(values) if hasattr(values, "__len__") else None


def _count(values: Any, what: str) -> str:
    size = _size(values)
    if size is None:
        return f"{values!r} in place of {what}s"
    return f"{size} {what}" + ("" if size == 1 else "s")


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False
