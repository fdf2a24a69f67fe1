"""Credited groups -> gradient: TRL's GRPOTrainer with ragged rows and per-token advantages.

One Trainer step is one batch of problems: roll out, credit, take `iterations` optimizer steps. TRL computes
the loss of each micro-batch (`_compute_loss`, every loss type); this file decides which rows go in, cuts them
by tokens, and weighs each micro-batch so that the sum is the loss of the whole batch:

- rows sorted by length, every micro-batch trimmed to its own longest row;
- rows without any advantage are dropped before the forward pass but stay in the denominators;
- a batch without signal takes no optimizer step (AdamW moves weights on a zero gradient);
- a KL penalty is part of the advantages, after their normalisation; every row then has signal.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOTrainer

from ablate import ranks
from ablate.grpo import arguments, narrow_head
from ablate.rows import Row, collate, micro_batches, penalised, rows_of
from ablate.runtime import out_of_memory
from ablate.types import Group, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from ablate.config import LearnerConfig, SamplingConfig
    from ablate.ledger import Ledger
    from ablate.models.policy import Policy

# what TRL divides a micro-batch's loss by: its rows, its tokens, or the whole batch's tokens
PER_ROW = ("grpo", "sapo", "dr_grpo", "luspo")
PER_TOKEN = ("bnpo",)
PER_BATCH = ("dapo", "cispo", "vespo")
LOSS_TYPES = PER_ROW + PER_TOKEN + PER_BATCH
FAR = 0.1  # nats a token between sampler and learner: more than rounding explains


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient is NaN or infinite; the weights have not been touched."""


class Misaligned(ValueError):
    """What the strategy returned cannot be trained on: advantages do not match steps, or logprobs tokens."""


class _Ticks(IterableDataset):
    """The Trainer wants a data loader; the problem stream is the rollout's own business."""

    def __iter__(self) -> Iterator[dict[str, str]]:
        while True:
            yield {"prompt": ""}


