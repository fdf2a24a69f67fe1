"""What happens to failures: who is continued, from where, and what counts for whom."""

import pytest
from paper import END, MARKER, PaperLab, answer, problem

from ablate.rows import rows_of
from ablate.scorers.monte_carlo import MonteCarlo
from ablate.strategy import verified
from ablate.types import Step, Trajectory, UserError
from strategies.guess_check import Outcome
from strategies.learn_to_correct import Correct, first_wrong

WINS = {(0, 1, 1), (1, 1, 1)}


@pytest.fixture
def lab():
    return PaperLab(lambda digits: digits in WINS, depth=3, probabilities=(0.3, 0.7), cap=9)


def batch(lab):
    right, wrong = answer(lab, 0, 1, 1), answer(lab, 0, 0, 1)
    cut_off = answer(lab, *[0, 1, 0] * 3, end=False)
    assert lab.truncated(cut_off)
    return [[right, wrong, cut_off]]


def test_only_answers_that_ended_wrong_are_continued_and_originals_stay(lab):
    groups = batch(lab)
    out = Correct(n=3)(groups, lab)
    assert out[:1] == groups and len(out) == 2
    assert [t.parent for t in out[1]] == [groups[0][1]] * 3
    for t in out[1]:
        path, marker, rest = t.steps
        assert path.tokens == (0, 0, 1) and path.logprobs is None  # the end token gave way to the marker
        assert marker.tokens == (MARKER,) and marker.logprobs is None
        assert rest.logprobs is not None and t.length <= lab.cap
    assert lab.logged["corrections"] == pytest.approx(1 / 3)


def test_continuations_are_compared_with_each_other_and_originals_among_themselves(lab):
    groups = verified(Correct(n=4)(batch(lab), lab), lab)
    credited = Outcome()(groups, lab)
    alone = Outcome()(batch(lab), lab)
    assert [t.advantages for t in credited[0]] == [t.advantages for t in alone[0]]
    rewards = [t.outcome for t in groups[1]]
    for i, t in enumerate(credited[1]):
        others = [r for j, r in enumerate(rewards) if j != i]
        expected = 0.0 if len(set(rewards)) == 1 else rewards[i] - sum(others) / 3
        assert t.advantages == pytest.approx((expected,) * 3)


def test_the_marker_is_taught_where_a_continuation_succeeds(lab):
    groups = verified(Correct(n=8, teach=2.0)(batch(lab), lab), lab)
    solved = [t.solved for t in groups[1]]
    assert True in solved and False in solved
    for row, right in zip(rows_of(Outcome()(groups, lab)[1:]), solved, strict=True):
        at = row.completion.index(MARKER)
        assert row.mask[at] is right  # in the loss only there
        assert row.advantages[at] == 2.0 / 8 or not right
        assert not any(row.mask[:at])


def test_the_end_token_gives_way_wherever_it_stands(lab):
    first, last = Step((0, 0), (-0.7, -0.7)), Step((1, END), (-0.7, -0.7))
    wrong = lab.verify([Trajectory(problem(), (first, last))])[0]
    (new,) = Correct()([[wrong]], lab)[1:]
    assert new[0].completion[:4] == (0, 0, 1, MARKER)


def test_the_cut_is_after_the_first_wrong_step(lab):
    assert first_wrong([0.5, 0.4, 0.0, 0.0]) == 1
    assert first_wrong([0.5, 0.4, 0.1]) == 1  # never at 0: the last step
    (new,) = Correct(cut="oracle")([[answer(lab, 1, 0, 1)]], lab)[1:]
    assert new[0].completion[:3] == (1, 0, MARKER)  # after 1 0 nothing can win
    located = Correct(cut="monte_carlo", monte_carlo=MonteCarlo(rollouts=64))
    (new,) = located([[answer(lab, 1, 0, 1)]], lab)[1:]
    assert new[0].completion[:3] == (1, 0, MARKER)
    assert lab.asked["label"] > 0


def test_placebos_spend_the_same_without_the_idea(lab):
    groups = batch(lab)
    after_all = Correct(always=True)(groups, lab)[1:]
    assert [g[0].parent for g in after_all] == groups[0][:2]  # right ones, too; not the truncated one
    (again,) = Correct(resample=True)(groups, lab)[1:]
    assert again[0].parent == groups[0][1]
    assert all(len(t.steps) == 1 and MARKER not in t.completion for t in again)


def test_no_failures_no_corrections(lab):
    groups = [[answer(lab, 0, 1, 1)]]
    assert Correct()(groups, lab) == groups


def test_there_is_no_room_for_a_correction_at_the_cap():
    lab = PaperLab(lambda digits: False, depth=3, cap=4)
    groups = [[answer(lab, 0, 1, 1)]]
    assert len(Correct()(groups, lab)) == 1  # the marker fills the place of the end token, nothing is left


def test_mistakes_in_settings_and_tasks_without_a_marker():
    class Plain:
        name = "plain"

    with pytest.raises(UserError, match="correction marker"):
        Correct().check(Plain())
    with pytest.raises(UserError, match="n=1"):
        Correct(n=1)
    Plain.correction = "no"
    Correct().check(Plain())
    with pytest.raises(UserError, match="oracle"):
        Correct(cut="oracle").check(Plain())
