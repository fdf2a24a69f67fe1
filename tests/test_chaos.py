"""A sweep under kill -9, SIGTERM and a tracking server that comes and goes, started again until it is done.

CHAOS=<number> in the environment chooses another course of events.
"""

import os
import signal
import subprocess
import time
from random import Random

import pytest
from mirroring import Server
from sweeping import computed, end, runs, start

from ablate.record import read_jsonl
from ablate.sync import main as sync
from ablate.tracking.store import connect

SWEEP = ["strategy=guess_check,learn_to_correct", "seed=0,1,2,3", "hydra/launcher=joblib"]
SWEEP += ["hydra.launcher.n_jobs=2"]
EVENTS = ["kill worker", "kill sweep", "end worker", "end sweep", *["server"] * 3]
STARTS = 20  # more than events can make it take
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def steps(here):
    """How many the runs have made so far, of those that count."""
    return sum(len(read_jsonl(folder / "steps.jsonl")) for folder in runs(here, "chaos"))


def until_something_happens(draw, process, here):
    """Wait for a few steps of the runs, which takes as long as the machine is busy; now and then for a
    moment, perhaps before a run began. Returns at once when the sweep is over."""
    soon = time.monotonic() + draw.uniform(1, 8) if draw.random() < 0.25 else None
    wanted, least = draw.randint(1, 12), steps(here)
    while process.poll() is None:
        if soon and time.monotonic() > soon:
            return
        least = min(least, made := steps(here))  # a run that goes on has lost some
        if not soon and made >= least + wanted:
            return
        time.sleep(0.5)


def disturb(what, draw, process, server):
    """One thing that happens to clusters; returns what."""
    workers = [each for each in process.children() if "LokyProcess" in " ".join(each.cmdline())]
    number = signal.SIGKILL if what.startswith("kill") else signal.SIGTERM
    if what == "server":
        if server.process.poll() is None:
            server.kill()
        else:
            server.start(wait=False)
    elif what.endswith("sweep"):
        process.send_signal(number)
    elif not workers:
        return "nobody"
    else:
        draw.choice(workers).send_signal(number)
    return what


def test_every_run_finishes_as_if_nothing_had_happened(tmp_path):
    draw, seen, codes = Random(int(os.environ.get("CHAOS", "7"))), [], []
    events = draw.sample(EVENTS, len(EVENTS))
    server = Server(tmp_path / "server")
    tracking = ["tracking=mlflow", f"tracking.uri={server.uri}", "tracking.every_seconds=2"]
    try:
        while len(codes) < STARTS:
            with (tmp_path / "log").open("a") as log:
                process = start(tmp_path, *SWEEP, "name=chaos", *tracking, stdout=log, stderr=log)
            try:
                while process.poll() is None and events:
                    until_something_happens(draw, process, tmp_path)
                    if process.poll() is None:
                        seen.append(disturb(events.pop(), draw, process, server))
                        print(f"{time.strftime('%X')} {steps(tmp_path)} steps, {seen[-1]}", flush=True)
                    if seen and seen[-1].endswith("sweep"):
                        process.wait(timeout=300)
                codes.append(process.wait(timeout=1200))
            finally:
                end(process)
            if codes[-1] == 0:
                break
        assert codes[-1] == 0, (tmp_path / "log").read_text()[-3000:]
        print(f"{len(codes)} starts, which ended with {codes}; {', '.join(seen)}")
        assert set(seen) >= set(EVENTS)
        if server.process.poll() is not None:
            server.start()
        server.wait()
        assert sync([str(tmp_path / "results/chaos")]) == 0
        check_mirror(server.uri, runs(tmp_path, "chaos"))
    finally:
        server.kill()
    calm = start(tmp_path, *SWEEP, "name=calm", stdout=subprocess.DEVNULL)
    try:
        assert calm.wait(timeout=1200) == 0
    finally:
        end(calm)
    disturbed, undisturbed = runs(tmp_path, "chaos"), runs(tmp_path, "calm")
    assert [each.name for each in disturbed] == [each.name for each in undisturbed]
    assert len(disturbed) == 8  # nothing double, nothing lost
    for one, other in zip(disturbed, undisturbed, strict=True):
        assert computed(one) == computed(other), one.name
        assert not list(one.glob(".owner*")) and not list(one.glob("**/.*.tmp"))
        numbers = [row["step"] for row in read_jsonl(one / "steps.jsonl")]
        assert numbers == list(range(1, len(numbers) + 1))


def check_mirror(uri, folders):
    """MLflow has each run once, finished, with every step of its curve once."""
    client = connect(uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == "ablate"]
    mirrored = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["ablate.folder"] for run in mirrored) == sorted(map(str, folders))
    found = {run.data.tags["ablate.folder"]: run for run in mirrored}
    for folder in folders:
        run = found[str(folder)]
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "train/solved")
        assert sorted(m.step for m in history) == [row["step"] for row in read_jsonl(folder / "steps.jsonl")]
