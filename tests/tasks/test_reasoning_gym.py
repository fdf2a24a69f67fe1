"""Reasoning Gym: problems hashed, scores made strict, and nothing that it is told run as a program."""

import re
import time
from pathlib import Path

import pytest
from boxes import needs_sandbox
from hypothesis import given
from hypothesis import strategies as st

from ablate.tasks.gym_worker import is_arithmetic
from ablate.tasks.reasoning_gym import ReasoningGym, generators
from ablate.types import UserError

library = pytest.mark.skipif(
    not generators(),
    reason="reasoning-gym is not installed (the extra [reasoning-gym]; it needs a C compiler)",
)

# whose scorers evaluate what they are given, and what runs a program there
EVALUATE = {
    "string_insertion": "open(PLACE, 'w')",
    "spiral_matrix": "[open(PLACE, 'w')]",
    "binary_matrix": "open(PLACE, 'w')",
    "n_queens": "open(PLACE, 'w')",
    "countdown": "open(PLACE, 'w')",
    "puzzle24": "open(PLACE, 'w')",
    "polynomial_multiplication": "open(PLACE, 'w')",
    "simple_integration": "open(PLACE, 'w')",
    "intermediate_integration": "open(PLACE, 'w')",
}


@pytest.fixture(scope="module")
def sums():
    return ReasoningGym(workers=1)


def right_answers(task, count, split="train"):
    problems = [task.problem(0, split, i) for i in range(count)]
    return problems, [task.solutions(problem)[0] for problem in problems]


@library
def test_right_answers_pass_and_nothing_else(sums):
    problems, answers = right_answers(sums, 10)
    assert all(sums.verify_all(problems, answers))
    assert not any(sums.verify_all(problems, answers[1:] + answers[:1]))
    problem, gold = problems[0], problems[0].answer["answer"]
    assert sums.verify(problem, f"<think>1</think>It is <answer> {gold} </answer>.")
    for text in (
        "",
        gold,
        f"<answer>{gold}",
        f"<think><answer>{gold}</answer>",
        f"<answer>{gold}</answer><answer>1</answer>",
    ):
        assert not sums.verify(problem, text), text
    assert (
        sums.answer(problem, answers[0]) == gold and sums.behaviours(problem, answers[0])["answered"] == 1.0
    )


@library
def test_partial_credit_is_none():
    """Countdown pays 0.05 for numbers that miss the target; others pay for what holds the answer."""
    task = ReasoningGym(generator="countdown", workers=1)
    problem = task.problem(0, "train", 0)
    assert task.verify(problem, task.solutions(problem)[0])
    gold = problem.answer["answer"]
    assert not task.verify(problem, f"<answer>{gold} + 0</answer>")
    assert not task.verify(problem, f"<answer>{re.sub('[-+]', '*', gold)}</answer>")
    words = ReasoningGym(generator="spell_backward", workers=1)
    problem = words.problem(0, "train", 0)
    assert not words.verify(problem, f"<answer>it is {problem.answer['answer']}</answer>")


@library
def test_problems_are_hashed_and_alike_in_every_process(sums):
    again = ReasoningGym(workers=1)
    stream = [sums.problem(0, "train", i) for i in range(60)]
    assert stream[:20] == [again.problem(0, "train", i) for i in range(20)]
    near = {sums.problem(1, "train", i).prompt for i in range(60)}
    assert len(near & {problem.prompt for problem in stream}) < 5
    assert sums.problem(0, "heldout", 3) == sums.problem(9, "heldout", 3)
    pools = [{sums.problem(0, s, i).cluster for i in range(60)} for s in ("train", "tuning", "heldout")]
    assert not pools[0] & pools[1] and not (pools[0] | pools[1]) & pools[2]


@library
def test_a_generator_that_walks_through_sets_is_alike_in_every_process():
    """Its order hangs on how texts hash, which Python draws anew for every process unless told."""
    one, other = (ReasoningGym(generator="isomorphic_strings", workers=1) for _ in range(2))
    assert [one.problem(0, "train", i) for i in range(5)] == [other.problem(0, "train", i) for i in range(5)]


@library
def test_settings_reach_the_generator():
    task = ReasoningGym(
        settings={"min_terms": 5, "max_terms": 5, "min_digits": 1, "max_digits": 1}, workers=1
    )
    question = task.problem(0, "train", 0).prompt.splitlines()[0]
    assert len(re.findall(r"(?<!\d)\d(?!\d)", question)) == 5
    assert task.problem(0, "train", 0) != ReasoningGym(workers=1).problem(0, "train", 0)


@library
@pytest.mark.parametrize("name", EVALUATE)
def test_no_answer_is_run_as_a_program(name, tmp_path):
    task = ReasoningGym(generator=name, workers=1)
    problem = task.problem(0, "train", 0)
    place = tmp_path / "run"
    for text in (
        EVALUATE[name],
        "__import__('pathlib').Path(PLACE).touch()",
        "().__class__.__base__.__subclasses__()",
    ):
        assert not task.verify(problem, f"<answer>{text.replace('PLACE', repr(str(place)))}</answer>")
    assert not place.exists()
    assert task.verify(problem, task.solutions(problem)[0])


