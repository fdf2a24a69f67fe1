"""Problems of code: rows of several shapes, prompts, verdicts."""

import json
import time

import pytest
from boxes import needs_sandbox

from ablate.tasks.code import Code
from ablate.types import UserError

OWN = {
    "prompt": "Square a number.",
    "function": "square",
    "tests": [{"args": [3], "returns": 9}, {"kwargs": {"x": "a"}, "raises": "TypeError"}],
    "solution": "def square(x):\n    return x * x\n",
}
REPAIR = {
    "prompt": "Count the items.",
    "function": "count",
    "buggy": "def count(x):\n    return len(x) + 1\n",
    "tests": ["assert count([]) == 0", "assert count([1, 2]) == 2"],
    "solution": "def count(x):\n    return len(x)\n",
}
MBPP = {
    "task_id": 2,
    "text": "Write a function to find what two tuples share.",
    "code": "def shared(a, b):\r\n  res = tuple(set(a) & set(b))\r\n  return (res) ",
    "test_list": [
        "assert set(shared((3, 4, 5, 6),(5, 7, 4, 10))) == set((4, 5))",
        "assert shared((), ()) == ()",
    ],
    "test_setup_code": "",
    "challenge_test_list": [],
}
SANITIZED = {
    "source_file": "x",
    "task_id": 4,
    "prompt": "Write a function for the hypotenuse.",
    "code": "import math\ndef hypotenuse(a, b):\n  return math.hypot(a, b)",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(hypotenuse(3, 4), 5)"],
}
HUMANEVAL = {
    "task_id": "HumanEval/x",
    "prompt": "import math\n\n\ndef poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n\n"
    'def find_zero(xs):\n    """ The zero of a line.\n    """\n',
    "entry_point": "find_zero",
    "canonical_solution": "    return -xs[0] / xs[1]\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert poly([1, 2], candidate([1, 2])) == 0\n",
}
ROWS = [OWN, REPAIR, MBPP, SANITIZED, HUMANEVAL]


def task_of(folder, rows, **settings):
    path = folder / "code.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return Code(path=str(path), **{"heldout_percent": 40, **settings})


def problems_of(task):
    found = [task.problem(0, s, i) for s in ("train", "tuning", "heldout") for i in range(task.size(s))]
    return {problem.answer["exam"].entry: problem for problem in found}


@needs_sandbox
def test_every_shape_of_row_proves_itself(tmp_path):
    task = task_of(tmp_path, ROWS)
    problems = problems_of(task)
    assert set(problems) == {"square", "count", "shared", "hypotenuse", "find_zero"}
    for problem in problems.values():
        assert task.outcome(problem, task.solutions(problem)[0]) == "passed"
        assert task.outcome(problem, "```python\ndef f(): pass\n```") == "undefined"
    buggy = f"```python\n{REPAIR['buggy']}```"
    assert task.outcome(problems["count"], buggy) == "wrong"


def test_prompts_say_what_is_asked_and_show_so_many_tests(tmp_path):
    problems = problems_of(task_of(tmp_path, ROWS))
    assert problems["square"].prompt == (
        "Square a number.\n\nWrite the Python function `square`. Some of its tests:\n\n```python\n"
        "assert square(3) == 9\n```\n\nAnswer with the whole program in one ```python block."
    )
    count = problems["count"].prompt
    assert REPAIR["buggy"].strip() in count and "Repair its function `count`." in count
    assert REPAIR["tests"][0] in count and REPAIR["tests"][1] not in count
    assert MBPP["test_list"][0] in problems["shared"].prompt
    assert problems["find_zero"].prompt.startswith(HUMANEVAL["prompt"].strip())
    hidden = problems_of(task_of(tmp_path, ROWS, shown=0))
    assert "assert" not in "".join(problem.prompt for problem in hidden.values())


