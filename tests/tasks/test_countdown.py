import hashlib
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.tasks.countdown import Countdown
from ablate.types import UserError

TASK = Countdown()
SOLVED = [(p, t) for p, t in TASK.demonstrations(5, 400) if TASK.verify(p, t)]
WORDS = [
    *TASK.vocabulary(),
    "04",
    "+4",
    "4_0",
    "٤",
    "²",
    "50",
    "999",
    "1000",
    "</s>",
    "<pad>",
    "",
    "\n\n",
    "OK",
]


def independent_check(problem, text):
    """A second reading of the rules for three numbers: a regular expression and Python's own arithmetic."""
    start = " \n "  # so that a restart follows a newline wherever it stands
    attempts = re.split(r"(?<= \n )no \n ", start + text + ("" if text.endswith(" ") else " "))
    attempt = attempts[-1] if len(attempts) > 1 else attempts[0].removeprefix(start)
    number = r"([1-9][0-9]?)"
    step = rf"{number} ([-+*]) {number} = {number} "
    found = re.fullmatch(rf"{step}, {number} \n {step}\n {number} ok \n ", attempt, re.ASCII)
    if not found:
        return False
    a, op, b, c, rest, d, op2, e, f, claim = found.groups()
    if Counter(map(int, (a, b, rest))) != Counter(problem.answer["numbers"]):
        return False
    if Counter((d, e)) != Counter((c, rest)) or int(f) != problem.answer["target"] or claim != f:
        return False
    for left, sign, right, result in ((a, op, b, c), (d, op2, e, f)):
        if eval(left + sign + right) != int(result) or not 1 <= int(result) <= 49:
            return False
        if sign == "*" and "1" in (left, right):
            return False
    return True


def test_no_single_mutation_fools_the_verifier():
    accepted = 0
    for problem, text in SOLVED[:25]:
        words = text.split(" ")
        for i, word in enumerate(words):
            mutants = [[w] for w in WORDS if w != word] + [[], [word, word], [word, "\n"], [word, ""]]
            for mutant in mutants:
                changed = " ".join([*words[:i], *mutant, *words[i + 1 :]])
                right = TASK.verify(problem, changed)
                assert right == independent_check(problem, changed), changed
                accepted += right
    assert accepted > 1000  # in earlier attempts, where everything is forgiven


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_pile_of_mutations_fools_the_verifier(data):
    problem, text = data.draw(st.sampled_from(SOLVED))
    words = text.split(" ")
    for _ in range(data.draw(st.integers(1, 4))):
        i, j = (data.draw(st.integers(0, len(words))) for _ in range(2))
        match data.draw(st.sampled_from(["replace", "insert", "delete", "swap", "move"])):
            case "replace":
                words[i : i + 1] = [data.draw(st.sampled_from(WORDS))]
            case "insert":
                words[i:i] = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))
            case "delete":
                del words[min(i, j) : max(i, j)]
            case "swap" if max(i, j) < len(words):
                words[i], words[j] = words[j], words[i]
            case "move":
                words[j:j] = words[i : i + 5]
    changed = " ".join(words)
    assert TASK.verify(problem, changed) == independent_check(problem, changed)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_any_text_is_read_without_raising(text):
    problem = TASK.problem(0, "heldout", 3)
    assert TASK.verify(problem, text) == independent_check(problem, text)
    assert TASK.oracle(problem, text) in (0.0, 1.0)
    counts = TASK.behaviours(problem, text)
    assert counts["illegal_steps"] <= counts["steps"] and counts["wrong_checks"] <= counts["checks"]
    assert isinstance(TASK.answer(problem, text), str)


@pytest.mark.parametrize(
    "task", [TASK, Countdown(numbers=2), Countdown(numbers=4, largest=12), Countdown(numbers=5, largest=6)]
)
def test_every_solution_is_accepted(task):
    for split in ("train", "tuning", "heldout"):
        for index in range(0, min(task.size(split), 400), 7):
            problem = task.problem(1, split, index)
            answers = task.solutions(problem, 20)
            assert answers and len(set(answers)) == len(answers)
            for answer in answers:
                assert task.verify(problem, answer) and task.oracle(problem, answer) == 1.0
                assert task.verify(problem, f"1 + 1 = 7 , nonsense \n {task.correction}{answer}".rstrip(" "))
                assert not task.verify(problem, answer + task.correction)
                assert not task.verify(problem, answer + answer)
                assert not task.verify(problem, answer.removesuffix("\n "))


