"""Another process that is spoken with in lines of JSON, and that can be killed at any time.

What it writes is hostile until read: its size and its time are bounded, and nothing in it is executed. Who
asks gets an answer or `Stopped` by a deadline, whatever the child does.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

MOST_BYTES = 1 << 20  # of an answer
START_SECONDS = 120.0  # until a worker has imported what it needs; a busy machine takes its time


class Stopped(Exception):
    """There is no answer. why: "time" is up, the child "ended", its answer is a "flood" or "noise"."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Child:
    """A process that reads a line of JSON at a time and answers with one."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        most: int = MOST_BYTES,
    ) -> None:
        """environment: None for this process's own. most: bytes of an answer."""
        self._most, self._heard = most, bytearray()
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=None if environment is None else dict(environment),
            pass_fds=pass_fds,
            start_new_session=True,  # Ctrl-C is for the parent, and the whole session can be killed
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(self, message: Any, deadline: float) -> Any:
        """What the child answers by `deadline` (of time.monotonic). Raises Stopped; the child is then of no
        more use."""
        self.tell(message, deadline)
        return self.hear(deadline)

    def tell(self, message: Any, deadline: float) -> None:
        """Send a line. Raises Stopped."""
        data = memoryview(json.dumps(message).encode("ascii") + b"\n")
        while data:
            self._wait(self._stdin, select.POLLOUT, deadline)
            try:
                data = data[os.write(self._stdin, data) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Stopped("ended") from None

    def hear(self, deadline: float) -> Any:
        """Receive a line, parsed. Raises Stopped."""
        while (end := self._heard.find(b"\n")) < 0:
            if len(self._heard) > self._most:
                raise Stopped("flood")
            self._wait(self._stdout, select.POLLIN, deadline)
            part = os.read(self._stdout, 1 << 16)
            if not part:
                raise Stopped("ended")
            self._heard += part
        line = bytes(self._heard[:end])
        del self._heard[: end + 1]
        if len(line) > self._most:
            raise Stopped("flood")
        try:
            return json.loads(line)
        except (ValueError, RecursionError):  # ValueError covers bad UTF-8 and numbers of too many digits
            raise Stopped("noise") from None

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000.0):
            raise Stopped("time")

    def close(self) -> None:
        """Kill the process and all that it has started in its session."""
        with suppress(ProcessLookupError):  # it has ended, and nothing of its session is left
            os.killpg(self._process.pid, signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()


class Crew:
    """Children that do jobs of one kind, started when there is work; an overrun costs the child its life.

    start: makes a child that says {"ready": true} once it can work. size: most children at a time.
    """

    def __init__(self, start: Callable[[], Child], size: int) -> None:
        self._start, self._size = start, size
        self._idle: queue.LifoQueue[Child] = queue.LifoQueue()
        self._places = threading.Semaphore(size)
        weakref.finalize(self, _close_all, self._idle, os.getpid())

    def ask(self, job: Any, seconds: float) -> Any:
        """The answer to a job; starting a child does not count. Raises Stopped."""
        with self._places:
            try:
                child = self._idle.get_nowait()
            except queue.Empty:
                child = self._start()
                self._first_word(child)
            try:
                answer = child.ask(job, time.monotonic() + seconds)
            except BaseException:
                child.close()
                raise
            self._idle.put(child)
            return answer

    def _first_word(self, child: Child) -> None:
        try:
            if child.hear(time.monotonic() + START_SECONDS) == {"ready": True}:
                return
        except Stopped as stop:
            child.close()
            raise RuntimeError(f"a worker process did not start ({stop.why})") from stop
        child.close()
        raise RuntimeError("a worker process did not start (it said something else)")

    def map(self, jobs: Sequence[Any], seconds: float) -> list[Any]:
        """The answer to each job, None where there is none."""

        def one(job: Any) -> Any:
            try:
                return self.ask(job, seconds)
            except Stopped:
                return None

        if len(jobs) < 2 or self._size < 2:
            return [one(job) for job in jobs]
        with ThreadPoolExecutor(min(self._size, len(jobs))) as pool:
            return list(pool.map(one, jobs))


def _close_all(children: queue.LifoQueue[Child], owner: int) -> None:
    while os.getpid() == owner and not children.empty():  # a fork of the owner leaves them alone
        children.get_nowait().close()


def worker(module: str) -> list[str]:
    """The command line of a worker: `main()` of a module, in this interpreter."""
    return [sys.executable, "-c", f"from {module} import main; main()"]


def worker_environment() -> dict[str, str]:
    """A worker imports what this process could, on one thread, and hashes texts alike in every process."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}


def serve(answer: Callable[[Any], Any], memory: int) -> None:
    """A worker's life: answer lines until there are no more. `answer` may print: nobody reads it.

    memory: bytes of address space. A job carries "seconds": should nobody be left to kill the worker, it ends
    once it has computed for twice as long.
    """
    import resource

    out = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    _write(out, {"ready": True})
    for line in sys.stdin.buffer:
        job = json.loads(line)
        most = int(time.process_time() + 2.0 * job["seconds"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        _write(out, answer(job))


def _write(fd: int, message: Any) -> None:
    data = json.dumps(message).encode("ascii") + b"\n"
    while data:
        data = data[os.write(fd, data) :]
