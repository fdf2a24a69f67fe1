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
from ablate.sweep import End, _left

ROOT = Path(__file__).parents[1]

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
        command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "resume=true", *overrides]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLOW": str(slow)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_stopped_leaves_checkpoints_and_no_process_and_goes_on(here, sweep, number):
    name = f"name={number.name}"
    process = sweep("strategy=slow", "seed=0,1,2", name, slow=1)
    folders = until(lambda: busy(here, number.name))
    workers = process.children(recursive=True)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "the same command runs what is missing and goes on" in err and "Traceback" not in err
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert [status(folder) for folder in folders] == ["unfinished"] * 2
    assert all(list((folder / "checkpoints").glob("checkpoint-*")) for folder in folders)
    assert len(runs(here, number.name)) == 2  # the third never began
    assert list((here / "cache/sweeps").iterdir()) == []
    if number == signal.SIGINT:
        return
    # again, with a strategy that fails: the others are done
    again = sweep("strategy=failing,slow", "seed=0,1,2", name)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 1
    assert {status(folder) for folder in runs(here, number.name) if "slow" in folder.name} == {"finished"}
    assert all(len(read_json(folder / "meta.json")["resumed"]) == 1 for folder in folders)
    reason = "RuntimeError: no answer at all"
    assert err.endswith(
        "ablate: 3 runs failed:\n"
        + "".join(f"  strategy=failing seed={seed}: {reason}\n" for seed in range(3))
        + "the same command runs what is missing and goes on with what is unfinished\n"
    )
    lines = out.splitlines()
    assert [line.split(" · ")[0] for line in lines] == [f"{i} of 6" for i in range(1, 7)]
    assert sum("FAILED" in line for line in lines) == 3 and sum("pass@1 " in line for line in lines) == 3
    assert "left" in lines[4] and "left" not in lines[5]


def test_the_workers_of_a_sweep_that_was_killed_stop_too(here, sweep):
    process = sweep("strategy=slow", "seed=0,1,2", "name=killed", slow=1)
    folders = until(lambda: busy(here, "killed"))
    workers = process.children(recursive=True)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=30)[1]
    assert all(list((folder / "checkpoints").glob("checkpoint-*")) for folder in folders)
    assert len(runs(here, "killed")) == 2


def test_what_a_clone_holds_of_a_finished_run_is_not_run_again(here, sweep):
    """Settings, summary and outcomes are committed; checkpoints, weights and streams are not."""
    done = sweep("strategy=slow", "seed=0,1", "name=cloned")
    done.communicate(timeout=120)
    for folder in runs(here, "cloned"):
        for part in ("checkpoints", "policy", "figures"):
            shutil.rmtree(folder / part)
        for part in ("steps.jsonl", "summary.md", ".lock"):
            (folder / part).unlink(missing_ok=True)
        meta = read_json(folder / "meta.json")
        meta["git"] = {"revision": "0" * 40, "dirty": False}  # made by other code
        (folder / "meta.json").write_text(json.dumps(meta))
        config = folder / "config.yaml"  # before a key existed: another fingerprint, the same run
        config.write_text(config.read_text().replace("  schedule: constant\n", ""))
        folder.rename(folder.with_name(folder.name[:-8] + "00000000"))
    before = {path: path.stat().st_mtime_ns for path in (here / "results/cloned").rglob("*")}
    again = sweep("strategy=slow", "seed=0,1", "name=cloned")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0 and err == ""
    assert [line.split(" · ")[2] for line in out.splitlines()] == ["finished before"] * 2
    assert {path: path.stat().st_mtime_ns for path in (here / "results/cloned").rglob("*")} == before


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
    assert _left(ends, 2, 7) == "about 5:00 left"
    assert _left(ends, 2, 3) == _left(ends, 2, None) == _left(ends[2:], 2, 7) == ""
