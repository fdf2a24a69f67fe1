"""Where the answer stands in a completion: read after the thoughts, from one place, by a strict order.

The first place of the order that occurs in the text decides, even if what stands there is no answer: whoever
boxes nonsense has not answered, whatever number comes last.

    boxed        the contents of the last \\boxed{...}
    hash         what follows the last ####, to the end of its line
    tag          the contents of the last <answer>...</answer>
    last_number  the last number, anywhere
    last_line    the last line that is not blank
    whole        all of it
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from ablate.types import UserError

THINK_TAGS = ("<think>", "</think>")  # the customary ones
# a sign belongs to the number unless something stands before it that it could be subtracted from
NUMBER = re.compile(r"(?:(?<![\w.)\]}])[-−+])?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?%?")


def after_thoughts(text: str, tags: Sequence[str] = THINK_TAGS) -> str:
    """What follows the last closing tag; all of it where no thoughts are marked; nothing where they do not
    end."""
    opening, closing = tags
    rest = text.rpartition(closing)[2]
    return "" if opening in rest else rest


def boxed(text: str) -> str | None:
    """The contents of the last `\\boxed{...}` or `\\fbox{...}`; None without one, "" if it is not closed."""
    openings = list(re.finditer(r"\\(?:boxed|fbox)\s*\{", text))
    if not openings:
        return None
    start = openings[-1].end()
    depth = 1
    for mark in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0:
            return text[start : start + mark.start()]
    return ""


def after_hash(text: str) -> str | None:
    """What follows the last `####` on its line."""
    _, mark, after = text.rpartition("####")
    return after.partition("\n")[0] if mark else None


def tagged(text: str) -> str | None:
    """The contents of the last `<answer>...</answer>`; None without one, "" if it is not closed."""
    _, mark, after = text.rpartition("<answer>")
    if not mark:
        return None
    inside, end, _ = after.partition("</answer>")
    return inside if end else ""


def last_number(text: str) -> str | None:
    """The last number: digits, with a sign, thousands separators and decimals."""
    last = None
    for last in NUMBER.finditer(text):  # noqa: B007  (the last one is wanted)
        pass
    return last[0] if last else None


def last_line(text: str) -> str | None:
    """The last line that is not blank."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else None


PLACES: dict[str, Callable[[str], str | None]] = {
    "boxed": boxed,
    "hash": after_hash,
    "tag": tagged,
    "last_number": last_number,
    "last_line": last_line,
    "whole": lambda text: text,
}


def read(text: str, order: Sequence[str], tags: Sequence[str] = THINK_TAGS) -> str | None:
    """The answer that stands after the thoughts, trimmed; None if no place occurs or it is empty."""
    rest = after_thoughts(text, tags)
    for place in order:
        found = PLACES[place](rest)
        if found is not None:
            return found.strip() or None
    return None


def check_order(key: str, order: Sequence[str]) -> None:
    """Raises UserError unless every place is known and none comes twice."""
    for place in order:
        if place not in PLACES:
            close = difflib.get_close_matches(place, PLACES, n=1)
            advice = f"did you mean {close[0]}?; " if close else ""
            raise UserError(f"{key}: unknown place {place}; {advice}choices: {', '.join(PLACES)}")
    if not order or len(set(order)) < len(order):
        raise UserError(f"{key}=[{','.join(order)}] must name at least one place, and each only once")


def code_block(text: str, tags: Sequence[str] = THINK_TAGS) -> str | None:
    """The last closed block between fences of three or more backquotes, after the thoughts; None without one.

    A block of any language counts: whether it is Python shows when it runs.
    """
    fenced = r"^[ \t]*(`{3,})[^`\n]*\n(.*?)^[ \t]*\1`*[ \t]*$"
    blocks = re.findall(fenced, after_thoughts(text, tags), re.M | re.S)
    return blocks[-1][1] if blocks else None
