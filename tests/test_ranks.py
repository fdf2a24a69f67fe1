"""Several processes of one run: what a launch may ask for, and the figures they agree on."""

import os
from datetime import timedelta

import numpy as np
import pytest
import torch

from ablate import ranks
from ablate.config import EvaluateConfig
from ablate.engines.hf import HFEngine
from ablate.evaluate import evaluate, heldout_problems
from ablate.ledger import Ledger
from ablate.models.flops import PassCost
from ablate.models.value_models import HeadModel
from ablate.scorers.learned import Learned
from ablate.types import Problem, Step, Trajectory, UserError
from ablate.verdicts import verdicts

COST = PassCost(100, 10, 50)


@pytest.fixture
def two(monkeypatch):
    """As the second of two processes, without the first."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")


def test_shares_are_whole_and_nearly_equal(monkeypatch):
    assert ranks.share(7) == slice(0, 7) and ranks.key() == ()
    monkeypatch.setenv("WORLD_SIZE", "3")
    for items in (0, 1, 2, 7, 9):
        parts = []
        for rank in range(3):
            monkeypatch.setenv("RANK", str(rank))
            parts.append(list(range(items))[ranks.share(items)])
        assert [item for part in parts for item in part] == list(range(items))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_USE_FSDP", "true", r"\(ACCELERATE_USE_FSDP\), .* set learner.sharding=full$"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "asks for DeepSpeed .*, which a run does not do: "),
        ("ACCELERATE_USE_MEGATRON_LM", "1", "asks for Megatron-LM"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "mixed precision fp16, which the configuration decides"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "set learner.bf16=true"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "asks for a parallelism configuration"),
        ("OMPI_COMM_WORLD_SIZE", "2", r"this launch is MPI's .*nearest: torchrun --nproc_per_node 2"),
        ("WORLD_SIZE", "3", "learner.problems=32 does not divide among 3 processes; nearest: 33"),
        ("WORLD_SIZE", "64", "nearest: 64"),
    ],
)
def test_a_launch_that_a_run_cannot_follow_is_refused(monkeypatch, variable, value, message):
    ranks.check(32, False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=message):
        ranks.check(32, False)
    if value == "bf16":
        ranks.check(32, True)


def test_processes_that_cannot_meet_are_told_at_once(two, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match=r"WORLD_SIZE=2 .* cannot meet without MASTER_ADDR"):
        ranks.start(cpu=True)
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    with pytest.raises(UserError, match=r"2 processes on a machine with .* GPUs"):
        ranks.start(cpu=False)


def test_accelerate_that_started_one_of_several_is_followed(monkeypatch):
    """`-m ablate` under it is a whole run below; here: what it cannot be asked."""
    from ablate.launch import start_others

    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    start_others([])  # one was wanted
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UserError, match="has started one process of several; nearest: torchrun"):
        start_others([])  # pytest's command line has no number


def test_a_scorer_of_its_own_per_process_is_refused(two):
    with pytest.raises(
        UserError, match=r"train=all is trained in one process, and this run has 2; nearest: .*head"
    ):
        Learned().check(None)
    Learned(train="head").check(None)


def prefixes(count, offset):
    problem = Problem("p", "", tokens=(1,))
    return [Trajectory(problem, (Step((3 + (i + offset) % 5, 4), (-1.0,) * 2),)) for i in range(count)]


def fitted(examples):
    from tiny import tiny_policy

    head = HeadModel(tiny_policy(), Ledger(), 0, lr=1e-2, steps=3)
    head.fit(*examples)
    return head.state_dict()


def evaluated():
    """What a judge was asked, columns, metrics and accounts of an evaluation, in double precision: draws
    do not depend there on which rows share a batch."""
    from test_evaluate import CAP, Checksum
    from tiny import tiny_policy

    policies = [tiny_policy(seed) for seed in (0, 1)]
    for policy in policies:
        policy.model.double()
    task, config, engine, ledger = Checksum(), EvaluateConfig(samples=3, problems=7), HFEngine(), Ledger()
    asked = []

    def examine(problems, completions):
        asked.append(list(completions))
        return verdicts(task, problems, completions), {"errors": 0.25}

    engine.start(policies[0], ledger)
    problems = heldout_problems(task, config, 0)
    found = evaluate(engine, policies[0], task, problems, config, CAP, CAP, policies[1], examine)
    ledger.sync()
    return asked, found.columns, found.metrics, ledger.by_purpose()


EXAMPLES = [(prefixes(5, 0), [0.0, 1.0, 1.0, 0.0, 1.0]), (prefixes(3, 2), [1.0, 0.0, 1.0])]


def _rank(rank, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=60), rank=rank, world_size=2
    )
    seen = {
        "gathered": ranks.gathered(("a", rank)),
        "agreed": ranks.agreed(rank + 7),
        "mean": ranks.mean({"both": float(rank), f"only {rank}": 3.0}),
    }
    done = []
    assert ranks.first(lambda: done.append(rank) or "result") == "result"
    assert done == ([0] if rank == 0 else [])

    def fail():
        raise UserError("no")

    try:
        ranks.first(fail)
    except UserError as error:
        seen["error"] = str(error)
    ledger = Ledger("tokens", 1000.0)
    for step in range(2):
        ledger.charge_generation("rollout", COST, (1, 2), [(3,) * (4 + rank)])
        ledger.charge_training("update", COST, 5 + rank + step, 3)
        ledger.sync()
        ledger.new_policy_version()
    ledger.sync()
    again = Ledger("tokens", 1000.0)
    again.load_state_dict(ledger.state_dict())
    again.charge_training("update", COST, 5, 3)
    again.sync()
    seen["accounts"], seen["spent"], seen["again"] = ledger.by_purpose(), ledger.spent, again.by_purpose()
    seen["seconds"] = ledger.seconds
    seen["head"] = fitted(EXAMPLES[rank])
    seen["one's head"] = fitted(EXAMPLES[0] if rank == 0 else ([], []))
    seen["evaluated"] = evaluated()
    torch.save(seen, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_agree_on_every_figure(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in (0, 1))
    for seen in (one, two):
        assert seen["gathered"] == [("a", 0), ("a", 1)] and seen["agreed"] == 7 and seen["error"] == "no"
        assert seen["mean"] == {"both": 0.5, "only 0": 3.0, "only 1": 3.0}
    # what both charged, each once
    expected, again = Ledger("tokens", 1000.0), Ledger()
    for rank in (0, 1):
        for step in range(2):
            expected.new_policy_version()
            expected.charge_generation("rollout", COST, (1, 2), [(3,) * (4 + rank)])
            expected.charge_training("update", COST, 5 + rank + step, 3)
    again.load_state_dict(expected.state_dict())
    again.charge_training("update", COST, 5, 3, rows=2)
    for seen in (one, two):
        assert seen["accounts"] == expected.by_purpose() and seen["spent"] == expected.spent
        assert seen["again"] == again.by_purpose()
    assert one["seconds"] == two["seconds"]
    # a value head that both trained is the one that a single process trains on all examples
    whole = fitted((EXAMPLES[0][0] + EXAMPLES[1][0], EXAMPLES[0][1] + EXAMPLES[1][1]))
    for name, weight in whole.items():
        assert torch.equal(one["head"][name], two["head"][name]), name
        torch.testing.assert_close(one["head"][name], weight, rtol=1e-4, atol=1e-6)
    # also where the other had nothing to add
    for name, weight in fitted(EXAMPLES[0]).items():
        assert torch.equal(one["one's head"][name], two["one's head"][name]), name
        torch.testing.assert_close(one["one's head"][name], weight, rtol=1e-4, atol=1e-6)
    # an evaluation is that of a single process; who judges its answers is asked once, about all of them
    (asked, columns, metrics, accounts), found = evaluated(), [one["evaluated"], two["evaluated"]]
    assert [seen[0] for seen in found] == [asked, []] and len(asked) == 1
    for _, others, figures, charged in found:
        assert all((np.asarray(columns[name]) == np.asarray(others[name])).all() for name in columns)
        assert figures == pytest.approx(metrics) and figures["kl_per_token"] != 0
        for name, amount in accounts["evaluate"].items():  # each rank has a prefix cache of its own
            shared = name in ("tokens", "logical_flops", "logical_processed")
            assert charged["evaluate"][name] == pytest.approx(amount, rel=1e-9 if shared else 0.05), name
