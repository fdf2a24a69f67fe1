"""The generative judge: P(yes) and its cost against independent counts; whole runs with an endpoint."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from judging import TASK, account, judged, laboratory, prefixes_of, reply, server, well, word_policy
from tiny import SHAPE

from ablate.models.policy import Policy
from ablate.models.tiny import build_model
from ablate.scorers.judge import Judge
from ablate.types import UserError

ROOT = Path(__file__).parents[2]
ASK = "{problem} {steps} {step} :"  # in words that Countdown's models have


def byte_policy():
    """Every byte is a token: answer words have several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({"</s>": 0, **{c: i + 1 for i, c in enumerate(letters)}}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="</s>")
    model = build_model(replace(SHAPE, positions=1024), tokenizer, {}, seed=0)
    return Policy(model.eval(), tokenizer)


def chance(policy, prompt, yes, no):
    """P(yes) from one pass per word, without padding."""
    logps = []
    for word in (yes, no):
        row = torch.tensor([[*prompt, *word]])
        with torch.no_grad():
            at = policy.model(row).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        logps.append(sum(at[i, token].item() for i, token in enumerate(word)))
    return math.exp(logps[0]) / (math.exp(logps[0]) + math.exp(logps[1]))


# -- local models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["policy", "local"])
def test_p_yes_and_its_cost_with_words_of_one_token(who, tmp_path):
    policy = word_policy("yes")
    judge_model = policy if who == "policy" else word_policy("yes", seed=1)
    judge_model.model.save_pretrained(tmp_path)
    judge_model.tokenizer.save_pretrained(tmp_path)
    lab, judge = laboratory(policy), Judge(who=who, path=str(tmp_path), template=ASK)
    judge.check(TASK)
    prefixes = prefixes_of(lab)
    policy.model.train()  # as between updates: dropout must not reach a judge, nor the mode change
    values = judge.values(prefixes, lab)
    assert policy.model.training
    policy.model.eval()
    yes, no = judge_model.encode("yes"), judge_model.encode("no")
    prompts = [judge_model.prompt(judge.question(prefix, lab)) for prefix in judged(prefixes)]
    expected = [chance(judge_model, prompt, yes, no) for prompt in prompts]
    assert values[0::3] == [0.5] * 3  # a prompt has no step to judge
    assert [v for i, v in enumerate(values) if i % 3] == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 1e-3
    # every distinct prefix position once under the cached convention, every position under the logical one
    cost, distinct = judge_model.cost, {p[: i + 1] for p in prompts for i in range(len(p))}
    flops = sum(cost.forward(len(p) - 1, 1, 0) for p in distinct) + 2.0 * cost.head * len(prompts)
    logical = sum(cost.forward(0, len(p), 1) for p in prompts)
    found = account(lab)
    assert (found.flops, found.logical_flops) == pytest.approx((flops, logical)) and flops < logical
    assert found.tokens == found.logical_processed == sum(map(len, prompts))
    assert found.processed == len(distinct)
    assert lab._ledger.by_purpose().keys() == {"judge"} and lab._ledger.spent == found.tokens
    assert lab._logged["scorer/judge_failed"] == lab._logged["scorer/judge_malformed"] == [0.0]
    judge.values(prefixes, lab)  # the policy's cache holds the questions until it is updated; no other's does
    again = 2.0 * cost.head * len(prompts) if who == "policy" else flops
    assert found.flops == pytest.approx(flops + again)


@pytest.mark.parametrize(("yes", "no"), [(" yes", " no"), ("y", " no"), ("+", "-"), (" right", " wrong")])
def test_p_yes_and_its_cost_with_words_of_many_tokens(yes, no):
    policy = byte_policy()
    lab, judge = laboratory(policy), Judge(yes=yes, no=no)
    prefixes = judged(prefixes_of(lab, 2))
    values = judge.values(prefixes, lab)
    prompts = [policy.prompt(judge.question(prefix, lab)) for prefix in prefixes]
    words = [policy.encode(yes), policy.encode(no)]
    assert values == pytest.approx([chance(policy, prompt, *words) for prompt in prompts], abs=1e-5)
    short, long = sorted((word[:-1] for word in words), key=len)
    tails = [long] if long[: len(short)] == short else [short, long]
    passes = [(prompt, tail) for prompt in prompts for tail in tails]
    found = account(lab)
    assert found.logical_flops == pytest.approx(
        sum(policy.cost.forward(0, len(p) + len(tail), len(tail) + 1) for p, tail in passes)
    )
    assert found.tokens == sum(len(p) + sum(map(len, tails)) for p in prompts)


def test_a_question_longer_than_the_model_can_read_is_counted():
    policy = word_policy("yes")
    lab = laboratory(policy)
    prefixes = judged(prefixes_of(lab))
    values = Judge(template="{step} " * 200, neutral=0.25).values(prefixes, lab)
    assert values[0::2] == [0.25] * 3 and all(v != 0.25 for v in values[1::2])  # `no` is one token
    assert lab._logged["scorer/judge_failed"] == [0.5]
    policy.model.lm_head.weight.data.fill_(float("nan"))
    assert Judge(neutral=0.75, template=ASK).values(prefixes, lab) == [0.75] * 6
    assert lab._logged["scorer/judge_malformed"] == [0.0, 1.0]


