from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.tasks.chain import Chain
from ablate.tasks.countdown import Countdown
from ablate.types import UserError

TASK = Chain(links=3)
BASE = TASK.base
WORDS = [*TASK.vocabulary(), "#4", "#0", "#", "</s>", ""]


def opening(problem, link):
    """The line that opens a link, counted from 0."""
    return f"#{link + 1} {problem.answer['parts'][link].prompt}"


def pieces(problem):
    """A right answer of each link, with its opening where the prompt has not given it."""
    first, *others = TASK.solutions(problem, 1)[0].split("#")
    return [first, *(f"#{text}" for text in others)]


def test_a_chain_is_right_if_all_its_parts_are():
    for index in range(0, TASK.size("heldout"), 9):
        problem = TASK.problem(0, "heldout", index)
        for text in TASK.solutions(problem, 3):
            assert TASK.verify(problem, text) and TASK.oracle(problem, text) == 1.0
            assert TASK.parts(problem, text) == [True] * 3 and TASK.score(problem, text) == 1.0
            assert TASK.behaviours(problem, text)["links_right"] == 3
        links = pieces(problem)
        for wrong in range(3):
            broken = [*links]
            broken[wrong] = broken[wrong].replace(" ok ", " < ")
            text = "".join(broken)
            assert TASK.parts(problem, text) == [i != wrong for i in range(3)]
            assert not TASK.verify(problem, text) and TASK.score(problem, text) == pytest.approx(2 / 3)
            assert TASK.oracle(problem, text) == pytest.approx(2 / 3)
            # a restart mends the link that it stands in, and no other
            mended = text + TASK.correction + links[2].removeprefix(opening(problem, 2))
            assert TASK.parts(problem, mended) == [i != wrong or wrong == 2 for i in range(3)]


def test_links_are_opened_in_order():
    problem = TASK.problem(0, "heldout", 0)
    a, b, c = pieces(problem)

    def parts(*texts):
        found = TASK.parts(problem, "".join(texts))
        assert TASK.verify(problem, "".join(texts)) == all(found)
        return found

    assert parts() == [False, False, False]
    assert parts(a) == [True, False, False]
    assert parts(a, c) == [True, False, True]
    assert parts(b, a, c) == [False, False, True]
    assert parts(a, c, b) == [True, False, False]
    assert parts(a, b, opening(problem, 0), a, c) == [True, False, True]
    assert parts(a, b, c, c) == [True, True, False]
    for rest in ("no", "1", "#1", opening(problem, 2), "#4 \n ", "\n "):
        assert parts(a, b, c, rest) == [True, True, False]
    for begun in ("#2", "#2 no", opening(problem, 1), opening(problem, 1)[:-2]):
        assert parts(a, begun) == [True, False, False]  # a label closes the link before it at once
    assert parts("#1 \n ", a, b, c) == [False, True, True]
    assert parts("#1 \n no \n ", a, b, c) == [True, True, True]  # illegal, but restarted
    assert parts(a, b, c.replace("#3", "#4")) == [True, False, False]


def test_an_opening_repeats_its_line_of_the_prompt():
    problem = TASK.problem(0, "heldout", 0)
    a, b, c = pieces(problem)
    right = opening(problem, 1)
    for wrong in ("#2 \n ", "#2 : \n ", right.replace(" : ", " "), "#2 " + problem.answer["parts"][2].prompt):
        text = wrong + b.removeprefix(right)
        assert TASK.parts(problem, a + text + c) == [True, False, True]
        restarted = wrong + TASK.correction + b.removeprefix(right)
        assert TASK.parts(problem, a + restarted + c) == [True, True, True]
        assert TASK.oracle(problem, a + wrong) == pytest.approx(2 / 3)


