"""Hostile programs: each is contained, in bounded time, and none passes, whatever it forges."""

import errno
import os
import platform
import secrets
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from boxes import Quick, needs_sandbox
from hostile import CONTAINED, FORGED, program, programs

from ablate.tasks import sandbox, seccomp
from ablate.tasks.trial import PASSED, Exam, Example, Limits, judge
from ablate.tasks.wire import decode

pytestmark = needs_sandbox

SECRET = secrets.token_hex(8)  # what the program would have to return, and can learn nowhere
BY_EXAMPLE = Exam("f", (Example((3,), (), SECRET), Example((4,), (), SECRET)))
BY_TESTS = Exam("f", tests=f"assert f(3) == {SECRET!r}\nassert f(4) == {SECRET!r}", names=("f",))
UNITTEST = Exam(
    "f",
    tests="import unittest\n\nclass T(unittest.TestCase):\n    def test_f(self):\n"
    f"        self.assertEqual(f(3), {SECRET!r})\n",
    names=("f",),
)
EXAMS = {"examples": BY_EXAMPLE, "tests": BY_TESTS, "unittest": UNITTEST}


HOSTILE, DISHONEST = programs(CONTAINED), programs(FORGED)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_contained(name):
    before = set(_processes())
    started = time.monotonic()
    outcome = judge(HOSTILE[name], BY_EXAMPLE, Quick())
    assert outcome != PASSED
    assert time.monotonic() - started < 15  # 4 on the clock, and what a busy machine adds
    assert _gone(before), "something is left running"


def _processes():
    """Every process of a judged program, bubblewrap's own included."""
    found = [(p.pid, " ".join(p.info["cmdline"] or ())) for p in psutil.process_iter(["cmdline"])]
    return [pid for pid, line in found if "ablate.tasks.candidate" in line and "bwrap" in line]


def _gone(before, seconds=5.0):
    end = time.monotonic() + seconds
    while set(_processes()) - before:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("exam", EXAMS)
@pytest.mark.parametrize("name", DISHONEST)
def test_success_cannot_be_forged(name, exam):
    assert judge(DISHONEST[name], EXAMS[exam], Quick()) != PASSED


@pytest.mark.parametrize("exam", EXAMS)
def test_whoever_is_right_passes(exam):
    assert judge(program(f"print('noise')\nreturn {SECRET!r}"), EXAMS[exam], Limits()) == PASSED
    assert judge(program(f"return {SECRET[::-1]!r}"), EXAMS[exam], Limits()) == "wrong"


# -- what there is to see from inside -----------------------------------------------------------------------


def value_of(body):
    """What a function in the sandbox returns, unjudged."""
    child = sandbox.start("ablate.tasks.candidate")
    try:
        order = {"source": program(body), "cpu_seconds": 5, "memory": 1 << 29}
        assert child.ask(order, time.monotonic() + 20)["names"]
        call = {"id": "", "name": "f", "args": [3], "kwargs": {}}
        return decode(child.ask(call, time.monotonic() + 20)["value"])
    finally:
        child.close()


def test_the_machines_files_are_not_there():
    places = [
        str(Path(__file__).resolve()),
        str(Path.home() / ".bashrc"),
        "/etc/passwd",
        "/etc/shadow",
        "/proc/1",
    ]
    places += ["/sys", "/home", "/var", "/tmp", "/run", "/usr/bin/env", "/bin/sh"]
    assert value_of(f"return [p for p in {places!r} if os.path.exists(p)]") == []


def test_nothing_can_be_written():
    places = ["/x", "/tmp/x", "/dev/x", "/dev/shm/x", "/judge/x", "/judge/ablate/tasks/x", "/usr/lib/x"]
    places.append(f"{os.path.dirname(os.__file__)}/x")
    body = """
found = []
for place in PLACES:
    try:
        found.append(open(place, "w").name)
    except OSError:
        pass
return found
"""
    assert value_of(body.replace("PLACES", repr(places))) == []


def test_there_is_no_network():
    body = """
import socket
found = []
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
    try:
        found.append(socket.socket(family).fileno())
    except OSError as error:
        found.append(error.errno)
return found
"""
    assert value_of(body) == [errno.EPERM] * 4


def test_it_is_nobody_in_a_world_of_its_own(monkeypatch):
    monkeypatch.setenv("ABLATE_SECRET", "x")
    body = 'return [os.getuid(), os.getgid(), os.uname().nodename, "ABLATE_SECRET" in os.environ]'
    assert value_of(body) == [65534, 65534, "sandbox", False]
    assert value_of("return os.getpid()") < 10


def test_system_calls_are_refused_by_the_kernel():
    """Each by its number, on this architecture."""
    column = list(seccomp.AUDIT).index(platform.machine())
    numbers = [row[column] for row in seccomp.DENIED.values() if row[column] is not None]
    body = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
found = []
for number in NUMBERS:
    ctypes.set_errno(0)
    found.append((libc.syscall(number, -1, -1, -1, -1, -1, -1), ctypes.get_errno()))
return found
"""
    expected = [(-1, errno.EPERM)] * len(numbers) + [(-1, errno.ENOSYS)]
    assert value_of(body.replace("NUMBERS", repr([*numbers, seccomp.CLONE3]))) == expected


def test_the_parent_dies_and_so_does_the_program():
    code = """
import time
from ablate.tasks import sandbox
child = sandbox.start("ablate.tasks.candidate")
order = {"source": "def f():\\n while True: pass", "cpu_seconds": 60, "memory": 1 << 28}
child.ask(order, time.monotonic() + 20)
child.tell({"id": "", "name": "f", "args": [], "kwargs": {}}, time.monotonic() + 20)
print("started", flush=True)
time.sleep(60)
"""
    before = set(_processes())
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() and set(_processes()) - before
    parent.kill()
    parent.communicate()
    assert _gone(before)
