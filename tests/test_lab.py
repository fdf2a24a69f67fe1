"""The laboratory as strategies see it, on Countdown with a random model and with hand-made answers."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_policy

from ablate.engines.hf import HFEngine
from ablate.lab import Laboratory, overlap
from ablate.ledger import Ledger
from ablate.tasks.countdown import Countdown
from ablate.types import Problem, Step, Trajectory

CAP = 40
TASK = Countdown(largest=8)


def laboratory(policy, cap=CAP, sampling_seed=0, max_rows=1024):
    engine, ledger = HFEngine(max_rows), Ledger("tokens", 1000.0)
    engine.start(policy, ledger)
    return Laboratory(TASK, policy, engine, ledger, cap=cap, temperature=1.0, sampling_seed=sampling_seed)


@pytest.fixture(scope="module")
def policy():
    """With Countdown's vocabulary; in float64, so that draws do not depend on the batching."""
    made = tiny_policy(vocabulary=TASK.vocabulary(), sharpness=3.0)
    made.model.double()
    return made


@pytest.fixture
def lab(policy):
    return laboratory(policy)


def starts(lab, count=4):
    return [Trajectory(lab.problem(TASK.problem(0, "train", i))) for i in range(count)]


def step(tokens):
    return Step(tuple(tokens), tuple(-0.5 - i for i in range(len(tokens))))


# -- judging ------------------------------------------------------------------------------------------------


def test_only_finished_right_answers_are_solved(lab, policy):
    (start,) = starts(lab, 1)
    eos = (policy.eos,)
    right = policy.encode(TASK.solutions(start.problem, 1)[0])
    wrong = right[:-3] + policy.encode("1 < \n ") + eos
    marker = policy.encode(TASK.correction)
    answers = {
        "right": (start.then(step(right + eos)), True),
        "right in steps": (start.then(step(right[:5]), Step(right[5:]), step(eos)), True),
        "right, trailing empty step": (start.then(step(right + eos), Step(())), True),
        "right at the second attempt": (start.then(step(wrong[:-1]), Step(marker), step(right + eos)), True),
        "truncated": (start.then(step(right)), False),
        "wrong": (start.then(step(wrong)), False),
        "gone on after the end": (start.then(step(right + eos + right + eos)), False),
        "nothing": (start, False),
        "only an end": (start.then(step(eos)), False),
    }
    judged = lab.verify([trajectory for trajectory, _ in answers.values()])
    for (name, (trajectory, solved)), verdict in zip(answers.items(), judged, strict=True):
        assert verdict.solved is solved, name
        assert replace(verdict, solved=None) == trajectory
    assert lab.verify([]) == []


