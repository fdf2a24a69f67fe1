"""Verdicts on answers to problems of mathematics: on all of GSM8K, by math-verify, and on hostile answers."""

import json
import time
from dataclasses import replace
from decimal import Decimal

import pytest
from gsm8k import GSM8K, needs_gsm8k

from ablate.tasks.math import Math, compare
from ablate.types import Problem, UserError

math_verify = pytest.importorskip("math_verify", reason="math-verify is not installed (the extra [math])")

ROWS = [
    {"question": "Two and two?", "answer": "2+2 = <<2+2=4>>4\n#### 4"},
    {"problem": "Half of three?", "solution": "It is $\\boxed{\\frac{3}{2}}$.", "level": "Level 2"},
    {"prompt": "A name?", "answer": "Evelyn", "level": 5},
    {"problem": "Seven?", "answer": 7},
]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Problems of one's own, and a process that is started once."""
    path = tmp_path_factory.mktemp("math") / "own.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    return Math(path=str(path), heldout_percent=50, workers=1)


def problem(gold, text=""):
    return Problem("id", "prompt", {"answer": gold, "text": text})


# -- GSM8K --------------------------------------------------------------------------------------------------

RENDERINGS = [
    *(
        "\\boxed{{{}}}",
        "so \\boxed{{\\${}}}.",
        "\\boxed{{{}\\text{{ dollars}}}}",
        "\\boxed{{{}.}}",
        "#### {}",
    ),
    *(
        "#### ${}",
        "#### {} miles.",
        "The answer is {}.",
        "It costs ${}.",
        "**{}**",
        "<think>1</think>\\boxed{{{}}}",
    ),
    *("\\boxed{{x = {}}}", "$\\boxed{{{}}}$", "\\[ \\boxed{{{}}} \\]"),
]


def written(value):
    """A number as it may be written: plainly, with separators, with decimals."""
    value = Decimal(value)
    whole = value == value.to_integral_value()
    forms = {f"{value:f}", f"{value:,f}"} | (
        {f"{value:.2f}", f"{value:,.0f}".replace(",", "{,}")} if whole else set()
    )
    return sorted(forms)


@pytest.fixture(scope="module")
def gsm8k():
    task = Math(path=str(GSM8K))
    return task, [task.problem(0, "heldout", i) for i in range(task.size("heldout"))]


@needs_gsm8k
def test_every_answer_of_gsm8k_verifies_however_it_is_written(gsm8k):
    task, problems = gsm8k
    assert len(problems) == 1319
    assert all(task.verify_all(problems, [task.solutions(p)[0] for p in problems]))
    for form in RENDERINGS:
        for p in problems:
            for text in written(p.answer["answer"].replace(",", "")):
                if "{," in text and "boxed" not in form:
                    continue  # LaTeX, in prose
                assert task.verify(p, form.format(text)), (p.answer["answer"], form.format(text))


@needs_gsm8k
def test_no_wrong_number_ever_verifies(gsm8k):
    task, problems = gsm8k
    for p in problems:
        right = Decimal(p.answer["answer"].replace(",", ""))
        wrong = {
            right + 1,
            right - 1,
            -right,
            right * 10,
            right / 10,
            right + Decimal("0.5"),
            right * 1000,
            2 * right,
        }
        wrong |= {right + Decimal("0.0001"), right * 100}
        for value in wrong - {right}:
            for form in RENDERINGS:
                text = form.format(f"{value:f}")
                assert not task.verify(p, text), (p.answer["answer"], text)


@needs_gsm8k
def test_formulas_of_every_answer_of_gsm8k(gsm8k):
    """The same through math-verify."""
    task, problems = gsm8k
    numbers = [int(p.answer["answer"].replace(",", "")) for p in problems]
    right = [f"\\boxed{{\\frac{{{3 * n}}}{{3}}}}" for n in numbers]
    assert all(task.verify_all(problems, right))
    wrong = [f"\\boxed{{\\frac{{{3 * n + 1}}}{{3}}}}" for n in numbers]
    assert not any(task.verify_all(problems, wrong))


