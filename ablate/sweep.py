"""A sweep: many runs by the launcher of the user's choice, told as one piece of work.

Its processes share a folder of small files below the cache, gone when the sweep ends:

    sweep.json        the process that the user started, how many runs, when
    run-<number>      the process that does a run, while it does
    end-<number>.json what became of a run
    stop              exists: no further run begins

The first Ctrl-C or SIGTERM makes every run stop after its step, with a checkpoint; a second one ends all at
once.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString

from ablate import ranks
from ablate.compose import Plan, enter_working_directory
from ablate.config import Config, run_folder, validate
from ablate.progress import clock
from ablate.record import primary, read_jsonl, status
from ablate.schema import one_line
from ablate.types import UserError

GRACE = 60.0  # seconds that a worker gets for its checkpoint when the sweep's own process is gone
STOP = (signal.SIGINT, signal.SIGTERM)
KILLED = "its process ended without a word: killed, or too little memory"

Launch = Callable[[Callable[[Any], Any], list[str]], None]  # Hydra's main with a job and arguments


State = Literal["finished", "known", "failed", "stopped"]  # known: finished before


@dataclass(frozen=True)
class End:
    """What became of a run. run: the keys that the sweep varies; text: accuracy, or why it failed."""

    run: str
    state: State
    text: str
    seconds: float


def sweep(checked: Plan, launch: Launch) -> int:
    """Every run of a sweep; a failed one does not stop the others. Returns the exit code.

    Raises KeyboardInterrupt if it was asked to stop.
    """
    if ranks.count() > 1:
        raise UserError("a sweep (-m) starts its own processes: run it without accelerate launch or torchrun")
    cache = checked.config.paths.cache
    folder = Path(cache) / "sweeps" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    facts = {"process": os.getpid(), "runs": checked.count, "varied": checked.varied}
    try:
        folder.mkdir(parents=True)
        (folder / "sweep.json").write_text(json.dumps(facts))
    except OSError as error:
        raise UserError(f"paths.cache={cache} cannot be written: {error.strerror}") from error
    where = QuotedString(str(folder.resolve()), Quote.single).with_quotes()
    try:
        with _passing_on(folder):
            launch(job, ["--multirun", *checked.overrides, f"hydra.sweep.dir={where}"])
    except Exception as error:
        # a launcher whose workers were killed says so in its own way; the runs tell which
        if not (folder / "stop").exists() and type(error).__name__ != "TerminatedWorkerError":
            raise
    finally:
        ends = _ends(folder) + [End(run, "failed", KILLED, 0.0) for _, run in _running(folder)]
        stopped = (folder / "stop").exists()
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
        if not any(folder.iterdir()):  # a launcher for clusters keeps its logs here
            folder.rmdir()
    failed = [end for end in ends if end.state == "failed"]
    if failed:
        print(f"ablate: {_count(len(failed))} failed:", file=sys.stderr)
    for end in failed:
        print(f"  {end.run}: {end.text}", file=sys.stderr)
    if failed or stopped:
        again = "the same command" + ("" if checked.config.resume else " with resume=true")
        print(f"{again} runs what is missing and goes on with what is unfinished", file=sys.stderr)
    if stopped:
        raise KeyboardInterrupt
    return 1 if failed else 0


def job(cfg: Any) -> Any:
    """One run of a sweep, perhaps in a process of its own.

    Returns the run's folder; nan, which a sweeper that optimises takes for a failed trial, without a result.
    """
    hydra = HydraConfig.get()
    folder, number = Path(hydra.sweep.dir), f"{hydra.job.num:06d}"
    facts = json.loads((folder / "sweep.json").read_text())
    varied = [each for each in hydra.overrides.task if _key(each) in facts["varied"]]
    run = " ".join(each.lstrip("+") for each in varied) or "the only run"
    started = time.monotonic()
    result: Any = math.nan
    state: State
    with _interruptible(folder, facts["process"]):
        if not (folder / "stop").exists():
            (folder / f"run-{number}").write_text(json.dumps([os.getpid(), run]))
        if (folder / "stop").exists():  # perhaps since
            (folder / f"run-{number}").unlink(missing_ok=True)
            return math.nan
        try:
            state, text, result = _run(cfg)
        except KeyboardInterrupt:
            (folder / "stop").touch()
            state, text = "stopped", ""
        except Exception as error:
            state, text = "failed", one_line(error)
            if not isinstance(error, UserError):
                traceback.print_exc()
                text = f"{type(error).__name__}: {text}"
        with _handling(dict.fromkeys(STOP, lambda number, frame: (folder / "stop").touch())):
            _tell(folder, number, End(run, state, text, time.monotonic() - started), facts["runs"])
    return result


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _run(cfg: Any) -> tuple[State, str, Path]:
    """Do a run, unless it is finished already; (which of the two, its accuracy, its folder)."""
    enter_working_directory()
    config: Config = validate(cfg)
    folder = run_folder(config)
    if status(folder) == "finished" and not config.fresh:
        return "known", _accuracy(folder), folder
    from ablate.run import run  # imports torch

    run(config, quiet=True)
    return "finished", _accuracy(folder), folder


def _accuracy(folder: Path) -> str:
    rows = read_jsonl(folder / "evaluations.jsonl")
    if not rows:
        return ""
    name = primary(rows[-1])
    values = [f"{100 * row[f'heldout/{name}']:.1f}" for row in (rows[0], rows[-1])]
    return f"{name} {' -> '.join(values)} %"


# -- what the processes tell each other ----------------------------------------------------------------------


def _tell(folder: Path, number: str, end: End, runs: int | None) -> None:
    """Note a run's end, and print a line for people."""
    from filelock import FileLock

    with FileLock(folder / "lock"):
        running = len(_running(folder))  # this one included
        (folder / f"end-{number}.json").write_text(json.dumps(asdict(end)))
        (folder / f"run-{number}").unlink()
        ends = _ends(folder)
        done = f"{len(ends)} of {runs}" if runs else f"{len(ends)}"
        said = {"known": "finished before", "failed": "FAILED", "stopped": "stopped"}.get(end.state, "")
        spent = clock(end.seconds) if end.state == "finished" else ""
        left = _left(ends, running, runs) if end.state != "stopped" else ""
        parts = [part for part in (said, end.text, spent, left) if part]
        print(f"{done} · {end.run} · {' · '.join(parts)}", flush=True)


