"""The ladder: one right answer, a secret per rung, falls that are seen, demonstrations that know nothing."""

from collections import Counter
from dataclasses import replace
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.tasks.ladder import FELL, Ladder
from ablate.types import UserError

TASK = Ladder(rungs=4, kinds=6, problems=400)
WORDS = [*TASK.vocabulary(), "", "1a-", "</s>"]


def climb(problem, held, rest=()):
    """An answer whose first `held` rungs hold and whose next one does not, then the words of `rest`."""
    words = list(problem.answer["holds"][:held])
    if held < TASK.rungs:
        words.append(problem.answer["slips"][held])
    return "".join(f"{word} \n " for word in (*words, *rest))


def heldout(task=TASK):
    return [task.problem(0, "heldout", i) for i in range(task.size("heldout"))]


def test_the_one_right_answer_verifies_and_every_damage_is_found():
    for problem in heldout():
        (right,) = TASK.solutions(problem)
        assert TASK.verify(problem, right) and TASK.verify(problem, right.rstrip(" "))
        assert TASK.oracle(problem, right) == 1.0
        words = right.split(" ")[:-1]
        for i in range(len(words)):
            assert not TASK.verify(problem, " ".join(words[:i] + words[i + 1 :]) + " ")
            assert not TASK.verify(problem, " ".join([*words[:i], FELL, *words[i + 1 :]]) + " ")
        for wrong in ("", right + right, right + f"{FELL} \n ", right + "1a", right.replace("\n", "\n \n")):
            assert not TASK.verify(problem, wrong)
        for held in range(TASK.rungs):
            slip = climb(problem, held, problem.answer["holds"][held + 1 :])
            assert not TASK.verify(problem, slip)
            assert TASK.oracle(problem, slip) == 0.0
            assert TASK.behaviours(problem, slip)["held"] == held
            assert TASK.parts(problem, slip) == [True] * held + [False] * (TASK.rungs - held)


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), st.integers(0, 39))
def test_any_text_is_judged_and_only_the_right_answer_is_right(text, index):
    problem = TASK.problem(0, "heldout", index)
    assert not TASK.verify(problem, text) or text.rstrip(" ") == TASK.solutions(problem)[0].rstrip(" ")
    counts = TASK.behaviours(problem, text)
    assert 0 <= counts["illegal_steps"] <= counts["steps"] == text.split(" ").count("\n")
    assert counts["held"] + counts["illegal_steps"] <= counts["steps"]
    assert TASK.oracle(problem, text) == float(counts["held"] == counts["steps"])
    assert sum(TASK.parts(problem, text)) == counts["held"]


def test_a_fall_is_followed_by_lines_that_say_so():
    unseen = Ladder(rungs=4, kinds=6, problems=400, seen=False)
    for problem in heldout()[:10]:
        fell, goes_on = climb(problem, 1, [FELL, FELL]), climb(problem, 1, problem.answer["slips"][2:])
        for text, here, there in ((fell, 0, 2), (goes_on, 2, 0)):
            assert TASK.behaviours(problem, text)["illegal_steps"] == here
            assert unseen.behaviours(problem, text)["illegal_steps"] == there
        assert TASK.behaviours(problem, f"{FELL} \n ")["illegal_steps"] == 1
        beyond = TASK.solutions(problem)[0] + climb(problem, 0)
        assert TASK.behaviours(problem, beyond) == {"steps": 5.0, "illegal_steps": 1.0, "held": 4.0}


def test_the_secret_favours_no_side_and_is_the_same_in_every_problem():
    holds = {}
    for split in ("train", "tuning", "heldout"):
        for i in range(TASK.size(split)):
            for word in TASK.problem(5, split, i).answer["holds"]:
                name, side = word.split("-")
                assert holds.setdefault(name, side) == side
    assert len(holds) == 4 * 6
    for height in range(1, 5):
        sides = Counter(side for name, side in holds.items() if name[0] == str(height))
        assert sides == {"left": 3, "right": 3}


