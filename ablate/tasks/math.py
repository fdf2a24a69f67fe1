"""Mathematics: GSM8K, MATH-500, or problems of your own, judged by their final answer.

The answer is read from one place after the thoughts, in the strict order of `read` (see `reading`). Plain
numbers with or without a unit are compared exactly (`numbers`); everything else by the library math-verify
(Kydlíček 2025, github.com/huggingface/Math-Verify), in processes of its own, killed when they overrun.

Rows of your own: {"problem": "...", "answer": "..."}. Fields have the names that the usual data sets give
them; an `answer` that shows its work ends with the answer in \\boxed{} or after ####, as GSM8K's do, and so
does a `solution` where there is no answer. A `level` is the difficulty.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from ablate.tasks import reading
from ablate.tasks.child import Child, Crew, worker, worker_environment
from ablate.tasks.corpus import Corpus
from ablate.tasks.numbers import foreign_words, number, trimmed, words_of
from ablate.tasks.prose import check_range, check_template
from ablate.tasks.sources import Row, Source, text_field
from ablate.types import Problem, UserError

LONGEST = 1000  # characters of an answer that is worth parsing
GRACE = 2.0  # seconds beyond the library's own time-outs, until its process is killed
TEMPLATE = "{problem}\n\nReason step by step, and put your final answer within \\boxed{{}}."
PROBLEM_FIELDS = ("problem", "question", "prompt")
ANSWER_FIELDS = ("answer", "solution")


@dataclass
class Math(Corpus):
    """Defaults to GSM8K (Cobbe et al. 2021, arXiv:2110.14168). read: places of the answer, in order.
    template: the prompt, with the field {problem}. problem_field, answer_field: of the rows, where their
    names are unusual. seconds: of each of math-verify's three passes over an answer.
    """

    train: Source = field(default_factory=lambda: Source("openai/gsm8k", "main", "train"))
    heldout: Source = field(default_factory=lambda: Source("openai/gsm8k", "main", "test"))
    read: list[str] = field(default_factory=lambda: ["boxed", "hash", "last_number"])
    template: str = TEMPLATE
    problem_field: str | None = None
    answer_field: str | None = None
    seconds: int = 3

    # without an annotation, this is no field of the configuration
    name = "math"

    def __post_init__(self) -> None:
        super().__post_init__()
        reading.check_order("task.read", self.read)
        check_template(self.template, ("problem",), "problem")
        check_range("seconds", self.seconds, 1, 60)

    def check(self) -> None:
        """Raises UserError if math-verify is not installed."""
        if importlib.util.find_spec("math_verify") is None:
            raise UserError("task=math needs math-verify, which is not installed: pip install 'ablate[math]'")

    def verify(self, problem: Problem, completion: str) -> bool:
        """Does the answer say the same as the right one? Never raises on any text."""
        return self.verify_all([problem], [completion])[0]

    def verify_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[bool]:
        """`verify` for many answers at once."""
        verdicts: list[bool | None] = []
        jobs, places = [], []
        for problem, completion in zip(problems, completions, strict=True):
            gold, given = problem.answer["answer"], self._given(completion)
            verdict = compare(gold, given, _unit_words(problem.answer["text"])) if given else False
            if verdict is None:
                assert given is not None
                places.append(len(verdicts))
                jobs.append({"gold": gold, "given": trimmed(given), "seconds": self.seconds})
            verdicts.append(verdict)
        answers = self._crew.map(jobs, 3.0 * self.seconds + GRACE) if jobs else []
        for place, equal in zip(places, answers, strict=True):
            verdicts[place] = equal is True
        return [bool(verdict) for verdict in verdicts]

    def answer(self, problem: Problem, completion: str) -> str:
        """What majority votes are counted over: a plain number in one form, all else as it is written."""
        given = self._given(completion) or ""
        plain = number(given, _unit_words(problem.answer["text"]))
        if plain is None:
            return "".join(trimmed(given).split())
        value = plain.value.normalize()
        return f"{value:f}" + "%" * plain.percent

    def solutions(self, problem: Problem, most: int | None = None) -> list[str]:
        """The right answer, in the first place of `read`."""
        gold = problem.answer["answer"]
        written = {"boxed": f"\\boxed{{{gold}}}", "hash": f"#### {gold}", "tag": f"<answer>{gold}</answer>"}
        return [written.get(self.read[0], gold)][:most]

    def _given(self, completion: str) -> str | None:
        return reading.read(completion, self.read, self.think_tags)

    @cached_property
    def _crew(self) -> Crew:
        self.check()
        command, environment = worker("ablate.tasks.math_worker"), worker_environment()
        return Crew(lambda: Child(command, environment), self._crew_size())

    def _problem(self, row: Row) -> Problem:
        text = text_field(row, _names(self.problem_field, PROBLEM_FIELDS), "task.problem_field")
        worked = text_field(row, _names(self.answer_field, ANSWER_FIELDS), "task.answer_field")
        gold = reading.read(worked, ["boxed", "hash", "whole"])
        if gold is None:
            raise UserError(f"{row[0]}: its answer is empty after the mark: {worked[-60:]!r}")
        return Problem(
            id=text,
            prompt=self.template.format(problem=text.strip()),
            answer={"answer": gold, "text": text},
            difficulty=_difficulty(row, worked),
        )


def compare(gold: str, given: str, words: frozenset[str]) -> bool | None:
    """Is an answer right, as far as that shows without parsing formulas? None: it does not.

    words: of the problem, which may serve as units. An equation may do no more than name the value: "x = 18"
    gives 18, "17 = 18" and "2x = 18" do not. Where the right answer is a plain number, an answer with words
    of prose or with several values is wrong.
    """
    if trimmed(gold) == trimmed(given):
        return True
    if len(given) > LONGEST or not _balanced(given):
        return False
    right, said = number(gold, words), given
    bases = [found and found[1] for found in (_BASE.search(trimmed(text)) for text in (gold, given))]
    if bases[1] and bases[0] != bases[1] and (bases[0] or (right is not None and bases[1] != "10")):
        return False  # math-verify reads no subscripts
    if "=" in given and "=" not in gold:
        left, _, said = given.partition("=")
        if not _names_a_value(left) or (right is not None and "=" in said):
            return False
    if right is None:
        return None
    plain = number(said, words)
    if plain is not None:
        return right.same(plain)
    return False if foreign_words(said, words) or _SEVERAL.search(said) else None


_BASE = re.compile(r"_(?:\{\s*)?(?:\\text\{)?(\d+)[}\s]*$")  # in which a number is written
# of a value that is not one plain number, what says that there are several, or none exactly
_SEVERAL = re.compile(
    r"[,;\n<>]|\\(?:quad|qquad|pm|mp|cup|approx|neq?|sim|leq?|geq?|lt|gt|to|in)(?![a-z])"
    r"|[0-9](?:\s|~|\\[ ,;:!])+[0-9]"
)
_NAMING = re.compile(
    r"\\(?:left|right|angle|triangle|overline|vec|text|textbf|mathrm|mathbf|operatorname|alpha|beta|gamma|theta)"
    r"(?![a-z])|_(?:\w|\{\w+\})"
)


def _names_a_value(left: str) -> bool:
    """Is the left side of an equation a name, and nothing that is still to be solved for one?"""
    return not re.search(r"[\\0-9+\-*/^!<>|]", _NAMING.sub("", left))


def _balanced(text: str) -> bool:
    depth = 0
    for mark in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(mark, 0)
        if depth < 0:
            return False
    return depth == 0


@lru_cache(maxsize=4096)
def _unit_words(text: str) -> frozenset[str]:
    return words_of(text)


def _names(own: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    return usual if own is None else (own,)


def _difficulty(row: Row, worked: str) -> float | None:
    """The row's level ("Level 3", 3), or the lines of work that lead to the answer, as in GSM8K."""
    level = re.search(r"\d+", str(row[1].get("level", "")))
    if level:
        return float(level[0])
    work, mark, _ = worked.rpartition("####")
    return float(len(work.strip().splitlines())) if mark else None