def _left(ends: list[End], running: int, runs: int | None) -> str:
    """About how long the rest takes, at the mean time of the runs so far and as many at a time as now."""
    seconds = [end.seconds for end in ends if end.state == "finished"]
    if not runs or not seconds or len(ends) >= runs:
        return ""
    return f"about {clock(fmean(seconds) * (runs - len(ends)) / running)} left"


def _ends(folder: Path) -> list[End]:
    return [End(**json.loads(path.read_text())) for path in sorted(folder.glob("end-*.json"))]


def _running(folder: Path) -> list[tuple[int, str]]:
    """Process and run of each that has not come to its end."""
    found = []
    for path in sorted(folder.glob("run-*")):
        try:
            process, run = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):  # just ended, or about to begin
            continue
        found.append((process, run))
    return found


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


# -- signals -------------------------------------------------------------------------------------------------


@contextmanager
def _passing_on(folder: Path) -> Iterator[None]:
    """In the process that the user started: stop signals reach the workers as SIGTERM, once."""
    import psutil

    def stop(number: int, frame: Any) -> None:
        if (folder / "stop").exists():
            raise KeyboardInterrupt
        (folder / "stop").touch()
        name = signal.Signals(number).name
        text = f"{name}: no further run begins, those that run stop with a checkpoint (again: at once)"
        print(f"\n{text}", file=sys.stderr, flush=True)
        running = [process for process, _ in _running(folder)]
        for worker in psutil.Process().children(recursive=True):
            if worker.pid in running:
                worker.send_signal(signal.SIGTERM)

    with _handling(dict.fromkeys(STOP, stop)):
        yield


@contextmanager
def _interruptible(folder: Path, parent: int) -> Iterator[None]:
    """Around a run: SIGTERM interrupts it like Ctrl-C, until the run itself listens.

    A worker leaves Ctrl-C, which a terminal sends to every process, to its parent. If that one dies, the
    worker stops, too.
    """

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if os.getpid() == parent:
        with _handling(dict.fromkeys(STOP, interrupt)):
            yield
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # between two runs: what comes late must not kill it
    with _handling({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: interrupt}):
        ended = threading.Event()
        if os.getppid() == parent:
            threading.Thread(target=_follow, args=(folder, parent, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()


def _follow(folder: Path, parent: int, ended: threading.Event) -> None:
    """Stop this worker's run when the process that started the sweep is gone."""
    while not ended.wait(1.0):
        if os.getppid() != parent:
            (folder / "stop").touch()
            os.kill(os.getpid(), signal.SIGTERM)
            ended.wait(GRACE)
            os._exit(1)


@contextmanager
def _handling(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Signal handlers for a while; outside the main thread they stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
