"""The engine against a reference that runs the whole sequence through the model for every token.

Exact comparisons of sampled tokens use float64 weights: the results of two batch shapes then differ by 1e-16,
and a draw would have to fall that close to a boundary between tokens to come out differently.
"""

from itertools import chain

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import chisquare

from ablate.engines.hf import HFEngine, _draw
from ablate.ledger import Ledger
from ablate.models.policy import Policy
from ablate.randomness import uniforms
from ablate.types import UserError

NEWLINE = 13  # of the tiny vocabulary: <pad> <s> </s> 0 .. 9 newline
PREFIXES = [(1, 5, 6, 7), (1,), (1, 9, 8, 7, 6, 5, 4, 3), (1, 5, 6, 7), (1, 12, 4), (1, 3, 3, 3, 3, 3)]
ROOM = [12, 20, 3, 12, 1, 17]


def logits_after(policy, tokens, temperature=1.0):
    """(length, vocabulary) logits of one unpadded row, without a cache."""
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return logits.double().numpy() / temperature


def reference(policy, prefix, noise, room, temperature, stops):
    """Tokens and log-probabilities, drawn by inverting the cumulative distribution in plain numpy."""
    tokens, logprobs = [], []
    for uniform in noise[:room]:
        logits = logits_after(policy, [*prefix, *tokens])[-1]
        if temperature == 0:
            tokens.append(int(logits.argmax()))
            logprobs.append(0.0)
        else:
            logps = log_softmax(logits / temperature)
            cumulative = np.exp(logps).cumsum()
            tokens.append(int((cumulative <= uniform * cumulative[-1]).sum()))
            logprobs.append(logps[tokens[-1]])
        if tokens[-1] in stops:
            break
    return tokens, logprobs


