"""What tasks have in common whose problems and answers are natural language.

They serve pretrained models: there is no vocabulary, and there are no demonstrations, for model=tiny.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from string import Formatter
from typing import Literal
from zlib import crc32

from ablate.randomness import hash64
from ablate.tasks.phrases import reflections
from ablate.tasks.reading import THINK_TAGS
from ablate.types import Problem, UserError

SPLITS = ("train", "tuning", "heldout")
MOST_WORKERS = 16


@dataclass
class Prose:
    """step: what a step is, a line or a paragraph. correction: what follows an answer that was wrong, where a
    strategy teaches to correct. think_tags: around a reasoning model's thoughts, which are not part of its
    answer. heldout_percent, tuning_percent: of the problems, by the checksum of their text; held-out problems
    that a data set names itself come instead. workers: processes that verify, null: one per core.
    """

    step: Literal["line", "paragraph"] = "line"
    correction: str = "\n\nWait, that is not right. Let me try again.\n"
    think_tags: list[str] = field(default_factory=lambda: list(THINK_TAGS))
    heldout_percent: int = 15
    tuning_percent: int = 5
    workers: int | None = None

    def __post_init__(self) -> None:
        check_range("heldout_percent", self.heldout_percent, 1, 98)
        check_range("tuning_percent", self.tuning_percent, 0, 99 - self.heldout_percent)
        if self.workers is not None and self.workers < 1:
            raise UserError(f"task.workers={self.workers} must be at least 1, or null: one per core")
        if len(self.think_tags) != 2 or not all(self.think_tags) or len(set(self.think_tags)) < 2:
            tags = ",".join(self.think_tags)
            raise UserError(f"task.think_tags=[{tags}] must be two tags: one that opens, one that closes")

    @property
    def step_boundary(self) -> str:
        """The string that ends a step."""
        return "\n" if self.step == "line" else "\n\n"

    def behaviours(self, problem: Problem, completion: str) -> dict[str, float]:
        """Counts of phrases of reflection (`phrases.reflections`), of steps that are not blank, and answered:
        1.0 if there is an answer to judge."""
        steps = sum(bool(step.strip()) for step in completion.split(self.step_boundary))
        answered = float(bool(self.answer(problem, completion)))
        return {**reflections(completion), "steps": float(steps), "answered": answered}

    def answer(self, problem: Problem, completion: str) -> str:
        """The final answer in a form in which equal answers are equal, "" if there is none."""
        raise NotImplementedError

    def _split_of(self, key: str) -> str:
        bucket = crc32(key.encode()) % 100
        if bucket < self.heldout_percent:
            return "heldout"
        return "tuning" if bucket < self.heldout_percent + self.tuning_percent else "train"

    def _crew_size(self) -> int:
        return self.workers or min(os.cpu_count() or 1, MOST_WORKERS)


def text_key(text: str) -> str:
    """What two problems have in common that differ in case, white space or compatible characters alone."""
    plain = re.sub(r"\s+", "", unicodedata.normalize("NFKC", text).casefold())
    return f"{hash64('problem', plain):016x}"


def check_template(template: str, names: tuple[str, ...], needed: str) -> None:
    """Raises UserError unless `task.template` has the field `needed` and no field but `names`."""
    try:
        parts = [(name, form, conversion) for _, name, form, conversion in Formatter().parse(template)]
    except ValueError as error:
        raise UserError(f"task.template cannot be read ({error}); a brace of its own is doubled") from error
    found = [part for part in parts if part[0] is not None]
    for name, form, conversion in found:
        if name not in names or form or conversion:
            known = ", ".join(f"{{{each}}}" for each in names)
            raise UserError(
                f"task.template has the field {{{name}}}; the fields are {known}, a brace is doubled"
            )
    if needed not in [name for name, _, _ in found]:
        raise UserError(f"task.template has no field {{{needed}}}: the problem would not be in the prompt")


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Raises UserError unless low <= value <= high."""
    if not low <= value <= high:
        raise UserError(
            f"task.{key}={value} must be in {low}..{high} (nearest: {min(max(value, low), high)})"
        )


def need_split(split: str) -> None:
    """Raises ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
