"""Several processes of one run: the figures they agree on, and whole runs by a launcher."""

import contextlib
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ablate import ranks
from ablate.config import EvaluateConfig
from ablate.engines.hf import HFEngine
from ablate.evaluate import evaluate, heldout_problems
from ablate.ledger import Ledger
from ablate.models.flops import PassCost
from ablate.models.value_models import HeadModel
from ablate.record import load_evaluation, read_jsonl
from ablate.scorers.learned import Learned
from ablate.types import Problem, Step, Trajectory, UserError
from ablate.verdicts import verdicts

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


# -- whole runs ----------------------------------------------------------------------------------------------

SMOKE = ["experiment=smoke", "progress=false", "budget.milestones=2", "checkpoint.every_steps=4"]
SMALL = ["strategy=counted", "budget.tokens=1e4"]
LAUNCHERS = {
    "": (sys.executable,),
    "torchrun": (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    "accelerate": (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"),
}
COUNTED = """
import json, os, signal
from dataclasses import dataclass
from strategies.guess_check import Outcome

@dataclass
class Counted(Outcome):
    def __call__(self, groups, lab):
        if os.environ.get("DIES", "nobody") == os.environ.get("RANK") and lab.batch == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        groups = super().__call__(groups, lab)
        whole = [t for group in groups for t in group]
        counts = {
            "rollout": sum(len(step.tokens) for t in whole for step in t.steps),
            "update": sum(len(t.completion) for t in whole if any(t.advantages)),
        }
        with open(f"counts-{os.environ.get('RANK', 'alone')}.jsonl", "a") as file:
            file.write(json.dumps(counts) + "\\n")
        return groups
"""
CHOICE = """
defaults: [{source: sample}, {recovery: none}]
name: counted
credit:
  _target_: strategies.counted.Counted
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def started(cache, folder, launcher, *overrides, module=("-m", "ablate"), **environment):
    """The finished process of a command line, in a working directory that has `strategy=counted`."""
    for name, text in (("strategies/counted.py", COUNTED), ("conf/strategy/counted.yaml", CHOICE)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return subprocess.run(
        [
            *(*LAUNCHERS[launcher], *module),
            *(*SMOKE, f"paths.cache={cache}", f"paths.results={folder}", *overrides),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
    )


def finished(cache, folder, launcher, *overrides):
    """The folder of a whole run."""
    done = started(cache, folder, launcher, *overrides)
    assert done.returncode == 0, done.stderr + done.stdout
    (summary,) = folder.glob("smoke/*/summary.json")
    return summary.parent


@pytest.fixture(scope="module")
def both(cache, tmp_path_factory):
    """A run of two processes, which make the warm start, too: they start without a cache."""
    return finished(cache, tmp_path_factory.mktemp("both"), "accelerate", *SMALL)


def test_two_processes_make_one_run(both, cache, tmp_path):
    """One record, one ledger, one budget; before training, the evaluation of a single process."""
    alone = finished(cache, tmp_path, "", *SMALL)
    before = [load_evaluation(folder, 0) for folder in (alone, both)]
    assert all(
        (before[0][name] == before[1][name]).all() for name in ("problem", "solved", "tokens", "decoded")
    )
    summary = json.loads((both / "summary.json").read_text())
    budget, steps = summary["budget"], read_jsonl(both / "steps.jsonl")
    assert budget["declared"] <= budget["spent"] <= budget["declared"] * (1 + budget["largest_batch"])
    assert [step["step"] for step in steps] == list(range(1, summary["steps"] + 1))
    assert json.loads((both / "meta.json").read_text())["processes"] == 2
    other = read_jsonl(alone / "steps.jsonl")
    assert [s["problems"] for s in steps][:8] == [s["problems"] for s in other][:8]
    # the warm start of two processes is that of one
    rates = [json.loads((f / "summary.json").read_text())["compute"] for f in (alone, both)]
    assert rates[0]["warm_start"] == rates[1]["warm_start"]
    # tokens, counted by the strategy on each rank and in the record of the evaluations
    counts = [read_counts(both.parents[1] / f"counts-{rank}.jsonl") for rank in (0, 1)]
    for purpose in ("rollout", "update"):
        own = [sum(each[purpose] for each in rank) for rank in counts]
        assert all(own) and sum(own) == rates[1][purpose]["tokens"], purpose
    assert len(counts[0]) == len(counts[1]) == summary["steps"]
    decoded = sum(
        int(load_evaluation(both, row["step"])["decoded"].sum())
        for row in read_jsonl(both / "evaluations.jsonl")
    )
    assert decoded <= rates[1]["evaluate"]["tokens"] <= 3 * decoded  # the rest is read for the divergence
    assert rates[1]["evaluate"]["tokens"] == pytest.approx(rates[0]["evaluate"]["tokens"], rel=0.3)


def read_counts(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def trace(folder):
    rows = [*read_jsonl(folder / "steps.jsonl"), *read_jsonl(folder / "evaluations.jsonl")]
    clocks = ("time", "seconds/", "system/")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in rows]


def test_a_rank_that_is_killed_ends_the_run_and_is_named(both, cache, tmp_path, capsys):
    """No process hangs, the record says who; the same launch goes on, to the same bits, and no other does."""
    from ablate.cli import main

    done = started(cache, tmp_path, "torchrun", *SMALL, DIES="1")
    assert done.returncode != 0
    assert re.search(r"ablate \(rank 0 of 2\): rank 1 of 2 \(process \d+\) has ended", done.stderr), (
        done.stderr
    )
    (folder,) = tmp_path.glob("smoke/*")
    assert "rank 1 of 2" in json.loads((folder / "failure.json").read_text())["message"]
    with contextlib.chdir(tmp_path):
        assert main([*SMOKE, *SMALL, f"paths.results={tmp_path}", f"paths.cache={cache}", "resume=true"]) == 2
    assert "begun with processes=2, and this launch has 1" in capsys.readouterr().err
    resumed = finished(cache, tmp_path, "torchrun", *SMALL, "resume=true")
    assert resumed == folder and trace(resumed) == trace(both)


@pytest.mark.slow
def test_two_processes_resume_where_they_were_killed(cache, tmp_path):
    """Killed by an error in the sixth step of the second process; a value head is in the checkpoint."""
    settings = ["strategy=mcts", "budget.tokens=1.5e4"]
    whole = finished(cache, tmp_path / "whole", "torchrun", *settings)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = started(cache, tmp_path / "killed", "torchrun", *settings, module=(str(script),))
    assert done.returncode != 0 and "the power failed" in done.stderr, done.stderr
    (failure,) = tmp_path.glob("killed/smoke/*/failure.json")
    assert "rank 1 of 2: RuntimeError: the power failed" in failure.read_text()
    resumed = finished(cache, tmp_path / "killed", "torchrun", *settings, "resume=true")

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