def test_finished_and_truncated(lab, policy):
    (start,) = starts(lab, 1)
    number = policy.encode("7")
    open_ = start.then(step(number * (CAP - 1)))
    full = start.then(step(number * CAP))
    ended = start.then(step(number * 3 + (policy.eos,)))
    ended_at_cap = start.then(step(number * (CAP - 1) + (policy.eos,)))
    assert [lab.finished(t) for t in (start, open_, full, ended, ended_at_cap)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert [lab.truncated(t) for t in (start, open_, full, ended, ended_at_cap)] == [False] * 2 + [True] + [
        False
    ] * 2


def test_text_and_tokens(lab, policy):
    (start,) = starts(lab, 1)
    solution = TASK.solutions(start.problem, 1)[0]
    tokens = lab.encode(solution)
    assert lab.text(start.then(step((*tokens, policy.eos)))) == solution.rstrip(" ")
    assert start.problem.tokens == (policy.tokenizer.bos_token_id, *lab.encode(start.problem.prompt))


# -- steps --------------------------------------------------------------------------------------------------

words = st.lists(st.sampled_from(["\n", "7", "+", "no", "</s>"]), max_size=12)


@given(st.lists(st.tuples(words, st.booleans()), max_size=4))
@settings(deadline=None)
def test_split_keeps_tokens_and_cuts_after_newlines(policy, parts):
    lab = laboratory(policy)
    newline = lab.encode("\n")[0]
    steps = []
    for part, sampled in parts:
        made = step(policy.tokenizer.convert_tokens_to_ids(part))
        steps.append(replace(made if sampled else made.masked(), weight=0.5, value=0.25))
    trajectory = replace(starts(lab, 1)[0], steps=tuple(steps), solved=True, advantages=(1.0,) * len(steps))
    split = lab.split(trajectory)

    def by_token(trajectory):
        return [
            (token, None if s.logprobs is None else s.logprobs[i], s.weight, s.value)
            for s in trajectory.steps
            for i, token in enumerate(s.tokens)
        ]

    assert by_token(split) == by_token(trajectory)
    assert (split.problem, split.solved, split.advantages) == (trajectory.problem, True, ())
    assert lab.split(split) == split
    # cuts: after every newline that no end token follows in its step, at the ends of steps, nowhere else
    cuts = set(np.cumsum([len(s.tokens) for s in split.steps]).tolist())
    expected, at = set(), 0
    for original in trajectory.steps:
        for i, token in enumerate(original.tokens):
            follows = original.tokens[i + 1] if i + 1 < len(original.tokens) else None
            if follows is None or (token == newline and follows != policy.eos):
                expected.add(at + i + 1)
        at += len(original.tokens)
    assert cuts == expected and all(s.tokens for s in split.steps)


def test_split_of_a_demonstration(lab, policy):
    (start,) = starts(lab, 1)
    solution = TASK.solutions(start.problem, 1)[0]
    split = lab.split(start.then(step((*lab.encode(solution), policy.eos))))
    lines = solution.split("\n")[:-1]
    texts = [lab.text(start.then(s)).strip(" ") for s in split.steps]
    assert texts == [f"{line.strip(' ')} \n" for line in lines]
    assert split.steps[-1].tokens[-2:] == (lab.encode("\n")[0], policy.eos)


# -- sampling -----------------------------------------------------------------------------------------------


def draw(lab, batch, calls=1, prefixes=None, n=3):
    lab.begin(batch)
    for _ in range(calls):
        drawn = lab.sample(prefixes or starts(lab), n)
    return [[s.tokens for s in steps] for steps in drawn]


def test_draws_are_a_function_of_seed_batch_call_and_row(policy):
    lab = laboratory(policy)
    first = draw(lab, batch=5)
    assert draw(lab, batch=5) == first  # nothing is left over from the call before
    assert draw(laboratory(policy, max_rows=2), batch=5) == first
    draw(lab, batch=6)
    assert draw(lab, batch=5) == first
    others = [
        draw(lab, batch=6),
        draw(lab, batch=5, calls=2),
        draw(laboratory(policy, sampling_seed=1), batch=5),
    ]
    for other in others:
        assert sum(a == b for x, y in zip(first, other, strict=True) for a, b in zip(x, y, strict=True)) <= 1
    # a row draws the same whatever the others are; samples of one prefix differ
    same = draw(lab, batch=5, prefixes=[*starts(lab)[:1], *[starts(lab)[2]] * 3])
    assert same[0] == first[0] and len({row for steps in first for row in steps}) >= 11
    randoms = []
    for made, batch in ((lab, 5), (lab, 6), (lab, 5), (laboratory(policy, sampling_seed=1), 5)):
        made.begin(batch)
        randoms.append(made.rng.random())
    assert randoms[0] == randoms[2] and len(set(randoms)) == 3


def test_the_cap_holds_from_every_prefix(lab, policy):
    rng = Random(0)
    number = policy.encode("7")
    prefixes = [start.then(step(number * rng.randint(1, CAP - 1))) for start in starts(lab, 12)]
    prefixes += [starts(lab, 1)[0], starts(lab, 1)[0].then(step(number * (CAP - 1)))]
    rooms = []
    for prefix, steps in zip(prefixes, lab.sample(prefixes, 4), strict=True):
        for drawn in steps:
            whole = prefix.then(drawn)
            assert whole.length <= CAP and lab.finished(whole) and drawn.logprobs is not None
            assert policy.eos not in drawn.tokens[:-1]
            rooms.append(lab.truncated(whole))
    assert {True, False} == set(rooms)
    with pytest.raises(ValueError, match="room"):
        lab.sample([starts(lab, 1)[0].then(step(number * CAP))], 1)
    assert lab.sample([], 4) == []


def test_stop_strings_end_a_step_and_are_included(lab, policy):
    drawn = [s for steps in lab.sample(starts(lab, 8), 8, stop=["\n", "no"]) for s in steps]
    stops = {lab.encode("\n")[0], lab.encode("no")[0], policy.eos}
    endings = {s.tokens[-1] for s in drawn if s.tokens[-1] in stops}
    assert endings == stops
    assert all(not stops & set(s.tokens[:-1]) for s in drawn)
    assert all(s.tokens[-1] in stops or len(s.tokens) == CAP for s in drawn)


def test_sampling_is_charged_as_rollout(lab):
    drawn = lab.sample(starts(lab), 3)
    tokens = sum(len(s.tokens) for steps in drawn for s in steps)
    assert lab._ledger.by_purpose().keys() == {"rollout"} and lab._ledger.spent == tokens
    assert lab.budget_fraction == tokens / 1000.0


# -- report -------------------------------------------------------------------------------------------------


def test_report_of_hand_made_groups(lab, policy):
    one, two = starts(lab, 2)
    eos = (policy.eos,)

    def solution(start):
        return step(lab.encode(TASK.solutions(start.problem, 1)[0]) + eos)

    def right(start):
        return start.then(solution(start))

    restarted = two.then(Step(lab.encode("9 9 \n no \n")), solution(two))
    cut = one.then(step(lab.encode("7") * CAP))
    wrong = one.then(step(lab.encode("0 + 0 = 1 \n ") + eos))
    groups = [lab.verify(group) for group in ([right(one), cut, wrong], [right(two), restarted])]
    groups[1][0] = replace(groups[1][0], reward=1.0)
    lab.begin(0)
    lab.log("diagnostic", 1.0)
    lab.log("diagnostic", 2.0)
    report = lab.report(groups)
    lengths = [t.length for group in groups for t in group]
    assert report["solved"] == report["reward"] == pytest.approx(3 / 5)
    assert report["length"] == pytest.approx(sum(lengths) / 5)
    assert report["truncated"] == pytest.approx(1 / 5)
    assert report["groups_with_signal"] == pytest.approx(1 / 2)
    assert report["diagnostic"] == pytest.approx(1.5)
    assert report["overlap"] == overlap(groups)
    assert report["behaviour/restarts"] == pytest.approx(1 / 5)
    assert report["behaviour/attempts"] == pytest.approx((1 + 0 + 1 + 1 + 2) / 5)
    shaped = [[replace(t, reward=2.0 * t.solved) for t in group] for group in groups]
    assert lab.report(shaped)["reward"] == pytest.approx(6 / 5)
    lab.begin(1)
    assert "diagnostic" not in lab.report(groups)


# -- overlap ------------------------------------------------------------------------------------------------

pieces = st.tuples(st.lists(st.integers(1, 2), max_size=3), st.booleans())  # tokens, sampled by the policy?
some_groups = st.lists(st.lists(st.lists(pieces, max_size=4), max_size=5), max_size=3)


def made(groups):
    def one(parts):
        steps = (step(tokens) if sampled else step(tokens).masked() for tokens, sampled in parts)
        return Trajectory(Problem("p", ""), tuple(steps))

    return [[one(parts) for parts in group] for group in groups]


def brute_overlap(groups):
    """By definition: every token against every other trajectory."""
    marks = []
    for group in groups:
        flat = [[(token, sampled) for tokens, sampled in parts for token in tokens] for parts in group]
        plain = [[token for token, _ in row] for row in flat]
        for i, row in enumerate(flat):
            for at, (_, sampled) in enumerate(row):
                others = (plain[j][: at + 1] for j in range(len(plain)) if j != i)
                if sampled:
                    marks.append(plain[i][: at + 1] in others)
    return sum(marks) / len(marks) if marks else 0.0


@given(some_groups)
@settings(deadline=None, max_examples=300)
def test_overlap_by_definition(groups):
    assert overlap(made(groups)) == brute_overlap(groups)


def test_overlap_of_samples_continuations_and_siblings():
    def answer(*tokens):
        return (tokens, True)

    def path(*tokens):
        return (tokens, False)

    # three answers: the first two agree on two tokens, the third with them on one
    assert overlap(made([[[answer(1, 2, 3)], [answer(1, 2)], [answer(1, 5, 6, 7)]]])) == 5 / 9
    # the same, with one of them cut into steps
    assert overlap(made([[[answer(1), answer(2, 3)], [answer(1, 2)], [answer(1, 5, 6, 7)]]])) == 5 / 9
    # the masked prefix of continuations is in common, but nobody sampled it
    assert overlap(made([[[path(1, 2), answer(3, 4)], [path(1, 2), answer(3, 5)]]])) == 2 / 4
    assert overlap(made([[[path(1, 2), answer(3)], [path(1, 2), answer(4)]]])) == 0.0
    # groups do not see each other; equal answers are shared whole
    assert overlap(made([[[answer(1, 2)]], [[answer(1, 2)]]])) == 0.0
    assert overlap(made([[[answer(1, 2)]] * 2])) == 1.0
    assert overlap([]) == overlap([[]]) == 0.0
