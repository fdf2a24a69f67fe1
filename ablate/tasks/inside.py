"""What the processes in the sandbox have in common: limits, and a line to the judge outside."""

from __future__ import annotations

import json
import os
import resource
import signal
from typing import Any


def limit(cpu_seconds: int, memory: int) -> None:
    """Limits for this process, for good: processor time, address space in bytes, and no files to write.

    The alarm is for the case that it is orphaned: whoever started it does not wait as long.
    """
    signal.alarm(10 * cpu_seconds + 60)
    for what, most in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


class Line:
    """Lines of JSON to and from the judge; standard input and output lead nowhere from then on."""

    def __init__(self) -> None:
        self._in, self._out = os.fdopen(os.dup(0), "rb"), os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)

    def hear(self) -> Any:
        """The judge's next message; the process ends where there is none."""
        line = self._in.readline()
        if not line:
            os._exit(0)
        return json.loads(line)

    def say(self, message: Any) -> None:
        """A message to the judge."""
        data = json.dumps(message).encode("ascii") + b"\n"
        while data:
            data = data[os.write(self._out, data) :]