def test_solutions_are_complete():
    problem = TASK.problem(0, "heldout", 0)
    numbers, target = problem.answer["numbers"], problem.answer["target"]
    found = set()
    for code in range(3**2 * 6 * 2 * 2):  # order of numbers, operations, which way round the last step goes
        code, order = divmod(code, 6)
        code, op = divmod(code, 3)
        code, op2 = divmod(code, 3)
        a, b, c = (
            numbers[i] for i in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))[order]
        )
        first = eval(f"{a}{'+-*'[op]}{b}")
        d, e = ((first, c), (c, first))[code % 2]
        last = eval(f"{d}{'+-*'[op2]}{e}")
        text = f"{a} {'+-*'[op]} {b} = {first} , {c} \n {d} {'+-*'[op2]} {e} = {last} \n {target} ok \n "
        if TASK.verify(problem, text):
            found.add(text)
    assert set(TASK.solutions(problem)) <= found

    def canonical(text):
        steps = [line.split(" = ")[0].split(" ") for line in text.split(" \n ")[:2]]
        return [(op, {left, right}) for left, op, right in steps]

    kinds = [canonical(text) for text in TASK.solutions(problem)]
    assert all(canonical(text) in kinds for text in found)


@pytest.mark.parametrize(
    "task, indices", [(TASK, range(0, 1262, 40)), (Countdown(numbers=4, largest=12), (0, 1, 2))]
)
def test_oracle_equals_brute_force(task, indices):
    """Walks every legal attempt; a prefix is alive exactly if some way on is accepted by the verifier."""

    def alive(problem, text, left):
        if len(left) == 1:
            checks = [f"{text}{problem.answer['target']} {word} \n " for word in ("ok", "<", ">")]
            possible = any([task.verify(problem, check) for check in checks])
            assert [task.oracle(problem, check) for check in checks] == [possible, 0.0, 0.0]
        else:
            possible = False
            for i, a in enumerate(left):
                for j, b in enumerate(left):
                    if i == j:
                        continue
                    rest = [n for k, n in enumerate(left) if k not in (i, j)]
                    for op in "+-*":
                        result = eval(f"{a}{op}{b}")
                        others = f", {' '.join(map(str, rest))} " if rest else ""
                        line = f"{a} {op} {b} = {result} {others}\n "
                        if 1 <= result <= 49 and not (op == "*" and 1 in (a, b)):
                            possible |= alive(problem, text + line, [result, *rest])
                        else:
                            assert task.oracle(problem, text + line) == 0.0
                            assert task.oracle(problem, text + line + task.correction) == 1.0
        assert task.oracle(problem, text) == possible
        assert task.oracle(problem, text + "7 + unfinished") == possible
        return possible

    for index in indices:
        problem = task.problem(0, "heldout", index)
        assert alive(problem, "1 + nonsense \n " + task.correction, list(problem.answer["numbers"]))


def test_behaviours_count_what_is_there():
    problem = next(p for p in (TASK.problem(0, "train", i) for i in range(9999)) if p.id == "4,8,9:44")
    start = {
        "attempts": 0,
        "restarts": 0,
        "steps": 0,
        "illegal_steps": 0,
        "checks": 0,
        "wrong_checks": 0,
        "gave_up": 0,
    }

    def count(text, **expected):
        assert TASK.behaviours(problem, text) == {**start, **expected}, text

    failed, right = "8 + 9 = 17 , 4 \n 17 + 4 = 21 \n ", "4 * 9 = 36 , 8 \n 36 + 8 = 44 \n 44 ok \n "
    count("")
    count("8 + 9 = 17 , 4")
    count(failed, attempts=1, steps=2)
    count(failed + "44 < \n", attempts=1, steps=2, checks=1, gave_up=1)
    count(failed + "44 < \n no", attempts=1, steps=2, checks=1)
    count(failed + "44 < \n no \n " + right, attempts=2, restarts=1, steps=4, checks=2)
    count(failed + "44 > \n no \n " + right, attempts=2, restarts=1, steps=4, checks=2, wrong_checks=1)
    count(failed + "44 ok \n ", attempts=1, steps=2, checks=1, wrong_checks=1)
    count(failed + "43 < \n ", attempts=1, steps=2, checks=1, wrong_checks=1, gave_up=1)
    count("no \n no \n " + right, attempts=1, restarts=2, steps=2, checks=1)
    # one mistake counts once, and an honest comparison with what it led to is right; `ok` is not
    count(
        "8 + 9 = 18 , 4 \n 18 + 4 = 22 \n 44 < \n ", attempts=1, steps=2, illegal_steps=1, checks=1, gave_up=1
    )
    count(
        "4 * 9 = 37 , 7 \n 37 + 7 = 44 \n 44 ok \n ",
        attempts=1,
        steps=2,
        illegal_steps=1,
        checks=1,
        wrong_checks=1,
    )
    count("what \n is \n this \n ", attempts=1, steps=3, illegal_steps=3)
    count(right + "44 ok \n ", attempts=1, steps=2, checks=2, wrong_checks=1)


