"""Whole runs of two processes with sharded weights (`learner.sharding=full`), by torchrun."""

import json

import pytest
import torch
from safetensors.torch import load_file
from test_launched_runs import SMOKE, finished, started, trace
from transformers import AutoModelForCausalLM

from ablate.record import read_jsonl

# several micro-batches a step and steps a batch, clipping, a reference model, a value head
HARD = [
    *("strategy=mcts", "budget.tokens=1e4", "learner.iterations=2", "learner.kl=0.01"),
    *("learner.micro_batch_tokens=150", "learner.max_grad_norm=0.2"),
]
FULL = "learner.sharding=full"
LEFT_WHOLE = """
import sys
import torch.distributed.fsdp

torch.distributed.fsdp.fully_shard = lambda module, **settings: module
from ablate.cli import main

if __name__ == "__main__":  # the warm start's own process reads this, too
    sys.exit(main())
"""
KILLED = """
import os, signal, sys
from ablate import ranks
from ablate.cli import main
from ablate.learner import Learner

step = Learner.training_step

def dying(self, *args, **kwargs):
    if self.state.global_step == 6 and ranks.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)

Learner.training_step = dying
if __name__ == "__main__":  # the warm start's own process reads this, too
    sys.exit(main())
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def sharded(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    return finished(cache, folder, "torchrun", *HARD, FULL, "learner.gradient_checkpointing=true")


def weights(folder):
    return load_file(folder / "policy" / "model.safetensors")


@pytest.mark.slow
def test_a_sharded_run_is_the_data_parallel_run(sharded, cache, tmp_path):
    """The same answers, ledger and accuracy; the same weights, up to the order of sums."""
    parallel = finished(cache, tmp_path, "torchrun", *HARD)
    found, expected = (json.loads((f / "summary.json").read_text()) for f in (sharded, parallel))
    assert found["compute"] == expected["compute"] and found["budget"]["spent"] == expected["budget"]["spent"]
    steps, others = read_jsonl(sharded / "steps.jsonl"), read_jsonl(parallel / "steps.jsonl")
    assert len(steps) == len(others) > 8
    for step, other in zip(steps, others, strict=True):
        assert step["problems"] == other["problems"]
        for name in ("train/solved", "train/length", "learner/micro_batches"):
            assert step[name] == other[name], name
        assert step["learner/grad_norm"] == pytest.approx(other["learner/grad_norm"], rel=1e-4)
    assert max(step["learner/micro_batches"] for step in steps) > 2
    assert max(step["learner/grad_norm"] for step in steps) > 0.2
    rows = [read_jsonl(folder / "evaluations.jsonl") for folder in (sharded, parallel)]
    assert [row["heldout/pass@1"] for row in rows[0]] == [row["heldout/pass@1"] for row in rows[1]]
    one, two = weights(sharded), weights(parallel)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], rtol=1e-4, atol=1e-5)
    model = AutoModelForCausalLM.from_pretrained(sharded / "policy")
    assert torch.equal(model.state_dict()["model.norm.weight"], one["model.norm.weight"])


def test_every_process_keeps_its_half_of_the_optimizer(sharded):
    checkpoint = max((sharded / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert not (checkpoint / "optimizer.pt").exists()
    halves = [load_file(checkpoint / f"optimizer-{rank}.safetensors") for rank in (0, 1)]
    whole = sorted(map(len, load_file(checkpoint / "model.safetensors").values()))
    for moment in ("exp_avg", "exp_avg_sq"):
        rows = [[len(half[key]) for key in sorted(half) if key.endswith(f".{moment}")] for half in halves]
        assert sorted(map(sum, zip(*rows, strict=True))) == whole
        assert all(one - two in (0, 1) for one, two in zip(*rows, strict=True))


@pytest.mark.slow
def test_a_sharded_run_goes_on_to_the_same_bits(sharded, cache, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    settings = [*HARD, FULL, "learner.gradient_checkpointing=true"]
    done = started(cache, tmp_path, "torchrun", *settings, module=(str(script),))
    (folder,) = tmp_path.glob("smoke/*")
    assert done.returncode != 0 and not (folder / "summary.json").exists(), done.stderr
    assert [path.name for path in (folder / "checkpoints").glob("checkpoint-*")] == ["checkpoint-4"]
    resumed = finished(cache, tmp_path, "torchrun", *settings, "resume=true")
    assert resumed == folder and trace(resumed) == trace(sharded)
    one, two = weights(sharded), weights(resumed)
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())


@pytest.mark.slow
def test_a_launch_that_leaves_parameters_whole_is_refused(cache, tmp_path):
    script = tmp_path / "whole.py"
    script.write_text(LEFT_WHOLE)
    done = started(cache, tmp_path, "torchrun", "budget.tokens=1e4", FULL, module=(str(script),))
    assert done.returncode != 0 and "parameters whole (model.embed_tokens.weight, ...)" in done.stderr
    assert not list(tmp_path.glob("smoke/*/steps.jsonl"))


@pytest.mark.parametrize(
    ("processes", "overrides", "message"),
    [
        (1, [], "this run has one: torchrun --nproc_per_node 2 -m ablate"),
        (
            2,
            ["model=pretrained", "model.path=x", "model.lora.rank=4"],
            "saves nothing with model.lora.rank=4",
        ),
    ],
)
def test_what_sharding_cannot_do_is_told_first(capsys, monkeypatch, tmp_path, processes, overrides, message):
    from ablate.cli import main

    monkeypatch.setenv("WORLD_SIZE", str(processes))
    paths = [f"paths.results={tmp_path}", f"paths.cache={tmp_path}"]
    smoke = ["progress=false"] if processes > 1 else SMOKE
    assert main([*smoke, FULL, *paths, *overrides]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
