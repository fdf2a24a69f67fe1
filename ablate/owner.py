"""Who works on a run: a lock with an owner and a heartbeat, for several launchers on one results folder.

The file `.owner.json` in a run's folder names a process (host, number, start) and is touched every BEAT
seconds. It appears by a hard link, which is exclusive and atomic on local and network file systems alike
(open(2) names it where O_EXCL is not); where a file system has no links, by O_EXCL. Nothing depends on flock.

An owner is dead if its process is gone, which shows on its own host at once, or if its heartbeat is older
than STALE seconds by the file server's clock: hosts need not agree on the time. Only one process can take
over from a dead owner: the one whose claim `.owner.<token of the dead>.heir` was made first; the lock itself
is then replaced by rename. An heir that dies in between is inherited from in the same way.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ablate.types import UserError

NAME = ".owner.json"
BEAT = 15.0  # seconds between signs of life
STALE = 180.0  # seconds without one after which an owner on another host is taken for dead
SAME_START = 2.0  # seconds by which two readings of a process's start may differ


@dataclass(frozen=True)
class Owner:
    """The process that holds a run. host: name, and what tells it from others of that name."""

    host: str
    boot: str
    pid: int
    started: float  # of the process, in seconds on a clock that nobody sets (`_process`)
    since: float  # of the lock
    token: str

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


class Busy(UserError):
    """Another process is at work on the run."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        super().__init__(f"another process is at work on {folder} ({owner})")
        self.owner = owner


class Lost(UserError):
    """The lock went to another process, because this one gave no sign of life for too long."""


class Lock:
    """The right to work on a run's folder; kept alive by a thread until `release`.

    acquire: raises Busy, naming the owner. check: to be called before anything is written; raises Lost.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        self._me = this_process()
        self._released = threading.Event()
        self._seen = 0.0  # when the lock was last known to be ours
        self._lost = False

    def acquire(self) -> Lock:
        """Take the lock, from a dead owner if need be. Raises Busy; UserError if the folder cannot be
        written."""
        draft = self.folder / f".owner.{self._me.token}.draft"
        try:
            draft.write_text(json.dumps(asdict(self._me)))
            try:
                while not self._attempt(draft):
                    time.sleep(0.01)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror or error}") from error
        self._seen = time.time()
        for claim in self.folder.glob(".owner.*.heir"):  # on owners who are history now
            if claim.name != f".owner.{self._me.token}.heir":
                claim.unlink(missing_ok=True)
        threading.Thread(target=self._live, name="owner", daemon=True).start()
        return self

    def release(self) -> None:
        """Give the run free."""
        self._released.set()
        held = _read(self.path)
        with suppress(OSError):  # a server that is gone: the heartbeat ends, which says the same
            if held is not None and held.token == self._me.token:
                self.path.unlink()

    def check(self) -> None:
        """Raises Lost if another process has taken over, as after a laptop's sleep or a server's failure."""
        if time.time() - self._seen > 2 * BEAT:
            self._beat()
        if self._lost:
            raise Lost(
                f"{self.folder} was taken over by another process ({_read(self.path) or 'gone again'}): "
                f"this one gave no sign of life for {STALE:.0f} s"
            )

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _attempt(self, draft: Path) -> bool:
        """Try once; False if the lock changed hands meanwhile."""
        if _create(draft, self.path):
            return True
        owner = _read(self.path)
        if owner is None:
            return self._unread(self.path, draft)
        if alive(owner, self.path, draft):
            raise Busy(self.folder, owner)
        dead = owner
        while True:
            claim = self.folder / f".owner.{dead.token}.heir"
            if _create(draft, claim):
                break
            heir = _read(claim)
            if heir is None:
                return self._unread(claim, draft)
            if alive(heir, claim, draft):
                raise Busy(self.folder, heir)
            dead = heir
        held = _read(self.path)
        if held is None or held.token != owner.token:  # another heir was here and is done
            claim.unlink(missing_ok=True)
            return False
        mine = draft.with_suffix(".new")
        mine.write_text(draft.read_text())
        os.replace(mine, self.path)
        print(f"ablate: {self.folder.name} is taken over from {owner}, which is gone", file=sys.stderr)
        return True

    def _unread(self, path: Path, draft: Path) -> bool:
        """A file that names nobody is gone again or, without links, about to be written: False. Raises
        UserError if it stays."""
        try:
            age = _age(path, draft)
        except FileNotFoundError:
            return False
        if age > STALE:
            raise UserError(f"{path} cannot be read: remove it if nobody is at work there")
        return False

    def _live(self) -> None:
        while not self._released.wait(BEAT):
            self._beat()

    def _beat(self) -> None:
        try:
            os.utime(self.path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                return  # the file server is away; if it stays away, others will take over
        held = _read(self.path)
        if held is not None and held.token == self._me.token:
            self._seen = time.time()
        elif not self._released.is_set():
            self._lost = True


def owner(folder: Path) -> Owner | None:
    """The living owner of a run's folder, or None."""
    held = _read(folder / NAME)
    if held is None:
        return None
    return held if alive(held, folder / NAME) else None


@contextmanager
def owned(folder: Path) -> Iterator[Lock]:
    """Hold the lock of a run's folder. Raises as `Lock.acquire`."""
    with Lock(folder).acquire() as lock:
        yield lock


def this_process() -> Owner:
    """This process as the owner of something, from now on."""
    started = (_process(os.getpid()) or (0.0, False))[0]
    return Owner(socket.gethostname(), _boot(), os.getpid(), started, time.time(), uuid.uuid4().hex)


def _process(pid: int) -> tuple[float, bool] | None:
    """(when a process of this host started, is it alive); None if there is none.

    On Linux in seconds since boot: seconds since the epoch move with the wall clock, and a process would be
    another one after a laptop's sleep.
    """
    if Path("/proc/self/stat").exists():
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return int(fields[18]) / os.sysconf("SC_CLK_TCK"), state not in "ZX"
    import psutil

    try:
        process = psutil.Process(pid)
        return process.create_time(), process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None


def _boot() -> str:
    """Tells apart hosts of one name, a host before and after a restart, and containers that number their own
    processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{uuid.getnode():x}"


def alive(owner: Owner, path: Path, probe: Path | None = None) -> bool:
    """Is the owner that a file names at work? path: the file, which the owner touches as long as it is.
    probe: a file beside `path` that was just written, for the file server's clock; None: this host's."""
    if (owner.host, owner.boot) == (socket.gethostname(), _boot()):
        found = _process(owner.pid)
        return found is not None and found[1] and abs(found[0] - owner.started) < SAME_START
    try:
        return _age(path, probe) <= STALE
    except FileNotFoundError:
        return True  # changed hands this moment


def _age(path: Path, probe: Path | None) -> float:
    """Seconds since a file was touched."""
    if probe is None:
        return time.time() - path.stat().st_mtime
    os.utime(probe)
    return probe.stat().st_mtime - path.stat().st_mtime


def _create(draft: Path, path: Path) -> bool:
    """Let `path` appear with the draft's content, unless it exists."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links here
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(draft.read_text())
    return True


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
