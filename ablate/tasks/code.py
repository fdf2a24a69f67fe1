"""Code: write a function, or repair one, judged by unit tests in a sandbox (`trial`, `sandbox`).

The program is the last fenced block after the thoughts; without one there is no answer. Rows of your own:

    {"prompt": "Square a number.", "function": "square",
     "tests": [{"args": [3], "returns": 9}, {"args": ["x"], "raises": "TypeError"}]}

`tests` may also be Python: one text or a list of statements. `solution` (a whole program) lets
`python -m ablate.check` prove the tests; `buggy` is a program to repair; `setup` is Python that tests need
first. Rows of MBPP and HumanEval are taken as they are. Arguments and values are plain data: neither objects
of a class nor functions.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ablate.tasks import reading, sandbox
from ablate.tasks.corpus import Corpus
from ablate.tasks.prose import check_range, check_template
from ablate.tasks.sources import Row, Source, text_field
from ablate.tasks.trial import PASSED, Exam, Example, Limits, judge
from ablate.types import Problem, UserError

WRITE = """\
{problem}

Write the Python function `{function}`.{examples}

Answer with the whole program in one ```python block."""
REPAIR = """\
{problem}

This program is wrong:

```python
{buggy}
```

Repair its function `{function}`.{examples}

Answer with the whole program in one ```python block."""


@dataclass
class Code(Corpus):
    """Defaults to MBPP (Austin et al. 2021, arXiv:2108.07732). template, repair_template: the prompts, with
    the fields {problem}, {function}, {examples} and, to repair, {buggy}. shown: tests that the prompt shows.
    seconds: of processor time, of a program for all its tests. memory_mb: of its address space. tolerance: of
    a value with a fraction.

    unsafe: judge without a sandbox. Then a program may do whatever you may, on your machine.
    """

    train: Source = field(default_factory=lambda: Source("google-research-datasets/mbpp", "full", "train"))
    heldout: Source = field(default_factory=lambda: Source("google-research-datasets/mbpp", "full", "test"))
    template: str = WRITE
    repair_template: str = REPAIR
    shown: int = 1
    seconds: int = 5
    memory_mb: int = 512
    tolerance: float = 1e-6
    unsafe: bool = False

    # without an annotation, this is no field of the configuration
    name = "code"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template(self.template, ("problem", "function", "examples"), "problem")
        check_template(self.repair_template, ("problem", "function", "examples", "buggy"), "buggy")
        check_range("shown", self.shown, 0, 100)
        check_range("seconds", self.seconds, 1, 600)
        check_range("memory_mb", self.memory_mb, 64, 65536)
        check_range("tolerance", self.tolerance, 0.0, 1.0)

    def check(self) -> None:
        """Raises UserError without a sandbox, unless `unsafe`."""
        sandbox.check(self.unsafe, self.name)

    def verify(self, problem: Problem, completion: str) -> bool:
        """Does the program pass every test? Never raises on any text."""
        return self.outcome(problem, completion) == PASSED

    def verify_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[bool]:
        """`verify` for many answers at once."""
        with ThreadPoolExecutor(self._crew_size()) as pool:
            return list(pool.map(self.verify, problems, completions))

    def outcome(self, problem: Problem, completion: str) -> str:
        """`trial.judge`'s word on the program; "unanswered" where there is none."""
        program = reading.code_block(completion, self.think_tags)
        if program is None or not program.strip():
            return "unanswered"
        limits = Limits(self.seconds, self.memory_mb << 20, self.tolerance)
        return judge(program, problem.answer["exam"], limits, self.unsafe)

    def answer(self, problem: Problem, completion: str) -> str:
        """What majority votes are counted over: the program, without blank lines and spaces at line ends."""
        program = reading.code_block(completion, self.think_tags) or ""
        return "\n".join(line.rstrip() for line in program.splitlines() if line.strip())

    def solutions(self, problem: Problem, most: int | None = None) -> list[str]:
        """The row's own solution, if it has one."""
        solution = problem.answer["solution"]
        return [f"```python\n{solution}\n```"][:most] if solution else []

    def _examples(self, fields: Any, exam: Exam) -> str:
        shown = "\n".join(_shown(fields, exam)[: self.shown])
        return f" Some of its tests:\n\n```python\n{shown}\n```" if shown else ""

    def _problem(self, row: Row) -> Problem:
        exam, solution = read_exam(row)
        where, fields = row
        buggy = fields.get("buggy")
        if buggy is not None and not isinstance(buggy, str):
            raise UserError(f"{where}: 'buggy' is {buggy!r}, not a program")
        if buggy is None or fields.get("prompt"):
            text = text_field(row, ("prompt", "text", "problem"), "").strip()
        else:
            text = ""
        values = {"problem": text, "function": exam.entry, "examples": self._examples(fields, exam)}
        if buggy is None:
            prompt = self.template.format(**values)
        else:
            prompt = self.repair_template.format(**values, buggy=buggy.strip("\n"))
        return Problem(
            id=f"{text} {exam.entry} {buggy or ''}",
            prompt=prompt.strip(),
            answer={"exam": exam, "solution": solution},
            difficulty=float(len(solution.strip().splitlines())) if solution else None,
        )


