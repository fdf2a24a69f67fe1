"""Reading answers: lines, steps, checks, restarts. Strict, linear in the text, never raises.

An answer is a text of words, each followed by one space; the newline is a word (the very last space may be
missing). Every line ends with a newline word, so an answer ends with one right before the end token::

    8 + 9 = 17 , 4      a step; the numbers it leaves besides its result follow the comma, in any order
    17 + 4 = 21         the last step leaves nothing else: no comma
    44 <                a check: the target, then < (the result is below it), > (above it) or ok (equal)
    no                  a restart from the original numbers
    4 * 9 = 36 , 8
    36 + 8 = 44
    44 ok

An *attempt* is what stands between restarts. It is accepted when it consists of legal steps that use every
number once, and then of the line `target ok`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.tasks.arithmetic import Move, Numbers, chances, combine

NEWLINE = "\n"
RESTART = "no"
CHECKS = ("<", ">", "ok")
SYMBOLS = (NEWLINE, "=", ",", "+", "-", "*", ":", RESTART, *CHECKS)

LARGEST_CEILING = 999
NUMBERS = {str(number): number for number in range(1, LARGEST_CEILING + 1)}  # the only spellings accepted

Line = list[str]


def write(*words: object) -> str:
    """A line: the words and a newline, each followed by one space."""
    return "".join(f"{word} " for word in (*words, NEWLINE))


def write_step(move: Move) -> str:
    """The line of a legal move."""
    rest = (",", *move.rest) if move.rest else ()
    return write(move.left, move.op, move.right, "=", move.result, *rest)


def write_check(result: int, target: int) -> str:
    """The honest check of an attempt that ended with `result`."""
    return write(target, "ok" if result == target else "<" if result < target else ">")


def read_lines(text: str) -> tuple[list[Line], Line]:
    """The complete lines, and the words after the last newline."""
    words = text.split(" ")
    if not words[-1]:
        words.pop()
    lines: list[Line] = []
    line: Line = []
    for word in words:
        if word == NEWLINE:
            lines.append(line)
            line = []
        else:
            line.append(word)
    return lines, line


def read_step(line: Line, left: Numbers, ceiling: int) -> Numbers | None:
    """The numbers left after a legal step, None for any other line."""
    others = len(left) - 2
    if others < 0 or len(line) != (6 + others if others else 5) or line[3] != "=":
        return None
    a, b = NUMBERS.get(line[0]), NUMBERS.get(line[2])
    if a is None or b is None or a not in left:
        return None
    remaining = list(left)
    remaining.remove(a)
    if b not in remaining:
        return None
    remaining.remove(b)
    result = combine(a, line[1], b, ceiling)
    if result is None or NUMBERS.get(line[4]) != result:
        return None
    if not others:
        return (result,)
    rest = [NUMBERS.get(word, 0) for word in line[6:]]
    if line[5] != "," or sorted(rest) != sorted(remaining):
        return None
    return (result, *rest)


def _claimed(line: Line) -> Numbers | None:
    """What a line of a step's shape says is left, whether that is true or not."""
    if len(line) < 5 or line[3] != "=" or (len(line) > 5 and (line[5] != "," or len(line) == 6)):
        return None
    numbers = tuple(NUMBERS.get(word, 0) for word in (line[4], *line[6:]))
    return numbers if all(numbers) else None


def last_attempt(lines: Sequence[Line]) -> Sequence[Line]:
    """The lines after the last restart."""
    for i in range(len(lines) - 1, -1, -1):
        if lines[i] == [RESTART]:
            return lines[i + 1 :]
    return lines


def _follow(attempt: Sequence[Line], numbers: Numbers, target: int, ceiling: int) -> tuple[Numbers, bool]:
    """The numbers that the attempt leaves, () once a line was illegal; and whether it is accepted."""
    left, accepted = numbers, False
    for line in attempt:
        if left == (target,) and not accepted and line == [str(target), "ok"]:
            accepted = True
            continue
        after = None if accepted else read_step(line, left, ceiling)
        if after is None:
            return (), False
        left = after
    return left, accepted


def accepts(lines: Sequence[Line], numbers: Numbers, target: int, ceiling: int) -> bool:
    """Is the attempt that stands at the end of an answer right? Earlier attempts need not be legal."""
    return _follow(last_attempt(lines), numbers, target, ceiling)[1]


def reachable(lines: Sequence[Line], numbers: Numbers, target: int, ceiling: int) -> bool:
    """Can the attempt that stands at the end still be accepted without a restart?"""
    left, _ = _follow(last_attempt(lines), numbers, target, ceiling)
    return bool(left) and target in chances(left, ceiling)


def standing(lines: Sequence[Line]) -> str:
    """The attempt that stands at the end, as text."""
    return "".join(write(*line) for line in last_attempt(lines))


@dataclass
class Conduct:
    """What an answer does, in counts; see `Countdown.behaviours`."""

    attempts: int = 0
    restarts: int = 0
    steps: int = 0
    illegal_steps: int = 0
    checks: int = 0
    wrong_checks: int = 0
    gave_up: int = 0


def conduct(lines: Sequence[Line], unfinished: Line, numbers: Numbers, target: int, ceiling: int) -> Conduct:
    """Count what complete lines do; `unfinished` is what follows them.

    A step is judged against what the line before it claims to be left, so that one mistake counts once.
    A check is right if it names the target and compares it correctly with the one number left; `ok` also
    needs an attempt that is legal throughout.
    """
    found = Conduct()
    left, legal, begun = numbers, True, False
    for line in lines:
        if line == [RESTART]:
            found.restarts += 1
            left, legal, begun = numbers, True, False
            continue
        found.attempts += not begun
        begun = True
        if len(line) == 2 and line[1] in CHECKS:
            found.checks += 1
            found.wrong_checks += not _is_right(line, left, target, legal)
            legal = False  # nothing may follow a check but a restart
            continue
        found.steps += 1
        after = read_step(line, left, ceiling)
        if after is None:
            found.illegal_steps += 1
            legal = False
            after = _claimed(line) or left
        left = after
    last = [] if unfinished or not lines else lines[-1]
    found.gave_up = int(len(last) == 2 and last[1] in ("<", ">"))
    return found


def _is_right(check: Line, left: Numbers, target: int, legal: bool) -> bool:
    if check[0] != str(target) or len(left) != 1:
        return False
    result = left[0]
    return {"<": result < target, ">": result > target, "ok": result == target and legal}[check[1]]
