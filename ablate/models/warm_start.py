"""The warm start: supervised training of a new model on a task's demonstrations, cached by content.

The cache key is a hash of everything that makes the result: the model's and the task's configuration, the
seed, the source files that build, demonstrate and train, and the versions of torch and transformers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ablate import runtime
from ablate.manifest import damage, seal
from ablate.types import UserError
from ablate.waiting import locked

IGNORE = -100  # label of tokens that are not learned
JUDGED = 256  # samples that the gate judges


@dataclass
class WarmStart:
    """Supervised training before RL.

    steps, batch, lr, warmup_steps: AdamW with linear warm-up, then decay to zero
        with the square root of what is left.
    demonstrations: how many are made; length: longest that is used, in tokens with the prompt.
    skill: chance that the demonstrator takes a move that keeps the target reachable (else a random one);
    persistence: chance that it restarts after a failed attempt; bail: chance to leave an attempt early.
    max_illegal: the gate: largest share of illegal steps in samples of the result.
    """

    steps: int = 7300
    batch: int = 16
    lr: float = 3e-3
    warmup_steps: int = 100
    demonstrations: int = 40000
    length: int = 128
    skill: float = 0.1
    persistence: float = 0.6
    bail: float = 0.05
    max_illegal: float = 0.10

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "demonstrations", "length"):
            if getattr(self, name) < 1:
                raise UserError(f"model.warm_start.{name}={getattr(self, name)} must be at least 1")
        for name in ("skill", "persistence", "bail", "max_illegal"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"model.warm_start.{name}={getattr(self, name)} must lie in [0, 1]")


def cache_key(shape: Any, task: Any, seed: int) -> str:
    """16 hexadecimal digits that change when anything that makes the warm start changes."""
    from importlib.metadata import version

    digest = hashlib.sha256()
    described = {
        "model": dataclasses.asdict(shape),
        "task": [type(task).__qualname__, dataclasses.asdict(task)],
        "seed": seed,
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }
    digest.update(json.dumps(described, sort_keys=True).encode())
    package = Path(__file__).parents[1]
    sources = [Path(__file__), package / "randomness.py"]
    sources += [package / "models" / "tiny.py", package / "models" / "policy.py"]
    sources += sorted((package / "tasks").glob("*.py"))
    task_file = getattr(sys.modules[type(task).__module__], "__file__", None)
    if task_file is not None and Path(task_file) not in sources:
        sources.append(Path(task_file))
    if getattr(task, "problem_file", None) is not None:
        sources.append(Path(task.problem_file))
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def load_or_make(shape: Any, task: Any, seed: int, cache: Path, progress: bool):
    """The warm-started Policy and the account of what it cost, from the cache or made now.

    Side by side, runs wait for the one that makes it. A damaged entry is named and made again.
    """
    key = cache_key(shape, task, seed)
    folder = cache / "warm_start" / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(folder.parent, os.W_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise UserError(
            f"paths.cache={cache} cannot be written ({error.strerror}): set ABLATE_CACHE"
        ) from None
    if folder.exists() and damage(folder) is None:  # it appears whole: nobody has to wait to read it
        return _load(folder)
    with locked(Path(f"{folder}.lock"), f"the warm start of seed {seed}"):
        if folder.exists():
            wrong = damage(folder)
            if wrong is None:
                return _load(folder)
            print(f"warm start {folder} is damaged ({wrong}): making it again", file=sys.stderr)
            shutil.rmtree(folder)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _make(shape, task, seed, partial, progress)
        seal(partial)
        os.replace(partial, folder)
        return _load(folder)


def _load(folder: Path):
    """Policy and info (account of FLOPs and tokens, illegal share, seconds) from a checked folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ablate.models.policy import Policy

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", use_safetensors=True)
    policy = Policy(model, AutoTokenizer.from_pretrained(folder))
    return policy, json.loads((folder / "warm_start.json").read_text())


