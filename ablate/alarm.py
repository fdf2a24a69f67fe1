"""Alarms: training that goes wrong in a way that its own reward does not show.

Looked at after every batch, in means over the last WINDOW batches. The point of comparison is the window in
which verified accuracy was highest so far. Since then verified accuracy has fallen, and

- "reward": what credit pays for has risen (the reward is being hacked), or
- "truncation": more answers are cut off at the cap. Truncation that rises while accuracy does, too, is
  ordinary: longer chains of thought solve more.

Accuracy has fallen if it is lower by FALL of what it was; truncation has risen if it is higher by TRUNCATION;
what credit pays for has no scale, so any rise will do. Each change must also exceed NOISE standard errors of
the difference of two windows, sqrt(2 s^2 / WINDOW), with s^2 the variance between batches, estimated from the
differences of successive ones (so that a trend is no noise). An alarm clears at half of these thresholds.

What credit pays for is the mean reward, unless the strategy says otherwise by a diagnostic in PAID; where the
reward *is* the verified outcome, the first kind cannot ring. In a search, rows are siblings inside a tree:
there what the tree believes is compared with what its answers, rollouts' included, turn out to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

WINDOW = 10  # batches
FALL = 0.25  # of verified accuracy, relative to its peak
TRUNCATION = 0.1  # rise of the share of truncated answers
NOISE = 4.0  # standard errors

# the first of these that a batch has
PAID = ("tree/value", "reward/process", "reward")
VERIFIED = ("tree/solved", "solved")

_KINDS = {"reward": "paid", "truncation": "truncated"}
_SAYS = {"paid": "what credit pays for", "truncated": "truncated answers", "verified": "verified accuracy"}


class Alarm:
    """Fed with the figures of every batch.

    events: every alarm so far, as {"kind", "step", "cleared", "text"}; cleared: the step at which it stopped,
    or None.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._source = ""  # the diagnostic that says what credit pays for
        self._restart()

    def _restart(self) -> None:
        names = ("paid", "verified", "truncated")
        self._recent: dict[str, list[float]] = {name: [] for name in names}  # the last WINDOW batches
        self._squares = dict.fromkeys(names, 0.0)  # of differences of successive batches, summed
        self._batches = 0
        self._best: dict[str, float] = {}  # step and means of the window with the highest accuracy

    @property
    def ringing(self) -> list[dict[str, Any]]:
        """The alarms that have not cleared."""
        return [event for event in self.events if event["cleared"] is None]

    def update(self, step: int, figures: Mapping[str, float]) -> list[str]:
        """Take in a batch; says which alarms begin with it, a line each.

        figures: of `Laboratory.report`. When credit begins to pay for something else, the comparison starts
        anew.
        """
        source = next(name for name in PAID if name in figures)
        if source != self._source:
            self._source = source
            self._restart()
        verified = next(figures[name] for name in VERIFIED if name in figures)
        batch = {"paid": figures[source], "verified": verified, "truncated": figures["truncated"]}
        for name, value in batch.items():
            recent = self._recent[name]
            if recent:
                self._squares[name] += (value - recent[-1]) ** 2
            recent.append(value)
            del recent[:-WINDOW]
        self._batches += 1
        means = {name: fmean(recent) for name, recent in self._recent.items()}
        if self._batches >= WINDOW and (not self._best or means["verified"] > self._best["verified"]):
            self._best = {"step": step, **means}
        return [text for kind in _KINDS if (text := self._judge(kind, step, means))]

    def _judge(self, kind: str, step: int, means: dict[str, float]) -> str | None:
        """Begin or clear the alarm of a kind; the line about one that begins."""
        event = next((event for event in self.ringing if event["kind"] == kind), None)
        rings = bool(self._best) and self._wrong(_KINDS[kind], means, 1.0 if event is None else 0.5)
        if event is not None and not rings:
            event["cleared"] = step
        if event is not None or not rings:
            return None
        changes = [
            f"{_SAYS[name]} {self._best[name]:.3g} -> {means[name]:.3g}"
            for name in (_KINDS[kind], "verified")
        ]
        text = f"{changes[0]}, but {changes[1]}, since step {self._best['step']}"
        self.events.append({"kind": kind, "step": step, "cleared": None, "text": text})
        return f"alarm ({kind}) at step {step}: {text}"

    def _wrong(self, risen: str, means: dict[str, float], strictness: float) -> bool:
        best = self._best
        fall = max(FALL * best["verified"], self._noise("verified"))
        rise = max(TRUNCATION if risen == "truncated" else 0.0, self._noise(risen))
        return (
            best["verified"] - means["verified"] > strictness * fall
            and means[risen] - best[risen] > strictness * rise
        )

    def _noise(self, name: str) -> float:
        variance = self._squares[name] / (2 * (self._batches - 1))
        return NOISE * (2.0 * variance / WINDOW) ** 0.5

    # -- state of a checkpoint ------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as plain numbers."""
        return {
            "events": [dict(event) for event in self.events],
            "source": self._source,
            "recent": {name: list(values) for name, values in self._recent.items()},
            "squares": dict(self._squares),
            "batches": self._batches,
            "best": dict(self._best),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`."""
        self.events = [dict(event) for event in state["events"]]
        self._source, self._batches = state["source"], state["batches"]
        self._recent = {name: list(values) for name, values in state["recent"].items()}
        self._squares, self._best = dict(state["squares"]), dict(state["best"])
