"""Trained tokens per second, end to end, against stock TRL; generation against transformers' own.

    python tests/benchmarks/throughput.py

Both sides in one process and in turn, from the same weights, on the same problems, with the same sampling,
loss and optimizer: 32 prompts x 8 answers, temperature 1, at most 96 new tokens, one thread. A token counts
as trained when its answer is part of a batch, on either side. The settings:

- *verifier*: answers as the warm-started model gives them, judged by the task. Answers of groups without
  signal need no forward pass here; TRL takes all.
- *dense*: the same, but every group has signal (an answer is "right" if the sum of its tokens is even).
- *uniform*: dense, and no answer ends before the cap.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")

import argparse
import copy
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import trl.trainer.utils
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from ablate import learner as learner_module
from ablate.config import LearnerConfig, PathsConfig, SamplingConfig
from ablate.engines.hf import HFEngine
from ablate.lab import Laboratory
from ablate.learner import Learner
from ablate.ledger import Ledger
from ablate.models.policy import Policy
from ablate.models.tiny import TinyModel
from ablate.runtime import quiet_libraries
from ablate.strategy import Strategy
from ablate.tasks.countdown import Countdown
from strategies.guess_check import NoRecovery, Outcome, Sample

PROBLEMS, ANSWERS, CAP = 32, 8, 96
SETTINGS = ("verifier", "dense", "uniform")
LEARNER = LearnerConfig(problems=PROBLEMS)


def dense_reward(tokens: Any) -> float:
    """1 for an even sum of tokens, else 0: about half of any group."""
    return float(sum(tokens) % 2 == 0)


class DenseReward:
    """In the place of a recovery: another reward for every answer."""

    def __call__(self, groups: list[Any], lab: Any) -> list[Any]:
        """The same answers."""
        return [[replace(t, reward=dense_reward(t.completion)) for t in group] for group in groups]


class Clock(TrainerCallback):
    """Seconds per step; `parts` collects what is measured inside."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.parts: dict[str, float] = defaultdict(float)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop; the first step warms up."""
        self.seconds.append(time.perf_counter() - self._begun)
        if state.global_step == 1:
            self.parts.clear()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        begun = time.perf_counter()
        yield
        self.parts[name] += time.perf_counter() - begun

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its time added to a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    @property
    def speed(self) -> float:
        """Tokens per second after the first step."""
        return sum(self.tokens[1:]) / sum(self.seconds[1:])


