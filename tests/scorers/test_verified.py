"""Credit by the verifier's own grade, link by link, on hand-made answers to chains."""

from dataclasses import replace
from itertools import product
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_policy

from ablate.engines.hf import HFEngine
from ablate.lab import Laboratory
from ablate.ledger import Ledger
from ablate.scorers.oracle import Oracle
from ablate.scorers.steps import step_values
from ablate.scorers.verified import Verified
from ablate.tasks.chain import Chain
from ablate.tasks.countdown import Countdown
from ablate.tasks.ladder import Ladder
from ablate.types import Step, Trajectory, UserError
from strategies.guess_check import Outcome
from strategies.process_rewards import Process

LINKS, CAP = 3, 160
BASE = Countdown(largest=8)
BY_LINK = Chain(LINKS, BASE, steps="link")
patterns = st.tuples(*[st.booleans()] * LINKS)


@pytest.fixture(scope="module")
def policy():
    return tiny_policy(vocabulary=BY_LINK.vocabulary())


@pytest.fixture
def lab(policy):
    return laboratory(policy, BY_LINK)


def laboratory(policy, task):
    engine, ledger = HFEngine(), Ledger()
    engine.start(policy, ledger)
    return Laboratory(task, policy, engine, ledger, cap=CAP, temperature=1.0, sampling_seed=0)


def answer(lab, pattern, end=True):
    """A verified answer of one sampled step, whose links are right where the pattern says so."""
    problem = lab.problem(BY_LINK.problem(0, "train", 0))
    first, *others = BY_LINK.solutions(problem, 1)[0].split("#")
    links = [first, *(f"#{text}" for text in others)]
    wrong = [text.replace(" ok ", " < ") for text in links]
    text = "".join(right if ok else bad for right, bad, ok in zip(links, wrong, pattern, strict=True))
    tokens = (*lab.encode(text), *((lab._policy.eos,) if end else ()))
    return lab.verify([Trajectory(problem, (Step(tokens, (-0.7,) * len(tokens)),))])[0]


@given(pattern=patterns)
@settings(deadline=None)
def test_a_link_is_a_step_and_its_progress_is_its_own_verdict(policy, pattern):
    lab = laboratory(policy, BY_LINK)
    whole = lab.split(answer(lab, pattern))
    assert len(whole.steps) == LINKS
    for i, step in enumerate(whole.steps[:-1]):
        assert step.tokens[-1] == lab.encode(f"#{i + 2}")[0]  # the label that closes the link
    (values,) = step_values([whole], Verified(), lab)
    assert values == pytest.approx([sum(pattern[:t]) / LINKS for t in range(LINKS + 1)])
    # nothing is known of a link before it is closed, and nothing is charged
    assert lab._ledger.totals()["flops"] == 0


@given(st.lists(patterns, min_size=2, max_size=5), st.sampled_from([1.0, float(LINKS)]))
@settings(deadline=None)
def test_credit_is_the_links_from_here_on_against_those_of_the_group(policy, chosen, coefficient):
    lab = laboratory(policy, BY_LINK)
    group = [answer(lab, pattern) for pattern in chosen]
    (credited,) = Process(scorer="verified", coefficient=coefficient)([group], lab)
    for t, pattern, a in zip(credited, chosen, Outcome().advantages(group), strict=True):
        for i in range(LINKS):
            mean = fmean(sum(other[i:]) for other in chosen)
            expected = a + coefficient * (sum(pattern[i:]) - mean) / LINKS
            assert t.advantages[i] == pytest.approx(expected)


def test_links_have_signal_where_outcomes_have_none(lab):
    group = [answer(lab, pattern) for pattern in product((True, False), repeat=LINKS) if not all(pattern)]
    assert Outcome().advantages(group) == [0.0] * len(group)
    (credited,) = Process(scorer="verified")([group], lab)
    assert all(any(t.advantages) for t in credited)


def test_it_knows_no_more_than_the_verifier(policy):
    """Line by line: a link counts from its check on, and nothing tells of a step that has lost it."""
    lab = laboratory(policy, Chain(LINKS, BASE))
    right = lab.split(answer(lab, (True,) * LINKS))
    (values,) = step_values([right], Verified(), lab)
    checks = [lab.text(replace(right, steps=(step,))).endswith("ok \n") for step in right.steps]
    assert values == pytest.approx([0.0, *(sum(checks[: t + 1]) / LINKS for t in range(len(checks)))])
    bad = lab.encode("1 + 1 = 3 , 7 \n 3 + 7 = 10 \n 10 ok \n #2 ")
    lost = lab.split(replace(right, steps=(Step(bad, (-0.7,) * len(bad)),), solved=False))
    assert step_values([lost], Verified(), lab) == [[0.0] * 5]
    assert step_values([lost], Oracle(), lab)[0] == pytest.approx([1.0] + [(LINKS - 1) / LINKS] * 4)


def test_the_end_of_an_answer_is_worth_its_share_to_the_oracle_too(lab):
    """The all-or-nothing outcome would take back, in the last link, what the others have gained."""
    pattern = (True, False, True)
    (values,) = step_values([lab.split(answer(lab, pattern))], Oracle(), lab)
    assert values == pytest.approx([1.0, 1.0, 2 / 3, 2 / 3])


def test_a_truncated_answer_keeps_what_it_has_closed(lab):
    cut = answer(lab, (True, True, True), end=False)
    tokens = cut.steps[0].tokens[:-2]  # within the last check
    lab.cap = len(tokens)
    (cut,) = lab.verify([replace(cut, steps=(Step(tokens, (-0.7,) * len(tokens)),))])
    assert lab.truncated(cut) and not cut.solved
    assert lab.grade([cut]) == lab.parts([cut]) == pytest.approx([2 / 3])


def test_a_task_without_parts_is_refused_and_graded_by_its_outcome(policy):
    with pytest.raises(UserError, match=r"scorer=verified needs .* task=countdown .*task=chain"):
        Process(scorer="verified").check(Countdown())
    Process(scorer="verified").check(Chain())
    lab = laboratory(policy, BASE)
    problem = lab.problem(BASE.problem(0, "train", 0))
    tokens = (*lab.encode(BASE.solutions(problem, 1)[0]), policy.eos)
    answers = [Trajectory(problem, (Step(tokens[i:], None),)) for i in (0, 1)]
    assert lab.grade(lab.verify(answers)) == [1.0, 0.0]


def test_a_ladder_is_paid_by_the_rung_and_compared_by_the_climb():
    """Parts without a score: finer credit, and the outcome still is what arms are compared by."""
    ladder = Ladder(rungs=4, kinds=6, problems=400)
    lab = laboratory(tiny_policy(vocabulary=ladder.vocabulary()), ladder)
    problem = lab.problem(ladder.problem(0, "train", 0))
    words = [*problem.answer["holds"][:2], problem.answer["slips"][2], "fell"]
    tokens = (*lab.encode("".join(f"{word} \n " for word in words)), lab._policy.eos)
    (fall,) = map(lab.split, lab.verify([Trajectory(problem, (Step(tokens, (-0.7,) * len(tokens)),))]))
    assert step_values([fall], Verified(), lab)[0] == pytest.approx([0.0, 0.25, 0.5, 0.5, 0.5])
    assert step_values([fall], Oracle(), lab)[0] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert lab.grade([fall]) == [0.0]
