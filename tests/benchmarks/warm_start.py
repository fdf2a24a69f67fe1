"""A step of the warm start with transformers' Trainer against a plain PyTorch loop.

    python tests/benchmarks/warm_start.py

Same model, demonstrations, collator, loss, clipping and AdamW, in one process and in turn, on one thread. A
round is one turn of either side; its first steps warm up.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")

import argparse
import copy
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import TrainerCallback

from ablate.models.policy import Policy
from ablate.models.tiny import TinyModel, build_model, build_tokenizer
from ablate.models.warm_start import PackedBatch, encode_demonstrations, make_trainer, supervised_loss
from ablate.runtime import quiet_libraries
from ablate.tasks.countdown import Countdown

WARM_UP = 10  # steps


class Clock(TrainerCallback):
    """Notes when every step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def with_trainer(policy: Policy, rows: list[dict[str, Any]], spec: Any, seed: int) -> list[float]:
    """The ends of `spec.steps` steps, in seconds."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        make_trainer(policy, rows, spec, seed, Path(folder), [clock]).train()
    return clock.ends


def plain(policy: Policy, rows: list[dict[str, Any]], spec: Any, seed: int) -> list[float]:
    """The same, written out."""
    model, ends = policy.model.train(), []
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=spec.lr, betas=(0.9, 0.95), weight_decay=0.0, foreach=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 100))
    collate = PackedBatch(policy.tokenizer.pad_token_id)
    learned = sum(len(row["input_ids"]) - row["prompt"] for row in rows) / len(rows)
    loss_of = supervised_loss(spec.batch * learned)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    for step in range(spec.steps):
        batch = collate([rows[i] for i in order[step * spec.batch : (step + 1) * spec.batch]])
        labels = batch.pop("labels")
        loss = loss_of(model(**batch), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ends.append(time.perf_counter())
    return ends


def main() -> None:
    """Print milliseconds per step and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of either side (default: 7)")
    parser.add_argument("--steps", type=int, default=60, help="timed steps per turn (default: 60)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    task, shape = Countdown(), TinyModel()
    tokenizer = build_tokenizer(task.vocabulary())
    digits = [word for word in task.vocabulary() if word.isdigit()]
    numbers = {tokenizer.convert_tokens_to_ids(word): int(word) for word in digits}
    policy = Policy(build_model(shape, tokenizer, numbers, 0), tokenizer)
    spec = replace(shape.warm_start, steps=args.steps + WARM_UP)
    pairs = list(task.demonstrations(0, spec.batch * spec.steps))
    rows = encode_demonstrations(policy, pairs, spec.length)
    taken: dict[str, list[float]] = {"Trainer": [], "plain loop": []}
    for turn in range(args.rounds):
        for name, run in (("Trainer", with_trainer), ("plain loop", plain)):
            ends = run(Policy(copy.deepcopy(policy.model), tokenizer), rows, spec, turn)
            taken[name].append((ends[-1] - ends[WARM_UP - 1]) / args.steps * 1e3)
    ratios = [ours / theirs for ours, theirs in zip(*taken.values(), strict=True)]
    for name, values in taken.items():
        print(f"{name:10} {median(values):6.1f} ms a step ({min(values):.1f} - {max(values):.1f})")
    print(f"ratio      {median(ratios):6.3f} ({min(ratios):.3f} - {max(ratios):.3f})")


if __name__ == "__main__":
    main()