def run_ours(policy: Policy, task: Countdown, setting: str, steps: int, start: int, folder: str) -> Clock:
    """`steps` steps of guess + check from batch `start`, as a run takes them."""
    clock, ledger, engine = Clock(), Ledger(), HFEngine()
    engine.start(policy, ledger)
    generate, collate, rows_of = engine.generate, learner_module.collate, learner_module.rows_of
    engine.generate = clock.wrap("rollout", generate)  # type: ignore[method-assign]
    lab = Laboratory(task, policy, engine, ledger, CAP, temperature=1.0, sampling_seed=start)
    recovery = NoRecovery() if setting == "verifier" else DenseReward()
    strategy = Strategy(Sample(ANSWERS), recovery, Outcome())

    def rollout(batch: int) -> list[Any]:
        first = (start + batch) * PROBLEMS
        with clock.part("rollout and credit"):
            problems = [lab.problem(task.problem(0, "train", i)) for i in range(first, first + PROBLEMS)]
            lab.begin(batch)
            groups = strategy.rollout(problems, lab)
            lab.report(groups)
        clock.tokens.append(sum(t.length for group in groups for t in group))
        return groups

    class Updated(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            engine.weights_changed()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.begun = time.perf_counter()

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.parts["optimizer"] += time.perf_counter() - self.begun

    config = replace(LEARNER, max_steps=steps)
    learner = Learner(policy, config, SamplingConfig(CAP), ledger, Path(folder), rollout, [Updated(), clock])
    learner.training_step = clock.wrap("training step", learner.training_step)  # type: ignore[method-assign]
    learner._clip_grad_norm = clock.wrap("optimizer", learner._clip_grad_norm)  # type: ignore[method-assign]
    learner_module.collate = clock.wrap("collate", collate)
    learner_module.rows_of = clock.wrap("collate", rows_of)
    try:
        learner.train()
    finally:
        learner_module.collate, learner_module.rows_of = collate, rows_of
    return clock


def run_stock(policy: Policy, task: Countdown, setting: str, steps: int, start: int, folder: str) -> Clock:
    """The same with TRL's own trainer."""
    from datasets import Dataset

    trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE = learner_module.HEAD_TILE  # as TRL sets it itself
    clock = Clock()
    first = start * PROBLEMS
    problems = [task.problem(0, "train", i) for i in range(first, first + PROBLEMS * steps)]
    begin = policy.tokenizer.bos_token
    rows = [{"prompt": f"{begin} {problem.prompt}", "index": i} for i, problem in enumerate(problems)]
    given = policy.tokenizer(rows[0]["prompt"])["input_ids"]
    assert tuple(given) == policy.prompt(problems[0].prompt), "both sides must read the same prompts"

    def reward(completion_ids: list[list[int]], index: list[int], **kwargs: Any) -> list[float]:
        clock.tokens.append(sum(map(len, completion_ids)))
        if setting != "verifier":
            return [dense_reward(tokens) for tokens in completion_ids]
        texts = policy.decode([tuple(tokens) for tokens in completion_ids])
        return [
            float(tokens[-1] == policy.eos and task.verify(problems[i], text))
            for tokens, text, i in zip(completion_ids, texts, index, strict=True)
        ]

    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=PROBLEMS * ANSWERS,
            num_generations=ANSWERS,
            max_completion_length=CAP,
            temperature=1.0,
            loss_type=LEARNER.loss_type,
            beta=0.0,
            learning_rate=LEARNER.lr,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=LEARNER.warmup_steps,
            adam_beta1=LEARNER.beta1,
            adam_beta2=LEARNER.beta2,
            weight_decay=LEARNER.weight_decay,
            max_grad_norm=LEARNER.max_grad_norm,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            shuffle_dataset=False,
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            report_to=[],
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock


def copied(policy: Policy, uniform: bool) -> Policy:
    """A copy of the policy; uniform: with an end token that the model has learned never to write."""
    model, tokenizer = copy.deepcopy(policy.model), copy.deepcopy(policy.tokenizer)
    if uniform:
        tokenizer.eos_token = tokenizer.pad_token
        model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.pad_token_id
    return Policy(model, tokenizer)


def spread(ratios: list[float]) -> str:
    """Median and range."""
    return f"{median(ratios):.2f}x ({min(ratios):.2f} - {max(ratios):.2f})"


def end_to_end(policy: Policy, task: Countdown, setting: str, rounds: int, steps: int) -> None:
    """Ours, theirs, ours, theirs, ..."""
    speeds: dict[str, list[float]] = {"ablate": [], "TRL": []}
    length, clocks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for name, run in (("ablate", run_ours), ("TRL", run_stock)):
                side = copied(policy, setting == "uniform")
                clock = run(side, task, setting, steps + 1, turn * (steps + 1), folder)
                speeds[name].append(clock.speed)
                length.append(sum(clock.tokens) / len(clock.tokens) / (PROBLEMS * ANSWERS))
                if name == "ablate":
                    clocks.append(clock)
    ratios = [ours / theirs for ours, theirs in zip(*speeds.values(), strict=True)]
    print(
        f"{setting:10} {median(speeds['ablate']):8.0f} {median(speeds['TRL']):8.0f} tokens/s   "
        f"{spread(ratios)}   mean length {sum(length) / len(length):.1f}"
    )
    total = sum(sum(clock.seconds[1:]) for clock in clocks)
    taken = {name: sum(clock.parts[name] for clock in clocks) for name in clocks[0].parts}
    inner = taken["rollout and credit"] + taken["collate"]
    shares = {
        "rollout": taken["rollout"],
        "verify, credit, figures": taken["rollout and credit"] - taken["rollout"],
        "collate": taken["collate"],
        "forward and backward": taken["training step"] - inner,
        "optimizer": taken["optimizer"],
        "rest": total - taken["training step"] - taken["optimizer"],
    }
    print(
        "           " + ", ".join(f"{name} {value / total:.1%}" for name, value in shares.items()), flush=True
    )


def generation(policy: Policy, task: Countdown, prompts: int, rounds: int) -> None:
    """The engine against `model.generate`, batches of `prompts` x 8 answers, 32 prompts a turn."""
    engine = HFEngine()
    engine.start(policy, Ledger())
    tokens = [policy.prompt(task.problem(0, "train", i).prompt) for i in range(PROBLEMS)]
    batches = [tokens[i : i + prompts] for i in range(0, PROBLEMS, prompts)]
    speeds: dict[str, list[float]] = {"ablate": [], "transformers": []}

    def ours(batch: list[tuple[int, ...]], key: int) -> int:
        out = engine.generate(batch, ANSWERS, [CAP] * prompts, key=key, purpose="rollout")
        return sum(len(step.tokens) for steps in out for step in steps)

    def theirs(batch: list[tuple[int, ...]], key: int) -> int:
        ids = torch.tensor(batch).repeat_interleave(ANSWERS, 0)
        torch.manual_seed(key)
        with torch.inference_mode():
            out = policy.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                max_new_tokens=CAP,
                eos_token_id=policy.eos,
                pad_token_id=policy.tokenizer.pad_token_id,
            )[:, ids.shape[1] :]
        ended = (out == policy.eos).int()
        return int((ended.cumsum(1) - ended == 0).sum())

    for turn in range(rounds + 1):
        for name, generate in (("ablate", ours), ("transformers", theirs)):
            begun = time.perf_counter()
            count = sum(generate(batch, turn * PROBLEMS + i) for i, batch in enumerate(batches))
            if turn:  # the first one warms up
                speeds[name].append(count / (time.perf_counter() - begun))
    ratios = [ours / theirs for ours, theirs in zip(*speeds.values(), strict=True)]
    print(
        f"generation, {prompts * ANSWERS:3} rows {median(speeds['ablate']):8.0f} "
        f"{median(speeds['transformers']):8.0f} tokens/s   {spread(ratios)}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--rounds", type=int, default=5, help="turns of either side (default: 5)")
    parser.add_argument("--steps", type=int, default=6, help="timed steps per turn (default: 6)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    task = Countdown()
    policy, _ = TinyModel().load(task, 0, Path(PathsConfig().cache), progress=True)
    print("median of the rounds, their range in brackets; a round is one turn of either side")
    print("                         ablate   transformers")
    for prompts in (PROBLEMS, 1):
        generation(copied(policy, uniform=False), task, prompts, args.rounds)
    print("end to end   ablate      TRL")
    for setting in args.settings:
        end_to_end(policy, task, setting, args.rounds, args.steps)


if __name__ == "__main__":
    main()