@needs_gsm8k
def test_gsm8k_is_split_and_described():
    task = Math(path=str(GSM8K))
    assert task.size("train") + task.size("tuning") + task.left_out() == 7473
    assert 300 < task.size("tuning") < 450
    clusters = [
        {task.problem(0, s, i).cluster for i in range(task.size(s))} for s in ("train", "tuning", "heldout")
    ]
    assert not clusters[0] & clusters[1] and not clusters[0] & clusters[2] and not clusters[1] & clusters[2]
    assert {task.problem(0, "heldout", i).stratum for i in range(50)} == {"easy", "medium", "hard"}


# -- formulas -----------------------------------------------------------------------------------------------


def pairs(table):
    """gold, given: one pair a line."""
    return [tuple(line.split(" <- ")) for line in table.strip().splitlines()]


SAME = pairs(r"""
18 <- \frac{36}{2}
18 <- x=18
18 <- 5+13
18 <- 18^1
18 <- \frac{36}{2}\text{ dollars}
\frac{1}{2} <- 0.5
\frac12 <- \dfrac{1}{2}
x^2+1 <- 1+x^2
2k+2 <- 2(k+1)
\text{Evelyn} <- Evelyn
(1,2) <- (1, 2)
\{1,2\} <- 2,1
y=2x+3 <- y = 3+2x
11\sqrt2 <- 11\sqrt{2}
5.5 <- 5\frac{1}{2}
10\% <- 0.1
[-2,7] <- x \in [-2,7]
(3,4) <- (x,y) = (3,4)
60 <- \angle ABC = 60^\circ
1,080 <- 1080
18 <- \text{18 dollars}
54 <- 54_{10}
4210_{5} <- 4210_5
\$5 <- 5
""")
DIFFERENT = pairs(r"""
18 <- 17 = 18
18 <- 2x = 18
18 <- \sqrt{x} = 18
18 <- x = 17 = 18
18 <- 18 = 17
18 <- 18\text{ thousand}
18 <- 18 or 19
18 <- 18, 19
18 <- 18, 18
18 <- 18 \pm 0
37 <- 18 19
37 <- 18\ 19
37 <- 18~19
2.5 <- 5 1/2
18 <- \approx 18
18 <- x > 18
18 <- 18!
18 <- 18^2
18 <- not 18
18 <- \text{not }18
18 <- 18x
18 <- 18.0000001
1 <- \frac{1}{1}x
\frac{14}{3} <- 4.67
(1,2) <- (2,1)
x^2 <- x^3
\text{Evelyn} <- Eve
4 <- four
18 <- \text{}
4210_{5} <- 4210_{6}
54 <- 54_8
18 <- \int 18
""")


@pytest.mark.parametrize(("gold", "given"), SAME)
def test_formulas_that_say_the_same(task, gold, given):
    assert task.verify(problem(gold), f"\\boxed{{{given}}}")
    assert compare(gold, given, frozenset()) is not False


@pytest.mark.parametrize(("gold", "given"), DIFFERENT)
def test_formulas_that_do_not(task, gold, given):
    assert not task.verify(problem(gold), f"\\boxed{{{given}}}")


HOSTILE = [
    *("9^{9^{9^{9}}}", "10000000!", "\\binom{10000000}{5000000}", "\\sum_{k=1}^{1000000000} \\frac{1}{k^2}"),
    *("(x+1)^{100000}", "\\frac{" * 300 + "}" * 300, "\\sqrt" * 400 + "{2}", "(" * 900, "1+" * 499 + "1"),
    *(
        "9" * 999,
        "(" * 3000,
        "18" + "0" * 2000,
        "__import__('os').system('false')",
        "\\text{" + "a" * 990 + "}",
    ),
    *("\x00", "\ud800", "\\", "%", "&&", "\\begin{matrix}"),
]


