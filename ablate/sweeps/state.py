"""What the processes of a sweep tell each other, through a folder of small files below the cache:

    sweep.json        the process that the user started, how many runs, which keys vary, the GPUs
    run-<number>      the process that does a run, while it does
    end-<number>.json what became of a run
    gpu-<slot>/       the process that a GPU is given to
    only              the number of the run that is tried by itself: the others wait for another launch
    stop              exists: no further run begins, and those that run stop with a checkpoint

Workers may be on other hosts, as long as these see the cache. The process that the user started tells of
ends.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from ablate.owner import Owner, alive, this_process
from ablate.progress import clock
from ablate.types import UserError

LOOK = 0.5  # seconds between looks at the folder

# known: finished before; elsewhere: another process is at work on it
State = Literal["finished", "known", "failed", "stopped", "elsewhere"]
SAID = {"known": "finished before", "failed": "FAILED", "stopped": "stopped", "elsewhere": "left alone"}


@dataclass(frozen=True)
class End:
    """What became of a run. run: the keys that the sweep varies; text: accuracy, or why it failed."""

    run: str
    state: State
    text: str
    seconds: float


class Sweep:
    """The folder, from either side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def stopped(self) -> bool:
        """Has anybody asked the sweep to stop?"""
        return (self.folder / "stop").exists()

    def stop(self) -> None:
        """Let no further run begin, and those that run stop with a checkpoint."""
        (self.folder / "stop").touch()

    def create(self, facts: dict[str, Any]) -> None:
        """Raises UserError."""
        try:
            self.folder.mkdir(parents=True)
            self._write("sweep.json", {"host": socket.gethostname(), "process": os.getpid(), **facts})
        except OSError as error:
            cache = self.folder.parents[1]
            raise UserError(f"paths.cache={cache} cannot be written: {error.strerror}") from error

    def facts(self) -> dict[str, Any]:
        """What `create` was given, and the process that did."""
        return json.loads((self.folder / "sweep.json").read_text())

    def began(self, number: str, run: str) -> bool:
        """Note that this process does a run. Returns if one has begun it before, within this sweep: a cluster
        starts a job again that it had stopped."""
        again = (self.folder / f"run-{number}").exists() or (self.folder / f"end-{number}.json").exists()
        (self.folder / f"end-{number}.json").unlink(missing_ok=True)
        self._write(f"run-{number}", {"run": run, "owner": asdict(this_process())})
        return again

    def alive(self, number: str) -> None:
        """A sign of life of the process that does a run."""
        path = self.folder / f"run-{number}"
        if path.exists():
            os.utime(path)

    def ended(self, number: str, end: End | None) -> None:
        """Note a run's end; None: it never began."""
        if end is not None:
            self._write(f"end-{number}.json", asdict(end))
        (self.folder / f"run-{number}").unlink(missing_ok=True)

    def over(self, number: str) -> bool:
        """Has a run come to an end from which a sweep does not start it again?"""
        end = self.ends().get(number)
        return end is not None and end.state != "stopped"

    @contextmanager
    def only(self, number: str) -> Iterator[None]:
        """No other run begins in here."""
        (self.folder / "only").write_text(number)
        try:
            yield
        finally:
            (self.folder / "only").unlink(missing_ok=True)

    def waits(self, number: str) -> bool:
        """Is another run being tried by itself?"""
        try:
            return (self.folder / "only").read_text() != number
        except FileNotFoundError:
            return False

    @property
    def created(self) -> float:
        """When the sweep began, by the file server's clock."""
        return (self.folder / "sweep.json").stat().st_mtime

    def ends(self) -> dict[str, End]:
        """By number, in the order of numbers."""
        paths = sorted(self.folder.glob("end-*.json"))
        return {path.stem.removeprefix("end-"): End(**json.loads(path.read_text())) for path in paths}

    def running(self) -> dict[str, tuple[str, bool]]:
        """The runs that have not come to their end, by number: the keys that vary, and is its process
        alive?"""
        found = {}
        ended = {path.stem.removeprefix("end-") for path in self.folder.glob("end-*.json")}
        for path in sorted(self.folder.glob("run-*")):
            if path.name.removeprefix("run-") in ended:  # its process died, or is about to remove this
                continue
            try:
                held = json.loads(path.read_text())
            except FileNotFoundError:  # just ended
                continue
            living = alive(Owner(**held["owner"]), path)
            found[path.name.removeprefix("run-")] = held["run"], living
        return found

    def beginnings(self) -> dict[str, str]:
        """A token for each time that a run began, by number: of those in `running`."""
        found = {}
        for number in self.running():
            with suppress(FileNotFoundError):  # just ended
                found[number] = json.loads((self.folder / f"run-{number}").read_text())["owner"]["token"]
        return found

    def clear(self) -> None:
        """Remove the folder, but for the logs that launchers for clusters keep in it."""
        for path in self.folder.iterdir():
            if path.is_file():
                path.unlink()
            elif path.name.startswith("gpu-"):
                shutil.rmtree(path)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _write(self, name: str, value: Any) -> None:
        temporary = self.folder / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(value))
        os.replace(temporary, self.folder / name)

    @contextmanager
    def telling(self, runs: int | None, alive: Sequence[Path] = ()) -> Iterator[None]:
        """Print a line for each run that comes to its end meanwhile. alive: files to touch now and then."""
        told: dict[str, End] = {}
        over = threading.Event()

        def look() -> None:
            for looks in count(1):
                if over.wait(LOOK):
                    return
                self._tell(told, runs)
                for path in alive if looks % 30 == 0 else ():
                    if path.exists():
                        os.utime(path)

        teller = threading.Thread(target=look, name="teller", daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()
            self._tell(told, runs)

    def _tell(self, told: dict[str, End], runs: int | None) -> None:
        running = len(self.running())
        new = {number: end for number, end in self.ends().items() if told.get(number) != end}
        for number, end in new.items():
            told.pop(number, None)  # started again by a cluster
            told[number] = end
            print(line(end, list(told.values()), running + len(new), runs), flush=True)


def line(end: End, ends: list[End], running: int, runs: int | None) -> str:
    """A run's end, for people. ends: all so far, this one the last; running: how many ran at a time."""
    done = f"{len(ends)} of {runs}" if runs else f"{len(ends)}"
    spent = clock(end.seconds) if end.state == "finished" else ""
    left = time_left(ends, running, runs) if end.state != "stopped" else ""
    parts = [part for part in (SAID.get(end.state, ""), end.text, spent, left) if part]
    return f"{done} · {end.run} · {' · '.join(parts)}"


def time_left(ends: list[End], running: int, runs: int | None) -> str:
    """About how long the rest takes, at the mean time of the runs so far and as many at a time as now."""
    seconds = [end.seconds for end in ends if end.state == "finished"]
    if not runs or not seconds or len(ends) >= runs:
        return ""
    return f"about {clock(fmean(seconds) * (runs - len(ends)) / max(1, running))} left"
