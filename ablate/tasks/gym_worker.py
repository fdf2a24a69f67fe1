"""What runs in the processes of task=reasoning_gym: the library, with its scorers' teeth drawn.

Several scorers hand the answer to Python's eval or to sympy's parse_expr, which is eval in disguise. Here the
former takes the library's own texts alone while scoring (an answer could earn partial credit by it, which is
none), and the latter reads arithmetic alone.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from functools import lru_cache
from types import ModuleType
from typing import Any

from ablate.tasks.child import serve

MEMORY = 6 << 30  # bytes of address space
FUNCTIONS = {"sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp"}
FUNCTIONS |= {"log", "ln", "sqrt", "pi", "Abs", "abs", "oo"}
TOKEN = re.compile(r"\s+|\*\*|[-+*/^()=,]|\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|[A-Za-z]+(?:_?\d+)?")
LONGEST = 2000  # characters


def main() -> None:
    """Answer {"do": "check" | "make" | "score", "generator", "settings", ...}."""
    import reasoning_gym  # noqa: F401  (seconds of imports, before the first job)

    guard_sympy()
    serve(_answer, MEMORY)


def guard_sympy() -> None:
    """Let the library read arithmetic alone with sympy's parser, which stays as it is for sympy itself.

    That also keeps "Integral(f(x), x)" from being taken for an answer to what the integral of f is.
    """
    import sympy
    from sympy.parsing.sympy_parser import parse_expr

    def guarded(text: str, *args: Any, **options: Any) -> Any:
        if not is_arithmetic(text):
            raise ValueError("not arithmetic")
        return parse_expr(text, *args, **options)

    stand_in = ModuleType("sympy")
    stand_in.__dict__.update({**vars(sympy), "parse_expr": guarded})
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "reasoning_gym":
            for key, value in list(vars(module).items()):
                if value is sympy:
                    setattr(module, key, stand_in)
                elif value is parse_expr:
                    setattr(module, key, guarded)


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
    """The generator's own score, 0 where its scorer fails or is known to be too kind."""
    own = [item["answer"], *item["metadata"].values()]  # the library's texts, which it may evaluate
    module = sys.modules[type(data).__module__]

    def evaluate(text: Any, *_: Any) -> Any:
        if text not in own:
            raise ValueError("answers are not evaluated")
        return eval(text)

    module.eval = evaluate  # type: ignore[attr-defined]
    try:
        also = ALSO.get(item["metadata"].get("source_dataset", ""))
        return float(data.score_answer(given, item)) if also is None or also(given, item) else 0.0
    except Exception:  # scorers are a hundred different programs, too
        return 0.0
    finally:
        del module.eval


def _near(given: str, item: dict[str, Any]) -> bool:
    return abs(float(Fraction(given.replace(",", ""))) - float(item["answer"])) <= 1e-4


def _as_written(given: str, item: dict[str, Any]) -> bool:
    return given.strip().casefold() == item["answer"].casefold()


def _with_its_numbers(given: str, item: dict[str, Any]) -> bool:
    from sympy.parsing.sympy_parser import parse_expr

    if not is_arithmetic(given) or parse_expr(given) != 24:
        return False
    return sorted(map(int, re.findall(r"\d+", given))) == sorted(item["metadata"]["numbers"])


# scorers of version 0.1.25 that give full marks too easily, and what must hold besides: coin_flip takes any
# beginning of the number ("0"), game_of_life_halting any text, puzzle24 any four numbers that make 24.9
ALSO: dict[str, Callable[[str, dict[str, Any]], bool]] = {
    "coin_flip": _near,
    "game_of_life_halting": _as_written,
    "puzzle24": _with_its_numbers,
}


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
