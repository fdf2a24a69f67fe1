"""Credit per step: VinePPO's advantages, the centred form, the switch and the placebo."""

from collections import Counter
from dataclasses import replace
from itertools import product
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper import KnownValues, PaperLab, answer, problem

from ablate.scorers.steps import step_values
from ablate.types import Step, Trajectory, UserError
from strategies.guess_check import Outcome
from strategies.process_rewards import Process, differences

WINS = {(0, 1, 1), (1, 1, 1), (1, 0, 0)}
digits3 = st.tuples(*[st.integers(0, 1)] * 3)
groups_of = st.lists(digits3, min_size=2, max_size=6)


def lab_of(**settings):
    return PaperLab(lambda digits: digits in WINS, depth=3, probabilities=(0.3, 0.7), **settings)


def process(lab, **settings):
    """With exact values in the place of Monte Carlo's."""
    made = Process(**settings)
    made._scorer = KnownValues()
    return made


@given(groups_of)
def test_values_are_the_scorers_and_the_outcome_and_every_prefix_is_judged_once(answers):
    lab, scorer = lab_of(), KnownValues()
    group = [lab.split(answer(lab, *digits)) for digits in answers]
    values = step_values(group, scorer, lab)
    for digits, v in zip(answers, values, strict=True):
        assert v == [lab.value(digits[:t]) for t in range(3)] + [float(digits in WINS)]
    assert len(scorer.asked) == len(set(scorer.asked)) == len({d[:t] for d in answers for t in range(3)})


@given(groups_of)
def test_differences_are_vineppo_s_and_telescope(answers):
    """A_t = V_t - V_{t-1}, A_T = r - V_{T-1}: written down again, and summing to r - V_0."""
    lab = lab_of()
    (group,) = process(lab, form="difference")([[answer(lab, *digits) for digits in answers]], lab)
    for digits, t in zip(answers, group, strict=True):
        r, v = float(digits in WINS), [lab.value(digits[:i]) for i in range(3)]
        assert t.advantages == pytest.approx((v[1] - v[0], v[2] - v[1], r - v[2]))
        assert sum(t.advantages) == pytest.approx(r - v[0])


def test_monte_carlo_advantages_have_the_exact_ones_as_their_mean():
    """Over every answer the policy can give, weighted by its probability, the difference form is unbiased."""
    lab = lab_of()
    answers = list(product((0, 1), repeat=3))
    sums = Counter()
    for _ in range(300):
        (group,) = Process()([[answer(lab, *d) for d in answers]], lab)
        for d, t in zip(answers, group, strict=True):
            for i, a in enumerate(t.advantages):
                sums[d, i] += a / 300
    for d in answers:
        v = [lab.value(d[:i]) for i in range(3)] + [float(d in WINS)]
        for i in range(3):
            assert sums[d, i] == pytest.approx(v[i + 1] - v[i], abs=0.11)  # 5 standard errors
    assert lab.asked == {"label": 300 * 3 * 7}  # seven distinct prefixes, three rollouts each


@given(groups_of, st.floats(0.1, 2.0))
def test_progress_is_centred_within_the_group_and_added_to_the_outcome(answers, coefficient):
    lab = lab_of()
    group = [answer(lab, *digits) for digits in answers]
    (credited,) = process(lab, form="progress", coefficient=coefficient)([group], lab)
    outcome = Outcome().advantages(group)
    extra = [a - o for t, o in zip(credited, outcome, strict=True) for a in t.advantages]
    assert sum(extra) == pytest.approx(0.0, abs=1e-9)
    steps = [p for t in group for p in differences(step_values([lab.split(t)], KnownValues(), lab)[0])]
    assert extra == pytest.approx([coefficient * (p - fmean(steps)) for p in steps])


@given(groups_of)
def test_the_placebo_permutes_steps_within_each_answer(answers):
    group = [answer(lab_of(), *digits) for digits in answers]
    lab = lab_of()
    (real,) = process(lab, form="difference")([group], lab)
    (placebo,) = process(lab, form="difference", shuffle=True)([group], lab)
    for a, b in zip(real, placebo, strict=True):
        assert Counter(a.advantages) == Counter(b.advantages) and a.steps == b.steps
    orders = {
        tuple(process(lab, shuffle=True)([[answer(lab, 0, 1, 1)]], lab)[0][0].advantages) for _ in range(60)
    }
    assert len(orders) == 6