def encode_demonstrations(policy: Any, pairs: Sequence[tuple[Any, str]], length: int) -> list[dict[str, Any]]:
    """Rows for `PackedBatch`: tokens of prompt, completion and end token; longer than `length` are left out.

    The end token follows every demonstration. Prompts are not learned.
    """
    rows = []
    prompts = policy.tokenizer([p.prompt for p, _ in pairs], add_special_tokens=False)["input_ids"]
    answers = policy.tokenizer([text for _, text in pairs], add_special_tokens=False)["input_ids"]
    bos = policy.tokenizer.bos_token_id
    for prompt, answer in zip(prompts, answers, strict=True):
        head = [bos, *prompt] if bos is not None else prompt
        tokens = [*head, *answer, policy.eos]
        if len(tokens) <= length:
            rows.append({"input_ids": tokens, "prompt": len(head)})
    return rows


class PackedBatch:
    """The lean collator: demonstrations end to end, in as few rows as hold them, blind to one another.

    Their lengths differ so much that padding would be more than half of what the model reads.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """input_ids, labels and position_ids, (packs, longest), and a mask, (packs, 1, longest, longest)."""
        import torch

        packs = packed([len(row["input_ids"]) for row in rows])
        shape = (len(packs), max(len(row["input_ids"]) for row in rows))
        ids, labels = torch.full(shape, self.pad), torch.full(shape, IGNORE)
        positions, owner = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
        for i, pack in enumerate(packs):
            at = 0
            for number in pack:
                row = rows[number]
                tokens = torch.tensor(row["input_ids"])
                here = slice(at, at + len(tokens))
                ids[i, here], positions[i, here], owner[i, here] = tokens, torch.arange(len(tokens)), number
                labels[i, at + row["prompt"] : here.stop] = tokens[row["prompt"] :]
                at = here.stop
        mask = (owner[:, None, :, None] == owner[:, None, None, :]).tril()
        return {"input_ids": ids, "labels": labels, "position_ids": positions, "attention_mask": mask}


def packed(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of the items in each pack, no pack longer than the longest item: first fit, longest first."""
    packs: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = next((p for p, left in enumerate(room) if left >= lengths[i]), None)
        if fits is None:
            fits = len(packs)
            packs.append([])
            room.append(max(lengths))
        packs[fits].append(i)
        room[fits] -= lengths[i]
    return packs


def demonstration_lengths(labels: Any) -> list[int]:
    """Lengths in tokens, prompts included, of the demonstrations in packed labels, (packs, longest).

    The end token is learned, and a prompt has at least one token that is not: the last label of each run ends
    a demonstration.
    """
    learned = labels != IGNORE
    ends = learned.clone()
    ends[:, :-1] &= ~learned[:, 1:]
    out = []
    for row in ends:
        at = [0, *(row.nonzero().squeeze(1) + 1).tolist()]
        out += [end - begin for begin, end in pairwise(at)]
    return out


def supervised_loss(constant: float):
    """Cross-entropy summed over learned tokens and divided by a constant.

    A per-batch mean would weigh the tokens of short batches more and goes with early stopping.
    """

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        from torch.nn.functional import cross_entropy

        logits = outputs.logits[:, :-1]
        return (
            cross_entropy(
                logits.reshape(-1, logits.shape[-1]),
                labels[:, 1:].reshape(-1),
                ignore_index=IGNORE,
                reduction="sum",
            )
            / constant
        )

    return loss


