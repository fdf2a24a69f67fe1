"""Sharded weights: one step on the shards of two gloo processes is the step of a single one.

What `learner.sharding=full` stands on: rows as the learner collates them, `ablate.models.sharding`, and a
checkpoint that one process can read. Whole runs: test_sharded_runs.py.
"""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor, Shard
from word_problems import WordProblems, make_model

from ablate.engines.hf import HFEngine
from ablate.ledger import Ledger
from ablate.models.pretrained import Pretrained
from ablate.models.sharding import check, gather, scatter, sharded
from ablate.rows import collate, rows_of
from ablate.types import Trajectory, UserError

PROBLEMS, ANSWERS, LR, CLIP = 4, 4, 1e-3, 0.5


def load(folder):
    return Pretrained(str(folder)).load(WordProblems(), 0, folder)[0]


def rollout(policy):
    """Credited groups of answers that the policy sampled."""
    engine, task = HFEngine(), WordProblems()
    engine.start(policy, Ledger())
    problems = [task.problem(0, "train", i) for i in range(PROBLEMS)]
    prompts = [policy.prompt(problem.prompt) for problem in problems]
    groups = []
    for problem, prompt, steps in zip(
        problems,
        prompts,
        engine.generate(prompts, ANSWERS, [16] * PROBLEMS, key=1, purpose="rollout"),
        strict=True,
    ):
        own = type(problem)(problem.id, problem.prompt, problem.answer, tokens=prompt)
        groups.append([Trajectory(own, (s,), True, advantages=(i - 1.5,)) for i, s in enumerate(steps)])
    return groups


def step(model, pad, rows, total, processes):
    """One clipped AdamW step on the policy gradient, sum A_t p_t / p_old_t over all rows' `total` tokens; the
    gradient's norm. Data parallelism averages over processes: each one's part is multiplied by their number.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    batch = collate(rows, pad, 1.0, "cpu")
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    width = batch["completion_ids"].shape[1]
    logits = model(input_ids=ids, use_cache=False).logits[:, -width - 1 : -1]
    logps = logits.log_softmax(-1).gather(-1, batch["completion_ids"][..., None]).squeeze(-1)
    ratio = (logps - batch["old_per_token_logps"]).exp()
    (-(ratio * batch["advantages"] * batch["tool_mask"]).sum() * processes / total).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _rank(rank, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=60), rank=rank, world_size=2
    )
    policy = load(f"{folder}/model")
    rows = rows_of(rollout(policy))
    total = sum(sum(row.mask) for row in rows)
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    model = sharded(policy.model)
    for name, weight in model.named_parameters():
        assert isinstance(weight, DTensor) and weight.placements == (Shard(0),), name
        assert weight.to_local().shape[0] == (weight.shape[0] + 1 - rank) // 2, name  # the half of its rows
    norm = step(model, policy.tokenizer.pad_token_id, rows[rank::2], total, 2)
    dcp.save({"model": get_model_state_dict(model)}, checkpoint_id=f"{folder}/sharded")
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    # the policy's own model has not moved, until it is told to; and back
    own = policy.model.state_dict
    assert all(torch.equal(weight, before[name]) for name, weight in own().items())
    gather(model, policy.model)
    if rank == 0:
        assert whole.keys() == own().keys()
        assert all(torch.equal(weight, whole[name]) for name, weight in own().items())
    policy.model.load_state_dict(before)
    scatter(policy.model, model)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight.full_tensor(), before[name]), name
    if rank == 0:
        torch.save((norm, whole), f"{folder}/whole.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("tied", [True, False])
def test_a_sharded_step_is_that_of_one_process(tmp_path, tied):
    make_model(tmp_path / "model", tied=tied, steps=20)
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    norm, whole = torch.load(tmp_path / "whole.pt")
    # the checkpoint of two processes, on one
    loaded = load(tmp_path / "model")
    state = {"model": loaded.model.state_dict()}
    assert any(not torch.equal(state["model"][name], weight) for name, weight in whole.items())
    dcp.load(state, checkpoint_id=str(tmp_path / "sharded"))
    loaded.model.load_state_dict(state["model"])
    assert whole.keys() == state["model"].keys()
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, whole[name]), name
    # and the step itself
    alone = load(tmp_path / "model")
    before = {name: weight.clone() for name, weight in alone.model.state_dict().items()}
    rows = rows_of(rollout(alone))
    total = sum(sum(row.mask) for row in rows)
    assert norm == pytest.approx(step(alone.model, alone.tokenizer.pad_token_id, rows, total, 1), rel=1e-4)
    for name, weight in alone.model.state_dict().items():
        moved = weight - before[name]
        assert moved.abs().max() > 0.5 * LR, name
        # Adam's first step is lr times the gradient's sign, if it is not next to zero
        close = torch.isclose(whole[name] - before[name], moved, rtol=0.05, atol=0.05 * LR)
        assert close.float().mean() > 0.99, name


def test_a_model_that_stays_whole_is_refused(tmp_path):
    make_model(tmp_path / "model")
    model = load(tmp_path / "model").model
    with pytest.raises(UserError, match=r"left \d+ parameters whole \(model.embed_tokens.weight, ...\)"):
        check(model)
    model._no_split_modules = None
    with pytest.raises(UserError, match=r"Qwen2ForCausalLM names none .*nearest: learner.sharding=none"):
        sharded(model)
