"""The mediocre demonstrator that the warm start imitates: it knows the format and little else."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ablate.tasks.arithmetic import Move, Numbers, chances, moves
from ablate.tasks.derivation import RESTART, write, write_check, write_step
from ablate.tasks.streams import pick
from ablate.types import UserError


def prompt_length(count: int) -> int:
    """Tokens of a prompt of `count` numbers, without a start token."""
    return count + 3  # the numbers, a colon, the target, a newline


def attempt_length(count: int) -> int:
    """Tokens of a complete attempt: steps and check."""
    # a step from k > 2 numbers: a op b = c , and k - 2 others, newline; from two: a op b = c, newline
    return sum(k + 5 for k in range(3, count + 1)) + 6 + 3


@dataclass(frozen=True)
class Demonstrator:
    """Chances of the demonstrator's choices.

    skill: at each step, take a random move that keeps the target in reach, if there is one; otherwise any
        legal move, uniformly.
    persistence: after an attempt that its own check refuses, restart; otherwise give up.
    bail: after a step that is not the last, abandon the attempt without a check and restart.
    longest: most tokens of a demonstration with its prompt, start and end token. The last attempt for which
        there is room is not followed by a restart.
    """

    skill: float = 0.1
    persistence: float = 0.6
    bail: float = 0.05
    longest: int = 128

    def __post_init__(self) -> None:
        for name in ("skill", "persistence", "bail"):
            if not 0.0 <= (value := getattr(self, name)) <= 1.0:
                raise UserError(f"{name}={value} is a chance: use a value in 0..1")

    def answer(self, numbers: Numbers, target: int, ceiling: int, rng: Random) -> str:
        """One demonstration: attempts until one succeeds, patience ends, or room does.

        Where no legal move is left, the attempt is abandoned like a bail. Raises UserError if `longest` has
        no room for a single attempt.
        """
        attempt = attempt_length(len(numbers))
        around = prompt_length(len(numbers)) + 2
        if around + attempt > self.longest:
            raise UserError(
                f"longest={self.longest} has no room for one attempt: use at least {around + attempt}"
            )
        restart = write(RESTART)
        text = ""
        while True:
            used = around + text.count(" ")  # a space follows each token
            may_restart = used + attempt + restart.count(" ") + attempt <= self.longest
            tried, result = self._attempt(numbers, target, ceiling, rng, self.bail if may_restart else 0.0)
            text += tried
            again = result is None or (result != target and rng.random() < self.persistence)
            if not (again and may_restart):
                return text
            text += restart

    def _attempt(
        self, numbers: Numbers, target: int, ceiling: int, rng: Random, bail: float
    ) -> tuple[str, int | None]:
        """The text of an attempt and its result, None if it was abandoned."""
        text, left = "", numbers
        while len(left) > 1:
            options = moves(left, ceiling)
            if not options or (len(left) < len(numbers) and rng.random() < bail):
                return text, None
            if rng.random() < self.skill:
                options = [move for move in options if target in chances(move.after, ceiling)] or options
            move = pick(rng, options)
            left = move.after
            text += write_step(_either_way(move, rng))
        return text + write_check(left[0], target), left[0]


def _either_way(move: Move, rng: Random) -> Move:
    """The same move; a sum or product is written in either order."""
    if move.op == "-" or rng.random() < 0.5:
        return move
    return move._replace(left=move.right, right=move.left)
