"""Length control by prompt: the model is asked, in words or by a token of its own, for a length.

    length_prompt="Think for at most {tokens} tokens."

follows every problem, on a line of its own, through the chat template or the prompt in plain text. Nothing
enforces it (budget forcing does): what is measured is what a model makes of it, so an answer may have as many
tokens as elsewhere where length is the subject. L1 (Aggarwal and Welleck 2025, arXiv:2503.04697) trains
models to follow such a sentence; others may not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from string import Formatter
from typing import Any

import numpy as np

from ablate.testtime.bench import Bench
from ablate.testtime.frame import Frame
from ablate.testtime.guides import Guide
from ablate.types import Problem, Trajectory, UserError

PROMPT = "Think for at most {tokens} tokens."
SAMPLES = 4  # answers per problem and asked length, averaged


def check_prompt(text: str) -> str:
    """The text. Raises UserError unless it has the field {tokens}, and no other."""
    try:
        parts = [(name, form, how) for _, name, form, how in Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise UserError(f"length_prompt cannot be read ({error}); a brace of its own is doubled") from None
    if not parts or any(part != ("tokens", "", None) for part in parts):
        raise UserError(
            f"length_prompt={text!r} must have the field {{tokens}}, and no other, as in {PROMPT!r}"
        )
    return text


def length_prompt(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """Plain samples to problems with the request behind them; each is charged with it."""
    assert guide is None
    bench = frame.bench
    problems = [asked(problem, setting["prompt"], setting["ask"], bench) for problem in frame.problems]
    bench.begin_on(problems)
    with bench.room(_room(problems, frame)):
        drawn = bench.sample([Trajectory(problem) for problem in problems], setting["samples"])
    for j in range(setting["samples"]):
        bench.begin_on(problems)
        bench.replay(problems, [steps[j : j + 1] for steps in drawn])
        yield [Trajectory(p, (steps[j],)) for p, steps in zip(problems, drawn, strict=True)]


def asked(problem: Problem, prompt: str, tokens: int, bench: Bench) -> Problem:
    """The same problem, its prompt with the request for a length."""
    text = f"{problem.prompt}\n{prompt.format(tokens=tokens)}"
    return replace(problem, tokens=bench.policy.prompt(text))


def _room(problems: Sequence[Problem], frame: Frame) -> int:
    """As far as the model has positions: the request takes some of them."""
    config = frame.bench.policy.model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    most = max(len(problem.tokens) for problem in problems)
    return frame.longest if limit is None else min(frame.longest, limit - most)


def thought(answer: Trajectory, bench: Bench) -> int:
    """Tokens up to the tag that ends the thoughts, where the model's format names one and it is there; else
    all."""
    form = bench.policy.format
    tag = bench.encode(form.end_of_thought.strip()) if form is not None and form.end_of_thought else ()
    tokens = answer.completion
    starts = range(len(tokens) - len(tag) + 1 if tag else 0)
    return next((i for i in starts if tokens[i : i + len(tag)] == tag), len(tokens))


def followed(
    lengths: Sequence[Sequence[int]], ended: Sequence[Sequence[bool]], wanted: int
) -> dict[str, float]:
    """How well a request for at most `wanted` tokens was followed. lengths, ended: of answers, by repeat.

    tokens: mean length, of answers that were cut off, too; ratio: of that to what was asked for; within:
    share of answers that ended by then; ended: at all.
    """
    tokens = np.array(lengths, dtype=float)
    inside = np.array(ended) & (tokens <= wanted)
    return {
        "tokens": float(tokens.mean()),
        "ratio": float(tokens.mean() / wanted),
        "within": float(inside.mean()),
        "ended": float(np.array(ended).mean()),
    }
