"""Progress of long work: one line that is rewritten on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

WIDTH = 12  # of the bar, in characters


class Bar:
    """A bar over a quantity (steps, share of a budget) with a few figures beside it.

    On a terminal the line is rewritten at most five times a second; elsewhere (a log) a line is printed every
    `quiet_seconds`.
    """

    def __init__(self, label: str, total: float = 1.0, quiet_seconds: float = 20.0) -> None:
        self.label, self.total, self.quiet_seconds = label, total, quiet_seconds
        self.live = sys.stderr.isatty()
        self.started = time.monotonic()
        self._first: float | None = None  # where this process began, for the time left after a resume
        self._last = 0.0 if self.live else self.started
        self._width = 0

    def update(self, done: float, detail: str = "", **figures: str) -> None:
        """Show `done` of the total, with figures such as accuracy='.61'; a narrow terminal drops `detail`."""
        if self._first is None:
            self._first = done
        now = time.monotonic()
        if now - self._last < (0.2 if self.live else self.quiet_seconds) and done < self.total:
            return
        self._last = now
        self._write(self._line(done, now, detail, figures), end="" if self.live else "\n")

    def _line(self, done: float, now: float, detail: str, figures: dict[str, str]) -> str:
        share = min(1.0, done / self.total)
        gained = done - (self._first or 0.0)
        left = "--:--" if gained <= 0 else clock((self.total - done) / gained * (now - self.started))
        filled = round(WIDTH * share)
        shown = " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        parts = [f"{self.label} {'━' * filled}{'─' * (WIDTH - filled)} {share:4.0%}", shown, f"{left} left"]
        return " · ".join(part for part in [*parts, detail] if part)

    def _write(self, line: str, end: str) -> None:
        if self.live:
            import shutil

            line = line[: shutil.get_terminal_size().columns - 1]
            padding = " " * max(0, self._width - len(line))
            self._width = len(line)
            line = f"\r{line}{padding}"
        sys.stderr.write(line + end)
        sys.stderr.flush()

    def message(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self.live:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the bar's last state standing."""
        if self.live and self._width:
            sys.stderr.write("\n")
            self._width = 0


def clock(seconds: float) -> str:
    """`2:03`, `1:02:03`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def TrainerBar(label: str, steps: int) -> Any:
    """A transformers callback that shows a Bar over `steps`; transformers is imported on the first call."""
    from transformers import TrainerCallback

    class _TrainerBar(TrainerCallback):
        def __init__(self) -> None:
            self.bar = Bar(label, steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.update(state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.close()

    return _TrainerBar()
