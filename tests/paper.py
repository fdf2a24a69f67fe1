"""A laboratory of paper: a game small enough to be enumerated, so that every value is known exactly.

Answers are strings of `depth` digits 0..k-1, one step each; END follows the last one. Digit probabilities are
those of a fixed table, the same at every node.
"""

from dataclasses import replace
from functools import cache
from random import Random

from ablate.types import Problem, Step, Trajectory

END, MARKER = 98, 99


class PaperLab:
    """Implements `types.Lab` for a game; solved(digits) says who wins. `asked` counts rollouts by purpose."""

    step_boundary = "\n"
    marker = (MARKER,)
    batch = 0
    budget_fraction = 0.0

    def __init__(self, solved, depth=3, probabilities=(0.5, 0.5), cap=1000, seed=0, enumerate_steps=False):
        self.wins, self.depth, self.probabilities, self.cap = solved, depth, probabilities, cap
        self.rng, self.draws = Random(seed), Random(seed + 1)
        self.enumerate_steps = enumerate_steps
        self.logged, self.asked, self.judged = {}, {}, []

    def digits(self, completion):
        """The digits of the attempt that stands at the end."""
        if MARKER in completion:
            completion = completion[len(completion) - completion[::-1].index(MARKER) :]
        return tuple(token for token in completion if token != END)

    def value(self, digits):
        """The policy's own exact chance to win from here."""

        @cache
        def chance(so_far):
            if len(so_far) == self.depth:
                return float(self.wins(so_far))
            return sum(p * chance((*so_far, d)) for d, p in enumerate(self.probabilities))

        return chance(tuple(digits))

    def sample(self, prefixes, n, stop=(), purpose="rollout"):
        self.asked[purpose] = self.asked.get(purpose, 0) + n * len(prefixes)
        return [[self._draw(prefix, bool(stop), j) for j in range(n)] for prefix in prefixes]

    def _draw(self, prefix, one_step, j):
        digits, tokens = self.digits(prefix.completion), []
        room = self.cap - prefix.length
        while room > len(tokens):
            if len(digits) + len(tokens) == self.depth:
                tokens.append(END)
                break
            k = len(self.probabilities)
            chosen = j % k if self.enumerate_steps else self.draws.choices(range(k), self.probabilities)[0]
            tokens.append(chosen)
            if one_step and len(digits) + len(tokens) < self.depth:
                break
        return Step(tuple(tokens), (-0.7,) * len(tokens))

    def verify(self, trajectories):
        ended = [t.completion[-1:] == (END,) and self.wins(self.digits(t.completion)) for t in trajectories]
        return [replace(t, solved=bool(won)) for t, won in zip(trajectories, ended, strict=True)]

    def finished(self, t):
        return t.completion[-1:] == (END,) or t.length >= self.cap

    def truncated(self, t):
        return t.length >= self.cap and t.completion[-1:] != (END,)

    def split(self, t):
        steps = []
        for step in t.steps:
            for i, token in enumerate(step.tokens):
                if token == END and steps:
                    last = steps.pop()
                    token_logprobs = None if step.logprobs is None else (*last.logprobs, step.logprobs[i])
                    steps.append(replace(last, tokens=(*last.tokens, END), logprobs=token_logprobs))
                else:
                    logprobs = None if step.logprobs is None else (step.logprobs[i],)
                    steps.append(replace(step, tokens=(token,), logprobs=logprobs))
        return replace(t, steps=tuple(steps), advantages=())

    def unended(self, t):
        last = t.steps[-1]
        if last.tokens[-1:] != (END,):
            return t
        logprobs = None if last.logprobs is None else last.logprobs[:-1]
        cut = replace(last, tokens=last.tokens[:-1], logprobs=logprobs)
        return replace(t, steps=(*t.steps[:-1], cut), solved=None)

    def oracle(self, prefixes):
        return [float(self.value(self.digits(p.completion)) > 0) for p in prefixes]

    def grade(self, trajectories):
        return [t.outcome for t in trajectories]

    def log(self, name, value):
        self.logged[name] = value


class KnownValues:
    """A scorer that knows the policy's exact values and counts what it is asked."""

    def __init__(self):
        self.asked = []

    def values(self, prefixes, lab):
        self.asked += [(p.problem.id, p.completion) for p in prefixes]
        return [lab.value(lab.digits(p.completion)) for p in prefixes]


def problem(name="p"):
    return Problem(name, "", tokens=(1,))


def answer(lab, *digits, name="p", end=True, n=1):
    """A verified trajectory of one sampled step."""
    tokens = (*digits, END) if end else tuple(digits)
    return lab.verify([Trajectory(problem(name), (Step(tokens, (-0.7,) * len(tokens)),))])[0]
