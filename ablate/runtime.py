"""The process around a run: threads, device, quiet libraries, stop signals."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from ablate import ranks

T = TypeVar("T")

# Threads that wait must sleep, not spin: with spinning, two runs side by side on two cores are several times
# slower each. OpenMP reads this when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# transformers and TRL import vLLM where it is installed, and with it come its messages
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def set_threads(threads: int | None) -> int:
    """Let torch use `threads` threads (None: every core, or this rank's part of them). Returns the number."""
    import torch

    count = threads or max(1, len(os.sched_getaffinity(0)) // ranks.local_count())
    torch.set_num_threads(count)
    return count


def keep_memory() -> None:
    """Let glibc keep what torch frees in every pass and asks for again in the next."""
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library manages memory its own way
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    for parameter in (trim_threshold, mmap_threshold):
        mallopt(parameter, 1 << 30)


def device(wanted: str = "auto") -> Any:
    """The device of this name; "auto": this rank's GPU; the CPU, if there is none or the launch says so."""
    import torch

    there = torch.cuda.is_available() and not ranks.on_cpu()
    kind = ("cuda" if there else "cpu") if wanted == "auto" else wanted
    return torch.device(kind, ranks.local_rank()) if kind == "cuda" else torch.device(kind)


def one_gpu(arguments: Any) -> Any:
    """A Trainer's arguments, on one GPU at most: of several that are visible it would use all by
    DataParallel, with as many times the batch."""
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def apart(work: Callable[..., T], *arguments: Any) -> T:
    """What `work`, a function of a module, returns in a new process that belongs to no launch.

    Where ranks make one run, a Trainer takes each of them for a part of its own work and waits for the rest.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    import torch

    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, get_context("spawn"), _leave_launch, (threads,)) as pool:
        return pool.submit(work, *arguments).result()


def _leave_launch(threads: int) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    quiet_libraries()
    set_threads(threads)


def gpus() -> list[str]:
    """Names of the visible GPUs."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def out_of_memory(error: BaseException) -> bool:
    """Does an exception say that memory ran out? On a CPU, torch has no class for it."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def quiet_libraries() -> None:
    """Errors only: a normal run prints nothing of its libraries' own."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|transformers|trl|accelerate)\.")
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("accelerate", "datasets", "trl"):
        logging.getLogger(name).setLevel(logging.ERROR)


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second one interrupts at once, and so do LONGEST seconds: who
    pre-empts a job kills it soon after."""

    LONGEST = 20.0  # with what else a run does when it ends, less than the 30 s that clusters give
    current: ClassVar[StopRequest | None] = None  # the one that listens

    def __init__(self) -> None:
        self.asked = False
        self._late: threading.Timer | None = None

    def _handle(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        name, longest = signal.Signals(number).name, self.LONGEST
        text = f"stopping after this step, with a checkpoint (again, or in {longest:.0f} s: at once)"
        print(f"\n{name}: {text}", file=sys.stderr)
        late = threading.Timer(longest, _thread.interrupt_main, [number])
        late.daemon = True
        late.start()
        self._late = late

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals for a while, but those that are ignored. Outside the main thread they stay."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._handle) for number in heard}
        StopRequest.current = self
        try:
            yield
        finally:
            StopRequest.current = None
            if self._late is not None:
                self._late.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)