def test_hostile_answers_are_wrong_in_bounded_time(task, monkeypatch):
    monkeypatch.setattr(task, "seconds", 1)
    task.verify(problem("18"), "\\boxed{\\frac{36}{2}}")  # starts the process
    for given in HOSTILE:
        for gold in ("x+1", *(["18"] if given in HOSTILE[:2] else [])):
            started = time.monotonic()
            assert not task.verify(problem(gold), f"\\boxed{{{given}}}"), given
            assert time.monotonic() - started < 3 * task.seconds + 4, given
    assert task.verify(problem("18"), "\\boxed{\\frac{36}{2}}")  # and the next answer is judged as ever


def test_verdicts_do_not_depend_on_what_is_asked_together(task):
    mixed = [(g, a, True) for g, a in SAME[:10]] + [(g, a, False) for g, a in DIFFERENT[:10]]
    problems = [problem(gold) for gold, _, _ in mixed]
    answers = [f"\\boxed{{{given}}}" for _, given, _ in mixed]
    assert task.verify_all(problems, answers) == [right for _, _, right in mixed]
    two = replace(task, workers=2)
    assert two.verify_all(problems, answers) == [right for _, _, right in mixed]
    assert task.verify_all([], []) == []


def test_units_may_be_words_of_the_problem(task):
    answer = "\\boxed{18 marbles}"
    assert task.verify(problem("18", "How many marbles?"), answer)
    assert not task.verify(problem("18", "How many stones?"), answer)


def test_majority_votes_count_numbers_in_one_form(task):
    votes = {
        task.answer(problem("18"), f"\\boxed{{{text}}}") for text in ("18", "$18.00", "18 dollars", "018")
    }
    assert votes == {"18"}
    assert task.answer(problem("1000"), "#### 1,000") == "1000"
    assert task.answer(problem("18"), "no number") == ""


# -- rows ---------------------------------------------------------------------------------------------------


def test_rows_of_the_usual_shapes(task):
    problems = [task.problem(0, s, i) for s in ("train", "tuning", "heldout") for i in range(task.size(s))]
    found = {p.answer["text"]: (p.answer["answer"], p.difficulty) for p in problems}
    assert found == {
        "Two and two?": ("4", 1.0),
        "Half of three?": ("\\frac{3}{2}", 2.0),
        "A name?": ("Evelyn", 5.0),
        "Seven?": ("7", None),
    }
    for p in problems:
        assert p.prompt.startswith(p.answer["text"]) and "\\boxed{}" in p.prompt
        assert task.verify(p, task.solutions(p)[0])


BAD = [
    ({"question": "x"}, "no 'answer' or 'solution' among 'question'; task.answer_field= names another field"),
    ({"answer": "1"}, "no 'problem' or 'question' or 'prompt' among 'answer'"),
    ({"question": " ", "answer": "1"}, "'question' is ' ', not a text"),
    ({"question": "x", "answer": "work\n#### "}, "its answer is empty after the mark"),
    ({"question": "x", "answer": ["1"]}, "'answer' is ['1'], not a text"),
]


@pytest.mark.parametrize(("row", "message"), BAD)
def test_a_bad_row_is_named(tmp_path, row, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n\n" + json.dumps(row))
    with pytest.raises(UserError) as caught:
        Math(path=str(path)).size("train")
    assert str(caught.value).startswith(f"{path}:3: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": 0}, "task.seconds=0 must be in 1..60 (nearest: 1)"),
        ({"template": "x"}, "task.template has no field {problem}"),
        ({"template": "{problem} {x}"}, "task.template has the field {x}; the fields are {problem}"),
        ({"template": "{problem} \\boxed{"}, "task.template cannot be read"),
        ({"read": ["boxed", "has"]}, "task.read: unknown place has; did you mean hash?"),
        ({"think_tags": ["<think>"]}, "task.think_tags=[<think>] must be two tags"),
        ({"heldout_percent": 99}, "task.heldout_percent=99 must be in 1..98"),
        ({"workers": 0}, "task.workers=0 must be at least 1"),
    ],
)
def test_a_bad_setting_is_named(settings, message):
    with pytest.raises(UserError) as caught:
        Math(**settings)
    assert message in str(caught.value)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ablate\[math\]'"):
        Math().check()