def test_until_turns_process_rewards_off():
    lab = lab_of()
    group = [answer(lab, 0, 1, 1), answer(lab, 0, 0, 0)]
    early = Process(until=0.3)
    lab.budget_fraction = 0.29
    assert early([group], lab)[0][0].advantages != early.outcome([group], lab)[0][0].advantages
    lab.budget_fraction = 0.3
    assert early([group], lab) == early.outcome([group], lab)
    assert Process()([group], lab)[0][0].advantages != early.outcome([group], lab)[0][0].advantages
    with pytest.raises(UserError, match=r"until=1\.2"):
        Process(until=1.2)


@given(groups_of, st.floats(0.1, 2.0))
def test_returns_are_what_is_still_to_be_earned_against_the_same_place(answers, coefficient):
    """G_t = r - V_{t-1}, from the telescoping sum."""
    lab = lab_of()
    group = [answer(lab, *digits) for digits in answers]
    (credited,) = process(lab, form="return", coefficient=coefficient)([group], lab)
    rewards = [float(digits in WINS) for digits in answers]
    for i in range(3):
        left = [r - lab.value(digits[:i]) for r, digits in zip(rewards, answers, strict=True)]
        for t, a, g in zip(credited, Outcome().advantages(group), left, strict=True):
            assert t.advantages[i] == pytest.approx(a + coefficient * (g - fmean(left)))


def test_auto_chooses_the_form_by_what_the_values_are():
    assert Process()._form == "difference"  # the policy's own
    assert Process(scorer="verified")._form == "return"  # earned so far
    assert Process(scorer="oracle")._form == Process(scorer="learned")._form == "progress"
    assert Process(scorer="oracle", form="difference")._form == "difference"


def test_an_oracle_needs_a_task_that_has_one():
    class Plain:
        name = "plain"

    with pytest.raises(UserError, match=r"scorer=oracle needs .* task=plain .*monte_carlo"):
        Process(scorer="oracle").check(Plain())
    Process().check(Plain())


@given(groups_of, st.integers(1, 2))
def test_what_the_policy_did_not_write_is_not_judged_and_changes_no_credit(answers, masked):
    """The path of a continuation: all prefixes but those inside it."""

    def continued():
        steps = [lab.split(answer(lab, *digits)).steps for digits in answers]
        return [
            lab.verify([Trajectory(problem(), (*(s.masked() for s in own[:masked]), *own[masked:]))])[0]
            for own in steps
        ]

    lab = lab_of()
    every = [step_values([t], KnownValues(), lab)[0] for t in continued()]
    made = process(lab, form="difference")
    (credited,) = made([continued()], lab)
    for values, t in zip(every, credited, strict=True):
        assert t.advantages[masked:] == pytest.approx(differences(values)[masked:])
        assert not any(t.advantages[:masked])
    assert {len(completion) for _, completion in made._scorer.asked} == set(range(masked, 3))


def test_the_placebo_leaves_the_sum_of_what_the_policy_wrote():
    lab = lab_of()
    path = Step((0,), None)
    group = lab.verify([Trajectory(problem(), (path, Step((1, 1, 98), (-0.7,) * 3)))])
    real, placebo = (
        process(lab, form="difference", shuffle=shuffle)([group], lab)[0][0].advantages[1:]
        for shuffle in (False, True)
    )
    assert sum(real) == pytest.approx(sum(placebo))


def test_foreign_steps_set_no_baseline():
    """The masked path of a continuation takes no part in the group's mean."""
    lab = lab_of()
    path = Step((0,), None)
    group = lab.verify([Trajectory(problem(), (path, Step((1, d, 98), (-0.7,) * 3))) for d in (0, 1)])
    (credited,) = process(lab, form="progress")([group], lab)
    outcome = Outcome().advantages(group)
    extra = [a - o for t, o in zip(credited, outcome, strict=True) for a in t.advantages[1:]]
    assert sum(extra) == pytest.approx(0.0, abs=1e-9)


@given(digits3, st.integers(0, 3), st.sampled_from(["difference", "progress"]))
def test_what_the_policys_own_steps_are_paid_is_logged(digits, masked, form):
    """Per answer, the progress of its steps without the setbacks, which sum to no more than the outcome."""
    lab = lab_of()
    whole = lab.split(answer(lab, *digits))
    steps = [step.masked() if i < masked else step for i, step in enumerate(whole.steps)]
    process(lab, form=form)([[replace(whole, steps=tuple(steps))]], lab)
    progress = differences([*(lab.value(digits[:t]) for t in range(3)), float(digits in WINS)])
    assert lab.logged["reward/process"] == pytest.approx(sum(p for p in progress[masked:] if p > 0))
