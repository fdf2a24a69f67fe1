"""Trials: what programs return, compared outside; tests in Python run as they are."""

import pytest
from boxes import Quick, needs_sandbox
from hostile import program

from ablate.tasks.trial import PASSED, Exam, Example, Limits, judge

pytestmark = needs_sandbox

SQUARE = Exam("f", (Example((3,), (), 9), Example((0.1,), (), 0.01), Example(("x",), raises="TypeError")))


def written(text, *names, setup=""):
    return Exam("f", tests=text, names=("f", *names), setup=setup)


OUTCOMES = [
    ("return x * x", SQUARE, PASSED),
    ("return x * x * (1 + 1e-9)", Exam("f", (Example((0.5,), (), 0.25),)), PASSED),
    ("return x * x + 1", SQUARE, "wrong"),
    ("return x ** 2 if isinstance(x, float) else 9", SQUARE, "wrong"),  # of "x", too
    ("return {3: 9, 0.1: 0.01}[x]", SQUARE, "raised KeyError"),
    ("raise ValueError", SQUARE, "raised ValueError"),
    ("return object()", SQUARE, "raised Unencodable"),
    ("return True", Exam("f", (Example((1,), (), 1),)), "wrong"),
    ("return (1, [2])", Exam("f", (Example((1,), (), [1, [2]]),)), PASSED),
    ("return {1: x}", Exam("f", (Example((2,), (), {"1": 2}),)), PASSED),
    ("return None", Exam("f", (Example((2,)),)), PASSED),
    ("return 1", Exam("g", (Example((2,), (), 1),)), "undefined"),
    ("return 1", Exam("f"), "untested"),
    ("return x + x", Exam("f", (Example((), (("x", "ab"),), "abab"),)), PASSED),
    # tests in Python
    ("return x * x", written("assert f(3) == 9\nassert f(x=2) == 4"), PASSED),
    ("return x * x", written("def check(candidate):\n    assert candidate(3) == 9"), PASSED),
    ("return x", written("def check(candidate):\n    assert candidate(3) == 9"), "wrong"),
    ("return x * x", written("def test_one():\n    from solution import f\n    assert f(3) == 9"), PASSED),
    ("return x", written("def test_one():\n    assert f(3) == 9"), "wrong"),
    (
        "return x * x",
        written("assert near(f(0.1), 0.01)", setup="def near(a, b): return abs(a - b) < 1e-9"),
        PASSED,
    ),
    ("x.sort()", written("l = [3, 1, 2]\nassert f(l) is None\nassert l == [1, 2, 3]"), PASSED),
    ("x.update(a=1)", written("d = {}\nf(d)\nassert d == {'a': 1}"), PASSED),
    ("return sorted(x)", written("l = [3, 1]\nassert f(l) == [1, 3] and l == [3, 1]"), PASSED),
    ("return {(1, 2): {3}}, b'x', 1j", written("assert f(0) == ({(1, 2): {3}}, b'x', 1j)"), PASSED),
    ("yield from x", written("assert list(f([1, 2])) == [1, 2]"), PASSED),
    (
        "raise IndexError",
        written("try:\n    f(0)\nexcept IndexError:\n    pass\nelse:\n    assert False"),
        PASSED,
    ),
    ("return 0", written("try:\n    f(0)\nexcept IndexError:\n    pass\nelse:\n    assert False"), "wrong"),
    ("sys.exit(0)", written("assert f(0) == 1"), "raised RuntimeError"),
    (
        "b''.decode('utf-8'); b'\\xff'.decode()",
        written("try:\n    f(0)\nexcept ValueError:\n    pass"),
        PASSED,
    ),
    # tests that test nothing
    ("return 1", written("assert True"), "untested"),
    ("return 1", written("def helper():\n    assert f(1) == 1"), "untested"),
    ("return 1", written("import sys\nsys.exit(0)"), "raised SystemExit"),
    ("return 1", written("f("), "raised SyntaxError"),
    ("return 1", written("f(len)"), "raised Unencodable"),
]


@pytest.mark.parametrize(("body", "exam", "outcome"), OUTCOMES)
def test_outcomes(body, exam, outcome):
    assert judge(program(body), exam, Limits()) == outcome


SUITE = """
import unittest

class Test(unittest.TestCase):
    def setUp(self):
        self.three = 3

    def test_square(self):
        self.assertEqual(f(self.three), 9)

    def test_text(self):
        with self.assertRaises(TypeError):
            f("x")
"""
SKIPPED = (
    "import unittest\n\nclass Test(unittest.TestCase):\n    @unittest.skip('')\n    def test_f(self): f(1)"
)


def test_unittest_suites():
    assert judge(program("return x * x"), written(SUITE), Limits()) == PASSED
    assert judge(program("return 9"), written(SUITE), Limits()) == "wrong"
    assert judge(program("return x * x"), written(SKIPPED), Limits()) == "raised NoTests"


@pytest.mark.parametrize("first", ["", "from __future__ import annotations"])
def test_classes_may_look_up_the_module_that_they_are_in(first):
    source = f"""{first}
from dataclasses import dataclass

@dataclass
class Node:
    value: int
    next: "Node" = None

def f(x):
    return Node(x, Node(x)).next.value
"""
    assert judge(source, Exam("f", (Example((3,), (), 3),)), Limits()) == PASSED


def test_functions_beside_the_one_under_test_are_called_too():
    exam = written("assert f(g(3)) == 36", "g")
    both = "def g(x):\n    return 2 * x\n\ndef f(x):\n    return x * x\n"
    assert judge(both, exam, Limits()) == PASSED
    assert judge(program("return x * x"), exam, Limits()) == "undefined"


def test_time_and_memory_are_the_whole_trials():
    """Not one call's: a program cannot take a little too long often."""
    slow = program("t = time.process_time()\nwhile time.process_time() - t < 0.15: pass\nreturn 1")
    assert judge(slow, Exam("f", (Example((0,), (), 1),)), Quick()) == PASSED
    assert judge(slow, Exam("f", (Example((0,), (), 1),) * 20), Quick()) in ("ended", "time")
    hog = "kept = []\n\ndef f(x):\n    kept.append(bytearray(1 << 26))\n    return 1\n"
    assert judge(hog, Exam("f", (Example((0,), (), 1),)), Quick()) == PASSED
    assert judge(hog, Exam("f", (Example((0,), (), 1),) * 5), Quick()) == "raised MemoryError"


def test_tests_that_hang_are_over_in_time():
    assert judge(program("return 1"), written("f(1)\nwhile True: pass"), Quick()) in ("ended", "time")


def test_without_a_sandbox_it_is_the_same_judge():
    assert judge(program("return x * x"), SQUARE, Limits(), unsafe=True) == PASSED
    assert judge(program("return x"), SQUARE, Limits(), unsafe=True) == "wrong"
    assert (
        judge(program("return os.path.exists('/etc')"), Exam("f", (Example((0,), (), True),)), Limits(), True)
        == PASSED
    )
    assert judge(program("while True: pass"), SQUARE, Quick(), unsafe=True) in ("ended", "time")