def read_exam(row: Row) -> tuple[Exam, str]:
    """The tests of a row, and its own solution ("" without one). Raises UserError, naming the row."""
    where, fields = row
    solution = str(fields.get("solution") or fields.get("code") or "").replace("\r\n", "\n")
    setup = _lines(fields.get("setup") or fields.get("test_setup_code") or fields.get("test_imports") or "")
    tests = next((fields[name] for name in ("tests", "test_list", "test") if fields.get(name)), None)
    if tests is None:
        known = ", ".join(map(repr, fields)) or "no fields"
        raise UserError(f"{where}: no 'tests' among {known}")
    if fields.get("canonical_solution"):  # of HumanEval: the prompt is the program's beginning
        setup = str(fields["prompt"])
        solution = setup + str(fields["canonical_solution"])
    entry = fields.get("function") or fields.get("entry_point")
    if isinstance(tests, list) and all(isinstance(test, dict) for test in tests):
        if not isinstance(entry, str) or not entry.isidentifier():
            raise UserError(f"{where}: no 'function': name the function that the tests call")
        examples = tuple(_example(test, f"{where}, test {i}") for i, test in enumerate(tests, start=1))
        return Exam(entry, examples), solution
    text = _lines(tests)
    if not text.strip():
        raise UserError(f"{where}: 'tests' is {tests!r}: neither Python nor a list of examples")
    called = _called(text, f"{where}, tests")
    defined = _defined(solution, f"{where}, solution") if solution else set()
    mentioned = [name for name in called if name in defined]
    entry = entry or next(iter(mentioned), None)
    if not isinstance(entry, str) or not entry.isidentifier():
        raise UserError(f"{where}: no 'function', and no solution that says which one the tests call")
    inside = _defined(setup, f"{where}, setup") - {entry}
    names = tuple(dict.fromkeys([entry, *(name for name in mentioned if name not in inside)]))
    return Exam(entry, (), text, names, setup), solution


def _example(test: dict[str, Any], where: str) -> Example:
    unknown = sorted(test.keys() - {"args", "kwargs", "returns", "raises"})
    if unknown or ("returns" in test) == ("raises" in test):
        problem = f"unknown {unknown[0]!r}" if unknown else "one of 'returns' and 'raises' is needed"
        raise UserError(f"{where}: {problem}; a test has args, kwargs, and what it returns or raises")
    args, kwargs = test.get("args", []), test.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise UserError(f"{where}: 'args' must be a list and 'kwargs' an object")
    return Example(args, tuple(kwargs.items()), test.get("returns"), test.get("raises"))


def _shown(fields: Any, exam: Exam) -> list[str]:
    """Tests as Python statements, where there are several."""
    if exam.examples:
        return [_statement(exam.entry, example) for example in exam.examples if example.raises is None]
    statements = fields.get("tests") or fields.get("test_list")
    return [str(test) for test in statements] if isinstance(statements, list) else []


def _statement(entry: str, example: Example) -> str:
    words = [*map(repr, example.args), *(f"{name}={value!r}" for name, value in example.kwargs)]
    return f"assert {entry}({', '.join(words)}) == {example.returns!r}"


def _lines(value: Any) -> str:
    """Python as one text; a list is one statement after the other."""
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return value.replace("\r\n", "\n") if isinstance(value, str) else ""


def _parsed(program: str, where: str) -> ast.Module:
    try:
        return ast.parse(program)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{where}: not Python ({error})") from None


def _called(program: str, where: str) -> list[str]:
    """Names that are called, in their order."""
    nodes = ast.walk(_parsed(program, where))
    calls = [node.func for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    calls.sort(key=lambda name: (name.lineno, name.col_offset))
    return list(dict.fromkeys(name.id for name in calls))


def _defined(program: str, where: str) -> set[str]:
    """Functions and classes at the top of a program."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name for node in _parsed(program, where).body if isinstance(node, kinds)}