@library
def test_the_scorers_that_evaluate_are_the_known_ones():
    """A new version of the library must not bring another without being noticed."""
    import importlib.util

    folder = Path(importlib.util.find_spec("reasoning_gym").submodule_search_locations[0])
    found = set()
    for path in folder.rglob("*.py"):
        text = path.read_text()
        scorer = re.search(r"def score_answer\(.*?(?=\n    def |\nclass |\Z)", text, re.DOTALL)
        name = re.search(r'^DATASET_NAME\s*=\s*"(\w+)"', text, re.MULTILINE)
        if (
            name
            and scorer
            and re.search(r"\beval\(|\bexec\(|parse_expr|sympify|compile\(|subprocess|pickle", scorer[0])
        ):
            found.add(name[1])
    assert found - {"number_sorting"} == set(EVALUATE)  # which evaluates its own answer


TOO_KIND = {
    "coin_flip": ["0", "0.", ""],
    "game_of_life_halting": ["0", "maybe", "no", "True or False"],
    "puzzle24": ["(5*5 - 1)/1", "6*4*1*1", "24*1*1*1", "5*5 - 1/2*1"],
}


@library
@pytest.mark.parametrize("name", TOO_KIND)
def test_scorers_that_are_too_kind_are_made_strict(name):
    task = ReasoningGym(generator=name, workers=1)
    problems, answers = right_answers(task, 12)
    assert all(task.verify_all(problems, answers))
    for problem in problems:
        texts = [text for text in TOO_KIND[name] if sorted(text) != sorted(problem.answer["answer"])]
        assert not any(
            task.verify_all([problem] * len(texts), [f"<answer>{text}</answer>" for text in texts])
        )


@library
def test_an_integral_is_no_answer_to_itself():
    task = ReasoningGym(generator="intermediate_integration", workers=1)
    for i in range(8):
        problem = task.problem(0, "train", i)
        integrand = re.search("(?:∫|integral of|of) (.*?)(?: dx| with|\\n)", problem.prompt)[1]
        assert not task.verify(problem, f"<answer>Integral({integrand}, x) + C</answer>")
        assert all("Integral" not in text for text in task.solutions(problem))


@library
def test_answers_that_take_too_long_are_wrong_and_the_next_is_judged():
    task = ReasoningGym(generator="countdown", workers=1, seconds=2)
    problem = task.problem(0, "train", 0)
    started = time.monotonic()
    assert not task.verify(problem, "<answer>9**9**9**9</answer>")
    assert time.monotonic() - started < 15
    assert task.verify(problem, task.solutions(problem)[0])


@library
@needs_sandbox
def test_codeio_runs_its_programs_in_the_sandbox(monkeypatch):
    task = ReasoningGym(generator="codeio", workers=1)
    task.check()
    problems, answers = right_answers(task, 2)
    assert all(task.verify_all(problems, answers))
    monkeypatch.setattr("ablate.tasks.sandbox._problem", lambda: "there is none")
    with pytest.raises(UserError, match=r"needs a sandbox: there is none; task\.unsafe=true"):
        task.check()


@library
@pytest.mark.slow
@pytest.mark.parametrize("name", generators())
def test_every_generator_proves_itself(name):
    task = ReasoningGym(generator=name, workers=1, seconds=60)
    task.check()
    problems = [task.problem(0, split, i) for split in ("train", "heldout") for i in range(2)]
    right = [(problem, text) for problem in problems for text in task.solutions(problem)]
    assert all(task.verify_all([problem for problem, _ in right], [text for _, text in right]))
    assert not any(task.verify_all(problems, ["<answer>\x00</answer>"] * len(problems)))
    # what it has no answer of its own for, it scores whatever solves the problem
    assert right or name in ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour")


@library
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"generator": "chain_sun"},
            "unknown task.generator=chain_sun; did you mean chain_sum?; choices: ab, ",
        ),
        ({"generator": "composite"}, "unknown task.generator=composite"),
        ({"settings": {"min_term": 2}}, "unknown setting min_term; did you mean min_terms?"),
        ({"settings": {"min_terms": 0}}, 'task.settings={"min_terms": 0}: min_terms must be positive'),
        ({"settings": {"seed": 1}}, "unknown setting seed"),
    ],
)
def test_a_mistake_is_told_by_the_check(settings, message):
    with pytest.raises(UserError) as caught:
        ReasoningGym(workers=1, **settings).check()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_library_the_extra_is_named(monkeypatch):
    generators.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    try:
        with pytest.raises(UserError, match=r"pip install 'ablate\[reasoning-gym\]'"):
            ReasoningGym().check()
    finally:
        generators.cache_clear()


ARITHMETIC = [
    "1 + 2",
    "(3*4)/5 - 6",
    "2**3",
    "x**2 + 3*x - 1",
    "sin(x) + C",
    "exp(2*x)/2",
    "-1.5e3",
    "log(x)",
    "",
    "x_1",
]
PROGRAMS = [
    *(
        "__import__('os')",
        "().__class__",
        "x.y",
        "open(1)",
        "lambda x: x",
        "[1]",
        "{1}",
        "'a'",
        '"a"',
        "f(x)(y)__",
        "a;b",
    ),
    *(
        "exec(1)",
        "eval(1)",
        "x\\",
        "# x",
        "ab(1)",
        "1 if 1 else 2",
        "x := 1",
        "@",
        "\x00",
        "ｅxec(1)",
        "S.Half",
        "1." + "j" * 9,
    ),
]


@pytest.mark.parametrize("text", ARITHMETIC)
def test_arithmetic_is_let_through(text):
    assert is_arithmetic(text)


@pytest.mark.parametrize("text", PROGRAMS)
def test_programs_are_not(text):
    assert not is_arithmetic(text)


@given(st.text())
def test_no_attribute_no_text_and_no_long_name_is_arithmetic(text):
    if is_arithmetic(text):
        assert not re.search(r"""['"\[\]{}\\:;@#]|\.\s*[A-Za-z]|__""", text)
