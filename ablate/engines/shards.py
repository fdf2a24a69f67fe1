"""Independent pieces of work on several cores: forked copies of this process take them in turn.

A fork costs milliseconds and shares the weights. A copy is left with the thread that forked it: it does its
pieces, writes what they give to `shared` memory, and leaves without running anybody else's exit code.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import mmap
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from math import prod
from typing import Any, NoReturn

import numpy as np

from ablate import ranks

NUMBER = np.dtype(np.uint32)  # of a piece, in the queue
TRACEBACK = 4000  # bytes of it that are passed on: a pipe takes 4096 without waiting for a reader
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG in linux/prctl.h


def processes(wanted: int | None, pieces: int, device: Any) -> int:
    """How many processes to use on `pieces` of torch's work: at most `wanted`, one per piece and one per core
    (None: no other limit), and 1 where a fork is not safe."""
    import torch

    # macOS' system libraries do not survive a fork, nor do CUDA and OpenMP's pool of threads
    if sys.platform != "linux" or device.type != "cpu" or torch.get_num_threads() > 1:
        return 1
    cores = max(1, len(os.sched_getaffinity(0)) // ranks.local_count())
    return max(1, min(cores if wanted is None else wanted, cores, pieces))


def shared(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros in memory that this process has in common with the copies forked from it later."""
    size = prod(shape) * np.dtype(dtype).itemsize
    return np.ndarray(shape, dtype, mmap.mmap(-1, max(size, 1)))


def spread(work: Callable[[int], None], pieces: int, workers: int) -> None:
    """Call `work(i)` once for every i < pieces, here and in `workers` - 1 copies of this process.

    Whoever is free takes the next piece. Only what `work` writes to `shared` arrays arrives here. Should
    import nothing for the first time: another thread may hold the lock of an import when the copies are made.
    Raises RuntimeError if a copy fails or is killed; leaves no copy behind, whatever happens.
    """
    if workers <= 1:
        for piece in range(pieces):
            work(piece)
        return
    # a file's offset is common to all copies and moves with every read. A memfd's is read and moved in two
    # moves, so a lock stands around them; it ends with the process that holds it
    queue = os.memfd_create("pieces")
    os.write(queue, np.arange(pieces, dtype=NUMBER).tobytes())
    os.lseek(queue, 0, os.SEEK_SET)

    def next_piece() -> bytes:
        fcntl.lockf(queue, fcntl.LOCK_EX)
        try:
            return os.read(queue, NUMBER.itemsize)
        finally:
            fcntl.lockf(queue, fcntl.LOCK_UN)

    def take() -> None:
        while number := next_piece():
            work(int.from_bytes(number, sys.byteorder))

    copies: dict[int, int] = {}  # process -> where its traceback can be read
    try:
        for _ in range(workers - 1):
            process, report = _fork(take)
            copies[process] = report
        take()
        for process in list(copies):
            _join(process, copies)
    finally:
        for process, report in copies.items():
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            os.close(report)
        os.close(queue)


def _join(process: int, copies: dict[int, int]) -> None:
    """Wait for the end of a copy and take it off the list."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with open(copies.pop(process), "rb") as report:
        text = report.read().decode(errors="replace").strip()
    if code < 0:
        hint = ": too little memory?" if code == -signal.SIGKILL else ""
        raise RuntimeError(f"a process that shared the work was ended by {signal.Signals(-code).name}{hint}")
    if code:
        raise RuntimeError(f"a process that shared the work failed:\n{text}")


def _fork(work: Callable[[], None]) -> tuple[int, int]:
    """Start a copy of this process that calls `work` and ends; returns it and where it leaves a traceback."""
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl
    report, end = os.pipe()
    # a terminal sends Ctrl-C to the copies, too: only this process answers it, and ends them if it must
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: there are other threads
            process = os.fork()
        if process == 0:
            prctl(DIE_WITH_PARENT, signal.SIGKILL)
            _be_a_copy(work, parent, end)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(end)
    return process, report


def _be_a_copy(work: Callable[[], None], parent: int, end: int) -> NoReturn:
    code = 1
    try:
        gc.freeze()  # never collect, and so finalise, what belongs to the parent: its connections, its files
        if os.getppid() == parent:
            work()
        code = 0
    except BaseException:
        os.write(end, traceback.format_exc().encode()[-TRACEBACK:])
    finally:
        os._exit(code)