def test_words_that_the_model_does_not_have_are_named():
    lab = laboratory(word_policy())
    with pytest.raises(UserError, match=r"the policy has no word 'yes' in its vocabulary"):
        Judge().values([], lab)
    with pytest.raises(UserError, match=r"'fine' and no word 'bad'"):
        Judge(yes="fine", no="bad").values([], lab)
    with pytest.raises(UserError, match=r"judge.template: the policy has no tokens for some of it"):
        Judge(yes="ok", no="<").values([], lab)
    prefixes = judged(prefixes_of(lab))
    assert all(0.0 < v < 1.0 for v in Judge(yes="ok", no="<", template=ASK).values(prefixes, lab))


def test_a_local_model_that_is_not_there_or_not_whole(tmp_path):
    judge = Judge(who="local", path=str(tmp_path))
    with pytest.raises(UserError, match="is not the folder of a transformers model"):
        judge.check(TASK)
    policy = word_policy("yes")
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08" * 64)
    judge.check(TASK)
    with pytest.raises(UserError, match="cannot be loaded"):
        judge.values([], laboratory(policy))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"neutral": 1.5}, "judge.neutral=1.5"),
        ({"yes": " no way"}, "neither begins"),
        ({"no": " "}, "two words"),
        ({"template": "{problem}"}, "no field {step}"),
        ({"template": "{step} {prolem}"}, "{prolem}"),
        ({"template": "{step.__class__}"}, "{step.__class__}"),
        ({"template": "{step!r}"}, "without format or conversion"),
        ({"template": "{step"}, "cannot be read"),
        ({"who": "local"}, "judge.path"),
        ({"who": "endpoint"}, "judge.endpoint.url"),
    ],
)
def test_mistakes_in_the_settings(settings, words):
    with pytest.raises(UserError, match="judge") as caught:
        Judge(**settings)
    assert words in str(caught.value)


# -- whole runs ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def ablate(cache, results, *overrides, code=0):
    command = ["experiment=smoke", "threads=1", "strategy=process_rewards", "strategy.credit.scorer=judge"]
    paths = [f"paths.cache={cache}", f"paths.results={results}"]
    done = subprocess.run(
        [sys.executable, "-m", "ablate", *command, *paths, *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "no_proxy": "127.0.0.1"},
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def test_a_run_with_an_endpoint_that_fails_now_and_then(cache, tmp_path):
    def moody(handler, question, count):
        if count % 10 == 0:
            reply(handler, b"<html>")
        elif count % 10 == 5:
            reply(handler, b"", 400)
        else:
            well(handler, question, count)

    with server(moody) as (url, requests):
        settings = {"who": "endpoint", "endpoint.url": url, "endpoint.model": "m", "endpoint.parameters": 1e5}
        overrides = [f"strategy.credit.judge.{key}={value}" for key, value in settings.items()]
        ablate(cache, tmp_path, *overrides, "budget.tokens=1e4", "budget.milestones=1")
    (folder,) = (path.parent for path in tmp_path.rglob("summary.json"))
    rows = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    asked = len(requests)
    assert asked > 20 and len(rows) > 1
    for name in ("failed", "malformed"):
        shares = [row[f"train/scorer/judge_{name}"] for row in rows]
        assert 0.0 < sum(shares) / len(shares) < 0.3
    summary = json.loads((folder / "summary.json").read_text())
    nonsense = [r[2]["messages"][0]["content"] for r in requests[9::10]]
    failed = len(requests[4::10])
    tokens = 33 * (asked - failed - len(nonsense)) + sum(len(question.encode()) + 8 for question in nonsense)
    assert summary["compute"]["judge"]["tokens"] == tokens
    assert summary["compute"]["judge"]["flops"] == 2e5 * tokens
    assert summary["totals"]["tokens"] == tokens + summary["compute"]["rollout"]["tokens"]


def test_a_policy_without_the_words_is_refused_before_it_learns(cache, tmp_path):
    done = ablate(cache, tmp_path, code=2)
    assert "the policy has no word 'yes' in its vocabulary" in done.stderr and "Traceback" not in done.stderr
    assert not any(path.read_text() for path in tmp_path.rglob("steps.jsonl"))
    (failure,) = tmp_path.rglob("failure.json")
    assert "no word 'yes'" in failure.read_text()
    with server(well) as (url, _):
        pass
    settings = ["who=endpoint", f"endpoint.url={url}", "endpoint.model=m", "endpoint.parameters=1e5"]
    overrides = [f"strategy.credit.judge.{setting}" for setting in settings]
    done = ablate(cache, tmp_path / "none", *overrides, code=2)
    assert len(done.stderr.strip().splitlines()) == 1 and f"judge.endpoint.url={url}" in done.stderr
    assert not (tmp_path / "none").exists()
