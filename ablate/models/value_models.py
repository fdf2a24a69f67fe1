"""Auxiliary models that estimate the chance of success from a prefix; they charge the ledger themselves.

Both implement `types.ValueModel`. A prefix is judged at its last token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ablate import ranks, runtime
from ablate.ledger import PrefixIndex
from ablate.models.flops import BACKWARD, PassCost

if TYPE_CHECKING:
    from ablate.ledger import Ledger
    from ablate.models.lora import LoRA
    from ablate.models.policy import Policy
    from ablate.models.prefix_cache import PrefixCache
    from ablate.types import Trajectory

IGNORE = -100.0  # label of positions that are not judged
BATCH_TOKENS = 16384  # most tokens, padding included, in one forward pass


def _tokens(prefix: Trajectory) -> tuple[int, ...]:
    return prefix.problem.tokens + prefix.completion


def batches(rows: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Indices of rows by length, so that rows x longest stays within BATCH_TOKENS."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if batch and (len(batch) + 1) * len(rows[i]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _padded(rows: Sequence[tuple[int, ...]], pad: int, device: Any) -> Any:
    """Right padding, which needs no mask under causal attention."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)


class HeadModel:
    """A two-layer value head on the policy's own last hidden state; no gradient reaches the policy.

    The policy's pass is shared with sampling: under the cached convention only what the policy has not read
    yet is charged. steps: AdamW steps per `fit`, each on all examples, those of other ranks included: all of
    them call it together, and one may have none.
    """

    def __init__(self, policy: Policy, ledger: Ledger, seed: int, lr: float, steps: int) -> None:
        import torch
        from torch import nn

        self._policy, self._ledger, self._steps = policy, ledger, steps
        width = self._width = policy.model.config.get_text_config().hidden_size
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._head = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
            )
        self._head.to(policy.device)
        self._optimizer = torch.optim.AdamW(self._head.parameters(), lr=lr, weight_decay=0.01)
        self._flops = 2.0 * (width * width + width)
        self._features: dict[tuple[int, ...], Any] = {}  # of prefixes read under this version of the policy
        self._version = ledger.version

    def _read(self, prefixes: Sequence[Trajectory]) -> Any:
        """Hidden states at the last tokens, (prefixes, width)."""
        import torch

        if self._version != self._ledger.version:
            self.forget()
            self._version = self._ledger.version
        rows = list(dict.fromkeys(_tokens(prefix) for prefix in prefixes))
        fresh = [row for row in rows if row not in self._features]
        with self._policy.reading(), torch.no_grad():
            for batch in batches(fresh):
                chosen = [fresh[i] for i in batch]
                states = self._policy.backbone(
                    input_ids=_padded(chosen, self._policy.eos, self._policy.device), use_cache=False
                ).last_hidden_state
                for row, state in zip(chosen, states, strict=True):
                    self._features[row] = state[len(row) - 1].float().clone()
        for row in fresh:
            self._ledger.charge_scoring("score", self._policy.cost, row, (), heads=0)
        if not prefixes:
            return torch.empty((0, self._width), device=self._policy.device)
        return torch.stack([self._features[_tokens(prefix)] for prefix in prefixes])

    def forget(self) -> None:
        """Read every prefix anew, and charge for it."""
        self._features.clear()

    def predict(self, prefixes: Sequence[Trajectory]) -> list[float]:
        """Values in [0, 1]."""
        import torch

        if not prefixes:
            return []
        features = self._read(prefixes)
        for prefix in prefixes:
            self._ledger.charge("score", self._flops, _tokens(prefix))
        with torch.no_grad():
            return self._head(features).squeeze(-1).sigmoid().tolist()

    def fit(self, prefixes: Sequence[Trajectory], targets: Sequence[float]) -> float:
        """AdamW on the cross-entropy with the targets; returns the loss before the first step."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits as loss_of

        if not any(ranks.gathered(bool(prefixes))):
            return 0.0
        wanted = torch.tensor(targets, device=self._policy.device)
        features = self._read(prefixes)
        first = None
        for _ in range(self._steps):
            logits = self._head(features).squeeze(-1)
            loss = loss_of(logits, wanted) if prefixes else logits.sum()
            first = loss.item() if first is None else first
            self._optimizer.zero_grad()
            loss.backward()
            ranks.weighted_mean([p.grad for p in self._head.parameters()], len(targets))
            self._optimizer.step()
        self._ledger.charge("auxiliary_update", (1.0 + BACKWARD) * self._flops * len(prefixes) * self._steps)
        self._features.clear()
        assert first is not None
        return first

    def state_dict(self) -> dict[str, Any]:
        """The head's weights and AdamW's moments."""
        state = {f"head.{name}": value for name, value in self._head.state_dict().items()}
        for i, moments in self._optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back `state_dict()`."""
        self._head.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("head.")})
        moments: dict[int, dict[str, Any]] = {}
        for key, value in state.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                index, _, name = rest.partition(".")
                moments.setdefault(int(index), {})[name] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})


