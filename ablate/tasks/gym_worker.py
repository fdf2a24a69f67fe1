"""What runs in the processes of task=reasoning_gym: the library, with its scorers' teeth drawn.

Several scorers hand the answer to Python's eval or to sympy's parse_expr, which is eval in disguise. Here the
former is not to be had while scoring (what it could earn is partial credit, which is none), and the latter
reads arithmetic alone.
"""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import fields
from functools import lru_cache
from typing import Any

from ablate.tasks.child import serve

MEMORY = 6 << 30  # bytes of address space
FUNCTIONS = {"sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp"}
FUNCTIONS |= {"log", "ln", "sqrt", "pi", "Abs", "abs", "oo"}
TOKEN = re.compile(r"\s+|\*\*|[-+*/^()=,]|\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|[A-Za-z]+(?:_?\d+)?")
LONGEST = 2000  # characters


def main() -> None:
    """Answer {"do": "check" | "make" | "score", "generator", "settings", ...}."""
    guard_sympy()
    import reasoning_gym  # noqa: F401  (seconds of imports, before the first job)

    serve(_answer, MEMORY)


def guard_sympy() -> None:
    """Let sympy read nothing but arithmetic, wherever its parser is imported from later."""
    import sympy
    import sympy.parsing
    from sympy.parsing import sympy_parser

    original = sympy_parser.parse_expr

    def parse_expr(text: str, *args: Any, **options: Any) -> Any:
        if not is_arithmetic(text):
            raise ValueError("not arithmetic")
        return original(text, *args, **options)

    for module in (sympy, sympy.parsing, sympy_parser):
        module.parse_expr = parse_expr


def is_arithmetic(text: str) -> bool:
    """Numbers, operators, names of one letter and of well-known functions, and nothing else?"""
    if len(text) > LONGEST:
        return False
    place = 0
    while place < len(text):
        found = TOKEN.match(text, place)
        if not found:
            return False
        word = found[0]
        if word[0].isalpha() and len(word.rstrip("_0123456789")) > 1 and word not in FUNCTIONS:
            return False
        place = found.end()
    return True


def _answer(job: dict[str, Any]) -> Any:
    if job["do"] == "check":
        return _problem(job["generator"], job["settings"])
    try:
        data, item = _item(job["generator"], repr(job["settings"]), job["seed"])
    except Exception as error:  # of any kind: generators are a hundred different programs
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    if job["do"] == "make":
        return {"question": item["question"], "answer": item["answer"]}
    return score(data, item, job["given"])


def score(data: Any, item: dict[str, Any], given: str) -> float:
    """The generator's own score; 0 where its scorer fails."""
    module = sys.modules[type(data).__module__]
    module.eval = module.exec = _refuse  # type: ignore[attr-defined]
    try:
        return float(data.score_answer(given, item))
    except Exception:  # scorers are a hundred different programs, too
        return 0.0
    finally:
        del module.eval, module.exec


def _refuse(*_: Any) -> None:
    raise ValueError("answers are not evaluated")


def _problem(name: str, settings: dict[str, Any]) -> str | None:
    """What is wrong with the settings."""
    from reasoning_gym.factory import DATASETS

    known = sorted({each.name for each in fields(DATASETS[name][1])} - {"seed", "size"})
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean {close[0]}?; " if close else ""
            return f"unknown setting {key}; {advice}choices: {', '.join(known)}"
    try:
        _dataset(name, settings, 0)
    except (AssertionError, ValueError, TypeError) as error:
        return " ".join(str(error).split())[:300] or type(error).__name__
    return None


def _dataset(name: str, settings: dict[str, Any], seed: int) -> Any:
    from reasoning_gym.factory import create_dataset

    return create_dataset(name, seed=seed, size=1, **settings)


@lru_cache(maxsize=256)
def _item(name: str, settings: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """A data set of one item with this seed: some generators draw from it before there is any item."""
    import ast

    data = _dataset(name, ast.literal_eval(settings), seed)
    return data, data[0]
