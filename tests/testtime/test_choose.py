"""The final answer by score or by vote, whatever the order of arrival."""

from itertools import permutations

import pytest
from benches import CAP, made

from ablate.testtime.choose import Candidate, best, vote
from ablate.types import Step, Trajectory


@pytest.fixture(scope="module")
def frame():
    return made([0])


def candidate(frame, text, score, logprob=-1.0, end=True, count=1):
    policy = frame.bench.policy
    tokens = policy.encode(text) + ((policy.eos,) if end else ())
    if not end:
        tokens = (tokens * CAP)[:CAP]
    return Candidate(Trajectory(frame.problems[0], (Step(tokens, (logprob,) * len(tokens)),)), score, count)


def orders(frame, choose, candidates):
    """What is chosen in every order."""
    return {choose(list(order), frame.bench).completion for order in permutations(candidates)}


def test_the_best_score_wins_in_any_order(frame):
    low, high, other = (candidate(frame, t, s) for t, s in (("1 \n ", 0.2), ("2 \n ", 0.7), ("3 \n ", 0.5)))
    assert orders(frame, best, [low, high, other]) == {high.answer.completion}


def test_equal_scores_are_told_apart_by_likelihood_not_by_order(frame):
    likely, rare = candidate(frame, "1 \n ", 0.5, -0.1), candidate(frame, "2 \n ", 0.5, -2.0)
    assert orders(frame, best, [rare, likely]) == {likely.answer.completion}
    assert orders(frame, vote, [rare, likely]) == {likely.answer.completion}


def test_a_truncated_answer_is_the_last_resort(frame):
    cut, poor = candidate(frame, "1 ", 0.9, end=False), candidate(frame, "2 \n ", 0.1)
    assert frame.bench.truncated(cut.answer)
    assert orders(frame, best, [cut, poor]) == {poor.answer.completion}
    assert orders(frame, vote, [cut, poor]) == {poor.answer.completion}
    assert best([cut], frame.bench) == vote([cut], frame.bench) == cut.answer


def test_what_holds_no_answer_has_no_vote(frame, monkeypatch):
    none = [candidate(frame, "1 \n ", 1.0, logprob) for logprob in (-0.3, -0.2, -0.1)]
    some = candidate(frame, "2 \n ", 1.0, -2.0)
    monkeypatch.setattr(type(frame.bench.task), "answer", lambda self, problem, text: "2" * ("2" in text))
    assert orders(frame, vote, [*none, some]) == {some.answer.completion}
    assert vote(none, frame.bench) == none[-1].answer


def test_votes_of_equal_answers_add_up(frame):
    """The answer is the attempt at the end: what was tried before a restart does not matter."""
    same = [candidate(frame, "1 \n ", 0.4), candidate(frame, "3 \n no \n 1 \n ", 0.4)]
    single = candidate(frame, "2 \n ", 0.7)
    chosen = orders(frame, vote, [*same, single])
    assert chosen <= {c.answer.completion for c in same}
    assert orders(frame, best, [*same, single]) == {single.answer.completion}
    counted = candidate(frame, "2 \n ", 0.5, count=3)
    assert orders(frame, vote, [*same, counted]) == {counted.answer.completion}
