"""A sweep under kill -9, SIGTERM and a tracking server that comes and goes, started again until it is
done."""

import signal
import subprocess
from random import Random

import psutil
import pytest
from mirroring import Server
from sweeping import computed, end, runs, start

from ablate.record import read_jsonl
from ablate.sync import main as sync
from ablate.tracking.store import connect

SWEEP = ["strategy=guess_check,learn_to_correct", "seed=0,1,2,3", "hydra/launcher=joblib"]
SWEEP += ["hydra.launcher.n_jobs=2"]
DISTURBANCES = 10
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1100)]


def disturb(draw, process, server):
    """One thing that happens to clusters; returns what."""
    workers = [each for each in process.children() if "LokyProcess" in " ".join(each.cmdline())]
    what = draw.choice(["kill worker", "kill sweep", "end worker", "end sweep", "server", "server"])
    number = signal.SIGKILL if what.startswith("kill") else signal.SIGTERM
    if what == "server":
        if server.process.poll() is None:
            server.kill()
        else:
            server.start()
    elif what.endswith("worker") and workers:
        draw.choice(workers).send_signal(number)
    else:
        process.send_signal(number)
    return what


def test_every_run_finishes_as_if_nothing_had_happened(tmp_path):
    draw, seen = Random(7), []
    server = Server(tmp_path / "server")
    chaos = [
        *SWEEP,
        "name=chaos",
        "tracking=mlflow",
        f"tracking.uri={server.uri}",
        "tracking.every_seconds=2",
    ]
    started = 0
    try:
        while started < 40:
            started += 1
            with (tmp_path / "log").open("a") as log:
                process = start(tmp_path, *chaos, stdout=log, stderr=subprocess.STDOUT)
            try:
                while process.poll() is None:
                    if len(seen) >= DISTURBANCES:
                        process.wait(timeout=600)
                        break
                    try:
                        process.wait(timeout=draw.uniform(6, 18))
                    except psutil.TimeoutExpired:
                        seen.append(disturb(draw, process, server))
                        if seen[-1].endswith("sweep"):
                            process.wait(timeout=90)
            finally:
                workers = process.children(recursive=True) if process.is_running() else []
                if process.is_running():
                    end(process)
                psutil.wait_procs(workers, timeout=60)
            if process.returncode == 0 and len(seen) >= DISTURBANCES // 2:
                break
        assert process.returncode == 0, (tmp_path / "log").read_text()[-3000:]
        print(f"{started} starts; {', '.join(seen)}")
        assert started > 1 and len({each for each in seen if each != "server"}) > 1
        if server.process.poll() is not None:
            server.start()
        assert sync([str(tmp_path / "results/chaos")]) == 0
        check_mirror(server.uri, runs(tmp_path, "chaos"))
    finally:
        server.kill()
    calm = start(tmp_path, *SWEEP, "name=calm", stdout=subprocess.DEVNULL)
    try:
        assert calm.wait(timeout=600) == 0
    finally:
        end(calm)
    disturbed, undisturbed = runs(tmp_path, "chaos"), runs(tmp_path, "calm")
    assert [each.name for each in disturbed] == [each.name for each in undisturbed]
    assert len(disturbed) == 8  # nothing double, nothing lost
    for one, other in zip(disturbed, undisturbed, strict=True):
        assert computed(one) == computed(other), one.name
        assert not list(one.glob(".owner*")) and not list(one.glob("**/.*.tmp"))
        steps = [row["step"] for row in read_jsonl(one / "steps.jsonl")]
        assert steps == list(range(1, len(steps) + 1))


def check_mirror(uri, folders):
    """MLflow has each run once, finished, with every step of its curve once."""
    client = connect(uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == "ablate"]
    found = {run.data.tags["ablate.folder"]: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == sorted(str(folder) for folder in folders)
    for folder in folders:
        run = found[str(folder)]
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "train/solved")
        assert sorted(m.step for m in history) == [row["step"] for row in read_jsonl(folder / "steps.jsonl")]
