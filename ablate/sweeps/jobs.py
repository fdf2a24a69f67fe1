"""A sweep: many runs by the launcher of the user's choice, told as one piece of work.

The first Ctrl-C or SIGTERM makes every run stop after its step, with a checkpoint; a second one ends all at
once. A worker that gets a SIGTERM of its own (a pre-empted job) stops its run alone.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString

from ablate import devices, ranks
from ablate.compose import Plan, enter_working_directory, named_runs, run_name
from ablate.config import Config, run_folder, validate_job
from ablate.owner import Busy
from ablate.record import primary, read_jsonl, status
from ablate.runtime import StopRequest
from ablate.schema import one_line
from ablate.sweeps.planned import declare
from ablate.sweeps.state import End, State, Sweep
from ablate.types import UserError

GRACE = 60.0  # seconds that a worker gets for its checkpoint when the sweep's own process is gone
STOP = (signal.SIGINT, signal.SIGTERM)
KILLED = "its process ended without a word: killed, or too little memory"
LIVES = 3  # processes that a run may lose before the sweep goes on without it
HERE = ("basic", "joblib")  # launchers whose workers end with this process

Launch = Callable[[Callable[[Any], Any], list[str]], None]  # Hydra's main with a job and arguments


def sweep(checked: Plan, launch: Launch) -> int:
    """Every run of a sweep; a failed one does not stop the others. Returns the exit code.

    Raises KeyboardInterrupt if it was asked to stop.
    """
    if ranks.count() > 1:
        raise UserError("a sweep (-m) starts its own processes: run it without accelerate launch or torchrun")
    gpus = _gpus(checked)
    folder = Path(checked.config.paths.cache) / "sweeps" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    state = Sweep(folder)
    facts = {"runs": checked.count, "varied": checked.varied, "gpus": gpus, "directory": str(Path.cwd())}
    state.create(facts)
    where = QuotedString(str(folder.resolve()), Quote.single).with_quotes()
    settings = [f"hydra.sweep.dir={where}"]
    if checked.launcher == "joblib":  # the number that was checked: joblib knows neither memory nor GPUs
        settings.append(f"hydra.launcher.n_jobs={checked.jobs}")
    try:
        listed = named_runs(checked) if checked.count is not None else []
        plans = declare(listed, checked.config, checked.varied)
        with _passing_on(state), state.telling(checked.count, plans), warnings.catch_warnings():
            # a worker that had no run for a while has left, and comes again when there is one
            warnings.filterwarnings(
                "ignore", message="A worker stopped while some jobs", category=UserWarning
            )
            arguments = ["--multirun", *checked.overrides, *settings]
            _outliving(checked, state, lambda: launch(job, arguments))
    except Exception as error:
        # a launcher whose workers were killed says so in its own way; the runs tell which
        if isinstance(error, UserError) or not (state.stopped or state.running()):
            raise
        if checked.launcher not in HERE:
            print(f"ablate: hydra/launcher={checked.launcher}: {one_line(error)[:300]}", file=sys.stderr)
            _wait(state)
    finally:
        ends = list(state.ends().values())
        running = state.running().values()
        going_on = [run for run, alive in running if alive and checked.launcher not in HERE]
        ends += [End(run, "failed", KILLED, 0.0) for run, _ in running if run not in going_on]
        stopped = state.stopped
        if checked.launcher in HERE or len(ends) == checked.count:
            state.clear()
        else:  # jobs that wait in a queue find out that nobody waits for them
            state.stop()
    return _close(ends, going_on, stopped, checked.config.resume)


def _outliving(checked: Plan, state: Sweep, launch: Callable[[], None]) -> None:
    """Launch; where joblib has lost a worker, which makes it kill the others, launch what is missing again.

    Which worker was lost is not known: of several runs at work, each may have been the one. A run that has
    lost LIVES processes is noted as failed if it was at work alone, else tried by itself first, and the
    others go on.
    """
    lost: Counter[str] = Counter()
    alone: str | None = None  # the run that is tried by itself
    while True:
        before = state.beginnings()
        try:
            with nullcontext() if alone is None else state.only(alone):
                launch()
            if alone is None:
                return
            lost.pop(alone, None)
            alone = _next(lost, state)
        except BrokenProcessPool:
            # a sweeper that chooses its runs as it goes numbers them otherwise the second time
            if state.stopped or checked.launcher != "joblib" or checked.sweeper != "basic":
                raise
            begun = state.beginnings()  # some may be those of an earlier loss
            runs = {n: run for n, (run, _) in state.running().items() if begun.get(n) != before.get(n)}
            lost.update([*runs] or [""])  # "": between two runs
            if lost[""] == LIVES:
                raise
            for number, run in list(runs.items()):
                if lost[number] >= LIVES and len(runs) == 1:
                    state.ended(number, End(run, "failed", f"{KILLED}, {lost[number]} times", 0.0))
                    del runs[number]
            alone = _next(lost, state)
            on = f", {'; '.join(runs.values())} from the last checkpoint" if runs else ""
            by_itself = ", one of these at a time" if alone else ""
            text = f"a worker was killed, or had too little memory: new ones go on{on}{by_itself}"
            print(f"ablate: {text}", file=sys.stderr)


def _next(lost: Counter[str], state: Sweep) -> str | None:
    """The next run that must be tried by itself, if any."""
    return next((n for n in sorted(lost) if n and lost[n] >= LIVES and not state.over(n)), None)


def _close(ends: list[End], going_on: list[str], stopped: bool, resume: bool) -> int:
    """Say what is left to do; returns the exit code."""
    counted = {
        "failed": [end for end in ends if end.state == "failed"],
        "left to another process": [end for end in ends if end.state == "elsewhere"],
        "stopped": [end for end in ends if end.state == "stopped" and not stopped],
        "going on by themselves": [End(run, "stopped", "", 0.0) for run in going_on],
    }
    for what, some in counted.items():
        if some:
            print(f"ablate: {_count(len(some))} {what}:", file=sys.stderr)
        for end in some:
            print(f"  {end.run}" + (f": {end.text}" if end.text else ""), file=sys.stderr)
    if stopped or any(counted.values()):
        again = "the same command" + ("" if resume else " with resume=true")
        print(f"{again} runs what is missing and goes on with what is unfinished", file=sys.stderr)
    if stopped:
        raise KeyboardInterrupt
    return 1 if any(counted.values()) else 0


def _gpus(checked: Plan) -> list[str]:
    """A GPU for each run that joblib has at work at a time, none where there is none. Raises UserError if
    there are too few."""
    if checked.launcher != "joblib":
        return []
    places, each = devices.places(checked.config), checked.config.runs_per_gpu
    at_a_time = min(checked.jobs, checked.count or checked.jobs)
    if places and at_a_time > len(places):
        gpus = set(places)
        fits = -(-at_a_time // len(gpus))
        raise UserError(
            f"hydra.launcher.n_jobs={checked.jobs} is more than {len(gpus)} visible GPUs take with "
            f"runs_per_gpu={each}: nearest: hydra.launcher.n_jobs={len(places)}, or runs_per_gpu={fits}"
        )
    return places


def job(cfg: Any) -> Any:
    """One run of a sweep, perhaps in a process of its own.

    Returns the run's folder; nan, which a sweeper that optimises takes for a failed trial, without a result.
    """
    hydra = HydraConfig.get()
    state, number = Sweep(Path(hydra.sweep.dir)), f"{hydra.job.num:06d}"
    facts = state.facts()
    run = run_name(hydra.overrides.task, facts["varied"])
    started = time.monotonic()
    result: Any = math.nan
    said: State
    with _interruptible(state, number, facts) as here:
        if not here:  # a cluster's workers begin where the cluster was started
            os.chdir(facts["directory"])
        if state.over(number) or state.waits(number):  # before the sweep lost a worker; until it is its turn
            return math.nan
        again = not state.stopped and state.began(number, run)
        if state.stopped:  # perhaps since
            state.ended(number, None)
            return math.nan
        if facts["gpus"] and devices.take(state.folder, facts["gpus"]) is None:
            raise RuntimeError(f"no GPU is free: {facts['gpus']} are taken by other workers of this sweep")
        try:
            said, text, result = _run(cfg, state.created if again else None)
        except KeyboardInterrupt:
            if here:
                state.stop()
            said, text = "stopped", ""
        except Busy as error:
            said, text = "elsewhere", f"at work on it: {error.owner}"
        except Exception as error:
            said, text = "failed", one_line(error)
            if not isinstance(error, UserError):
                traceback.print_exc()
                text = f"{type(error).__name__}: {text}"
        with _handling(dict.fromkeys(STOP, lambda number, frame: state.stop())):
            state.ended(number, End(run, said, text, time.monotonic() - started))
    return result


def _run(cfg: Any, again: float | None) -> tuple[State, str, Path]:
    """Do a run, unless it is finished already; (which of the two, its accuracy, its folder). again: when the
    sweep began, if it has begun this run before."""
    enter_working_directory()
    config: Config = validate_job(cfg)
    folder = run_folder(config)
    if again is not None and not (config.fresh and _begun(folder) < again):
        cfg = cfg.copy()
        cfg.resume, cfg.fresh = True, False
        config = validate_job(cfg)
    if status(folder) == "finished" and not config.fresh:
        return "known", _accuracy(folder), folder
    from ablate.run import run  # imports torch

    run(config, quiet=True)
    return "finished", _accuracy(folder), folder


def _begun(folder: Path) -> float:
    """When a run's record was begun, 0 if there is none."""
    try:
        return (folder / "config.yaml").stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _accuracy(folder: Path) -> str:
    rows = read_jsonl(folder / "evaluations.jsonl")
    if not rows:
        return ""
    name = primary(rows[-1])
    values = [f"{100 * row[f'heldout/{name}']:.1f}" for row in (rows[0], rows[-1])]
    return f"{name} {' -> '.join(values)} %"


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _wait(state: Sweep) -> None:
    """Until the runs that are still at work come to their ends; a launcher gives up at the first that
    died."""
    while any(alive for _, alive in state.running().values()):
        time.sleep(0.5)