@pytest.mark.parametrize(
    "task", [TASK, Countdown(numbers=4, largest=12), Countdown(heldout_percent=50, tuning_percent=0)]
)
def test_splits_share_no_multiset(task):
    clusters = {name: {item.numbers for item in split} for name, split in task.pool.splits.items()}
    assert not clusters["train"] & clusters["heldout"]
    assert not clusters["tuning"] & (clusters["train"] | clusters["heldout"])
    total = sum(map(len, clusters.values()))
    assert len(clusters["heldout"]) / total == pytest.approx(task.heldout_percent / 100, abs=0.02)
    assert len(clusters["tuning"]) / total == pytest.approx(task.tuning_percent / 100, abs=0.02)


def test_problems_are_pure_functions():
    described = [
        TASK.problem(s, split, i)
        for s in (0, 1)
        for split in ("train", "tuning", "heldout")
        for i in range(50)
    ]
    digest = hashlib.sha256("".join(p.id + p.prompt for p in described).encode()).hexdigest()
    assert digest[:16] == PINNED_PROBLEMS
    assert [TASK.problem(0, "heldout", i) for i in range(9)] == [
        Countdown().problem(7, "heldout", i) for i in range(9)
    ]
    for split in ("train", "tuning", "heldout"):
        epoch = [TASK.problem(4, split, i) for i in range(TASK.size(split))]
        assert len({p.id for p in epoch}) == TASK.size(split)
        assert {len(p.prompt.split(" ")) for p in epoch} == {7}
        assert all(
            p.prompt == f"{' '.join(map(str, p.answer['numbers']))} : {p.answer['target']} \n " for p in epoch
        )
    with pytest.raises(IndexError):
        TASK.problem(0, "heldout", TASK.size("heldout"))
    with pytest.raises(ValueError, match="train, tuning, heldout"):
        TASK.problem(0, "test", 0)


def test_difficulty_is_the_chance_of_a_random_attempt():
    rng = Random(0)
    for index in (1, 2, 5):
        problem = TASK.problem(0, "heldout", index)
        hits = 0
        for _ in range(20_000):
            left = list(problem.answer["numbers"])
            while len(left) > 1:
                a, b = rng.sample(range(len(left)), 2)
                x, y = max(left[a], left[b]), min(left[a], left[b])
                op = rng.choice("+-*")
                result = {"+": x + y, "-": x - y, "*": x * y if y > 1 else 0}[op]
                if 1 <= result <= 49:  # rejection makes the draw uniform over legal moves
                    left = [result, *(n for i, n in enumerate(left) if i not in (a, b))]
                elif len(left) == 2 and x == y and 2 * x > 49:
                    break
            hits += left == [problem.answer["target"]]
        assert hits / 20_000 == pytest.approx(problem.difficulty, abs=0.012)


def test_text_is_words_followed_by_spaces():
    words = set(TASK.vocabulary())
    assert len(words) == 61
    for problem, text in islice(TASK.demonstrations(0, 300), 300):
        for written in (problem.prompt, text, TASK.correction):
            assert written.endswith(TASK.step_boundary + " ")
            assert set(written[:-1].split(" ")) <= words


def test_long_answers_take_linear_time():
    import time

    problem = TASK.problem(0, "heldout", 0)
    started = time.monotonic()
    for text in (
        "no \n " * 50_000,
        "8 + 9 = 17 , 4 \n " * 20_000,
        "9 " * 100_000,
        "\n" * 10**6,
        "9" * 10**6 + " ok \n ",
    ):
        assert not TASK.verify(problem, text)
        TASK.oracle(problem, text)
        TASK.behaviours(problem, text)
    assert time.monotonic() - started < 10


