"""The value head of a search: a small network on the policy's hidden state, trained on outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ablate.types import Lab, Trajectory, UserError, ValueModel


@dataclass
class ValueHead:
    """lr, steps: of AdamW, on every batch's outcomes."""

    lr: float = 2e-3
    steps: int = 4

    def __post_init__(self) -> None:
        if self.lr <= 0.0 or self.steps < 1:
            raise UserError(f"lr={self.lr} must be positive and steps={self.steps} at least 1")

    def values(self, prefixes: Sequence[Trajectory], lab: Lab) -> list[float]:
        """One value per prefix; charged as `score`."""
        return self._model(lab).predict(prefixes)

    def learn(self, prefixes: Sequence[Trajectory], outcomes: Sequence[float], lab: Lab) -> None:
        """Train on what followed these prefixes; charged as `auxiliary_update`."""
        lab.log("value_head/loss", self._model(lab).fit(prefixes, outcomes))

    def _model(self, lab: Lab) -> ValueModel:
        from ablate.models.value_models import HeadModel

        return lab.value_model("value_head", partial(HeadModel, lr=self.lr, steps=self.steps))
