"""Problems of your own whose answers no rule can check: for a judge (task=judge).

Rows: {"problem": "..."}, and if there is one, {"reference": "..."}: an answer that is right.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablate.tasks.corpus import Corpus
from ablate.tasks.prose import check_template
from ablate.tasks.reading import after_thoughts
from ablate.tasks.sources import Row, text_field
from ablate.types import Problem, UserError

PROBLEM_FIELDS = ("problem", "question", "prompt", "instruction")


@dataclass
class Written(Corpus):
    """template: the prompt, with the field {problem}. problem_field, reference_field: of the rows."""

    template: str = "{problem}"
    problem_field: str | None = None
    reference_field: str = "reference"

    # without annotations, these are no fields of the configuration
    name = "written"
    ruled = False  # no rule says what is right

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template(self.template, ("problem",), "problem")

    def check(self) -> None:
        """Raises UserError: there is no verifier without a judge."""
        raise UserError("task=written has no verifier of its own: use it as task.base of task=judge")

    def verify(self, problem: Problem, completion: str) -> bool:
        """False: nothing here says that an answer is right. Never raises on any text."""
        return False

    def answer(self, problem: Problem, completion: str) -> str:
        """What majority votes are counted over: all that follows the thoughts."""
        return after_thoughts(completion, self.think_tags).strip()

    def solutions(self, problem: Problem, most: int | None = None) -> list[str]:
        """The row's reference, if it has one."""
        reference = problem.answer["reference"]
        return [reference][:most] if reference else []

    def _problem(self, row: Row) -> Problem:
        names = PROBLEM_FIELDS if self.problem_field is None else (self.problem_field,)
        text = text_field(row, names, "task.problem_field")
        given = row[1].get(self.reference_field) is not None
        reference = text_field(row, (self.reference_field,), "") if given else ""
        return Problem(
            id=text,
            prompt=self.template.format(problem=text.strip()),
            answer={"reference": reference},
        )
