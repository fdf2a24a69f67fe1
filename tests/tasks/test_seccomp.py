"""The filter of system calls, run by an interpreter instead of the kernel; and machines without a sandbox."""

import errno
import struct

import pytest
from boxes import linux

from ablate.tasks import sandbox, seccomp
from ablate.types import UserError


@pytest.mark.parametrize("machine", seccomp.AUDIT)
def test_the_filter_decides_by_number_and_architecture(machine):
    other = next(value for name, value in seccomp.AUDIT.items() if name != machine)
    assert _run(machine, 0, other) == seccomp.KILL
    column = list(seccomp.AUDIT).index(machine)
    denied = {row[column] for row in seccomp.DENIED.values()} - {None}
    for number in range(600):
        expected = seccomp.FAIL | (errno.EPERM if number in denied else errno.ENOSYS)
        if number not in denied | {seccomp.CLONE3}:
            expected = seccomp.ALLOW
        assert _run(machine, number, seccomp.AUDIT[machine]) == expected
    if machine == "x86_64":
        assert _run(machine, seccomp.X32 | 1, seccomp.AUDIT[machine]) == seccomp.KILL


def _run(machine, number, architecture):
    lines = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    place, value = 0, 0
    while True:
        code, if_true, if_false, k = lines[place]
        place += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            value = {0: number, 4: architecture}[k]
        elif code == 0x06:  # BPF_RET | BPF_K
            return k
        else:
            holds = value == k if code == 0x15 else value >= k  # BPF_JEQ, BPF_JGE
            assert code in (0x15, 0x35)
            place += if_true if holds else if_false


@linux
def test_without_bubblewrap_the_task_refuses_in_one_line(monkeypatch):
    sandbox._problem.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    try:
        with pytest.raises(UserError) as caught:
            sandbox.check(False, "code")
    finally:
        sandbox._problem.cache_clear()
    text = str(caught.value)
    assert text.startswith("task=code runs what a model wrote") and "bubblewrap is not installed" in text
    assert text.endswith("task.unsafe=true runs it without any protection") and "\n" not in text
    sandbox.check(True, "code")


@linux
def test_a_bubblewrap_that_does_not_work_is_told_with_its_reason(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    sandbox._problem.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        with pytest.raises(UserError, match=r"does not work here .*No permissions to create a new namespace"):
            sandbox.check(False, "code")
    finally:
        sandbox._problem.cache_clear()
