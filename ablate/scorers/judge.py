"""A generative judge: a language model is asked whether the newest step is right.

The value of a prefix is P(yes) = p(yes) / (p(yes) + p(no)), from the probabilities of two answer words after
a question, as from a generative verifier (Zhang et al. 2024, arXiv:2408.15240, who take p(yes) itself). Asked
are the policy, another local model, or any OpenAI-compatible endpoint; all pay for what they read and write,
on the account `judge`. An answer that does not come or cannot be read is counted and gets a neutral value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Literal

from ablate.models.endpoint import Endpoint, plain
from ablate.types import JudgeModel, Lab, Task, Trajectory, UserError

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
class Judge:
    """who: the policy as it is now, a `local` model, or an `endpoint`. path: folder of the local model, in
    transformers' format with safetensors weights. yes, no: the answer words as they follow the template, with
    any leading space. template: the question, with the fields {problem}, {steps}, {step}, {yes} and {no}.
    neutral: the value where there is no verdict: of the prompt alone, which has no step to judge, and of a
    question without a readable answer. endpoint: what an endpoint needs.
    """

    who: Literal["policy", "local", "endpoint"] = "policy"
    path: str | None = None
    yes: str = " yes"
    no: str = " no"
    template: str = TEMPLATE
    neutral: float = 0.5
    endpoint: Endpoint = field(default_factory=Endpoint)

    def __post_init__(self) -> None:
        if not 0.0 <= self.neutral <= 1.0:
            raise UserError(f"judge.neutral={self.neutral} must lie in [0, 1]")
        yes, no = (word.strip().casefold() for word in (self.yes, self.no))
        if not yes or not no or yes.startswith(no) or no.startswith(yes):
            raise UserError(
                f"judge.yes={self.yes!r} and judge.no={self.no!r} must be two words of which neither begins "
                "with the other"
            )
        _check_template(self.template)
        if self.who == "local" and not self.path:
            raise UserError("judge.who=local needs judge.path, the folder of a transformers model")
        if self.who == "endpoint":
            self.endpoint.require()
            if not plain(self.yes) or not plain(self.no):
                raise UserError(
                    f"judge.yes={self.yes!r} and judge.no={self.no!r}: one is punctuation alone, which is "
                    "dropped around an endpoint's answer"
                )

    def check(self, task: Task) -> None:
        """Raises UserError, within a second, if the local model is not there or nobody answers at the
        endpoint."""
        if self.who == "endpoint":
            self.endpoint.check()
        if self.who == "local":
            folder = Path(self.path or "")
            if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
                raise UserError(
                    f"judge.path={self.path} is not the folder of a transformers model: it must hold "
                    "config.json and *.safetensors"
                )

    def ready(self, lab: Lab) -> None:
        """Load the model and read the answer words, before training. Raises UserError like `values`."""
        self.values([], lab)

    def values(self, prefixes: Sequence[Trajectory], lab: Lab) -> list[float]:
        """One value per prefix; charged as `judge`. Raises UserError if the policy or the local model cannot
        read the answer words or the template."""
        asked = [prefix for prefix in prefixes if prefix.steps]
        verdicts = lab.judge(repr(self), self._make(), [self.question(prefix, lab) for prefix in asked])
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

    def _make(self) -> Callable[..., JudgeModel]:
        from ablate.models.endpoint import EndpointJudge
        from ablate.models.judges import local_judge, policy_judge

        if self.who == "endpoint":
            return partial(EndpointJudge, endpoint=self.endpoint, yes=self.yes, no=self.no)
        example = self._filled(self.yes, self.yes, self.yes)
        if self.who == "local":
            return partial(local_judge, path=str(self.path), yes=self.yes, no=self.no, example=example)
        return partial(policy_judge, yes=self.yes, no=self.no, example=example)


def _check_template(template: str) -> None:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"judge.template cannot be read ({error}); a brace of its own is doubled") from error
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, form, conversion in parts:
        if name is not None and (name not in FIELDS or form or conversion):
            raise UserError(
                f"judge.template has the field {{{name}}}; the fields are "
                f"{', '.join(f'{{{known}}}' for known in FIELDS)}, without format or conversion"
            )
    if "step" not in names:
        raise UserError("judge.template has no field {step}: nothing to judge would be in the question")
