"""Several processes of one run: the figures they agree on, and whole runs by a launcher."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ablate import ranks
from ablate.ledger import Ledger
from ablate.models.flops import PassCost
from ablate.models.value_models import HeadModel
from ablate.record import load_evaluation, read_jsonl
from ablate.scorers.learned import Learned
from ablate.types import Problem, Step, Trajectory, UserError

ROOT = Path(__file__).parents[1]
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
        ("ACCELERATE_USE_FSDP", "true", r"asks for FSDP \(ACCELERATE_USE_FSDP\), which a run does not do"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "asks for DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "1", "asks for Megatron-LM"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "mixed precision fp16, which the configuration decides"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "set learner.bf16=true"),
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
    torch.save(seen, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_agree_on_every_figure(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
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


# -- whole runs ----------------------------------------------------------------------------------------------

SMOKE = ["experiment=smoke", "progress=false", "budget.milestones=2", "checkpoint.every_steps=4"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def started(cache, results, processes, *overrides, module=("-m", "ablate")):
    """The finished process of a command line, or of the launcher of several.

    On GPUs `accelerate launch` sets the same variables; on a CPU it starts one process, however many are
    asked for.
    """
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.run(
        [
            *(sys.executable, *(many if processes > 1 else ()), *module),
            *(*SMOKE, f"paths.cache={cache}", f"paths.results={results}", *overrides),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def finished(cache, results, processes, *overrides):
    """The folder of a whole run."""
    done = started(cache, results, processes, *overrides)
    assert done.returncode == 0, done.stderr + done.stdout
    (summary,) = results.glob("*/*/summary.json")
    return summary.parent


def test_two_processes_make_one_run(cache, tmp_path):
    """One record, one budget; before training, the evaluation of a single process to the bit."""
    alone = finished(cache, tmp_path / "1", 1, "budget.tokens=1e4")
    both = finished(cache, tmp_path / "2", 2, "budget.tokens=1e4")
    before = [load_evaluation(folder, 0) for folder in (alone, both)]
    assert all(
        (before[0][name] == before[1][name]).all() for name in ("problem", "solved", "tokens", "decoded")
    )
    summary = json.loads((both / "summary.json").read_text())
    budget, steps = summary["budget"], read_jsonl(both / "steps.jsonl")
    assert budget["declared"] <= budget["spent"] <= budget["declared"] * (1 + budget["largest_batch"])
    assert [step["step"] for step in steps] == list(range(1, summary["steps"] + 1))
    other = read_jsonl(alone / "steps.jsonl")
    assert [s["problems"] for s in steps][:8] == [s["problems"] for s in other][:8]
    # a batch costs the same, whoever does it
    rates = [json.loads((f / "summary.json").read_text())["compute"] for f in (alone, both)]
    assert rates[0]["warm_start"] == rates[1]["warm_start"]
    assert rates[0]["evaluate"]["tokens"] == pytest.approx(rates[1]["evaluate"]["tokens"], rel=0.3)
    assert abs(summary["steps"] / len(other) - 1) < 0.3


@pytest.mark.slow
def test_two_processes_resume_where_they_were_killed(cache, tmp_path):
    """Killed by an error in the sixth step of the second process; a value head is in the checkpoint."""
    settings = ["strategy=mcts", "budget.tokens=1.5e4"]
    whole = finished(cache, tmp_path / "whole", 2, *settings)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = started(cache, tmp_path / "killed", 2, *settings, module=(str(script),))
    assert done.returncode != 0 and "the power failed" in done.stderr, done.stderr
    resumed = finished(cache, tmp_path / "killed", 2, *settings, "resume=true")

    def trace(folder):
        rows = [*read_jsonl(folder / "steps.jsonl"), *read_jsonl(folder / "evaluations.jsonl")]
        clocks = ("time", "seconds/", "system/")
        return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in rows]

    assert trace(resumed) == trace(whole)
    weights = [load_file(folder / "policy" / "model.safetensors") for folder in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


KILLED = """
import sys
from ablate import ranks
from ablate.cli import main
from ablate.learner import Learner

step = Learner.training_step

def failing(self, *args, **kwargs):
    if self.state.global_step == 5 and ranks.rank() == 1:
        raise RuntimeError("the power failed")
    return step(self, *args, **kwargs)

Learner.training_step = failing
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learner.problems=7"], "learner.problems=7 does not divide among 2 processes; nearest: 8"),
        (["strategy=process_learned"], "train=all is trained in one process"),
        (["-m", "seed=0,1"], "a sweep (-m) starts its own processes"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(two, capsys, tmp_path, overrides, message):
    from ablate.cli import main

    assert main([*SMOKE, f"paths.results={tmp_path}", f"paths.cache={tmp_path}", *overrides]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.glob("*/*/steps.jsonl"))
