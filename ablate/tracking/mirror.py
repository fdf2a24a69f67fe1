"""MLflow as a mirror of the run folders: it may be away, slow or lose its data without hurting a run.

The run's files are the truth. `push` sends what they hold and MLflow does not have yet; the same function
serves the running run (`Mirror`, a thread that calls it now and then) and filling in afterwards
(`python -m ablate.sync`). Nothing waits for it but its own thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ablate.tracking.push import PushResult, notes, push, reason
from ablate.tracking.store import (
    connect,
    initialise_store,
    quieten,
    redact,
    resolve_uri,
    sqlite_path,
    where_to_look,
    without_gc,
)

__all__ = [
    "Mirror",
    "MirrorCost",
    "PushResult",
    "initialise_store",
    "mlflow_hint",
    "push",
    "quieten",
    "resolve_uri",
]

LONGEST_PAUSE = 120.0  # seconds between attempts while the server is away
SHARE = 0.003  # of the time that pushes may take from the run's process; they get rarer, up to RARER times
RARER = 3.0


@dataclass(frozen=True)
class MirrorCost:
    """What mirroring cost the run's process so far. Importing MLflow does not count (TRL does it anyway),
    loading its database layer does."""

    cpu_seconds: float
    wall_seconds: float  # mostly beside the training, in the mirror's thread
    pushes: int


class Mirror:
    """Pushes a run's folder from a thread of its own until it is closed. Nothing that happens to MLflow
    reaches the run: the thread shares no lock with it and reads only files.

    Creating one loads MLflow in the caller's thread (imports from two threads can trip over each other).
    """

    def __init__(self, folder: Path, uri: str, experiment: str, every_seconds: float = 10.0) -> None:
        self.folder, self.uri, self.experiment = Path(folder), uri, experiment
        self.every_seconds = every_seconds
        self.result = PushResult(None, None, error="no push came to an end yet")
        self._cpu = self._wall = 0.0
        self._pushes = self._failures = 0
        self.complete = False  # set by close: everything was sent
        self._closing = threading.Event()
        self._deadline = 0.0
        quieten()
        import mlflow  # noqa: F401

        with self._measured(), without_gc():
            try:
                if sqlite_path(uri):  # others would make the run wait for a network
                    connect(uri)
            except Exception as error:  # the pushes meet it again and report it
                self.result = PushResult(None, None, error=reason(error))
        self._thread = threading.Thread(target=self._run, name="mlflow-mirror", daemon=True)
        self._thread.start()

    @property
    def cost(self) -> MirrorCost:
        """Up to the last push that came to an end."""
        return MirrorCost(self._cpu, self._wall, self._pushes)

    def close(self, deadline_seconds: float = 20.0) -> str:
        """Push what is left, for at most `deadline_seconds`, and say in one line how it went."""
        self._deadline = time.monotonic() + deadline_seconds
        self._closing.set()
        self._thread.join(deadline_seconds)
        error = f"no answer within {deadline_seconds:g} s" if self._thread.is_alive() else self.result.error
        self.complete = not error
        if error:
            return (
                f"MLflow was not reachable ({error}): nothing is lost; "
                f"`python -m ablate.sync {self.folder}` fills it in"
            )
        return f"MLflow: {self.result.url or mlflow_hint(self.uri, [self.folder])}"

    def _run(self) -> None:
        pause = 0.0
        while not self._closing.wait(pause):
            before = self._cpu
            self._push(60.0, "RUNNING")
            if self._failures:
                longest = max(self.every_seconds, LONGEST_PAUSE)
                pause = min(self.every_seconds * 2 ** min(self._failures, 10), longest)
            else:
                affordable = min((self._cpu - before) / SHARE, RARER * self.every_seconds)
                pause = max(self.every_seconds, affordable)
        self._push(self._deadline - time.monotonic(), "KILLED")

    def _push(self, deadline_seconds: float, idle_status: str) -> None:
        verify = self._pushes == 0 or self._failures > 0
        with self._measured():
            self.result = push(
                self.folder,
                self.uri,
                self.experiment,
                deadline_seconds,
                idle_status=idle_status,
                verify=verify,
            )
        self._pushes += 1
        self._failures = self._failures + 1 if self.result.error else 0

    @contextmanager
    def _measured(self) -> Iterator[None]:
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            self._cpu += time.thread_time() - cpu
            self._wall += time.perf_counter() - wall


def mlflow_hint(uri: str, folders: Sequence[Path]) -> str:
    """Where to look at mirrored runs: the address of the run (of several: their comparison), and for a store
    without a server the command that starts one on this machine. Runs that were not mirrored are left out."""
    entries = [
        entry
        for folder in folders
        for entry in notes(folder)
        if entry["uri"] == redact(uri) and "run_id" in entry
    ]
    return where_to_look(uri, [(entry["experiment_id"], entry["run_id"]) for entry in entries])
