"""A learned step scorer: Math-Shepherd's (Wang et al. 2023, arXiv:2312.08935, section 3.3).

A copy of the policy's backbone, or a head on the policy itself, judges the last token of every step. Its
labels are Monte Carlo values of some prefixes of the batch, soft or hard; it is refreshed every few batches,
since the policy moves. How wrong it was is measured on each refresh's labels before it learns from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from ablate import ranks
from ablate.models.lora import LoRA
from ablate.scorers.monte_carlo import MonteCarlo
from ablate.types import Lab, Task, Trajectory, UserError, ValueModel

BINS = 10  # of the calibration error


@dataclass
class Learned:
    """first, prefixes: how many are labelled in the first batch and at each refresh; every: batches between
    refreshes. labels: how (rollouts, soft or hard). lr, epochs, batch: of each training.

    train: "all" weights of the copy; only adapters on it ("lora", of that rank and alpha), which takes a
    fraction of the memory; or only a "head" on the policy's own hidden states, which needs no copy: it takes
    as many steps as `epochs` over `prefixes`, each on all examples.
    """

    first: int = 512
    prefixes: int = 192
    every: int = 8
    labels: MonteCarlo = field(default_factory=MonteCarlo)
    lr: float = 1e-3
    epochs: int = 3
    batch: int = 16
    train: Literal["all", "lora", "head"] = "all"
    lora: LoRA = field(default_factory=lambda: LoRA(rank=32))

    def __post_init__(self) -> None:
        for name in ("first", "prefixes", "every", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if self.lr <= 0.0:
            raise UserError(f"lr={self.lr} must be positive")
        if self.train == "lora":
            if not self.lora.rank:
                raise UserError(
                    "lora.rank=0 leaves train=lora nothing to train: the smallest valid value is 1"
                )
            self.lora.check()

    def check(self, task: Task) -> None:
        """Raises UserError where several processes would each train a scorer of their own."""
        if ranks.count() > 1 and self.train != "head":
            raise UserError(
                f"scorer=learned with train={self.train} is trained in one process, and this run has "
                f"{ranks.count()}; nearest: train=head"
            )

    def values(self, prefixes: Sequence[Trajectory], lab: Lab) -> list[float]:
        """One value per prefix; charged as `score`, and at a refresh as `label` and `auxiliary_update`."""
        if not any(ranks.gathered(bool(prefixes))):
            return []
        model = self._model(lab)
        if lab.batch % self.every == 0:
            count = min(len(prefixes), self.prefixes if lab.batch else self.first)
            self._refresh(model, lab.rng.sample(list(prefixes), count), lab)
        return model.predict(prefixes)

    def _refresh(self, model: ValueModel, chosen: list[Trajectory], lab: Lab) -> None:
        labels = self.labels.values(chosen, lab)
        if lab.batch and chosen:  # before the first training there is nothing to judge
            for name, value in errors(model.predict(chosen), labels).items():
                lab.log(f"scorer/{name}", value)
        loss = model.fit(chosen, labels)
        if chosen:  # a rank may have none
            lab.log("scorer/loss", loss)

    def _model(self, lab: Lab) -> ValueModel:
        from ablate.models.value_models import HeadModel, StepModel

        if self.train == "head":
            steps = self.epochs * -(-self.prefixes // self.batch)
            return lab.value_model("step_scorer", partial(HeadModel, lr=self.lr, steps=steps))
        lora = self.lora if self.train == "lora" else None
        make = partial(StepModel, lr=self.lr, epochs=self.epochs, batch=self.batch, lora=lora)
        return lab.value_model("step_scorer", make)


def errors(predicted: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """error: mean squared difference (with labels of few rollouts, their own variance is in it); bias: mean
    difference; calibration: mean over predictions of |mean prediction - mean label| in their tenth of [0, 1]
    (expected calibration error, Naeini et al. 2015)."""
    n = len(labels)
    bins: dict[int, list[tuple[float, float]]] = {}
    for p, y in zip(predicted, labels, strict=True):
        bins.setdefault(min(BINS - 1, int(p * BINS)), []).append((p, y))
    gaps = [abs(sum(p - y for p, y in pairs)) for pairs in bins.values()]
    return {
        "error": sum((p - y) ** 2 for p, y in zip(predicted, labels, strict=True)) / n,
        "bias": (sum(predicted) - sum(labels)) / n,
        "calibration": sum(gaps) / n,
    }
