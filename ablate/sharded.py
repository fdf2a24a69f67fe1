"""The learner with sharded weights (`learner.sharding=full`): every rank trains and keeps its shards alone.

What the run samples from, scores with, evaluates and saves stays the policy's own whole model, one copy on
each rank, into which the shards are gathered after every optimizer step. In float32 and over N ranks, a
parameter takes 4 bytes in that copy and 16 / N in weights, gradients and AdamW's moments, where data
parallelism has 20: all of these and the buckets that it reduces gradients in.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from ablate import ranks
from ablate.learner import Learner
from ablate.models.sharding import check, gather, scatter, sharded

if TYPE_CHECKING:
    from ablate.models.policy import Policy

SCHEDULER = "scheduler.pt"  # as the Trainer calls it


class ShardedLearner(Learner):
    """A `Learner` of a sharded copy of the policy's model. Takes the same arguments."""

    def __init__(self, policy: Policy, *args: Any, **kwargs: Any) -> None:
        self._whole = policy.model
        trained = copy.copy(policy)
        trained.model = sharded(policy.model)
        super().__init__(trained, *args, **kwargs)
        # fully_shard reduces the gradients: DistributedDataParallel must not
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.add_callback(_Gather(self))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """As any learner's; what the Trainer has made of the model must still be in shards."""
        check(model)
        return super().training_step(model, inputs, num_items_in_batch)

    def gather(self) -> None:
        """Give the policy the weights that an optimizer step has left."""
        gather(self.model, self._whole)

    # -- checkpoints: whole weights, as the policy has them, and the optimizer's shards ----------------------

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        self.model, trained = self._whole, self.model
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.model = trained

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, self._whole)
        scatter(self._whole, self.model)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        moments = {
            f"{i}.{name}": value.to_local() if isinstance(value, DTensor) else value
            for i, weight in enumerate(self._weights())
            for name, value in self._state(weight).items()
        }
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_file(moments, f"{output_dir}/{_moments()}")
        torch.distributed.barrier()  # a checkpoint that is marked whole has every rank's file
        if self.args.should_save:
            scheduler: Any = self.lr_scheduler
            torch.save(scheduler.state_dict(), f"{output_dir}/{SCHEDULER}")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        weights = self._weights()
        for key, value in load_file(f"{checkpoint}/{_moments()}").items():
            i, _, name = key.partition(".")
            weight = weights[int(i)]
            if value.dim():  # all but the number of steps
                local = value.to(weight.device)
                value = DTensor.from_local(
                    local, weight.device_mesh, weight.placements, shape=weight.shape, stride=weight.stride()
                )
            self._state(weight)[name] = value
        scheduler: Any = self.lr_scheduler
        scheduler.load_state_dict(torch.load(f"{checkpoint}/{SCHEDULER}", weights_only=True))
        optimizer: Any = self.optimizer
        for group, lr in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = lr

    def _weights(self) -> list[Any]:
        model: Any = self.model
        return list(model.parameters())

    def _state(self, weight: Any) -> dict[str, Any]:
        """What torch's optimizer, inside accelerate's, keeps of a weight."""
        wrapped: Any = self.optimizer
        return wrapped.optimizer.state[weight]


def _moments() -> str:
    """The file of this rank's shards of AdamW's moments, by the number of the parameter."""
    return f"optimizer-{ranks.rank()}.safetensors"


class _Gather(TrainerCallback):
    def __init__(self, learner: ShardedLearner) -> None:
        self._learner = learner

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The weights have changed."""
        self._learner.gather()
