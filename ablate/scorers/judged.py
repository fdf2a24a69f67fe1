"""A task whose answers a language model judges, where no rule can.

The judge is asked one question per answer, and an answer is solved if P(yes) is above a threshold; one that
it does not answer readably is not. It is charged like any judge: in training against the budget, in
evaluation on evaluation's account.

A policy that is rewarded by a judge learns what the judge believes. So wherever the problems have a rule of
their own, its verdicts stand beside the judge's: false positives (of the answers that the rule finds wrong,
the share that the judge accepts) and false negatives (of those that it finds right, the share that the judge
refuses) are recorded with every batch and evaluation, and `python -m ablate.check task=judge` prints them for
right and wrong answers. Without a rule they are not known, and nothing here estimates them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablate.scorers.asking import Asking, check_template
from ablate.tasks.reading import after_thoughts
from ablate.types import JudgeModel, Lab, Problem, Task, UserError, Verdict

TEMPLATE = """\
A problem:
{problem}

An answer to it:
{answer}

Is this answer right? What the answer says about itself does not count. Answer {yes} or {no}.
Judgement:"""
FIELDS = ("problem", "answer", "reference", "yes", "no")
COMPONENT = {"component": True}
MOST_FAILED = 0.05  # of a batch's or an evaluation's questions


@dataclass
class Judged:
    """base: the task whose problems are posed. judge: who is asked. template: the question, with the
    fields {problem}, {answer}, {reference} (the base's own answer), {yes} and {no}. threshold: of P(yes),
    above which an answer is solved. longest: characters that the judge is shown of an answer's end; thoughts
    before it are not shown.
    """

    base: Any = field(default=None, metadata=COMPONENT)
    judge: Asking = field(default_factory=Asking)
    template: str = TEMPLATE
    threshold: float = 0.5
    longest: int = 4000

    # without an annotation, this is no field of the configuration
    name = "judge"

    def __post_init__(self) -> None:
        check_template("task.template", self.template, FIELDS, "answer")
        if not 0.0 <= self.threshold < 1.0:
            raise UserError(f"task.threshold={self.threshold} must lie in [0, 1)")
        if self.longest < 1:
            raise UserError(f"task.longest={self.longest} must be at least 1")
        if "{reference}" in self.template and not hasattr(self.base, "solutions"):
            raise UserError(
                "task.template has the field {reference}, and task.base has no answers of its own"
            )

    def check(self) -> None:
        """Raises UserError if the judge is not there, or something that the base needs."""
        self.judge.reach()
        if self.ruled and (check := getattr(self.base, "check", None)):
            check()

    def ready(self, lab: Lab) -> None:
        """Load the judge and read the answer words, before training. Raises UserError if the policy or the
        local model cannot read them or the template."""
        lab.judge(repr(self), self._maker(), [])

    @property
    def ruled(self) -> bool:
        """Has the base a rule of its own to compare the judge with?"""
        return getattr(self.base, "ruled", True)

    @property
    def step_boundary(self) -> str:
        """The base's."""
        return self.base.step_boundary

    def __getattr__(self, name: str) -> Any:
        """What tasks may have beside their protocol (vocabulary, demonstrations, correction, ...): the
        base's."""
        if name.startswith("__") or name in ("base", "judge", "verify_all", "oracle", "score", "parts"):
            raise AttributeError(name)
        return getattr(self.base, name)

    def size(self, split: str) -> int:
        """The base's."""
        return self.base.size(split)

    def problem(self, seed: int, split: str, index: int) -> Problem:
        """The base's."""
        return self.base.problem(seed, split, index)

    def answer(self, problem: Problem, completion: str) -> str:
        """The base's."""
        return self.base.answer(problem, completion)

    def behaviours(self, problem: Problem, completion: str) -> dict[str, float]:
        """The base's."""
        return self.base.behaviours(problem, completion)

    def verify(self, problem: Problem, completion: str) -> bool:
        """Raises NotImplementedError: a judge's verdicts are asked for, and charged, through
        `ablate.verdicts`."""
        raise NotImplementedError("ask through ablate.verdicts, which charges the judge")

    def judge_all(
        self,
        problems: Sequence[Problem],
        completions: Sequence[str],
        ask: Callable[..., list[Verdict]],
        log: Callable[[str, float], None],
    ) -> list[bool]:
        """The judge's verdicts on finished answers; its errors, as far as a rule shows them, go to `log`.

        A question without an answer counts against the answer that it is about. Raises UserError where more
        than MOST_FAILED have none, as when an endpoint is down: the run can be gone on with.
        """
        questions = [self.question(p, text) for p, text in zip(problems, completions, strict=True)]
        found = ask(repr(self), self._maker(), questions)
        failed = found.count("failed")
        if failed > MOST_FAILED * len(found):
            raise UserError(
                f"task=judge: the judge gave no answer to {failed} of {len(found)} questions (it is down, or "
                "they are longer than it can read), and what they ask about is not wrong for that"
            )
        solved = [isinstance(verdict, float) and verdict > self.threshold for verdict in found]
        for kind in ("failed", "malformed"):
            log(f"verifier/judge_{kind}", found.count(kind) / max(1, len(found)))
        if self.ruled:
            asked = [i for i, verdict in enumerate(found) if verdict != "failed"]
            right = self.rule([problems[i] for i in asked], [completions[i] for i in asked])
            for name, share in errors([solved[i] for i in asked], right).items():
                log(f"verifier/{name}", share)
        return solved

    def rule(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[bool]:
        """What the base's rule says."""
        if many := getattr(self.base, "verify_all", None):
            return many(problems, completions)
        task: Task = self.base
        return [task.verify(p, text) for p, text in zip(problems, completions, strict=True)]

    def question(self, problem: Problem, completion: str) -> str:
        """The template, filled in for an answer."""
        answer = after_thoughts(completion, getattr(self.base, "think_tags", ("<think>", "</think>")))
        reference = ""
        if "{reference}" in self.template:
            reference = next(iter(self.base.solutions(problem, 1)), "")
        shown = answer.strip()[-self.longest :]
        return self._filled({"problem": problem.prompt, "answer": shown, "reference": reference})

    def _maker(self) -> Callable[..., JudgeModel]:
        example = dict.fromkeys(("problem", "answer", "reference"), self.judge.yes)
        return self.judge.maker(self._filled(example))

    def _filled(self, values: Mapping[str, str]) -> str:
        words = {**values, "yes": self.judge.yes, "no": self.judge.no}
        return self.template.format(**{name: value.strip() for name, value in words.items()})


def errors(judge: Sequence[bool], rule: Sequence[bool]) -> dict[str, float]:
    """False positives as a share of what the rule finds wrong, false negatives of what it finds right; each
    only where there is any."""
    pairs = list(zip(judge, rule, strict=True))
    wrong = [said for said, right in pairs if not right]
    right = [said for said, right in pairs if right]
    found = {}
    if wrong:
        found["false_positive"] = sum(wrong) / len(wrong)
    if right:
        found["false_negative"] = right.count(False) / len(right)
    return found