@needs_sandbox
def test_the_program_is_the_last_block_after_the_thoughts(tmp_path):
    task = task_of(tmp_path, ROWS)
    problem = problems_of(task)["square"]
    right, wrong = (
        "```python\ndef square(x):\n    return x * x\n```",
        "```python\ndef square(x): return x\n```",
    )
    assert task.verify(problem, f"<think>{wrong}</think>First\n{wrong}\nno:\n{right}\nDone.")
    assert not task.verify(problem, f"{right}\n{wrong}")
    for text in (
        "",
        "def square(x): return x * x",
        f"<think>{right}",
        "```python\ndef square(x):",
        "```\n\n```",
    ):
        assert task.outcome(problem, text) == "unanswered"
    assert task.outcome(problem, "```python\ndef square(x) return\n```") == "raised SyntaxError"
    for text in (
        "\x00",
        "\ud800",
        "(" * 100_000,
        "x = " + "-" * 100_000 + "1",
        "x = [" * 5000,
        "#" * 1_000_000,
    ):
        assert not task.verify(problem, f"```python\n{text}\n```")


@needs_sandbox
def test_many_answers_are_judged_side_by_side_and_apart(tmp_path):
    task = task_of(tmp_path, ROWS, workers=4)
    problem = problems_of(task)["square"]
    sleeper = "```python\nimport time\ndef square(x):\n    time.sleep(0.7)\n    return x * x\n```"
    wrong = "```python\ndef square(x): return x\n```"
    started = time.monotonic()
    verdicts = task.verify_all([problem] * 8, [sleeper, wrong] * 4)
    # a row of them would sleep for 5.6 s (two tests each)
    assert verdicts == [True, False] * 4 and time.monotonic() - started < 5.0
    assert task.verify_all([], []) == []


def test_votes_are_for_programs(tmp_path):
    task = task_of(tmp_path, ROWS)
    problem = problems_of(task)["square"]
    one, other = "```python\nx = 1  \n\ny = 2\n```", "```\nx = 1\ny = 2\n```"
    assert task.answer(problem, one) == task.answer(problem, other) == "x = 1\ny = 2"
    assert task.answer(problem, "no block") == ""


BAD = [
    ({"prompt": "x", "function": "f"}, "no 'tests' among 'prompt', 'function'"),
    ({"prompt": "x", "tests": [{"args": []}]}, "no 'function': name the function that the tests call"),
    (
        {"prompt": "x", "function": "f", "tests": [{"args": []}]},
        "test 1: one of 'returns' and 'raises' is needed",
    ),
    ({"prompt": "x", "function": "f", "tests": [{"arg": [], "returns": 1}]}, "test 1: unknown 'arg'"),
    ({"prompt": "x", "function": "f", "tests": [{"args": 3, "returns": 1}]}, "'args' must be a list"),
    ({"prompt": "x", "function": "f g", "tests": [{"args": [], "returns": 1}]}, "no 'function'"),
    ({"prompt": "x", "tests": "assert f(1) == 1"}, "no 'function', and no solution"),
    ({"prompt": "x", "function": "f", "tests": "assert f(1) == "}, "tests: not Python"),
    ({"prompt": "x", "tests": "assert f(1) == 1", "solution": "def f(x"}, "solution: not Python"),
    ({"prompt": "x", "function": "f", "tests": 7}, "'tests' is 7: neither Python nor a list of examples"),
    ({"function": "f", "tests": "assert f(1)"}, "no 'prompt' or 'text' or 'problem'"),
    ({"function": "f", "tests": "assert f(1)", "buggy": 3}, "'buggy' is 3, not a program"),
]


@pytest.mark.parametrize(("row", "message"), BAD)
def test_a_bad_row_is_named(tmp_path, row, message):
    task = task_of(tmp_path, [OWN, row])
    with pytest.raises(UserError) as caught:
        task.size("train")
    assert str(caught.value).startswith(f"{tmp_path / 'code.jsonl'}:2") and message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": 0}, "task.seconds=0 must be in 1..600"),
        ({"memory_mb": 1}, "task.memory_mb=1 must be in 64..65536"),
        ({"shown": -1}, "task.shown=-1 must be in 0..100"),
        ({"repair_template": "{problem}"}, "task.template has no field {buggy}"),
        ({"template": "{problem} {buggy}"}, "task.template has the field {buggy}"),
    ],
)
def test_a_bad_setting_is_named(settings, message):
    with pytest.raises(UserError) as caught:
        Code(**settings)
    assert message in str(caught.value)