def own_file(tmp_path, *lines):
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(lines))
    return Countdown(problem_file=str(path))


def test_own_problems_replace_training_problems(tmp_path):
    task = own_file(
        tmp_path,
        '{"numbers": [8, 9, 4], "target": 44, "note": "mine"}',
        "",
        '{"numbers": [30, 5, 2], "target": 49}',
    )
    with pytest.raises(UserError, match=r"own.jsonl:3: target=49 cannot be reached"):
        task.size("train")
    task = own_file(tmp_path, '{"numbers": [8, 9, 4], "target": 44}', '{"numbers": [30, 5, 3], "target": 45}')
    assert task.size("train") == 2 and task.size("heldout") == 1262
    assert {task.problem(0, "train", i).id for i in range(2)} == {"4,8,9:44", "3,5,30:45"}
    assert all(
        task.verify(task.problem(0, "train", i), task.solutions(task.problem(0, "train", i))[0])
        for i in range(2)
    )


@pytest.mark.parametrize(
    "line, complaint",
    [
        ('{"numbers": [8, 9, 4], "target": 44', "not JSON"),
        ("[8, 9, 4]", "expected a JSON object, found list"),
        ('{"numbers": [8, 9, 4], "goal": 44}', "no 'target' among 'numbers', 'goal'"),
        ('{"numbers": [8, 9], "target": 17}', "must be a list of task.numbers=3"),
        ('{"numbers": "894", "target": 17}', "must be a list"),
        ('{"numbers": [8, 9, 50], "target": 17}', "50 is not a whole number in 1..49"),
        ('{"numbers": [8, 9, true], "target": 17}', "True is not a whole number"),
        ('{"numbers": [8, 9, 4], "target": 4.0}', "4.0 is not a whole number"),
        ('{"numbers": [20, 20, 20], "target": 41}', "cannot be reached"),
        ('{"numbers": [2, 3, 4], "target": 24}', "the same problem as"),
        ('{"numbers": HELDOUT, "target": 10}', "belong to the heldout split"),
        ('{"numbers": TUNING, "target": 10}', "belong to the tuning split"),
    ],
)
def test_broken_lines_are_named(tmp_path, line, complaint):
    for split in ("heldout", "tuning"):
        line = line.replace(split.upper(), str(list(TASK.problem(0, split, 0).answer["numbers"])))
    task = own_file(tmp_path, '{"numbers": [4, 3, 2], "target": 24}', line)
    with pytest.raises(UserError, match=re.escape(complaint)) as error:
        task.problem(0, "train", 0)
    assert "own.jsonl:2: " in str(error.value)


def test_unusable_files_are_named(tmp_path):
    with pytest.raises(UserError, match="holds no problems"):
        own_file(tmp_path, "").size("train")
    with pytest.raises(UserError, match=r"nowhere\.jsonl: cannot be read"):
        Countdown(problem_file="nowhere.jsonl").size("train")
    (tmp_path / "bytes.jsonl").write_bytes(b"\n\xff{}\n")
    with pytest.raises(UserError, match=r"bytes.jsonl:2: not JSON"):
        Countdown(problem_file=str(tmp_path / "bytes.jsonl")).size("train")


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"numbers": 1}, r"task.numbers=1 must be in 2..5 \(nearest: 2\)"),
        ({"largest": 50}, r"task.largest=50 must be in 2..49 \(nearest: 49\)"),
        ({"ceiling": 1000}, "task.ceiling=1000 must be in 2..999"),
        ({"heldout_percent": 0}, "task.heldout_percent=0"),
        ({"heldout_percent": 50, "tuning_percent": 50}, "task.tuning_percent=50 must be in 0..49"),
    ],
)
def test_impossible_settings_are_refused(settings, complaint):
    with pytest.raises(UserError, match=complaint):
        Countdown(**settings)


def test_a_configuration_without_problems_is_refused():
    with pytest.raises(UserError, match=r"task\.largest=2 leaves the .* split empty"):
        Countdown(numbers=2, largest=2).size("train")


def test_tasks_import_nothing_heavy():
    code = (
        "import sys, ablate.tasks.countdown, ablate.tasks.chain;"
        "print([m for m in ('torch', 'transformers', 'numpy', 'trl', 'mlflow') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


PINNED_PROBLEMS = "be1b8e2c7d10b57f"