class StepModel:
    """A step scorer: token classification (one label) on a copy of the policy's backbone, trained with
    transformers' Trainer.

    epochs, batch, lr: of every `fit`, AdamW with a linear decay. Prefixes of one answer share a pass.
    keep: a prefix is read, and counted under the cached convention, once until `forget`, not once per
    `predict`. Models whose attention cannot be told what to see (`prefix_cache.can_share`) are charged alike
    but read it again, and so is what does not fit into `prefix_cache.KEPT`.
    lora: adapters to train beside the label's own weights, on a frozen copy in the policy's own type; None:
    all weights are trained, in float32.
    """

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        seed: int,
        lr: float,
        epochs: int,
        batch: int,
        lora: LoRA | None = None,
        keep: bool = False,
    ) -> None:
        import copy

        import torch
        from transformers import AutoModelForTokenClassification

        self._policy, self._ledger, self._seed = policy, ledger, seed
        self._lr, self._epochs, self._batch = lr, epochs, batch
        self._index = PrefixIndex() if keep else None  # of this model's own cache
        config = copy.deepcopy(policy.model.config)
        config.num_labels = 1
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            kind = policy.backbone.dtype if lora else torch.float32
            self._model = AutoModelForTokenClassification.from_config(config, dtype=kind)
        prefix = f"{self._model.base_model_prefix}."
        weights = {
            name.removeprefix(prefix): w for name, w in policy.weights(kind) if name.startswith(prefix)
        }
        self._model.base_model.load_state_dict(weights)
        self._cache: PrefixCache | None = None
        if keep:
            from ablate.models.prefix_cache import PrefixCache, can_share, most_kept

            if can_share(self._model):
                layers = config.get_text_config().num_hidden_layers
                self._cache = PrefixCache(self._values, layers, most_kept(self._model))
        if lora:
            self._model = lora.on(self._model, seed)
            for name, weight in self._model.named_parameters():
                if ".score." in name:
                    weight.data, weight.requires_grad = weight.data.float(), True
        self._model.to(policy.device)
        self._cost = PassCost.of(self._model)

    def forget(self) -> None:
        """Nothing has been read yet."""
        if self._index is not None:
            self._index.clear()
        if self._cache is not None:
            self._cache.clear()

    def _values(self, ids: Any, positions: Any, mask: Any, cache: Any) -> Any:
        """Values at every position, (rows, width), float32."""
        out = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.logits.squeeze(-1).float().sigmoid()

    def predict(self, prefixes: Sequence[Trajectory]) -> list[float]:
        """Values in [0, 1]; prefixes of one another are read in one pass."""
        import torch

        rows = [_tokens(prefix) for prefix in prefixes]
        whole, owner = maximal(rows)
        # without `keep` it is kept for a call: a resumed run pays the same
        index = PrefixIndex() if self._index is None else self._index
        for row in whole:
            self._ledger.charge_scoring("score", self._cost, (), row, heads=0, index=index)
        self._model.eval()
        with self._policy.precision(), torch.inference_mode():
            if self._cache is not None:
                named = [(prefix.problem.id, row) for prefix, row in zip(prefixes, rows, strict=True)]
                return self._cache.read(named, self._policy.device)
            values: list[Any] = [None] * len(whole)
            for batch in batches(whole):
                ids = _padded([whole[i] for i in batch], self._policy.eos, self._policy.device)
                for i, row in zip(batch, self._values(ids, None, None, None), strict=True):
                    values[i] = row.tolist()
        return [values[owner[row]][len(row) - 1] for row in rows]

    def fit(self, prefixes: Sequence[Trajectory], targets: Sequence[float]) -> float:
        """Some epochs of transformers' Trainer on the cross-entropy with the targets; returns the loss of the
        first batch."""
        from transformers import Trainer, TrainingArguments
        from transformers.trainer_callback import PrinterCallback

        rows = [_tokens(prefix) for prefix in prefixes]
        whole, owner = maximal(rows)
        labels = [[IGNORE] * len(row) for row in whole]
        for row, target in zip(rows, targets, strict=True):
            labels[owner[row]][len(row) - 1] = target
        losses: list[float] = []

        def loss_of(outputs: Any, wanted: Any, num_items_in_batch: Any = None) -> Any:
            from torch.nn.functional import binary_cross_entropy_with_logits

            judged = wanted != IGNORE
            loss = binary_cross_entropy_with_logits(
                outputs.logits.squeeze(-1)[judged].float(), wanted[judged]
            )
            losses.append(loss.item())
            for length in judged.shape[1] - judged.int().flip(1).argmax(1):
                self._ledger.charge_training("auxiliary_update", self._cost, int(length), 0)
            return loss

        def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
            import torch

            ids = _padded([tuple(e["input_ids"]) for e in examples], self._policy.eos, "cpu")
            wanted = torch.full(ids.shape, IGNORE)
            for i, example in enumerate(examples):
                wanted[i, : len(example["labels"])] = torch.tensor(example["labels"])
            return {"input_ids": ids, "labels": wanted}

        self._seed += 1
        trainer = Trainer(
            model=self._model,
            args=runtime.one_gpu(
                TrainingArguments(
                    output_dir="unused",
                    num_train_epochs=self._epochs,
                    per_device_train_batch_size=self._batch,
                    learning_rate=self._lr,
                    lr_scheduler_type="linear",
                    logging_strategy="no",
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                    seed=self._seed,
                    remove_unused_columns=False,
                    bf16=self._policy.bf16,
                    gradient_checkpointing=self._policy.model.is_gradient_checkpointing,
                    use_cpu=self._policy.device.type == "cpu",
                )
            ),
            train_dataset=[
                {"input_ids": list(row), "labels": label} for row, label in zip(whole, labels, strict=True)
            ],
            data_collator=collate,
            compute_loss_func=loss_of,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        self.forget()
        return losses[0]

    def state_dict(self) -> dict[str, Any]:
        """The weights, and the seed of the next `fit`."""
        import torch

        return {**self._model.state_dict(), "seed": torch.tensor(self._seed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back `state_dict()`."""
        weights = dict(state)
        self._seed = int(weights.pop("seed"))
        self._model.load_state_dict(weights)
        self.forget()


def maximal(rows: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], dict[tuple[int, ...], int]]:
    """The rows that are no proper prefix of another; for every row, the index of one that begins with it."""
    whole: list[tuple[int, ...]] = []
    owner: dict[tuple[int, ...], int] = {}
    for row in sorted(set(rows), reverse=True):  # a row sorts right after (reversed: before) what it begins
        if not whole or whole[-1][: len(row)] != row:
            whole.append(row)
        owner[row] = len(whole) - 1
    return whole, owner
