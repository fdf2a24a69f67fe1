"""A sandbox for what a model wrote: bubblewrap, with limits, around one Python process.

Inside there is no network, no other process, nowhere to write, and of the machine's files only the
interpreter and the system's libraries, read-only. The process can start neither processes nor threads
(`seccomp`), its memory and its processor time are limited (`inside.limit`, which it calls first), and it is
spoken with through a `Child`, which bounds what it says and how long it takes, and kills it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ablate.tasks import seccomp
from ablate.tasks.child import Child
from ablate.types import UserError

PACKAGE = Path(__file__).parents[1]
INSIDE = "/judge"  # where the package's own files are, inside
NOBODY = "65534"
SYSTEM = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/lib", "/lib32", "/lib64", "/libx32")
OPTIONAL = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/nix/store", "/gnu/store")


def check(unsafe: bool, task: str) -> None:
    """Raises UserError unless there is a sandbox, or `unsafe` says that none is wanted. task: its name."""
    if unsafe:
        return
    if problem := _problem():
        raise UserError(
            f"task={task} runs what a model wrote, and needs a sandbox: {problem}; "
            "task.unsafe=true runs it without any protection"
        )


@lru_cache(maxsize=1)
def _problem() -> str:
    """What is wrong with the sandbox here, "" if nothing is."""
    if sys.platform != "linux" or platform.machine() not in seccomp.AUDIT:
        return f"there is none for {platform.system()} on {platform.machine()}"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (apt-get install bubblewrap, dnf install bubblewrap)"
    filter_fd = _filter()
    try:
        done = subprocess.run(
            [*_walls(filter_fd), *_interpreter(), "-c", "print(6 * 7)"],
            pass_fds=(filter_fd,),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "bubblewrap does not answer"
    finally:
        os.close(filter_fd)
    if done.stdout.strip() == "42":
        return ""
    reason = " ".join(done.stderr.split())[-200:] or f"exit code {done.returncode}"
    return f"bubblewrap does not work here ({reason})"


def start(module: str, unsafe: bool = False, libraries: Sequence[str] = ()) -> Child:
    """A sandboxed Python process that runs `main()` of a module of this package, which must keep to the
    standard library and to its neighbours. It ends with the thread that started it.

    unsafe: without the sandbox. libraries: folders with installed packages, for a process that is to last
    longer and needs them, and scratch files, too.
    """
    variables = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    variables |= {"OPENBLAS_NUM_THREADS": "1", "HOME": "/"}
    if unsafe:
        return Child([*_interpreter(), "-c", _code(module, [str(PACKAGE.parent), *libraries])], variables)
    filter_fd = _filter()
    try:
        code = _code(module, [INSIDE, *libraries])
        command = [*_walls(filter_fd, libraries), *_interpreter(), "-c", code]
        return Child(command, variables, pass_fds=(filter_fd,))
    finally:
        os.close(filter_fd)


def _code(module: str, path: list[str]) -> str:
    return f"import sys; sys.path[:0] = {path!r}; from {module} import main; main()"


def _interpreter() -> list[str]:
    """Python itself, without site-packages, the user's settings, or a cache to write."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return [os.path.realpath(base), "-S", "-s", "-B", "-P"]


def _filter() -> int:
    """A descriptor to read the filter of system calls from."""
    reading, writing = os.pipe()
    os.write(writing, seccomp.program(platform.machine()))
    os.close(writing)
    return reading


def _walls(filter_fd: int, libraries: Sequence[str] = ()) -> list[str]:
    """bubblewrap's part of the command line."""
    # its path: the child's environment has none
    words = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user"]
    words += ["--tmpfs", "/tmp"] if libraries else ["--die-with-parent"]
    words += ["--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL", "--hostname", "sandbox"]
    for folder in SYSTEM:
        if os.path.islink(folder):
            words += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            words += ["--ro-bind", folder, folder]
    for place in OPTIONAL:
        words += ["--ro-bind-try", place, place]
    python = Path(_interpreter()[0]).parents[1]
    for folder in dict.fromkeys([sys.base_prefix, sys.base_exec_prefix, str(python), *libraries]):
        words += ["--ro-bind", folder, folder]
    for name in ("__init__.py", "tasks"):
        words += ["--ro-bind", str(PACKAGE / name), f"{INSIDE}/{PACKAGE.name}/{name}"]
    words += ["--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    return [*words, "--seccomp", str(filter_fd), "--"]
