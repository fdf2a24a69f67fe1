"""Whole runs of several processes, by the launchers that people use."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ablate.record import load_evaluation, read_jsonl

ROOT = Path(__file__).parents[1]
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
if __name__ == "__main__":  # the warm start's own process reads this, too
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
def test_mistakes_are_told_before_anything_is_trained(capsys, monkeypatch, tmp_path, overrides, message):
    from ablate.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*SMOKE, f"paths.results={tmp_path}", f"paths.cache={tmp_path}", *overrides]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.glob("*/*/steps.jsonl"))
