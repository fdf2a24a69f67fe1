"""The processes of one run, as `accelerate launch` starts them: data parallelism over problems.

Every process ("rank") rolls out its share of each batch, and all train the same weights. What is decided is
decided from figures that all agree on; the first rank keeps the record. With one process, which is the usual
case, nothing here does anything.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from ablate.types import UserError

T = TypeVar("T")

# what a launch can ask for that a run does not do: the sampler needs whole weights on every rank. FSDP is the
# learner's own (`learner.sharding`): accelerate's is silently none on a CPU
SHARDED = {
    "FSDP": "ACCELERATE_USE_FSDP",
    "DeepSpeed": "ACCELERATE_USE_DEEPSPEED",
    "Megatron-LM": "ACCELERATE_USE_MEGATRON_LM",
    "a parallelism configuration": "ACCELERATE_USE_PARALLELISM_CONFIG",
}
# how MPI tells a process how many there are; accelerate would follow it in the middle of a run
MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
# that ranks wait for each other: one may load a model, or judge an evaluation, while the rest have no work.
# The death of one is noticed at once: its connections close with it, and launchers end the others
PATIENCE = timedelta(hours=2)
LAST_WORDS = 5.0  # seconds that a process may take to be gone after its connections are
# seconds for gloo's threads to drop the tensors of the last collective, which takes Python's lock: a thread
# that asks for it when the interpreter is on its way out aborts the process (pytorch/pytorch#179291)
SETTLING = 0.5

_peers: list[tuple[str, int]] = []  # machine and process of every rank


class RankLost(RuntimeError):
    """Another process of the run has ended; the text says which."""


def count() -> int:
    """How many processes make this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this one, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Its number on this machine: which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_count() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count()))


def on_cpu() -> bool:
    """Was the run launched for the CPU, whatever the machine has?"""
    return os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1")


def check(problems: int, bf16: bool) -> None:
    """Raises UserError for a launch that a run cannot follow, instead of doing something else silently.

    problems: per batch. bf16: does the configuration ask for it?
    """
    for name, variable in SHARDED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            if name == "FSDP":
                raise UserError(
                    f"this launch asks for FSDP ({variable}), which the configuration decides: launch "
                    "without it, and set learner.sharding=full"
                )
            raise UserError(
                f"this launch asks for {name} ({variable}), which a run does not do: every process samples "
                "from whole weights; launch plain data parallelism, with LoRA or learner.sharding=full for a "
                "model that is too large"
            )
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed not in ("", "no", *(["bf16"] if bf16 else [])):
        raise UserError(
            f"this launch asks for mixed precision {mixed}, which the configuration decides: launch with "
            "--mixed_precision no, and set learner.bf16=true for bfloat16"
        )
    for variable in MPI:
        if int(os.environ.get(variable, "1")) > 1 and "WORLD_SIZE" not in os.environ:
            raise UserError(
                f"this launch is MPI's ({variable}={os.environ[variable]}), which a run does not follow; "
                f"nearest: torchrun --nproc_per_node {os.environ[variable]} -m ablate ..."
            )
    if problems % count():
        nearest = max(1, round(problems / count())) * count()
        raise UserError(
            f"learner.problems={problems} does not divide among {count()} processes; nearest: {nearest}"
        )


def start(cpu: bool) -> None:
    """Join the other processes. cpu: does the run compute there?

    Raises UserError for more processes than GPUs, and for an environment that no launcher has prepared.
    """
    if count() == 1:
        return
    import torch
    from accelerate import PartialState

    if not cpu and local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"this launch starts {local_count()} processes on a machine with {torch.cuda.device_count()} "
            f"GPUs; nearest: {torch.cuda.device_count()}, a GPU for each"
        )
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE={count()} asks for several processes, which cannot meet without {missing[0]}; "
            f"nearest: torchrun --nproc_per_node {count()} -m ablate ..."
        )
    PartialState(cpu=cpu, timeout=PATIENCE)
    _peers[:] = gathered((socket.gethostname(), os.getpid()))


def leave() -> None:
    """Part from the other processes."""
    if count() > 1:
        import torch.distributed as dist

        time.sleep(SETTLING)
        dist.destroy_process_group()


@contextmanager
def watching() -> Iterator[None]:
    """Turn what a collective raises when another rank is gone into `RankLost`, which names it."""
    try:
        yield
    except RuntimeError as error:
        if count() == 1 or isinstance(error, RankLost):
            raise
        import torch.distributed as dist

        # gloo has no class of its own; its messages begin with a place in its source
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RankLost(f"{_gone()}: this one stops, too") from error


def _gone() -> str:
    """Which ranks of this machine have ended, waiting a little for the first."""
    import psutil

    here, until = socket.gethostname(), time.monotonic() + LAST_WORDS
    while time.monotonic() < until:
        ended = []
        for number, (host, process) in enumerate(_peers):
            try:
                alive = host != here or psutil.Process(process).status() != psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                alive = False
            if not alive:
                ended.append(f"rank {number} of {count()} (process {process}) has ended")
        if ended:
            return ", ".join(ended)
        time.sleep(0.05)
    return f"one of the other {count() - 1} ranks, on another machine, has ended or stopped answering"


def share(items: int) -> slice:
    """This rank's part of so many items, in order; parts differ by one item at most."""
    bounds = [items * r // count() for r in (rank(), rank() + 1)]
    return slice(*bounds)


def key() -> tuple[int, ...]:
    """What tells the random streams of ranks apart; nothing for one process."""
    return (rank(),) if count() > 1 else ()


def gathered(value: T) -> list[T]:
    """Every rank's value, in their order."""
    if count() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def agreed(value: T) -> T:
    """The first rank's value."""
    return gathered(value)[0]


def first(work: Callable[[], T]) -> T:
    """What `work` returns on the first rank, the only one that does it; all raise the UserError it raises."""
    if count() == 1:
        return work()
    result: Any = None
    error = None
    if rank() == 0:
        try:
            result = work()
        except UserError as raised:
            error = str(raised)
    result, error = agreed((result, error))
    if error is not None:
        raise UserError(error)
    return result


def mean(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures by name, averaged over the ranks that have them."""
    if count() == 1:
        return dict(figures)
    parts = gathered(dict(figures))
    names = dict.fromkeys(name for part in parts for name in part)
    values = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(each) / len(each) for name, each in values.items()}


def weighted_mean(tensors: list[Any], weight: float) -> None:
    """Replace tensors by their mean over ranks, each with its weight."""
    if count() == 1:
        return
    import torch.distributed as dist

    total = sum(gathered(weight)) or 1.0
    for tensor in tensors:
        tensor.mul_(weight / total)
        dist.all_reduce(tensor)


class OneRank:
    """An accelerator whose collectives see this rank alone.

    TRL's loss gathers figures for a log that is not kept, one per row, which fails where ranks hold
    micro-batches of different sizes.
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)

    def gather(self, tensor: Any) -> Any:
        """The tensor."""
        return tensor

    def reduce(self, tensor: Any, reduction: str = "sum") -> Any:
        """The tensor."""
        return tensor