def make_trainer(
    policy: Any, rows: list[dict[str, Any]], spec: WarmStart, seed: int, folder: Path, callbacks=()
):
    """A transformers Trainer for supervised training of `policy` on encoded rows."""
    import torch
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    mean_learned = sum(len(row["input_ids"]) - row["prompt"] for row in rows) / len(rows)

    def decay(step: int) -> float:
        if step < spec.warmup_steps:
            return (step + 1) / spec.warmup_steps
        # most steps are large: RL gains more from weights that have travelled
        return max(0.0, 1.0 - (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)) ** 0.5

    optimizer = torch.optim.AdamW(
        policy.model.parameters(), lr=spec.lr, betas=(0.9, 0.95), weight_decay=0.0, foreach=True
    )
    trainer = Trainer(
        model=policy.model,
        args=runtime.one_gpu(
            TrainingArguments(
                output_dir=str(folder),
                max_steps=spec.steps,
                per_device_train_batch_size=spec.batch,
                max_grad_norm=1.0,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                seed=seed,
                remove_unused_columns=False,
                use_cpu=policy.device.type == "cpu",
            )
        ),
        train_dataset=rows,
        data_collator=PackedBatch(policy.tokenizer.pad_token_id),
        compute_loss_func=supervised_loss(spec.batch * mean_learned),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, decay)),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _make(shape: Any, task: Any, seed: int, folder: Path, progress: bool) -> None:
    """Build, train, pass the gate, save."""
    import time

    from ablate.ledger import Ledger
    from ablate.progress import TrainerBar
    from ablate.randomness import hash64

    started = time.monotonic()
    spec = shape.warm_start
    if not hasattr(task, "demonstrations"):
        raise UserError(f"task={task.name} has no demonstrations to warm-start model=tiny on")
    policy = shape.untrained(task, hash64(seed, "weights") % 2**31)
    policy.model.to(runtime.device())  # drawn on the CPU, whatever trains
    pairs = list(
        task.demonstrations(
            seed,
            spec.demonstrations,
            skill=spec.skill,
            persistence=spec.persistence,
            bail=spec.bail,
            longest=spec.length,
        )
    )
    rows = encode_demonstrations(policy, pairs, spec.length)
    if not rows:
        raise UserError(f"model.warm_start.length={spec.length} is shorter than every demonstration")
    bar = TrainerBar("warm start", spec.steps) if progress else None
    trainer = make_trainer(policy, rows, spec, hash64(seed, "order") % 2**31, folder, [bar] if bar else [])
    ledger = Ledger()
    loss = trainer.compute_loss_func

    def metered(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        for length in demonstration_lengths(labels):
            ledger.charge_training("warm_start", policy.cost, length, length)
        return loss(outputs, labels, num_items_in_batch)

    trainer.compute_loss_func = metered
    trainer.train()
    posed = [problem for problem, _ in pairs[:JUDGED]]
    illegal = illegal_share(policy, task, posed, hash64(seed, "gate"), ledger, spec.length)
    if illegal > spec.max_illegal:
        raise UserError(
            f"the warm start failed its gate: {illegal:.2%} of sampled steps are illegal, at most "
            f"model.warm_start.max_illegal={spec.max_illegal:g} allowed; raise model.warm_start.steps "
            f"(now {spec.steps}) or model.warm_start.demonstrations"
        )
    folder.mkdir(parents=True, exist_ok=True)
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    info = {
        "account": ledger.accounts["warm_start"].to_dict(),
        "illegal": illegal,
        "demonstrations": len(rows),
        "seconds": round(time.monotonic() - started, 1),
    }
    (folder / "warm_start.json").write_text(json.dumps(info, indent=1))


def illegal_share(policy: Any, task: Any, problems: Sequence[Any], key: int, ledger: Any, cap: int) -> float:
    """Share of illegal steps among those sampled on problems as demonstrations pose them (which may begin in
    the middle, where samples seldom get), one sample each of at most `cap` tokens; 1 if none."""
    from ablate.engines.hf import HFEngine

    engine = HFEngine()
    engine.start(policy, ledger)
    prompts = [policy.prompt(problem.prompt) for problem in problems]
    samples = engine.generate(prompts, 1, [cap] * len(prompts), key=key, purpose="warm_start")
    texts = policy.decode([steps[0].tokens for steps in samples])
    counts = [task.behaviours(problem, text) for problem, text in zip(problems, texts, strict=True)]
    total = sum(count["steps"] for count in counts)
    return sum(count["illegal_steps"] for count in counts) / total if total else 1.0