class Learner(GRPOTrainer):
    """The one learner of all arms.

    rollout(batch): the credited groups of a batch; called once per `iterations` optimizer steps. Every rank
    gets its own share. The rows that are trained on are charged to the ledger's `update`.
    """

    def __init__(
        self,
        policy: Policy,
        config: LearnerConfig,
        sampling: SamplingConfig,
        ledger: Ledger,
        folder: Path,
        rollout: Callable[[int], list[Group]],
        callbacks: Sequence[TrainerCallback] = (),
        state: Callable[[], dict[str, Any]] | None = None,
        tensors: Callable[[], dict[str, dict[str, Any]]] | None = None,
        reference: Callable[[Sequence[Row]], Sequence[Sequence[float]]] | None = None,
        seed: int = 0,
    ) -> None:
        """state, tensors: what else goes into a checkpoint, as JSON and as tensors by model and name.
        reference: log-probabilities of rows' completions at the start of training, for `config.kl`."""
        if config.kl and reference is None:
            raise ValueError("a KL penalty needs the policy that it is measured from")
        self._reference = reference
        self._config, self._ledger, self._rollout = config, ledger, rollout
        self._policy = policy
        self._rows: list[Row] | None = None  # of the current batch
        self._totals = {"rows": 0.0, "tokens": 0.0}
        self._mean_square: float | None = None
        self._told = False
        self._micro_batch_tokens = config.micro_batch_tokens  # halved when memory runs out
        self._extra_state, self._extra_tensors = state, tensors
        self.report: dict[str, float] = {}  # figures of the last step
        super().__init__(
            model=policy.model,
            reward_funcs=_no_reward,
            args=arguments(policy, config, sampling, folder, seed),
            train_dataset=_placeholder(),
            processing_class=policy.tokenizer,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        narrow_head(policy)

    # -- data -----------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """An endless stream of ticks."""
        return DataLoader(_Ticks(), batch_size=1, collate_fn=list)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Linear warm-up over steps, then constant, or a decay over the budget's fraction."""
        if self.lr_scheduler is None:
            followed: Any = optimizer or self.optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(followed, self._lr_factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    @property
    def last_lr(self) -> float:
        """The learning rate of the last step."""
        assert self.lr_scheduler is not None
        return float(self.lr_scheduler.get_last_lr()[0])

    def _lr_factor(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self._config.warmup_steps))
        self._ledger.sync()
        fraction = ranks.agreed(self._ledger.fraction)
        if self._config.schedule == "linear":
            return warm * (1.0 - fraction)
        if self._config.schedule == "cosine":
            return warm * 0.5 * (1.0 + math.cos(math.pi * fraction))
        return warm

    # -- one step -------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over the batch; the Trainer clips and steps the optimizer afterwards."""
        self.report = {}
        if self.state.global_step % self._config.iterations == 0 or self._rows is None:
            self._rows = self._take_batch()
        model.train()
        kept = [row for row in self._rows if row.signal]
        credited = [row for row in kept if row.credited]
        self.report["signal_rows"] = len(credited) / max(1, len(self._rows))
        # every rank makes the same decision and the same number of passes
        signal, chunks = self._agree(kept)
        if not signal:
            self.report.update(loss=0.0, grad_norm=0.0)
            return torch.zeros((), device=self.args.device)
        scale = self._advantage_scale(credited)
        for row in kept:
            self._ledger.charge_training("update", self._policy.cost, row.length, row.learned)
        while (done := self._passes(model, chunks, scale)) is None:
            self._shrink(model, kept)
            chunks = self._agree(kept)[1]
        total, entropy, micro_batches = done
        total = self.accelerator.reduce(total, reduction="mean")
        if not torch.isfinite(total):
            raise NonFiniteLoss(f"the loss of step {self.state.global_step + 1} is {total.item()}")
        self.report.update(
            loss=total.item(),
            entropy=entropy / max(1, sum(sum(row.mask) for row in kept)),
            advantage_rms=1.0 / scale,
            micro_batches=micro_batches,
        )
        if self.state.global_step % self._config.iterations == 0:  # the weights that were sampled from
            self._compare(float(self._apart[0] / self._apart[1].clamp(min=1)))
        if self._micro_batch_tokens < self._config.micro_batch_tokens:
            self.report["micro_batch_tokens"] = self._micro_batch_tokens
        return total

    def _compare(self, distance: float) -> None:
        """Record how far the sampler's log-probabilities are from the learner's, on this rank; say so, once,
        if the engine samples from another policy."""
        self.report["abs_log_ratio"] = distance
        if distance > FAR and not self._told:
            self._told = True
            print(
                f"\nstep {self.state.global_step + 1}: the engine's log-probabilities are {distance:.2g} "
                "nats a token from the learner's (abs_log_ratio in steps.jsonl): has it other weights?",
                file=sys.stderr,
            )

    def _passes(
        self, model: Any, chunks: list[list[Row]], scale: float
    ) -> tuple[torch.Tensor, float, int] | None:
        """Forward and backward over the micro-batches: the loss, the summed entropy, their number. None:
        memory ran out, and what gradients there are is of no use."""
        try:
            return self._accumulate(model, chunks, scale)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if self.accelerator.num_processes > 1:  # the others wait in a collective that never comes
                raise UserError(
                    f"out of memory in an update of {self.accelerator.num_processes} processes: lower "
                    f"learner.micro_batch_tokens={self._micro_batch_tokens}"
                ) from error
        return None  # outside the handler, whose traceback holds the tensors

    def _shrink(self, model: Any, kept: list[Row]) -> None:
        """After memory ran out: halve the micro-batches, from now on, and forget the batch's gradients so
        far.

        The gradient is that of the whole batch however it is cut. The passes that failed are not charged:
        what a machine's memory wastes is no part of an arm's compute.
        """
        model.zero_grad(set_to_none=True)
        self._metrics["train"].clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        chunks = micro_batches(kept, self._micro_batch_tokens)
        largest = max(len(chunk) * chunk[-1].length for chunk in chunks)
        if all(len(chunk) == 1 for chunk in chunks):
            raise UserError(
                f"out of memory with a single answer of {largest} tokens in a micro-batch: "
                "learner.gradient_checkpointing=true, a lower sampling.cap or a smaller model"
            )
        before = self._micro_batch_tokens
        self._micro_batch_tokens = max(1, min(before, largest) // 2)
        text = (
            f"out of memory in the update of step {self.state.global_step + 1}: learner.micro_batch_tokens "
        )
        text += f"{before} -> {self._micro_batch_tokens} from here on, with the same gradient"
        print(f"\n{text}", file=sys.stderr)

    def _accumulate(
        self, model: Any, chunks: list[list[Row]], scale: float
    ) -> tuple[torch.Tensor, float, int]:
        total = torch.zeros((), device=self.args.device)
        self._apart = torch.zeros(2, device=self.args.device)  # |log ratio| to the sampler, tokens
        entropy = 0.0
        for i, chunk in enumerate(chunks):
            batch = collate(chunk, self._policy.tokenizer.pad_token_id, scale, self.args.device)
            batch["num_items_in_batch"] = torch.tensor(self._totals["tokens"], device=self.args.device)
            last = i == len(chunks) - 1
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self._local_loss(model, batch) * self._share(chunk)
                self.accelerator.backward(loss)
            total += loss.detach()
            entropy += self._metrics["train"].pop("entropy")[-1] * sum(sum(row.mask) for row in chunk)
            self._metrics["train"].clear()
        return total, entropy, len(chunks)

    def _take_batch(self) -> list[Row]:
        """Roll out the next batch and sum its rows and tokens over ranks."""
        groups = self._rollout(self.state.global_step // self._config.iterations)
        try:
            rows = rows_of(groups)
        except ValueError as error:
            raise Misaligned(str(error)) from error
        if self._config.kl and self._reference is not None:
            rows = penalised(rows, self._reference(rows), self._config.kl)
        own = [len(rows), sum(sum(row.mask) for row in rows)]
        counts = torch.tensor(own, dtype=torch.float64, device=self.args.device)
        counts = self.accelerator.reduce(counts, reduction="sum")
        self._totals = dict(zip(("rows", "tokens"), counts.tolist(), strict=True))
        return rows

    def _local_loss(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """TRL's loss of a micro-batch, without its collectives."""
        accelerator, self.accelerator = self.accelerator, ranks.OneRank(self.accelerator)
        self._old_logps = batch["old_per_token_logps"]
        self._own = batch["tool_mask"].bool() & ~self._old_logps.isnan()
        try:
            return self._compute_loss(model, batch)
        finally:
            self.accelerator = accelerator

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's forward pass; tokens that were not sampled take their present log-probability as the old one,
        so that the ratio of policies is 1."""
        out = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        now, unsampled = out[0].detach(), self._old_logps.isnan()
        apart = (now - self._old_logps)[self._own].abs()
        self._apart += torch.stack([apart.sum(), apart.new_tensor(len(apart))])
        self._old_logps[unsampled] = now[unsampled]
        return out

    def _agree(self, kept: list[Row]) -> tuple[bool, list[list[Row]]]:
        """Is there signal on any rank, and this rank's micro-batches, filled up to the common number with
        fully masked rows."""
        chunks = micro_batches(kept, self._micro_batch_tokens)
        count = len(chunks)
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.gather(torch.tensor([count], device=self.args.device))
            count = int(counts.max())
        pad = self._policy.tokenizer.pad_token_id
        filler = Row((pad,), (pad,), (False,), (0.0,), (0.0,))
        return count > 0, chunks + [[filler]] * (count - len(chunks))

    def _share(self, chunk: list[Row]) -> float:
        """The factor that turns TRL's loss of a micro-batch into its part of the whole batch's loss.

        Data parallelism averages gradients over ranks, so parts are multiplied by their number.
        """
        ranks = self.accelerator.num_processes
        if self._config.loss_type in PER_ROW:
            return len(chunk) * ranks / self._totals["rows"]
        if self._config.loss_type in PER_TOKEN:
            return sum(sum(row.mask) for row in chunk) * ranks / self._totals["tokens"]
        return 1.0  # TRL divides by the batch's tokens over the ranks itself

    def _advantage_scale(self, credited: list[Row]) -> float:
        """1 / the running root mean square of the arm's advantages, over tokens of rows with credit.

        It makes arms whose credit has another scale take steps of the same size.
        """
        if not self._config.normalize_advantages:
            return 1.0
        if self.state.global_step % self._config.iterations == 0 or self._mean_square is None:
            own = [a for row in credited for a in row.own()]
            sums = torch.tensor(
                [sum(a * a for a in own), len(own)], dtype=torch.float64, device=self.args.device
            )
            squares, tokens = self.accelerator.reduce(sums, reduction="sum").tolist()
            if not squares:  # nothing but tokens to imitate, or penalties
                return 1.0
            fresh, decay = squares / tokens, self._config.rms_decay
            old = self._mean_square
            self._mean_square = fresh if old is None else decay * old + (1.0 - decay) * fresh
        return self._mean_square**-0.5

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        value = float(norm)
        if value != value or value == float("inf"):
            raise NonFiniteLoss(f"the gradient norm of step {self.state.global_step + 1} is {value}")
        if "entropy" in self.report:
            self.report["grad_norm"] = value
        return norm

    # -- checkpoints ----------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Into a folder that appears by rename, complete or not at all."""
        from ablate.checkpoint import appear, save_tensors

        own = {"mean_square": self._mean_square, "micro_batch_tokens": self._micro_batch_tokens}
        state = {**own, **(self._extra_state() if self._extra_state else {})}
        kept = str(self.args.output_dir)
        with appear(kept, self.state.global_step, state, self.args.should_save) as partial:
            self.args.output_dir = partial
            self.accelerator.wait_for_everyone()  # the folder is there
            try:
                super()._save_checkpoint(model, trial)
                if self._extra_tensors and self.args.should_save:
                    save_tensors(f"{partial}/checkpoint-{self.state.global_step}", self._extra_tensors())
            finally:
                self.args.output_dir = kept
            self.accelerator.wait_for_everyone()  # all have written their part

    def restore(self, state: dict[str, Any]) -> None:
        """Take back the learner's own part of a checkpoint's state."""
        self._mean_square = state["mean_square"]
        self._micro_batch_tokens = state.get("micro_batch_tokens", self._micro_batch_tokens)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a run's folder describes itself."""


def _no_reward(completions: list[Any], **kwargs: Any) -> list[float | None]:
    raise RuntimeError("credit is assigned by the strategy")


def _placeholder() -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [""]})
