"""The processes of one run, as `accelerate launch` starts them: data parallelism over problems.

Every process ("rank") rolls out its share of each batch, and all train the same weights. What is decided is
decided from figures that all agree on; the first rank keeps the record. With one process, which is the usual
case, nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ablate.types import UserError

T = TypeVar("T")

# what a launch can ask for that a run does not do: the sampler needs whole weights on every rank
SHARDED = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
SHARDED["Megatron-LM"] = "ACCELERATE_USE_MEGATRON_LM"


def count() -> int:
    """How many processes make this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this one, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Its number on this machine: which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def check(problems: int, bf16: bool) -> None:
    """Raises UserError for a launch that a run cannot follow, instead of doing something else silently.

    problems: per batch. bf16: does the configuration ask for it?
    """
    for name, variable in SHARDED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise UserError(
                f"this launch asks for {name} ({variable}), which a run does not do: every process samples "
                "from whole weights; launch plain data parallelism, with LoRA for a model that is too large"
            )
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed not in ("", "no", *(["bf16"] if bf16 else [])):
        raise UserError(
            f"this launch asks for mixed precision {mixed}, which the configuration decides: launch with "
            "--mixed_precision no, and set learner.bf16=true for bfloat16"
        )
    if problems % count():
        nearest = max(1, round(problems / count())) * count()
        raise UserError(
            f"learner.problems={problems} does not divide among {count()} processes; nearest: {nearest}"
        )


def start() -> None:
    """Join the other processes."""
    if count() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


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

    total = sum(gathered(weight))
    for tensor in tensors:
        tensor.mul_(weight / total)
        dist.all_reduce(tensor)
