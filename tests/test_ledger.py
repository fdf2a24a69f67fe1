"""The ledger against `torch.utils.flop_counter` and against brute force over sets of prefixes."""

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import SHAPE, tiny_policy
from torch.utils.flop_counter import FlopCounterMode

from ablate import ledger as ledger_module
from ablate.engines.hf import HFEngine
from ablate.ledger import BUDGETED, SEPARATE, TOKEN_PURPOSES, UNITS, Account, Ledger, PrefixIndex, milestones
from ablate.models.flops import PassCost

COST = PassCost(linear=1000, attention=64, head=300)
ATTENTION = (
    4 * SHAPE.layers * SHAPE.hidden
)  # FLOPs per pair of positions in the tiny model: scores and mixture


# -- against a counter of what torch executes ---------------------------------------------------------------


def counted(call):
    """FLOPs of (linear layers, attention) in what `call` executes, and its result."""
    with FlopCounterMode(display=False) as counter:
        result = call()
    counts = counter.get_flop_counts()["Global"]
    aten = torch.ops.aten
    assert set(counts) <= {aten.mm, aten.addmm, aten.bmm}
    return counts.get(aten.mm, 0) + counts.get(aten.addmm, 0), counts.get(aten.bmm, 0), result


def causal_excess(length):
    """Pairs of positions that a dense kernel computes and a causal one does not.

    The counter sees eager attention, which computes all `length` x `length` pairs and masks half of them. The
    ledger counts causally, half + diagonal, for a token must not cost more when it is scored than when it is
    decoded.
    """
    return length * length - length * (length + 1) / 2


@pytest.fixture
def endless(policy):
    """A policy whose end token is never drawn: no row leaves early. Attention is visible to the counter."""
    policy.eos = 10**6
    policy.model.set_attn_implementation("eager")
    return policy


def engine(policy):
    made, ledger = HFEngine(), Ledger()
    made.start(policy, ledger)
    return made, ledger


def test_decoding_costs_what_the_counter_counts(endless):
    """Prefixes that share nothing, not even a begin token, one sample each: both conventions agree."""
    made, ledger = engine(endless)
    prefixes = [tuple(range(start, start + 12)) for start in range(1, 9)]
    linear, attention, _ = counted(lambda: made.generate(prefixes, 1, [20] * 8, key=3, purpose="rollout"))
    account = ledger.accounts["rollout"]
    dense = attention - 8 * ATTENTION * causal_excess(12)
    assert account.flops == account.logical_flops == pytest.approx(linear + dense, rel=0.02)
    assert account.processed == account.logical_processed == 8 * (12 + 19)
    assert account.tokens == 8 * 20


def test_samples_of_one_prefix_read_it_once(endless):
    """The engine decodes equal beginnings of samples again: the logical convention, for a single request."""
    made, ledger = engine(endless)
    linear, attention, drawn = counted(
        lambda: made.generate([(1, 5, 6, 7)], 6, [15], key=4, purpose="rollout")
    )
    account = ledger.accounts["rollout"]
    dense = attention - ATTENTION * causal_excess(4)
    assert account.logical_flops == pytest.approx(linear + dense, rel=0.02)
    fed = [step.tokens[:-1] for step in drawn[0]]
    distinct = {row[: i + 1] for row in fed for i in range(len(row))}
    assert account.processed == 4 + len(distinct) < account.logical_processed == 4 + 6 * 14


def test_scoring_costs_what_the_counter_counts(endless):
    made, ledger = engine(endless)
    prefix, tokens = tuple(range(1, 11)), tuple(range(3, 20)) * 3
    linear, attention, _ = counted(lambda: made.score([prefix], [tokens], purpose="score"))
    account = ledger.accounts["score"]
    dense = attention - ATTENTION * causal_excess(len(prefix + tokens))
    assert account.flops == account.logical_flops == pytest.approx(linear + dense, rel=0.02)
    assert (account.tokens, account.processed) == (len(tokens), len(prefix + tokens))


def test_training_costs_what_the_counter_counts(endless):
    length = 64
    ids = torch.arange(length)[None] % 20

    def step():
        endless.model(input_ids=ids, labels=ids).loss.backward()

    linear, attention, _ = counted(step)
    ledger = Ledger()
    ledger.charge_training("update", endless.cost, length, heads=length, rows=2)
    dense = attention - 3 * ATTENTION * causal_excess(length)
    account = ledger.accounts["update"]
    assert account.flops == account.logical_flops == pytest.approx(2 * (linear + dense), rel=0.02)
    assert (account.tokens, account.processed) == (2 * length, 2 * length)


