"""What clusters do to a run: SIGTERM, and a disk that is full. Real processes, a real file system of a
megabyte."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweeping import TINY, computed, end, runs, start

from ablate.record import read_json, read_jsonl, status

ROOT = Path(__file__).parents[1]


def run(here, *overrides):
    command = [sys.executable, "-m", "ablate", *TINY, "budget.tokens=4e4", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=here, env=environment, **pipes)


def finish(process):
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def mounted(folder, size):
    """Mount, or make larger; skips where one may not."""
    how = "remount," if os.path.ismount(folder) else ""
    command = ["mount", "-t", "tmpfs", "-o", f"{how}size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system of a chosen size takes the right to mount one")


@pytest.mark.slow
def test_a_full_disk_and_a_sigterm_cost_a_run_nothing(tmp_path):
    whole = run(tmp_path, "name=whole")
    assert finish(whole)[0] == 0
    small = tmp_path / "small"
    small.mkdir()
    mounted(small, "900k")
    try:
        code, _, err = finish(run(tmp_path, "name=hit", f"paths.results={small}"))
        assert code == 2 and "No space left on device" in err and f"cannot write to {small}" in err, err
        assert "Traceback" not in err and err.count("\n") == 1
        (folder,) = (small / "hit").glob("*-s*")
        assert status(folder) in ("failed", "unfinished") and not list(folder.glob("checkpoints/.partial"))
        mounted(small, "64m")
        before = len(read_jsonl(folder / "steps.jsonl"))
        again = run(tmp_path, "name=hit", f"paths.results={small}")
        deadline = time.monotonic() + 120
        while len(read_jsonl(folder / "steps.jsonl")) <= before and time.monotonic() < deadline:
            time.sleep(0.02)
        again.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        code, _, err = finish(again)
        assert code == 130 and time.monotonic() - asked < 30 and "SIGTERM: stopping after this step" in err, (
            err
        )
        steps = len(read_jsonl(folder / "steps.jsonl"))
        assert f"checkpoint-{steps}" in {path.name for path in (folder / "checkpoints").iterdir()}
        assert finish(run(tmp_path, "name=hit", f"paths.results={small}"))[0] == 0
        (reference,) = (tmp_path / "results/whole").glob("*-s*")
        assert computed(folder) == computed(reference)
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.slow
def test_two_launchers_on_one_folder_never_do_the_same_run(tmp_path):
    """Both begin at the same moment."""
    sweep = ["seed=0,1,2", "name=shared", "budget.tokens=3e4"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [start(tmp_path, *sweep, **pipes) for _ in range(2)]
    try:
        said = [process.communicate(timeout=280) for process in both]
    finally:
        for process in both:
            end(process)
    told = [line.split(" · ") for out, _ in said for line in out.splitlines()]
    done = sorted(line[1] for line in told if line[2].startswith("pass@1"))
    assert done == ["seed=0", "seed=1", "seed=2"], said
    others = [line for line in told if not line[2].startswith("pass@1")]
    assert len(others) == 3 and {line[2] for line in others} <= {"left alone", "finished before"}
    left = [process.returncode for process in both]
    assert (1 in left) == any(line[2] == "left alone" for line in others) and set(left) <= {0, 1}
    for folder in runs(tmp_path, "shared"):
        computed(folder)
        assert "resumed" not in read_json(folder / "meta.json")
    assert len(runs(tmp_path, "shared")) == 3


LATE = """
import time
from ablate.runtime import StopRequest
StopRequest.LONGEST = 0.5
stop = StopRequest()
try:
    with stop.listening():
        print("listening", flush=True)
        until = time.monotonic() + 20
        while time.monotonic() < until:  # a step that takes longer than there is time
            sum(range(1000))
except KeyboardInterrupt:
    print("interrupted", stop.asked, StopRequest.current, flush=True)
"""


def test_a_step_that_takes_too_long_is_interrupted(tmp_path):
    """Who pre-empts a job kills it soon after: the last checkpoint is better than none."""
    process = subprocess.Popen(
        [sys.executable, "-c", LATE], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "listening\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert out == "interrupted True None\n" and time.monotonic() - began < 10
    assert "stopping after this step, with a checkpoint (again, or in 0 s: at once)" in err
