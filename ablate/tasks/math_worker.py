"""What runs in the processes of task=math: the library math-verify, with its time-outs.

Its time-outs are signals, which reach the main thread alone, and no signal interrupts a long operation of a C
library: so it has processes of its own, which can be killed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ablate.tasks.child import serve

MEMORY = 4 << 30  # bytes of address space


def main() -> None:
    """Answer {"gold", "given", "seconds"} with true or false."""
    import logging

    import math_verify  # noqa: F401  (seconds of imports, before the first job)

    logging.disable(logging.CRITICAL)
    serve(lambda job: equal(job["gold"], job["given"], job["seconds"]), MEMORY)


def equal(gold: str, given: str, seconds: int) -> bool:
    """Does math-verify find both answers the same? Each of its passes may take `seconds`; one that fails or
    takes longer finds nothing."""
    from math_verify import verify

    try:
        return bool(verify(_gold(gold, seconds), list(_parsed(given, seconds)), timeout_seconds=seconds))
    except (RecursionError, MemoryError):
        return False


@lru_cache(maxsize=1024)
def _gold(text: str, seconds: int) -> list[Any]:
    return list(_parsed(text, seconds))


def _parsed(text: str, seconds: int) -> list[Any]:
    """The formula and, for comparing texts, what is written. The whole of the answer has to parse."""
    from math_verify import LatexExtractionConfig, parse

    config = LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)
    return parse(f"\\boxed{{{text}}}", extraction_config=[config], parsing_timeout=seconds)
