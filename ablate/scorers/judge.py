"""A generative judge: a language model is asked whether the newest step is right.

The value of a prefix is P(yes) = p(yes) / (p(yes) + p(no)), from the probabilities of two answer words after
a question, as from a generative verifier (Zhang et al. 2024, arXiv:2408.15240, who take p(yes) itself). Asked
are the policy, another local model, or any OpenAI-compatible endpoint; all pay for what they read and write,
on the account `judge`. An answer that does not come or cannot be read is counted and gets a neutral value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ablate.scorers.asking import Asking, check_template
from ablate.types import Lab, Task, Trajectory, UserError

TEMPLATE = """\
A problem:
{problem}

The steps of an attempt so far:
{steps}

Its next step:
{step}

Is this next step right, so that the attempt can still end with a right answer? Answer {yes} or {no}.
Answer:"""
FIELDS = ("problem", "steps", "step", "yes", "no")


@dataclass
class Judge(Asking):
    """template: the question, with the fields {problem}, {steps}, {step}, {yes} and {no}. neutral: the value
    where there is no verdict: of the prompt alone, which has no step to judge, and of a question without a
    readable answer.
    """

    template: str = TEMPLATE
    neutral: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.neutral <= 1.0:
            raise UserError(f"judge.neutral={self.neutral} must lie in [0, 1]")
        super().__post_init__()
        check_template("judge.template", self.template, FIELDS, "step")

    def check(self, task: Task) -> None:
        """Raises UserError, within a second, if the local model is not there or nobody answers at the
        endpoint."""
        self.reach()

    def ready(self, lab: Lab) -> None:
        """Load the model and read the answer words, before training. Raises UserError like `values`."""
        self.values([], lab)

    def values(self, prefixes: Sequence[Trajectory], lab: Lab) -> list[float]:
        """One value per prefix; charged as `judge`. Raises UserError if the policy or the local model cannot
        read the answer words or the template."""
        asked = [prefix for prefix in prefixes if prefix.steps]
        make = self.maker(self._filled(self.yes, self.yes, self.yes))
        verdicts = lab.judge(repr(self), make, [self.question(prefix, lab) for prefix in asked])
        for kind in ("failed", "malformed"):
            lab.log(f"scorer/judge_{kind}", verdicts.count(kind) / max(1, len(verdicts)))
        answers = iter(verdicts)
        found = [next(answers) if prefix.steps else None for prefix in prefixes]
        return [value if isinstance(value, float) else self.neutral for value in found]

    def question(self, prefix: Trajectory, lab: Lab) -> str:
        """The template, filled in for the prefix's last step."""
        whole, before = lab.text(prefix), lab.text(replace(prefix, steps=prefix.steps[:-1]))
        if whole.startswith(before):  # decoded on its own, a step may lose its leading space
            step = whole[len(before) :]
        else:
            step = lab.text(replace(prefix, steps=prefix.steps[-1:]))
        return self._filled(prefix.problem.prompt, before, step)

    def _filled(self, problem: str, steps: str, step: str) -> str:
        values = {"problem": problem, "steps": steps, "step": step, "yes": self.yes, "no": self.no}
        return self.template.format(**{name: value.strip() for name, value in values.items()})
