"""A copy of a model whose weights lie in shards, one on each rank: torch's `fully_shard` (FSDP2).

Rows of every parameter are divided among the ranks. A layer's weights are whole during its own forward and
backward pass alone; its gradients are averaged over ranks into shards as soon as they are there.
"""

from __future__ import annotations

import copy
from typing import Any

from ablate import ranks
from ablate.types import UserError


def sharded(model: Any) -> Any:
    """A copy of a transformers model to train, its parameters DTensors over all ranks; collective.

    model: the same on every rank, and left as it is. No second whole copy is made on the way. Raises
    UserError for a model that does not name its layers, and where anything stays whole.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    names = set(model._no_split_modules or ())
    layers = [name for name, part in model.named_modules() if type(part).__name__ in names]
    if not layers:
        raise UserError(
            f"learner.sharding=full shards layer by layer, and {type(model).__name__} names none "
            "(_no_split_modules); nearest: learner.sharding=none"
        )
    mesh = init_device_mesh(model.device.type, (ranks.count(),))
    empty: dict[int, Any] = {
        id(weight): torch.nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        for weight in model.parameters()
    }
    trained = copy.deepcopy(model, empty)
    for name in reversed(layers):  # the inner ones first
        fully_shard(trained.get_submodule(name), mesh=mesh)
    fully_shard(trained, mesh=mesh)
    trained.to_empty(device=model.device)
    with torch.no_grad():
        for buffer, own in zip(trained.buffers(), model.buffers(), strict=True):
            buffer.copy_(own)
    check(trained)
    scatter(model, trained)
    return trained


def check(trained: Any) -> None:
    """Raises UserError unless every parameter is a shard."""
    from torch.distributed.tensor import DTensor

    whole = [name for name, weight in trained.named_parameters() if not isinstance(weight, DTensor)]
    if whole:
        raise UserError(
            f"learner.sharding=full left {len(whole)} parameters whole ({whole[0]}, ...): this version of "
            "torch or accelerate does not shard here; nearest: learner.sharding=none"
        )


def scatter(model: Any, trained: Any) -> None:
    """Give every rank its shards of the model's weights, which all ranks have whole."""
    import torch
    from torch.distributed.tensor import distribute_tensor

    with torch.no_grad():
        for shard, whole in zip(trained.parameters(), model.parameters(), strict=True):
            own = distribute_tensor(whole.detach(), shard.device_mesh, shard.placements, src_data_rank=None)
            shard.to_local().copy_(own.to_local())


def gather(trained: Any, model: Any) -> None:
    """Write the shards' weights into the whole model, in place; collective, one parameter at a time."""
    import torch

    with torch.no_grad():
        for shard, whole in zip(trained.parameters(), model.parameters(), strict=True):
            whole.copy_(shard.full_tensor())
