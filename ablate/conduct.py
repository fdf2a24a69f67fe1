"""The laboratory's side of the training loop: one TrainerCallback beside the learner.

After every step it records, stops at the budget, evaluates at milestones and asks for checkpoints. TRL's
Trainer owns the loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ablate import ranks
from ablate.alarm import Alarm
from ablate.checkpoint import prune
from ablate.ledger import milestones
from ablate.record import primary, system_metrics
from ablate.types import UserError

if TYPE_CHECKING:
    from ablate.config import Config
    from ablate.evaluate import Evaluation
    from ablate.learner import Learner
    from ablate.ledger import Ledger
    from ablate.progress import Bar
    from ablate.record import Record
    from ablate.runtime import StopRequest

SYSTEM_EVERY = 10.0  # seconds between samples of CPU and memory use
FIRST = 5  # batches whose mean length is what later ones are compared with
LARGE_BATCH = 0.02  # share of the budget; a batch above it makes the overshoot visible


class Conductor(TrainerCallback):
    """Milestones, record, checkpoints, progress.

    evaluate(longest): judges the policy as it is, decoding up to `longest` tokens. figures(): a hash
    of the last batch's problems, and its diagnostics. updated(): to be called when the weights have changed.
    """

    def __init__(
        self,
        config: Config,
        record: Record,
        ledger: Ledger,
        bar: Bar | None,
        stop: StopRequest,
        evaluate: Callable[[int], Evaluation],
        figures: Callable[[], tuple[str, dict[str, float]]],
        updated: Callable[[], None],
    ) -> None:
        self._config, self._record, self._ledger, self._bar, self._stop = config, record, ledger, bar, stop
        self._evaluate, self._figures, self._updated = evaluate, figures, updated
        self._milestones = milestones(config.budget.milestones)
        self._reached = 0  # milestones evaluated so far
        self._heldout: float | None = None
        self._solved: float | None = None  # running mean of the training batches' accuracy
        self._step_started = self._system_sampled = 0.0
        self._saved = 0  # step of the last checkpoint
        self.seconds = {"train": 0.0, "evaluate": 0.0}
        self.batch_share = 0.0  # largest share of the budget that one step took
        self.alarm = Alarm()
        self._lengths: list[float] = []  # mean lengths of the first batches
        self.learner: Learner

    # -- state of a checkpoint ------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the Trainer's own files."""
        return {
            "ledger": self._ledger.state_dict(),
            "record": self._record.positions(),
            "milestones_reached": self._reached,
            "heldout": self._heldout,
            "solved": self._solved,
            "seconds": self.seconds,
            "batch_share": self.batch_share,
            "alarm": self.alarm.state(),
            "lengths": self._lengths,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self._ledger.load_state_dict(state["ledger"])
        self._reached, self._heldout = state["milestones_reached"], state["heldout"]
        self._solved, self.seconds, self.batch_share = state["solved"], state["seconds"], state["batch_share"]
        self.alarm.restore(state["alarm"])
        self._lengths = state["lengths"]

    @property
    def finished(self) -> bool:
        """Has the budget been spent and the last milestone been evaluated?"""
        return self._reached == len(self._milestones)

    # -- the loop -------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The start of all arms is the first point of every curve."""
        self._saved = state.global_step
        if state.global_step == 0:
            self._milestone(0, 0.0)
        self._ledger.resume_clock()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the step's clock."""
        self._step_started, self._spent_before = time.monotonic(), self._ledger.spent

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record, evaluate, stop, save: in this order, so that a checkpoint holds all that came before it."""
        step, ledger = state.global_step, self._ledger
        self._updated()
        ledger.pause_clock()
        ledger.sync()
        self._stop.asked = any(ranks.gathered(self._stop.asked))
        self.seconds["train"] += time.monotonic() - self._step_started
        self.batch_share = max(self.batch_share, (ledger.spent - self._spent_before) / ledger.budget)
        if not ledger.spent and ledger.totals()["flops"]:  # work was done, none of it in the budget's unit
            raise UserError(
                f"budget.{ledger.unit}={ledger.budget:g} can never be spent: a batch of this strategy takes "
                "none of it; nearest: budget.flops"
            )
        self._write_step(step)
        if step == 1 and self.batch_share > LARGE_BATCH:
            self._say_large()
        done = ledger.spent >= ledger.budget or step >= args.max_steps
        passed = sum(ledger.spent >= share * ledger.budget for share in self._milestones)
        if done:
            passed = len(self._milestones)
        if passed > self._reached:
            self._reached = passed
            self._milestone(step, self._milestones[passed - 1])
        # a buffered batch is not saved: checkpoints fall between batches only, and so does a stop
        boundary = step % self._config.learner.iterations == 0
        control.should_training_stop = done or (boundary and self._stop.asked)
        every = self._config.checkpoint.every_steps
        due = step // every > self._saved // every or control.should_training_stop
        control.should_save = boundary and due
        self._saved = step if control.should_save else self._saved
        self._show()
        ledger.resume_clock()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the newest checkpoints."""
        if ranks.rank() == 0:
            prune(self._record.checkpoints, self._config.checkpoint.keep)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        self._ledger.pause_clock()
        if self._bar is not None:
            self._bar.close()

    # -- parts ----------------------------------------------------------------------------------------------

    def _write_step(self, step: int) -> None:
        stream, figures = self._figures()
        mean = figures["solved"]
        self._solved = mean if self._solved is None else 0.9 * self._solved + 0.1 * mean
        figures = {**figures, **self._watch(step, figures)}
        row = {f"train/{name}": value for name, value in figures.items()}
        row |= {f"learner/{name}": value for name, value in self.learner.report.items()}
        row["learner/lr"] = self.learner.last_lr
        row |= self._budget()
        row["seconds/step"] = time.monotonic() - self._step_started
        now = time.monotonic()
        if now - self._system_sampled > SYSTEM_EVERY:
            self._system_sampled = now
            row |= system_metrics()
        self._record.append("steps", {"step": step, "problems": stream, **row})

    def _watch(self, step: int, figures: dict[str, float]) -> dict[str, float]:
        """Drift and alarm; a batch that is trained on several times is taken in once."""
        if (step - 1) % self._config.learner.iterations == 0:
            if len(self._lengths) < FIRST:
                self._lengths.append(figures["length"])
            for text in self.alarm.update(step, figures):
                if self._bar is not None:
                    self._bar.message(f"  {text}")
        drift = figures["length"] - fmean(self._lengths)
        return {"length_drift": drift, "alarm": float(bool(self.alarm.ringing))}

    def _budget(self) -> dict[str, float]:
        totals = {f"budget/{name}": value for name, value in self._ledger.totals().items()}
        return {**totals, "budget/spent": self._ledger.spent / self._ledger.budget}

    def _milestone(self, step: int, share: float) -> None:
        """Evaluate; the first and the last point are also decoded to the longer cap."""
        begun = time.monotonic()
        ends = step == 0 or self.finished
        cap = self._config.sampling.cap
        result = self._evaluate(cap * self._config.evaluate.long_cap_factor if ends else cap)
        self._ledger.sync()  # what each rank's share of it took
        self.seconds["evaluate"] += time.monotonic() - begun
        name = primary(result.metrics)
        self._heldout = result.metrics[name]
        row = {f"heldout/{name}": value for name, value in result.metrics.items()}
        self._record.write_evaluation(
            step, result.columns, {"milestone": share, "problems": result.problems, **row, **self._budget()}
        )
        if self._bar is not None:
            spent = f"{self._ledger.spent:.2e} {self._ledger.unit}" if step else "before training"
            accuracy, error = result.metrics[name], 1.96 * result.metrics[f"{name}_se"]
            text = f"{name} {accuracy:.3f} ± {error:.3f}, length {result.metrics['length']:.1f}  ({spent})"
            self._bar.message(f"  held-out {text}")

    def _say_large(self) -> None:
        fits = max(1, int(self._config.learner.problems * LARGE_BATCH / self.batch_share))
        text = (
            f"  one batch costs {self.batch_share:.1%} of the budget, more than {LARGE_BATCH:.0%}: "
            f"results at equal spend get coarse; learner.problems={fits} would fit"
        )
        if self._bar is not None:
            self._bar.message(text)

    def _show(self) -> None:
        if self._bar is not None:
            figures = {"train": f"{self._solved:.2f}", "held-out": f"{self._heldout:.3f}"}
            spent, budget = self._ledger.spent, self._ledger.budget
            self._bar.update(
                self._ledger.fraction, f"{spent:.2e} of {budget:.1e} {self._ledger.unit}", **figures
            )