def absolute_positions():
    """A random GPT-2 with position embeddings that matter."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).eval()
    model.transformer.wpe.weight.data *= 50
    return model


def engine(policy, max_rows=1024):
    made = HFEngine(max_rows)
    made.start(policy, Ledger())
    return made


@pytest.fixture
def exact(policy):
    policy.model.double()
    return policy


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 1.7])
@pytest.mark.parametrize("stop", [frozenset(), frozenset({NEWLINE, 15})])
def test_decoding_is_the_naive_reference(exact, temperature, stop):
    n, key = 4, 11
    drawn = engine(exact).generate(
        PREFIXES, n, ROOM, key=key, purpose="rollout", temperature=temperature, stop=stop
    )
    noise = uniforms(key, np.arange(len(PREFIXES) * n), max(ROOM)).reshape(len(PREFIXES), n, -1)
    stops = stop | {exact.eos}
    endings = set()
    for i, (prefix, room) in enumerate(zip(PREFIXES, ROOM, strict=True)):
        assert len(drawn[i]) == n
        for j, step in enumerate(drawn[i]):
            tokens, logprobs = reference(exact, prefix, noise[i, j], room, temperature, stops)
            assert list(step.tokens) == tokens
            np.testing.assert_allclose(step.logprobs, logprobs, atol=1e-5)
            endings.add(tokens[-1] if tokens[-1] in stops else "room")
    # the cases that the comparison is about did occur
    if temperature > 0:
        assert endings >= {"room", exact.eos} and (not stop or endings & stop)


@pytest.mark.parametrize("positions", ["relative", "absolute"])
def test_float32_logprobs_are_those_of_the_whole_sequence(policy, positions):
    """With rotary and with absolute positions: only the latter tell where a padded prefix begins."""
    if positions == "absolute":
        policy = Policy(absolute_positions(), policy.tokenizer)
    drawn = engine(policy).generate(PREFIXES, 3, ROOM, key=2, purpose="rollout", temperature=0.8)
    for prefix, steps in zip(PREFIXES, drawn, strict=True):
        for step in steps:
            logps = log_softmax(logits_after(policy, [*prefix, *step.tokens], 0.8), axis=-1)
            positions = np.arange(len(prefix) - 1, len(prefix) - 1 + len(step.tokens))
            np.testing.assert_allclose(
                step.logprobs, logps[positions, list(step.tokens)], rtol=1e-5, atol=1e-5
            )


def test_the_cache_grows_with_the_answers(exact, monkeypatch):
    monkeypatch.setattr("ablate.engines.kv_cache.SPARE", 2)
    small = engine(exact).generate(PREFIXES, 3, ROOM, key=7, purpose="rollout")
    monkeypatch.setattr("ablate.engines.kv_cache.SPARE", 256)
    assert engine(exact).generate(PREFIXES, 3, ROOM, key=7, purpose="rollout") == small


def test_under_autocast_keys_take_no_more_room_than_values(policy):
    """Rotated keys come in single precision there; attention would only cast them again."""
    from ablate.engines.kv_cache import new_cache

    cache = new_cache(policy.model, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        policy.model(input_ids=torch.tensor([[1, 5, 6]]), past_key_values=cache, use_cache=True)
    assert {kept.dtype for layer in cache.layers for kept in (layer._keys, layer._values)} == {torch.bfloat16}


@pytest.mark.parametrize("max_rows", [1, 2, 5, 7])
def test_batches_do_not_change_what_a_row_draws(exact, max_rows):
    def sample(prefixes, room, rows=1024):
        drawn = engine(exact, rows).generate(prefixes, 3, room, key=5, purpose="rollout")
        return [[step.tokens for step in steps] for steps in drawn]

    whole = sample(PREFIXES, ROOM)
    assert sample(PREFIXES, ROOM, max_rows) == whole
    # other neighbours, shorter and longer, that end at other times
    for i in range(len(PREFIXES)):
        others = [(1, 7) * (2 + k % 4) for k in range(len(PREFIXES))]
        room = [1 + 9 * (k % 3) for k in range(len(PREFIXES))]
        others[i], room[i] = PREFIXES[i], ROOM[i]
        assert sample(others, room)[i] == whole[i]
    # more room only adds tokens
    longer = sample(PREFIXES, [room + 6 for room in ROOM])
    for short, long in zip(chain(*whole), chain(*longer), strict=True):
        assert long[: len(short)] == short


def test_no_batch_exceeds_max_rows(policy, monkeypatch):
    seen = []
    forward = policy.model.forward
    monkeypatch.setattr(
        policy.model, "forward", lambda **kwargs: seen.append(len(kwargs["input_ids"])) or forward(**kwargs)
    )
    engine(policy, max_rows=4).generate([(1, 5), (1, 6)], 7, [3, 3], key=0, purpose="rollout")
    assert max(seen) == 4


def test_finished_rows_leave_the_batch(policy, monkeypatch):
    seen = []
    forward = policy.model.forward
    monkeypatch.setattr(
        policy.model, "forward", lambda **kwargs: seen.append(len(kwargs["input_ids"])) or forward(**kwargs)
    )
    drawn = engine(policy).generate([(1, 5, 6)], 64, [60], key=1, purpose="rollout")
    lengths = np.array([len(step.tokens) for step in drawn[0]])
    assert seen[0] == 1  # a shared prefix is read once
    assert len(seen) == lengths.max()  # a pass for the prefix, one for every later token
    for t, rows in enumerate(seen[1:], start=1):
        unfinished = (lengths > t).sum()
        assert unfinished <= rows <= unfinished / 0.875


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("batch_tokens", [1, 50, 16384])
def test_score_is_the_sampler_s_logprobs(policy, temperature, batch_tokens):
    made = engine(policy)
    drawn = made.generate(PREFIXES, 4, ROOM, key=3, purpose="rollout", temperature=temperature)
    prefixes = [prefix for prefix in PREFIXES for _ in range(4)]
    steps = list(chain(*drawn))
    scored = made.score(
        prefixes,
        [step.tokens for step in steps],
        purpose="score",
        temperature=temperature,
        batch_tokens=batch_tokens,
    )
    for step, logprobs in zip(steps, scored, strict=True):
        assert len(logprobs) == len(step.tokens)
        np.testing.assert_allclose(logprobs, step.logprobs, atol=1e-5)
    assert made.score([], [], purpose="score") == []


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_samples_follow_the_softmax(policy, temperature):
    """Pairs of tokens against p(first) p(second | first): chi-square over cells with at least 5 expected."""
    n, prefix = 6000, (1, 5, 6, 7)
    drawn = engine(policy, n).generate([prefix], n, [2], key=8, purpose="rollout", temperature=temperature)[0]
    first = softmax(logits_after(policy, prefix, temperature)[-1])
    expected = {}
    for token, chance in enumerate(first):
        if token == policy.eos:
            expected[(token,)] = n * chance
            continue
        after = softmax(logits_after(policy, [*prefix, token], temperature)[-1])
        expected |= {(token, following): n * chance * p for following, p in enumerate(after)}
    counts = dict.fromkeys(expected, 0)
    for step in drawn:
        counts[step.tokens] += 1
    common = [cell for cell, mean in expected.items() if mean >= 5]
    assert len(common) > 10
    seen = [counts[cell] for cell in common]
    means = [expected[cell] for cell in common]
    assert chisquare([*seen, n - sum(seen)], [*means, n - sum(means)]).pvalue > 1e-3


def test_tokens_without_probability_are_never_drawn():
    """Neither by the smallest number nor by one that rounds to 1 in float32."""
    impossible = float("-inf")
    logits = torch.tensor([[impossible, 0.0, impossible, 0.0, impossible]] * 2)
    chosen, logps = _draw(logits, torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64).float(), 1.0)
    assert chosen.tolist() == [1, 3]
    assert logps.tolist() == pytest.approx([np.log(0.5)] * 2)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(policy, training):
    policy.model.train(training)
    made = engine(policy)
    drawn = made.generate([(1, 5)], 2, [4], key=0, purpose="rollout")
    made.score([(1, 5)], [drawn[0][0].tokens], purpose="score")
    with pytest.raises(IndexError):  # also when a pass fails: positions that no embedding has
        made.score([(1, 10**6)], [(5,)], purpose="score")
    assert policy.model.training is training
    assert all(p.requires_grad and p.grad is None for p in policy.model.parameters())
    ids = torch.tensor([[1, 5, 6]])
    policy.model(input_ids=ids, labels=ids).loss.backward()  # no inference tensors are left behind


def test_a_sliding_window_is_refused(policy):
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=24,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=16,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    )
    made = engine(Policy(Gemma3ForCausalLM(config), policy.tokenizer))
    with pytest.raises(UserError, match="sliding_attention"):
        made.generate([(1, 5)], 1, [4], key=0, purpose="rollout")


def test_impossible_requests_are_refused(policy):
    made = engine(policy)
    with pytest.raises(ValueError, match="room"):
        made.generate([(1,), (1, 5)], 1, [4, 0], key=0, purpose="rollout")
    with pytest.raises(ValueError, match="at least one token"):
        made.generate([()], 1, [4], key=0, purpose="rollout")
    with pytest.raises(ValueError, match="at least one token"):
        made.score([()], [(1,)], purpose="score")
    with pytest.raises(UserError, match="max_rows"):
        HFEngine(0)
    assert made.generate([], 3, [], key=0, purpose="rollout") == []


def test_with_streams_of_their_own_samples_do_not_depend_on_the_batch(exact):
    """Any numbers of samples, together, alone, in another order: sample j is row j of the stream."""
    counts, streams = [3, 1, 4, 2, 1, 5], [2**64 - 1, 7, 8, 9, 0, 2**63]
    together = engine(exact, max_rows=5).generate(PREFIXES, counts, ROOM, key=streams, purpose="rollout")
    assert list(map(len, together)) == counts
    for i in reversed(range(len(PREFIXES))):
        (alone,) = engine(exact).generate(
            [PREFIXES[i]], counts[i], [ROOM[i]], key=[streams[i]], purpose="label"
        )
        assert [step.tokens for step in alone] == [step.tokens for step in together[i]]
    (more,) = engine(exact).generate([PREFIXES[3]], 9, [ROOM[3]], key=[streams[3]], purpose="rollout")
    assert [step.tokens for step in more[:2]] == [step.tokens for step in together[3]]
    (one,) = engine(exact).generate([PREFIXES[3]], 9, [ROOM[3]], key=streams[3], purpose="rollout")
    assert one == more  # a batch of one prefix is a stream
    assert [s.tokens for s in together[0]] != [
        s.tokens for s in together[3]
    ]  # the same prefix, other streams


@pytest.mark.parametrize(("n", "key"), [([1, 2], [1] * 6), ([0] * 6, 1), (1, [1, 2])])
def test_counts_and_streams_must_fit_the_prefixes(exact, n, key):
    with pytest.raises(ValueError, match="every prefix needs"):
        engine(exact).generate(PREFIXES, n, ROOM, key=key, purpose="rollout")


def test_what_was_drawn_before_is_charged_like_what_is_drawn_now(exact):
    one, two = engine(exact), engine(exact)
    drawn = one.generate(PREFIXES, 3, ROOM, key=1, purpose="rollout")
    two.charge("rollout", PREFIXES, drawn)
    assert one._ledger.by_purpose() == two._ledger.by_purpose()