def test_splits_share_no_problem_and_heldout_ignores_the_seed():
    ids = {
        split: [TASK.problem(1, split, i).id for i in range(TASK.size(split))]
        for split in ("train", "tuning", "heldout")
    }
    assert [len(each) for each in ids.values()] == [340, 20, 40]
    assert len(set().union(*ids.values())) == 400
    assert [TASK.problem(2, "heldout", i).id for i in range(40)] == ids["heldout"]
    assert [TASK.problem(2, "train", i).id for i in range(340)] != ids["train"]
    assert sorted(TASK.problem(2, "train", i).id for i in range(340, 680)) == sorted(ids["train"])
    problem = TASK.problem(1, "train", 7)
    assert problem == Ladder(rungs=4, kinds=6, problems=400).problem(1, "train", 7)
    assert problem.prompt == f"{problem.id} : \n " and problem.cluster == problem.id
    with pytest.raises(IndexError):
        TASK.problem(0, "heldout", 40)
    with pytest.raises(ValueError, match="unknown split"):
        TASK.size("test")


def whole(problem, answer):
    """A demonstration with the part that was given, and at which height it begins."""
    given = problem.prompt.partition(": \n ")[2]
    return given + answer, given.count("\n")


def test_demonstrations_know_nothing_and_begin_anywhere():
    demonstrations = list(TASK.demonstrations(0, 3000))
    assert demonstrations == list(TASK.demonstrations(0, 3000)) != list(TASK.demonstrations(1, 3000))
    train = {TASK.problem(0, "train", i).id for i in range(TASK.size("train"))}
    starts, chances = Counter(), {height: [] for height in range(4)}
    for problem, answer in demonstrations:
        text, start = whole(problem, answer)
        counts = TASK.behaviours(problem, answer)
        assert problem.id in train and counts["illegal_steps"] == 0
        assert counts["steps"] == 4 - start and counts["held"] >= start  # what is given held
        assert TASK.behaviours(problem, f"0a-left \n {answer}")["illegal_steps"] >= 1
        unprompted = replace(problem, prompt=problem.prompt[: len(problem.prompt) - len(text) + len(answer)])
        assert TASK.behaviours(unprompted, text) == {**counts, "steps": 4.0}
        starts[start] += 1
        for height in range(start, min(int(counts["held"]) + 1, 4)):
            chances[height].append(height < counts["held"])
    assert set(starts) == {0, 1, 2, 3} and min(starts.values()) > 600
    for seen in chances.values():
        assert fmean(seen) == pytest.approx(0.5, abs=0.06)


def test_the_demonstrators_settings():
    def figures(**settings):
        made = [TASK.behaviours(p, a) for p, a in TASK.demonstrations(3, 1000, **settings)]
        return fmean(m["held"] for m in made), fmean(m["steps"] for m in made)

    held, length = figures()
    assert length == pytest.approx(2.5, abs=0.1)
    assert figures(skill=1.0) == (4.0, pytest.approx(length))
    assert held < figures(skill=0.5)[0] < 4.0
    stopped = figures(persistence=0.0)
    assert stopped[0] == held and stopped[1] < length - 0.5  # the answer ends with the misstep
    assert figures(bail=1.0)[0] < held
    with pytest.raises(UserError, match=r"longest=15 has no room for task.rungs=4: use at least 16"):
        next(TASK.demonstrations(0, 1, longest=15))
    answers = [TASK.demonstrate(TASK.problem(0, "train", 0), Random(i)) for i in range(300)]
    share = fmean(TASK.verify(TASK.problem(0, "train", 0), answer) for answer in answers)
    assert share == pytest.approx(0.5**4, abs=0.04)


def test_a_climb_fits_what_it_says_it_takes():
    problem, answer = next(TASK.demonstrations(0, 1, longest=16))
    words = f"<s> {problem.prompt}{answer}</s>".split(" ")
    assert len(words) == 16 and set(words) <= {*TASK.vocabulary(), "<s>", "</s>"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rungs": 1}, "task.rungs=1 must be in 2..64"),
        ({"kinds": 27}, r"task.kinds=27 must be in 2..26 \(nearest: 26\)"),
        ({"heldout_percent": 0}, "task.heldout_percent=0 must be in"),
        ({"rungs": 3, "kinds": 8}, "task.problems=10000 is more than half of the 512 ladders"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Ladder(**settings)
