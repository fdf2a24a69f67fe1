"""Sweeps of real runs in real processes: stopped, killed, failing, and started again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ablate.compose import compose
from ablate.config import run_folder
from ablate.record import read_json, read_jsonl, status
from ablate.sweeps.state import End, time_left

ROOT = Path(__file__).parents[2]

OWN = """
import os, time
from dataclasses import dataclass
from strategies.guess_check import Sample

@dataclass
class Slow(Sample):
    def __call__(self, problems, lab):
        time.sleep(float(os.environ.get("SLOW", "0")))
        return super().__call__(problems, lab)

@dataclass
class Failing(Sample):
    def __call__(self, problems, lab):
        raise RuntimeError("no answer\\nat all")
"""
CHOICE = """
defaults: [{{recovery: none}}, {{credit: outcome}}]
name: {name}
source:
  _target_: strategies.own.{kind}
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A working directory with strategies of the user's own."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "strategies").mkdir()
    (folder / "strategies/own.py").write_text(OWN)
    (folder / "conf/strategy").mkdir(parents=True)
    for kind in ("Slow", "Failing"):
        name = kind.lower()
        (folder / f"conf/strategy/{name}.yaml").write_text(CHOICE.format(name=name, kind=kind))
    return folder


@pytest.fixture
def sweep(here):
    """Starts a sweep, two runs at a time; ends what it left."""
    started = []

    def start(*overrides, slow=0.0):
        command = [
            sys.executable,
            "-m",
            "ablate",
            "-m",
            "experiment=smoke",
            "paths.cache=cache",
            "progress=false",
        ]
        command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "resume=true"]
        command += ["budget.tokens=1.5e4", "budget.milestones=1"]
        command += ["tuning.flops=5e12", "tuning.logical_flops=6e12", *overrides]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLOW": str(slow)}
        pipes = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "start_new_session": True,
        }
        started.append(psutil.Popen(command, cwd=here, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            for each in [*process.children(recursive=True), process]:
                each.kill()
            process.communicate()


def until(condition, seconds=90):
    """Waits for something to become true; returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    pytest.fail("waited in vain")


def runs(here, name):
    return sorted((here / "results" / name).glob("*-s*"))


def busy(here, name):
    """The runs' folders, once two of them have made a step."""
    found = [folder for folder in runs(here, name) if read_jsonl(folder / "steps.jsonl")]
    return found if len(found) == 2 else None


def test_a_sweep_that_is_stopped_goes_on_and_a_failing_run_stops_nobody(here, sweep):
    command = "strategy=slow,failing", "seed=0,1", "name=stopped"
    process = sweep(*command, slow=1)
    folders = until(lambda: busy(here, "stopped"))
    workers = process.children(recursive=True)
    process.terminate()
    out, err = process.communicate(timeout=30)
    stopped_well(process, err, workers, folders)
    assert runs(here, "stopped") == folders  # the others never began
    again = sweep(*command)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 1 and [status(folder) for folder in folders] == ["finished"] * 2
    assert all(len(read_json(folder / "meta.json")["resumed"]) == 1 for folder in folders)
    reason = "RuntimeError: no answer at all"
    assert err.endswith(
        "ablate: 2 runs failed:\n"
        f"  strategy=failing seed=0: {reason}\n"
        f"  strategy=failing seed=1: {reason}\n"
        "the same command runs what is missing and goes on with what is unfinished\n"
    )
    lines = out.splitlines()
    assert [line.split(" · ")[0] for line in lines] == [f"{i} of 4" for i in range(1, 5)]
    assert sum("FAILED" in line for line in lines) == 2 and sum("pass@1 " in line for line in lines) == 2
    assert "left" in lines[2] and "left" not in lines[3]


def stopped_well(process, err, workers, folders):
    """Told so, with a checkpoint of every run, and no process or file of the sweep left."""
    assert process.returncode == 130, err
    assert "the same command runs what is missing and goes on" in err and "Traceback" not in err
    assert not psutil.wait_procs(workers, timeout=10)[1]
    for folder in folders:
        assert status(folder) == "unfinished" and list((folder / "checkpoints").glob("checkpoint-*"))
    assert list((folders[0].parents[2] / "cache/sweeps").iterdir()) == []


def test_the_workers_of_a_sweep_that_was_killed_stop_too(here, sweep):
    process = sweep("strategy=slow", "seed=0,1,2", "name=killed", slow=1)
    folders = until(lambda: busy(here, "killed"))
    workers = process.children(recursive=True)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=30)[1]
    assert all(list((folder / "checkpoints").glob("checkpoint-*")) for folder in folders)
    assert len(runs(here, "killed")) == 2
    shutil.rmtree(here / "cache/sweeps")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_outlives_its_workers_and_loses_no_step(here, sweep):
    process = sweep("strategy=slow", "seed=0,1,2", "name=outlived", "checkpoint.every_steps=2", slow=0.5)
    folders = until(lambda: busy(here, "outlived"), 600)
    until(lambda: any(list((folder / "checkpoints").glob("checkpoint-*")) for folder in folders), 600)
    workers = [each for each in process.children() if "LokyProcess" in " ".join(each.cmdline())]
    workers[0].kill()
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0 and "Traceback" not in err
    assert err.count("new ones go on, seed=0; seed=1 from the last checkpoint\n") == err.count("killed") == 1
    assert [line.split(" · ")[0] for line in out.splitlines()] == [f"{i} of 3" for i in (1, 2, 3)]
    assert len(runs(here, "outlived")) == 3
    assert [len(read_json(folder / "meta.json").get("resumed", [])) for folder in folders] == [1, 1]
    for folder in runs(here, "outlived"):
        steps = [row["step"] for row in read_jsonl(folder / "steps.jsonl")]
        assert status(folder) == "finished" and steps == list(range(1, len(steps) + 1))


@pytest.mark.slow
def test_what_a_clone_holds_of_a_finished_run_is_not_run_again(here, sweep):
    """Settings, summary and outcomes are committed; checkpoints, weights and streams are not."""
    first = sweep("strategy=slow", "seed=0,1", "name=cloned", slow=1)
    folders = until(lambda: busy(here, "cloned"))
    workers = first.children(recursive=True)
    os.killpg(first.pid, signal.SIGINT)  # Ctrl-C in a terminal reaches every process
    stopped_well(first, first.communicate(timeout=30)[1], workers, folders)
    done = sweep("strategy=slow", "seed=0,1", "name=cloned")
    done.communicate(timeout=120)
    for folder in folders:
        assert status(folder) == "finished"
        summary = read_json(folder / "summary.json")  # what tuning cost is told, and not part of the budget
        assert summary["compute"]["tuning"]["flops"] == 5e12 > summary["totals"]["flops"]
        for part in ("checkpoints", "policy", "figures"):
            shutil.rmtree(folder / part)
        for part in ("steps.jsonl", "summary.md"):
            (folder / part).unlink(missing_ok=True)
        meta = read_json(folder / "meta.json")
        meta["git"] = {"revision": "0" * 40, "dirty": False}  # made by other code
        (folder / "meta.json").write_text(json.dumps(meta))
        config = folder / "config.yaml"  # before a key existed: another fingerprint, the same run
        config.write_text(config.read_text().replace("  schedule: constant\n", ""))
        folder.rename(folder.with_name(folder.name[:-8] + "00000000"))
    shutil.rmtree(here / "results/cloned/.sweeps")
    before = {path: path.stat().st_mtime_ns for path in (here / "results/cloned").rglob("[!.]*")}
    again = sweep("strategy=slow", "seed=0,1", "name=cloned")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0 and err == ""
    assert [line.split(" · ")[2] for line in out.splitlines()] == ["finished before"] * 2
    shutil.rmtree(here / "results/cloned/.sweeps")
    assert {path: path.stat().st_mtime_ns for path in (here / "results/cloned").rglob("[!.]*")} == before


def test_a_run_is_found_under_an_earlier_fingerprint_only_if_it_is_the_same(tmp_path, monkeypatch):
    from omegaconf import OmegaConf

    monkeypatch.chdir(tmp_path)
    config = compose(["experiment=smoke"])
    folder = tmp_path / run_folder(config)
    earlier = folder.with_name(folder.name[:-8] + "0123abcd")
    earlier.mkdir(parents=True)
    values = OmegaConf.to_container(config)
    del values["paths"], values["learner"]["bf16"]
    (earlier / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(values)))
    assert tmp_path / run_folder(config) == earlier
    assert tmp_path / run_folder(compose(["experiment=smoke", "learner.bf16=true"])) != earlier
    (earlier / "config.yaml").write_text("gone: 1\n")
    assert tmp_path / run_folder(config) == folder


def test_the_time_left_counts_how_many_run_at_a_time_and_only_those_that_ran():
    ends = [End("a", "finished", "", 100.0), End("b", "finished", "", 200.0), End("c", "known", "", 0.0)]
    assert time_left(ends, 2, 7) == "about 5:00 left"
    assert time_left(ends, 2, 3) == time_left(ends, 2, None) == time_left(ends[2:], 2, 7) == ""
