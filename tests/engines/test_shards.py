"""Forked copies of a process: every piece once, the same results, no copy left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from ablate.engines.hf import HFEngine
from ablate.engines.shards import processes, shared, spread
from ablate.ledger import Ledger

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_copy_is_left():
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before  # neither running nor waiting to be waited for


@pytest.fixture
def three_cores(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})


@pytest.mark.parametrize(("pieces", "workers"), [(0, 3), (1, 3), (3, 1), (5, 2), (200, 4), (20_000, 4)])
def test_every_piece_is_worked_on_once(pieces, workers):
    times, who = shared((pieces,), np.int64), shared((pieces,), np.int64)

    def work(piece):
        times[piece] += 1
        who[piece] = os.getpid()
        if pieces <= 200:  # else they come as fast as they can, and collide if nothing keeps them apart
            time.sleep(0.001)

    spread(work, pieces, workers)
    assert (times == 1).all()
    assert len(set(who)) <= workers
    if pieces == 200:
        assert len(set(who)) > 1 and os.getpid() in who  # this process does a share, too


def fails_in_copies(parent):
    raise LookupError("no such token")


def dies_in_copies(parent):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("fate", "message"),
    [(fails_in_copies, r"(?s)failed:.*LookupError: no such token"), (dies_in_copies, "SIGKILL")],
)
def test_a_copy_that_ends_early_is_an_error(fate, message):
    parent, begun = os.getpid(), shared((1,), np.int64)

    def work(piece):
        if os.getpid() != parent:
            begun[0] = 1
            fate(parent)
        while not begun[0]:
            time.sleep(0.001)

    with pytest.raises(RuntimeError, match=message):
        spread(work, 4, 3)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_copies_do_not_outlive_an_error_here(error):
    parent, begun = os.getpid(), shared((1,), np.int64)

    def work(piece):
        if os.getpid() != parent:
            begun[0] = 1
            time.sleep(60)
        while not begun[0]:
            time.sleep(0.001)
        raise error

    started = time.monotonic()
    with pytest.raises(error):
        spread(work, 4, 2)
    assert time.monotonic() - started < 10


ENDLESS = """
import os, time
from ablate.engines.shards import spread
from ablate.runtime import StopRequest

def work(piece):
    os.write(1, f"{{os.getpid()}}\\n".encode())
    time.sleep({seconds})

stop = StopRequest()
with stop.listening():
    spread(work, 2, 2)
print("asked" if stop.asked else "not asked")
"""


def started(seconds):
    """A process with one copy, in a group of its own as under a terminal; and the processes in it."""
    program = [sys.executable, "-c", ENDLESS.format(seconds=seconds)]
    both = subprocess.PIPE
    process = subprocess.Popen(program, cwd=ROOT, stdout=both, stderr=both, text=True, start_new_session=True)
    return process, {int(process.stdout.readline()) for _ in range(2)}


def test_copies_die_with_a_killed_parent():
    process, pids = started(60)
    assert process.pid in pids and len(pids) == 2
    process.kill()
    # the copy has the other end of this pipe: it closes when both are gone
    assert process.communicate(timeout=10)[0] == ""


def test_ctrl_c_is_for_the_parent():
    """The first one lets the work come to its end; the second one ends all at once."""
    process, _ = started(1.5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert out == "asked\n" and process.returncode == 0 and err.count("stopping after this step") == 1
    process, _ = started(60)
    os.killpg(process.pid, signal.SIGINT)
    assert "stopping" in process.stderr.readline() + process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=10)[1] and process.returncode != 0


def test_one_process_where_a_fork_is_not_safe(three_cores, monkeypatch):
    assert processes(None, 10, CPU) == 3 and processes(7, 10, CPU) == 3
    assert processes(2, 10, CPU) == 2 and processes(None, 2, CPU) == 2
    assert processes(None, 0, CPU) == 1
    assert processes(None, 10, SimpleNamespace(type="cuda")) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert processes(None, 10, CPU) == 1
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert processes(None, 10, CPU) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_is_the_same_in_any_number_of_processes(policy, three_cores, monkeypatch, temperature):
    """Bit for bit, in float32, with prefixes of several lengths; beside a thread that is at work."""
    prefixes = [(1, *(3 + (i * j) % 9 for j in range(1 + i % 5))) for i in range(20)]
    room = [5 + 7 * (i % 4) for i in range(20)]
    forks, fork = [], os.fork

    def draw(workers):
        engine, ledger = HFEngine(max_rows=7), Ledger()
        engine.start(policy, ledger)
        options = {"key": 5, "purpose": "rollout", "temperature": temperature}
        return engine.generate(prefixes, 3, room, workers=workers, **options), ledger.accounts

    monkeypatch.setattr(os, "fork", lambda: forks.append(None) or fork())
    alone = draw(1)
    assert not forks
    done = threading.Event()
    busy = threading.Thread(target=lambda: all(sum(range(10**4)) for _ in iter(done.is_set, True)))
    busy.start()
    try:
        assert all(draw(workers) == alone for workers in (2, 3, None))
    finally:
        done.set()
        busy.join()
    assert len(forks) == 1 + 2 + 2
