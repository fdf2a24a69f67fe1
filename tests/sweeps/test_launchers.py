"""The same sweep by every launcher: the same results. Launchers whose extra is missing are skipped."""

import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from sweeping import computed, end, runs, start

from ablate import devices
from ablate.compose import plan
from ablate.record import read_json, read_jsonl
from ablate.sweeps.jobs import _gpus
from ablate.types import UserError

ROOT = Path(__file__).parents[2]
LAUNCHERS = {
    "basic": ("hydra", []),
    "joblib": ("joblib", ["hydra.launcher.n_jobs=2"]),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", []),
    "ray": ("hydra_plugins.hydra_ray_launcher", []),
}


def missing(module):
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True


def results(here, name, *words):
    """All that the runs of a sweep by this launcher computed."""
    sweep = ["seed=0,1", f"name={name}", f"hydra/launcher={name}", *LAUNCHERS[name][1], *words]
    process = start(here, *sweep, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=900)
    finally:
        end(process)
    assert process.returncode == 0, err
    told = sorted(line.split(" · ")[0] for line in out.splitlines() if " · " in line)
    assert told == ["1 of 2", "2 of 2"], out
    return [computed(folder) for folder in runs(here, name)]


@pytest.fixture(scope="module")
def one_after_the_other(tmp_path_factory):
    return results(tmp_path_factory.mktemp("basic"), "basic")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "submitit_local"])
def test_every_launcher_gives_the_same_results(one_after_the_other, tmp_path, name):
    if missing(LAUNCHERS[name][0]):
        pytest.skip("ablate[submitit] is not installed")
    assert len(one_after_the_other) == 2 and results(tmp_path, name) == one_after_the_other


@pytest.fixture
def cluster(monkeypatch):
    """The address of a Ray cluster of this machine alone, started in a directory that has nothing to do with
    the sweep's."""
    for limit in ("gcs_server_request_timeout", "worker_register_timeout"):  # on a busy machine
        monkeypatch.setenv(f"RAY_{limit}_seconds", "600")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # without ports of its own, Ray gives its agents 15 s to find some
    names = ("port", "dashboard-agent-grpc-port", "dashboard-agent-listen-port", "metrics-export-port")
    names += ("runtime-env-agent-port",)
    with ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        ports = {name: probe.getsockname()[1] for name, probe in zip(names, probes, strict=True)}
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short name, for its sockets
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"]
        command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
        command += [f"--temp-dir={folder}", *(f"--{name}={port}" for name, port in ports.items())]
        with (Path(folder) / "log").open("w") as log:
            head = psutil.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 600
            while "Ray runtime started" not in (text := (Path(folder) / "log").read_text()):
                assert time.monotonic() < deadline and head.poll() is None, text
                time.sleep(0.5)
            yield f"127.0.0.1:{ports['port']}"
        finally:
            end(head)


@pytest.mark.slow
@pytest.mark.skipif(missing(LAUNCHERS["ray"][0]), reason="ablate[ray] is not installed")
def test_a_ray_cluster_gives_the_same_results(one_after_the_other, tmp_path, cluster):
    found = results(tmp_path, "ray", f"hydra.launcher.ray.init.address={cluster}")
    assert len(one_after_the_other) == 2 and found == one_after_the_other


