"""What a run is refused for before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ablate import ranks
from ablate.types import Task, UserError

if TYPE_CHECKING:
    from ablate.config import Config
    from ablate.strategy import Strategy


def check_model(config: Config, task: Task, model: Any) -> None:
    """Raises UserError, before anything is loaded, for a model that cannot serve the task and these caps."""
    if check := getattr(model, "check", None):
        check(task, config.sampling.cap * config.evaluate.long_cap_factor)


def check_sharding(config: Config, model: Any) -> None:
    """Raises UserError for a run with sharded weights that has nothing to share them with, or to gain."""
    if config.learner.sharding == "none":
        return
    if ranks.count() == 1:
        raise UserError(
            "learner.sharding=full divides the trained weights among the processes of a launch, and this run "
            "has one: torchrun --nproc_per_node 2 -m ablate ..., or learner.sharding=none"
        )
    if rank := getattr(getattr(model, "lora", None), "rank", 0):
        raise UserError(
            f"learner.sharding=full saves nothing with model.lora.rank={rank}: frozen weights are "
            "needed whole to sample from, and adapters are small; nearest: learner.sharding=none"
        )


def check_task(task: Task) -> None:
    """Raises UserError for something that the task needs and that is not there, or a broken problem file."""
    if check := getattr(task, "check", None):
        check()
    task.size("train")


def check_problems(config: Config, task: Task) -> None:
    """Raises UserError where a run is to train on more problems than the task has."""
    wanted, size = config.learner.distinct_problems, task.size("train")
    if wanted is not None and wanted > size:
        raise UserError(
            f"learner.distinct_problems={wanted} is more than task={task.name} has to train on: at most "
            f"{size}, or null for all"
        )


def check_budget(config: Config, task: Task, model: Any, strategy: Strategy) -> None:
    """Refuse a budget that one batch can exceed, and name the smallest that works."""
    knob = getattr(strategy.source, "size", "n")  # the setting that says how many answers a problem takes
    answers = getattr(strategy.source, knob, 1)
    rows, cap = config.learner.problems * answers, config.sampling.cap
    if config.budget.tokens is not None:
        unit, given, least = "tokens", config.budget.tokens, float(rows * cap)
    elif config.budget.flops is not None and hasattr(model, "cost"):
        cost = model.cost(task)
        unit, given = "flops", config.budget.flops
        readings = 2 if config.learner.kl else 1  # the start reads what the policy has written
        least = rows * (readings * cost.forward(0, cap, cap) + cost.train(cap, cap))
    else:
        return  # seconds; a model whose size is not known before it is loaded
    if given < least:
        smallest = f"{least:.2e}" if float(f"{least:.2e}") >= least else f"{1.005 * least:.2e}"
        fits = int(config.learner.problems * given / least)
        raise UserError(
            f"budget.{unit}={given:g} is less than one batch can cost (learner.problems="
            f"{config.learner.problems} x strategy.source.{knob}={answers} answers of up to {cap} tokens): "
            f"the smallest that works is {smallest}"
            + (f"; learner.problems={fits} would fit" if fits else "")
        )