def test_tokens_are_those_that_were_drawn(policy):
    """An end token counts, what follows it does not; the cost does not depend on the batching."""
    prefixes, room = [(1, 5, 6), (1, 5), (1, 5, 6, 7)], [30, 4, 17]
    accounts = []
    for max_rows in (1, 5, 100):
        made, ledger = HFEngine(max_rows), Ledger()
        made.start(policy, ledger)
        drawn = made.generate(prefixes, 5, room, key=6, purpose="label", stop=frozenset({13}))
        lengths = [len(step.tokens) for steps in drawn for step in steps]
        accounts.append(ledger.accounts["label"])
        assert ledger.accounts["label"].tokens == ledger.totals()["tokens"] == sum(lengths)
    assert len(set(lengths)) > 3 and accounts[0] == accounts[1] == accounts[2]


# -- against sets of prefixes -------------------------------------------------------------------------------

tokens = st.lists(st.integers(0, 2), max_size=6).map(tuple)
some_tokens = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)
generation = st.tuples(st.just("generate"), some_tokens, st.lists(some_tokens, max_size=3))
scoring = st.tuples(st.just("score"), some_tokens, tokens)


class Brute:
    """Every position on its own: the cached convention from a plain set of prefixes."""

    def __init__(self):
        self.seen = set()
        self.cached, self.logical = Account(), Account()

    def position(self, sequence, heads=0, again=False):
        """The position that ends `sequence`. again: it is read even if it is cached."""
        cost = COST.forward(len(sequence) - 1, 1, heads)
        self.logical.flops += cost
        self.logical.processed += 1
        if again or sequence not in self.seen:
            self.cached.flops += cost
            self.cached.processed += 1
        self.seen.add(sequence)

    def generate(self, prefix, samples):
        for i in range(1, len(prefix) + 1):
            self.position(prefix[:i], heads=i == len(prefix), again=i == len(prefix))
        for sample in samples:
            self.cached.tokens += len(sample)
            for i in range(1, len(sample)):
                self.position(prefix + sample[:i], heads=1)

    def score(self, prefix, new):
        self.cached.tokens += len(new)
        for i in range(1, len(prefix + new) + 1):
            self.position((prefix + new)[:i])
        for account in (self.cached, self.logical):
            account.flops += 2 * COST.head * len(new)


@given(st.lists(st.one_of(generation, scoring), max_size=8), st.booleans())
def test_both_conventions_are_those_of_brute_force(requests, as_a_tree):
    """as_a_tree: every request goes on from the one before, as a search does."""
    ledger, brute, root = Ledger(), Brute(), ()
    for kind, prefix, after in requests:
        prefix = root + prefix
        if kind == "generate":
            ledger.charge_generation("rollout", COST, prefix, after)
            brute.generate(prefix, after)
            after = after[0] if after else ()
        else:
            ledger.charge_scoring("rollout", COST, prefix, after, heads=len(after))
            brute.score(prefix, after)
        root = prefix + after if as_a_tree else ()
    account = ledger.accounts["rollout"]
    assert account.flops == pytest.approx(brute.cached.flops, rel=1e-12)
    assert account.logical_flops == pytest.approx(brute.logical.flops, rel=1e-12)
    assert (account.processed, account.logical_processed) == (brute.cached.processed, brute.logical.processed)
    assert account.tokens == brute.cached.tokens
    assert account.flops <= account.logical_flops and account.processed <= account.logical_processed


@given(st.lists(tokens, max_size=12))
def test_prefix_index_counts_distinct_prefixes(sequences):
    index, seen = PrefixIndex(), set()
    for sequence in sequences:
        new, state = index.add(sequence)
        fresh = {sequence[: i + 1] for i in range(len(sequence))} - seen
        assert new == len(fresh)
        seen |= fresh
        half = len(sequence) // 2
        assert index.add(sequence[:half])[0] == 0
        assert index.add(sequence, half, index.add(sequence[:half])[1]) == (0, state)


@given(st.lists(some_tokens, min_size=1, max_size=5))
def test_conventions_agree_where_nothing_is_shared(samples):
    ledger = Ledger()
    for i, sample in enumerate(samples):
        ledger.charge_generation("rollout", COST, (100 + i, 1, 2), [sample])
    account = ledger.accounts["rollout"]
    assert (
        account.flops == pytest.approx(account.logical_flops)
        and account.processed == account.logical_processed
    )