@pytest.mark.slow
def test_a_job_that_submitit_queues_again_goes_on_from_a_checkpoint(tmp_path):
    """SIGUSR2 is what Slurm sends through submitit before it takes a machine away."""
    if missing(LAUNCHERS["submitit_local"][0]):
        pytest.skip("ablate[submitit] is not installed")
    sweep = ["seed=0", "name=queued", "hydra/launcher=submitit_local", "resume=false", "budget.tokens=4e4"]
    process = start(tmp_path, *sweep, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 600
        while not (rows := [row for f in runs(tmp_path, "queued") for row in read_jsonl(f / "steps.jsonl")]):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        (worker,) = [p for p in process.children(recursive=True) if "submitit.core._submit" in p.cmdline()]
        worker.send_signal(signal.SIGUSR2)
        out, err = process.communicate(timeout=900)
    finally:
        end(process)
    assert process.returncode == 0 and "1 of 1" in out, err
    (folder,) = runs(tmp_path, "queued")
    assert len(read_json(folder / "meta.json")["resumed"]) == 1 and len(rows) < 20
    steps = [row["step"] for row in read_jsonl(folder / "steps.jsonl")]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(
    ("launcher", "extra"), [("submitit_local", "submitit"), ("submitit_slurm", "submitit"), ("ray", "ray")]
)
def test_a_launcher_whose_extra_is_missing_is_told(tmp_path, monkeypatch, launcher, extra):
    if not missing(f"hydra_plugins.hydra_{extra}_launcher"):
        pytest.skip(f"ablate[{extra}] is installed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=rf"hydra/launcher={launcher} needs .* pip install 'ablate\[{extra}\]'"
    ):
        plan(["seed=0,1", f"hydra/launcher={launcher}"], multirun=True)


# -- GPUs ----------------------------------------------------------------------------------------------------


def test_the_gpus_that_a_process_may_use(tmp_path):
    for listed, gpus in (("0,1", ["0", "1"]), ("3, GPU-ab,-1,2", ["3", "GPU-ab"]), ("", []), ("-1", [])):
        assert devices.visible({"CUDA_VISIBLE_DEVICES": listed}) == gpus
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho '  MIG 1g Device 0: (UUID: m)'\n"
        "echo 'GPU 1: B (UUID: y)'\n"
    )
    program.chmod(0o755)
    assert devices.visible({"PATH": str(tmp_path)}) == ["0", "1"]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert devices.visible({"PATH": str(tmp_path)}) == devices.visible({"PATH": "/nowhere"}) == []
    assert devices.slots(["0", "5"], 2) == ["0", "5", "0", "5"]


def test_too_many_runs_for_the_gpus_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    sweep = ["seed=0,1,2,3,4", "hydra/launcher=joblib"]

    def places(*words):
        return _gpus(plan([*sweep, *words], multirun=True))

    assert places("hydra.launcher.n_jobs=2") == ["4", "7"]
    assert places("hydra.launcher.n_jobs=4", "runs_per_gpu=2") == ["4", "7", "4", "7"]
    with pytest.raises(
        UserError, match=r"n_jobs=3 is more than 2 visible GPUs .*n_jobs=2, or runs_per_gpu=2"
    ):
        places("hydra.launcher.n_jobs=3")
    assert places("hydra.launcher.n_jobs=9", "seed=0,1") == ["4", "7"]  # two runs are two at a time
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert places("hydra.launcher.n_jobs=3") == []


WORKER = """
import os, sys, time
from pathlib import Path
from ablate import devices
for _ in range(2):
    given = devices.take(Path(sys.argv[1]), ["4", "7", "4"])
    print(given, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.readline()
"""


def test_workers_get_gpus_of_their_own_and_those_of_the_dead(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "4,7"}
    workers = []

    def another():
        command = [sys.executable, "-c", WORKER, str(tmp_path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        workers.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
        first, again = (workers[-1].stdout.readline().strip() for _ in range(2))
        assert first == again
        return first

    try:
        assert [another() for _ in range(4)] == ["4 4", "7 7", "4 4", "None 4,7"]
        workers[1].kill()
        workers[1].wait()
        assert another() == "7 7"
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


RUN = """
import os, time
from pathlib import Path

def run(config, quiet=False):
    with open(os.environ["RUNS"], "a") as file:
        file.write(f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
    time.sleep(0.5)
"""


def test_every_worker_of_a_sweep_sees_its_gpu_alone(tmp_path):
    (tmp_path / "hook").mkdir()
    hook = "import sys, types\nsys.modules['ablate.run'] = module = types.ModuleType('ablate.run')\n"
    (tmp_path / "hook/sitecustomize.py").write_text(f"{hook}exec({RUN!r}, module.__dict__)\n")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "4,7", "RUNS": str(tmp_path / "runs")}
    environment["PYTHONPATH"] = f"{tmp_path / 'hook'}{os.pathsep}{ROOT}"
    command = [sys.executable, "-m", "ablate", "-m", "seed=range(0,6)", "hydra/launcher=joblib"]
    command += ["hydra.launcher.n_jobs=2", f"paths.cache={tmp_path / 'cache'}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    pairs = [line.split() for line in (tmp_path / "runs").read_text().splitlines()]
    assert len(pairs) == 6 and sorted({gpu for _, gpu in pairs}) == ["4", "7"]
    assert len(set(map(tuple, pairs))) == 2, json.dumps(pairs)  # a process keeps its GPU
