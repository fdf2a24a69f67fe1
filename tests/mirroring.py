"""What the tests of the mirror share: a run to record, both sides of the comparison, a server."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time

from ablate.record import Record
from ablate.tracking.mirror import initialise_store
from ablate.tracking.store import connect

EXPERIMENT = "trial"
CONFIG = {
    "seed": 0,
    "strategy": {"name": "guess_check", "n": 8, "stop": ["ok", "no"]},
    "empty": {},
    "none": None,
    "on": True,
    "blank": "",
    "long": "x" * 900,
    "many": {f"p{i}": i for i in range(130)},
}


def start(folder, name="guess_check/s0"):
    record = Record(folder)
    record.write_config(CONFIG)
    record.write_meta(name, {"experiment": "demo", "strategy": "guess_check", "seed": "0", "sweep": "w1"})
    return record


def row(step, salt=0.0):
    return {
        "step": step,
        "train/reward": step / 7 + salt,
        "budget/tokens": 100 * step,
        "on": step % 2 == 0,
        "learner": {"loss": math.nan if step % 5 == 3 else 1.0 / (step + 1)},
        "note": "text",
    }


def expected(folder):
    """(name, step) -> (value, timestamp in ms), straight from the JSONL; each must occur once."""
    points = {}
    for stream in ("steps", "evaluations"):
        path = folder / f"{stream}.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            read = json.loads(line)
            stamp = round(read["time"] * 1000)
            flat = {"learner/loss": read["learner"]["loss"]} if "learner" in read else {}
            flat |= {name: value for name, value in read.items() if name not in ("step", "time")}
            for name in read.get("nonfinite", []):
                flat[name] = math.nan
            for name, value in flat.items():
                if isinstance(value, int | float):
                    name = name.replace("@", "_at_")
                    assert (name, read["step"]) not in points
                    points[name, read["step"]] = (float(value), stamp)
    return points


def stored(uri, run_id):
    client = connect(uri)
    points = {}
    for name in client.get_run(run_id).data.metrics:
        for metric in client.get_metric_history(run_id, name):
            assert (name, metric.step) not in points, "a point was stored twice"
            points[name, metric.step] = (metric.value, metric.timestamp)
    return points


def assert_mirrored(uri, folder, run_id):
    assert repr(sorted(stored(uri, run_id).items())) == repr(sorted(expected(folder).items()))


def runs(uri):
    client = connect(uri)
    return client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])


class Server:
    """An MLflow tracking server on loopback that can be killed and started again."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        initialise_store(f"sqlite:///{folder}/mlflow.db")  # faster than the server does it
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self, wait=True):
        """wait: until it takes connections, which on a busy machine is minutes."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", f"{self.folder}/artifacts"]
        lean = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # no evaluations of its own
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=lean, stdout=log, stderr=log, start_new_session=True)
        if wait:
            self.wait()

    def wait(self):
        deadline = time.monotonic() + 300
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.kill()
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.1)

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