def test_the_oracle_is_the_share_of_links_that_can_still_be_right():
    problem = TASK.problem(0, "heldout", 1)
    a, b, c = pieces(problem)
    assert TASK.oracle(problem, "") == 1.0
    for cut in range(len(a + b + c)):  # nothing on the way of a right answer costs anything
        assert TASK.oracle(problem, (a + b + c)[:cut]) == 1.0
    dead = "1 + 1 = 3 , 7 \n "
    second, third = opening(problem, 1), opening(problem, 2)
    assert TASK.oracle(problem, a + second + dead) == pytest.approx(2 / 3)
    assert TASK.oracle(problem, a + second + dead + TASK.correction) == 1.0
    assert TASK.oracle(problem, a + second + dead + c) == pytest.approx(2 / 3)
    assert TASK.oracle(problem, a + second + third) == pytest.approx(2 / 3)  # left too early
    assert TASK.oracle(problem, a + second + "#3") == pytest.approx(2 / 3)
    assert TASK.oracle(problem, a + third) == pytest.approx(2 / 3)  # skipped
    assert TASK.oracle(problem, c) == pytest.approx(1 / 3)
    assert TASK.oracle(problem, dead + third + dead) == 0.0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_link_is_right_only_if_countdown_says_so(data):
    problem = TASK.problem(0, "heldout", data.draw(st.integers(0, 50)))
    links = pieces(problem)
    at = data.draw(st.integers(0, 2))
    words = links[at].split(" ")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(words)))
        words[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.lists(st.sampled_from(WORDS), max_size=2)
        )
    changed = " ".join(words)
    text = "".join([*links[:at], changed, *links[at + 1 :]])
    part = problem.answer["parts"][at]
    found = TASK.parts(problem, text)
    if found[at]:  # what follows the opening, if it is right, or the last restart
        label = f"#{at + 1} " if at else ""
        rest = changed.removeprefix(opening(problem, at)) if at else changed
        assert changed.startswith(label) and BASE.verify(part, rest)
    assert TASK.oracle(problem, text) in (0, 1 / 3, 2 / 3, 1)
    assert TASK.verify(problem, text) == all(found)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_any_text_is_read_without_raising(text):
    problem = TASK.problem(0, "heldout", 2)
    assert TASK.verify(problem, text) is False
    assert 0.0 <= TASK.oracle(problem, text) <= 1.0
    assert 0.0 <= TASK.score(problem, text) < 1.0
    assert set(TASK.behaviours(problem, text)) == {
        *BASE.behaviours(BASE.problem(0, "heldout", 0), ""),
        "links_opened",
        "links_right",
    }
    assert isinstance(TASK.answer(problem, text), str)


def test_answers_name_the_last_attempt_of_each_link():
    problem = TASK.problem(0, "heldout", 0)
    a, b, c = pieces(problem)
    assert TASK.answer(problem, "1 + 1 = 2 \n no \n " + a + b + c) == TASK.answer(problem, a + b + c)
    assert TASK.answer(problem, a + b) != TASK.answer(problem, a + b + c)


@pytest.mark.parametrize("task", [Chain(), Chain(links=4, base=Countdown(numbers=4, largest=10))])
def test_splits_and_clusters_share_no_multiset(task):
    base = task.base
    multisets = {
        split: {base.problem(0, split, i).cluster for i in range(base.size(split))}
        for split in ("train", "tuning", "heldout")
    }
    clusters: dict[str, str] = {}
    seen = set()
    for split in ("train", "tuning", "heldout"):
        assert task.size(split) > 0
        for index in range(task.size(split)):
            problem = task.problem(0, split, index)
            parts = problem.answer["parts"]
            assert {part.cluster for part in parts} <= multisets[split]
            assert problem.prompt.count(" ") == (task.links + 1) * (base.numbers + 4)
            if split == "heldout":
                assert not seen & {part.id for part in parts}
                seen |= {part.id for part in parts}
                for part in parts:
                    assert clusters.setdefault(part.cluster, problem.cluster) == problem.cluster
    assert len(seen) > 0.85 * base.size("heldout")
    strata = [task.problem(0, "heldout", i) for i in range(task.size("heldout"))]
    assert all(strata.count(p) == 1 for p in strata)
    ordered = sorted(strata, key=lambda p: p.difficulty)
    assert [k for k, k2 in pairwise(p.stratum for p in ordered) if k != k2] == ["hard", "medium"]


def test_problems_are_pure_functions_of_the_base_stream():
    for split in ("train", "tuning", "heldout"):
        assert TASK.problem(5, split, 3) == Chain(links=3).problem(5, split, 3)
    assert TASK.problem(0, "heldout", 3) == TASK.problem(1, "heldout", 3)
    ids = [part.id for i in range(10) for part in TASK.problem(2, "train", i).answer["parts"]]
    assert ids == [BASE.problem(2, "train", i).id for i in range(30)]
    with pytest.raises(IndexError):
        TASK.problem(0, "heldout", TASK.size("heldout"))


def test_impossible_chains_are_refused():
    with pytest.raises(UserError, match=r"task\.links=1 must be in 2\.\.64"):
        Chain(links=1)
    with pytest.raises(UserError, match=r"task\.links=60 is more than there are held-out multisets"):
        Chain(links=60, base=Countdown(numbers=2)).problem(0, "heldout", 0)
    with pytest.raises(UserError, match=r"task\.links=64 is more than there are tuning problems \(31\)"):
        Chain(links=64, base=Countdown(numbers=2)).size("tuning")
