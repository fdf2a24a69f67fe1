"""Phrases of reflection in natural language: what a policy says when it stops to think again.

For `behaviours` of tasks whose answers are prose. Counting words is a proxy: "wait" in "wait ten minutes" is
counted, and a policy can say "let me check" without checking. Compare counts between policies on the same
problems; do not read them as a number of corrections.
"""

from __future__ import annotations

import re

# Alternatives of a regular expression; a space stands for any white space, an apostrophe for both kinds. The
# check and rethink words with "re-" and "again" are the keyword pool of Liu et al. 2025, arXiv:2503.20783.
_PHRASES = {
    "wait": ("wait", "hold on", "hang on", "h+m+", "oops"),
    "check": (
        "(?:let me|let us|let's|i'll|i will|i should|we should) (?:just )?(?:check|verify|make sure)",
        "(?:double|re)[- ]?(?:check|verify)(?:ing)?",
        "(?:check|verify)(?:ing)? again",
        "go over the steps",
        "sanity check",
    ),
    "rethink": (
        "actually",
        "on second thought",
        "think again",
        "re-?(?:think|consider|assess|evaluate|examine|analy[sz]e)",
        "re-?evaluation",
        "(?:i|we) (?:made|have made|must have made) (?:a|an) (?:mistake|error)",
        "that(?:'s| is) (?:wrong|not right|incorrect|not correct)",
    ),
    "alternative": (
        "alternatively",
        "(?:another|a different) (?:approach|way|method|idea)",
        "try (?:again|another|something else)",
    ),
}


def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    either = "|".join(phrases).replace("[- ]", r"[-\s]").replace(" ", r"\s+").replace("'", "['\u2019]")
    return re.compile(rf"(?<![\w-])(?:{either})(?!\w|-\w)", re.IGNORECASE)


_PATTERNS = {kind: _pattern(phrases) for kind, phrases in _PHRASES.items()}


def reflections(text: str) -> dict[str, float]:
    """How often each kind of phrase occurs: "wait" (wait, hold on, hmm), "check" (let me verify,
    double-check), "rethink" (actually, reconsider, that's wrong), "alternative" (alternatively, another
    approach).

    Whole words, any case, any white space between them; occurrences of one kind do not overlap. All kinds are
    always present, so the result fits `Task.behaviours`.
    """
    return {kind: float(sum(1 for _ in pattern.finditer(text))) for kind, pattern in _PATTERNS.items()}