def test_caches_are_void_after_an_update():
    ledger = Ledger()
    spent = []
    for _ in range(2):
        for _ in range(2):
            before = ledger.accounts["rollout"].flops
            ledger.charge_generation("rollout", COST, (1, 2, 3), [(4, 5, 6)])
            spent.append(ledger.accounts["rollout"].flops - before)
        ledger.new_policy_version()
    first, again, updated, updated_again = spent
    assert first == updated == COST.forward(0, 5, 3)
    assert again == updated_again == COST.forward(2, 1, 1)  # the last position gives the first token's logits


def test_evaluation_neither_uses_nor_fills_the_index():
    ledger = Ledger()
    ledger.charge_generation("rollout", COST, (1, 2, 3), [(4, 5)])
    for _ in range(2):
        ledger.charge_generation("evaluate", COST, (1, 2, 3), [(4, 5), (4, 5)], cacheable=False)
    ledger.charge_generation("evaluate", COST, (7, 8), [(9, 9)], cacheable=False)
    account = ledger.accounts["evaluate"]
    assert (
        account.flops
        == account.logical_flops
        == 2 * (COST.forward(0, 3, 1) + 2 * COST.forward(3, 1, 1)) + (COST.forward(0, 3, 2))
    )
    before = ledger.accounts["rollout"].processed
    ledger.charge_generation("rollout", COST, (7, 8), [(9, 9)])
    assert ledger.accounts["rollout"].processed == before + 3


# -- budget and state ---------------------------------------------------------------------------------------


def charged():
    """Every account with figures of its own."""
    ledger = Ledger()
    for i, purpose in enumerate((*BUDGETED, *SEPARATE), start=1):
        ledger.charge_generation(purpose, COST, (i,), [(1,) * 2 * i])
    return ledger


def test_units(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now[0])
    ledger = charged()
    assert set(TOKEN_PURPOSES) < set(BUDGETED) and not set(BUDGETED) & set(SEPARATE)
    flops = sum(ledger.accounts[purpose].flops for purpose in BUDGETED)
    counted_tokens = sum(2 * i for i, p in enumerate(BUDGETED, start=1) if p in TOKEN_PURPOSES)
    assert ledger.spent == ledger.totals()["flops"] == flops > 0
    ledger.unit = "tokens"
    assert ledger.spent == ledger.totals()["tokens"] == counted_tokens
    ledger.unit, ledger.budget = "seconds", 8.0
    ledger.resume_clock()
    now[0] += 2.0
    assert ledger.spent == 2.0 and ledger.fraction == 0.25
    now[0] += 1.0
    ledger.pause_clock()
    now[0] += 50.0  # an evaluation
    assert ledger.spent == 3.0
    ledger.resume_clock()
    now[0] += 9.0
    assert ledger.spent == 12.0 and ledger.fraction == 1.0
    assert UNITS == ("flops", "tokens", "seconds")
    with pytest.raises(ValueError, match="hours"):
        Ledger("hours")


def test_state_survives_json():
    ledger = charged()
    ledger.seconds = 12.5
    other = Ledger()
    other.charge_generation("rollout", COST, (1, 2, 3), [(4, 5)])  # in the index, and to be forgotten
    other.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
    ledger.new_policy_version()
    assert other.accounts == ledger.accounts and other.seconds == ledger.seconds
    for restored in (ledger, other):
        restored.charge_generation("rollout", COST, (1, 2, 3), [(4, 5)])
    assert other.by_purpose() == ledger.by_purpose()
    assert list(ledger.by_purpose()) == [*BUDGETED, *SEPARATE] and Ledger().by_purpose() == {}


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_milestones_double(count):
    shares = milestones(count)
    assert len(shares) == count and shares[-1] == 1.0
    assert all(later == 2 * earlier for earlier, later in pairwise(shares))


def test_leading_order_of_the_cost():
    """6 N D in the leading order (Kaplan et al. 2020), and attention that grows with the context."""
    cost = tiny_policy().cost
    weights = cost.linear + cost.head
    assert cost.train(1, 1) == pytest.approx(6 * weights, rel=0.02)
    assert cost.forward(5, 3, 3) == pytest.approx(sum(cost.forward(5 + i, 1, 1) for i in range(3)))
    assert cost.forward(100, 1, 0) - cost.forward(0, 1, 0) == ATTENTION * 100