# -- signals -------------------------------------------------------------------------------------------------


@contextmanager
def _passing_on(state: Sweep) -> Iterator[None]:
    """In the process that the user started: the first stop signal asks the workers to stop."""

    def stop(number: int, frame: Any) -> None:
        if state.stopped:
            raise KeyboardInterrupt
        state.stop()
        name = signal.Signals(number).name
        text = f"{name}: no further run begins, those that run stop with a checkpoint (again: at once)"
        print(f"\n{text}", file=sys.stderr, flush=True)

    with _handling(dict.fromkeys(STOP, stop)):
        yield


@contextmanager
def _interruptible(state: Sweep, number: str, facts: dict[str, Any]) -> Iterator[bool]:
    """Around a run: SIGTERM interrupts it like Ctrl-C, until the run itself listens. Yields: is this the
    process that the user started?

    A worker leaves Ctrl-C, which a terminal sends to every process, to its parent. It follows the sweep's
    folder for a request to stop, and if its parent dies, it stops, too. What submitit does on its own signal
    (queue the job again) happens after the run has stopped with a checkpoint.
    """

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    here = (socket.gethostname(), os.getpid()) == (facts["host"], facts["process"])
    if here:
        with _handling(dict.fromkeys(STOP, interrupt)):
            yield True
        return
    asked = threading.Event()

    def requeue(number: int, frame: Any) -> None:
        asked.set()
        signal.raise_signal(signal.SIGTERM)

    handlers: dict[signal.Signals, Any] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: interrupt}
    if callable(submitit := signal.getsignal(signal.SIGUSR2)):
        handlers[signal.SIGUSR2] = requeue
    elif threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # between two runs: what comes late must not kill it
    with _handling(handlers):
        ended = threading.Event()
        parent = facts["process"] if os.getppid() == facts["process"] else None
        threading.Thread(target=_follow, args=(state, number, parent, ended), daemon=True).start()
        try:
            yield False
        finally:
            ended.set()
    if asked.is_set() and callable(submitit):
        submitit(signal.SIGUSR2, None)


def _follow(state: Sweep, number: str, parent: int | None, ended: threading.Event) -> None:
    """Stop this worker's run when the sweep is asked to stop, or the process that started it is gone."""
    looks = 0
    while not ended.wait(0.5):
        looks += 1
        if looks % 20 == 0:
            state.alive(number)
        gone = parent is not None and os.getppid() != parent
        if not gone and not state.stopped:
            continue
        if gone:
            state.stop()
        if StopRequest.current is None or not StopRequest.current.asked:  # nobody else has told it
            os.kill(os.getpid(), signal.SIGTERM)
        if gone:
            ended.wait(GRACE)
            os._exit(1)
        return


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
