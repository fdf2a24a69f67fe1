"""Alarms: when they ring, when they must not, when they clear, and that a resumed run hears the same."""

import json
import math
from random import Random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.alarm import FALL, TRUNCATION, WINDOW, Alarm


def batch(solved, reward=None, truncated=0.0, **more):
    return {"solved": solved, "reward": solved if reward is None else reward, "truncated": truncated, **more}


def listen(batches, alarm=None):
    """The alarm after these batches, numbered from 1, and what it said, by step."""
    alarm = alarm or Alarm()
    said = {step: texts for step, figures in enumerate(batches, 1) if (texts := alarm.update(step, figures))}
    return alarm, said


def ramp(start, end, count):
    return [start + (end - start) * i / (count - 1) for i in range(count)]


def noisy(values, spread, rng):
    return [min(1.0, max(0.0, value + rng.gauss(0, spread))) for value in values]


def learning(rng, count=130):
    """As guess + check on the default task: truncation rises ninefold, and so does what is solved."""
    solved = [0.31 + 0.23 * (1 - math.exp(-i / 20)) for i in range(count)]
    truncated = [0.05 + 0.40 * (1 - math.exp(-i / 15)) for i in range(count)]
    # problems that are hard for the policy are the ones that it runs out of room on
    wobble = [rng.gauss(0, 0.06) for _ in range(count)]
    return [batch(s + w, truncated=t - w) for s, t, w in zip(solved, truncated, wobble, strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_ordinary_training_is_silent(seed):
    assert listen(learning(Random(seed)))[1] == {}


def test_noise_alone_is_silent():
    """An accuracy of .08 measured on 64 answers: falls of a quarter are common, and mean nothing."""
    rang = 0
    for seed in range(100):
        rng = Random(seed)
        batches = [
            batch(s, r, t)
            for s, r, t in zip(
                noisy([0.08] * 200, 0.034, rng),
                noisy([0.5] * 200, 0.2, rng),
                noisy([0.5] * 200, 0.2, rng),
                strict=True,
            )
        ]
        rang += bool(listen(batches)[1])
    assert rang <= 2


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=60))
@settings(deadline=None)
def test_a_verified_reward_cannot_be_hacked(values):
    alarm, _ = listen([batch(solved, truncated=truncated) for solved, truncated in values])
    assert all(event["kind"] == "truncation" for event in alarm.events)


def hacked(rng, paid="reward"):
    solved = noisy([0.2] * 20 + ramp(0.2, 0.004, 40) + [0.004] * 20, 0.03, rng)
    rewards = [v + rng.gauss(0, 0.05) for v in [1.0] * 20 + ramp(1.0, 3.0, 40) + [3.0] * 20]
    return [batch(s, **{paid: r}) for s, r in zip(solved, rewards, strict=True)]


@pytest.mark.parametrize("paid", ["reward", "reward/process", "tree/value"])
def test_a_hacked_reward_rings_once_and_goes_on(paid):
    alarm, said = listen(hacked(Random(0), paid))
    ((step, (text,)),) = said.items()
    assert 25 <= step <= 55  # while it happens, not after it
    assert f"step {step}" in text and "pays for 1" in text and "accuracy 0.2" in text
    assert [(e["kind"], e["step"], e["cleared"]) for e in alarm.events] == [("reward", step, None)]
    assert alarm.ringing == alarm.events


def test_truncation_rings_only_if_accuracy_falls():
    cut = ramp(0.05, 0.9, 60)
    worse, better = ramp(0.5, 0.1, 60), ramp(0.1, 0.5, 60)
    alarm, said = listen([batch(s, truncated=t) for s, t in zip(worse, cut, strict=True)])
    assert len(said) == 1 and alarm.ringing[0]["kind"] == "truncation"
    assert not listen([batch(s, truncated=t) for s, t in zip(better, cut, strict=True)])[1]
    assert not listen([batch(s, truncated=0.5) for s in worse])[1]  # a worse policy alone is no alarm
    # a search is judged by what it has verified, not by the siblings that it happened to finish
    found = [batch(s, truncated=t, **{"tree/solved": 0.5}) for s, t in zip(worse, cut, strict=True)]
    assert not listen(found)[1]


def test_thresholds_by_hand():
    """Without noise: WINDOW equal batches, then WINDOW others; their mean moves by a WINDOWth per batch."""

    def first(fall, rise):
        after = batch(0.5 * (1 - fall), truncated=0.1 + rise)
        alarm = Alarm()
        for step in range(1, WINDOW + 1):
            assert alarm.update(step, batch(0.5, truncated=0.1)) == []
        alarm._noise = lambda name: 0.0
        return next((k for k in range(1, WINDOW + 1) if alarm.update(WINDOW + k, after)), None)

    eps = 1e-9
    assert first(FALL + eps, TRUNCATION + eps) == WINDOW
    assert first(FALL - eps, TRUNCATION + eps) is None and first(FALL + eps, TRUNCATION - eps) is None
    assert first(2 * FALL + eps, 4 * TRUNCATION) == WINDOW // 2
    assert first(4 * FALL, 2 * TRUNCATION + eps) == WINDOW // 2


def test_it_clears_at_half_the_threshold_and_can_ring_again():
    good, bad = batch(0.5, 0.5), batch(0.1, 2.0)
    alarm, said = listen([good] * 30 + [bad] * 30 + [good] * 30 + [bad] * 30)
    assert len(said) == 2 and [e["kind"] for e in alarm.events] == ["reward", "reward"]
    one, two = alarm.events
    assert 30 < one["step"] < 40 and 60 < one["cleared"] <= 70 and 90 < two["step"] < 100
    assert two["cleared"] is None
    # between the thresholds: no alarm begins there, and one that rings goes on
    between = 0.5 * (1 - 0.75 * FALL)
    assert listen([good] * 30 + [batch(between, 2.0)] * 30)[1] == {}
    alarm, _ = listen([good] * 30 + [bad] * 30 + [batch(between, 2.0)] * 30)
    assert len(alarm.ringing) == 1


def test_another_reward_starts_the_comparison_anew():
    """Process rewards that end after a share of the budget: what is paid then has another scale."""
    early = [batch(0.5, **{"reward/process": 0.1})] * 20
    late = [batch(0.3)] * 20
    assert listen(early + late)[1] == {}
    ringing = [batch(0.2, **{"reward/process": 5.0})] * 20
    alarm, said = listen(early + ringing + late)
    assert len(said) == 1 and alarm.events[0]["cleared"] == 41


@pytest.mark.parametrize("cut", [0, 3, WINDOW, 35, 79])
def test_a_resumed_run_hears_the_same(cut):
    batches = hacked(Random(1))
    whole, said = listen(batches)
    before, _ = listen(batches[:cut])
    after = Alarm()
    after.restore(json.loads(json.dumps(before.state())))
    assert after.state() == before.state()
    for step, figures in enumerate(batches[cut:], cut + 1):
        assert after.update(step, figures) == said.get(step, [])
    assert after.state() == whole.state()
    assert fmean(after.state()["recent"]["verified"]) < 0.05
