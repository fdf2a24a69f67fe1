"""One run, one process at work: real processes that compete, die, fall silent and come back."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablate import owner as module
from ablate.owner import NAME, Busy, Lock, Lost, owned, owner
from ablate.types import UserError

ROOT = Path(__file__).parents[1]

# Takes the lock, notes it, works for a moment, gives it back; again and again. Dies holding it, now and then.
COMPETE = """
import os, sys, time
from pathlib import Path
from random import Random
from ablate.owner import Busy, Lock
folder, seed, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
draw, held = Random(seed), 0
while held < rounds:
    try:
        lock = Lock(folder).acquire()
    except Busy:
        time.sleep(draw.random() * 0.004)
        continue
    mark = os.open(folder / "mark", os.O_CREAT | os.O_EXCL)  # fails if another one is inside
    time.sleep(draw.random() * 0.004)
    held += 1
    os.write(os.open(folder / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY), b"x")
    os.close(mark)
    os.unlink(folder / "mark")
    if held == rounds and seed % 2:
        os.kill(os.getpid(), 9)
    lock.release()
"""
HOLD = """
import sys, time
from pathlib import Path
from ablate.owner import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def python(code, *arguments, **options):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


@pytest.fixture
def holder(tmp_path):
    process = python(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("links", [True, False])
def test_of_processes_that_compete_one_is_inside_and_dead_ones_are_followed(tmp_path, links):
    """links: without, as on a file system that has none."""
    code = COMPETE
    if not links:
        code = "import os\ndef no(*a): raise PermissionError(1, 'no links')\nos.link = no\n" + COMPETE
    workers = [python(code, tmp_path, seed, 12, stderr=subprocess.PIPE) for seed in range(5)]
    errors = [worker.communicate(timeout=60)[1] for worker in workers]
    codes = [worker.returncode for worker in workers]
    assert codes == [0, -9, 0, -9, 0], errors
    assert (tmp_path / "log").read_text() == "x" * 5 * 12
    if owner(tmp_path) is None:  # the last one may have been one that died
        with owned(tmp_path):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"log"}


def test_a_living_owner_is_named_and_a_dead_one_followed_at_once(tmp_path, holder, capsys):
    with pytest.raises(Busy, match=rf"at work on {tmp_path} \(process {holder.pid} on .*, since \d\d:"):
        Lock(tmp_path).acquire()
    assert owner(tmp_path).pid == holder.pid
    holder.kill()
    time.sleep(0.2)  # a zombie, which nobody has waited for yet
    assert owner(tmp_path) is None
    with owned(tmp_path) as lock:
        assert owner(tmp_path).pid == os.getpid()
        assert f"is taken over from process {holder.pid} on" in capsys.readouterr().err
        lock.check()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_another_process_has_by_now_is_no_owner(tmp_path):
    lock = Lock(tmp_path).acquire()
    held = json.loads((tmp_path / NAME).read_text())
    lock.release()
    (tmp_path / NAME).write_text(json.dumps({**held, "started": held["started"] - 500}))
    assert owner(tmp_path) is None
    with owned(tmp_path):
        pass


def test_a_step_of_the_wall_clock_makes_no_owner_another_process(tmp_path, holder, monkeypatch):
    """As after a laptop's sleep: seconds since the epoch of a process's start move with it."""
    import psutil

    first, now = psutil.boot_time(), time.time()
    monkeypatch.setattr(time, "time", lambda: now + 600)
    for name in ("boot_time", "_last_boot_time"):
        if hasattr(psutil._psplatform, name):
            monkeypatch.setattr(psutil._psplatform, name, lambda: first + 600)
    monkeypatch.setattr(psutil._psplatform, "BOOT_TIME", first + 600, raising=False)
    assert owner(tmp_path).pid == holder.pid
    with pytest.raises(Busy):
        Lock(tmp_path).acquire()


def test_an_owner_elsewhere_lives_as_long_as_its_heart_beats(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(module.socket, "gethostname", lambda: "another-host")
    with pytest.raises(Busy):
        Lock(tmp_path).acquire()
    os.kill(holder.pid, 19)  # SIGSTOP, as a laptop that sleeps: no heartbeat from now on
    long_ago = time.time() - module.STALE - 5
    os.utime(tmp_path / NAME, (long_ago, long_ago))
    lock = Lock(tmp_path).acquire()
    assert owner(tmp_path).host == "another-host"
    # the clock that counts is the file server's
    monkeypatch.setattr(module.time, "time", lambda: long_ago + 10**6)
    with pytest.raises(Busy):
        Lock(tmp_path).acquire()
    lock.release()


def test_a_lock_that_was_lost_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.1)
    lock = Lock(tmp_path).acquire()
    time.sleep(0.5)
    lock.check()
    held = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps({**held, "token": "another", "host": "there"}))
    time.sleep(0.5)
    with pytest.raises(Lost, match="was taken over by another process"):
        lock.check()
    lock.release()
    assert json.loads((tmp_path / NAME).read_text())["host"] == "there"  # not ours to remove


def test_a_file_that_names_nobody_is_told(tmp_path):
    (tmp_path / NAME).write_text("{")
    old = time.time() - module.STALE - 5
    os.utime(tmp_path / NAME, (old, old))
    with pytest.raises(UserError, match=f"{NAME} cannot be read: remove it if nobody is at work"):
        Lock(tmp_path).acquire()
