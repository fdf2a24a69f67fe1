"""The stand-in answers as it is told to, and charges what the real parts charge."""

from functools import partial
from statistics import fmean

import pytest

from ablate.compose import compose
from ablate.config import build
from ablate.ledger import Ledger
from ablate.models.flops import PassCost
from ablate.models.judges import local_judge, policy_judge
from ablate.models.value_models import HeadModel, StepModel
from ablate.plan.stand_in import (
    EOS,
    Engine,
    Manner,
    Policy,
    Rehearsal,
    Unforeseen,
    _Head,
    _StepScorer,
)
from ablate.types import Problem, Step, Trajectory, UserError

COST = PassCost(linear=1000, attention=20, head=100)


def words(text):
    return len(text.split())


def stage(manner, config=None):
    config = config or compose(["experiment=smoke"])
    ledger = Ledger()
    policy = Policy(COST, words)
    engine = Engine(policy, ledger, manner, 1024)
    return Rehearsal(config, build(config.task), policy, engine, ledger), engine, ledger


def drawn(engine, manner, updates, problems=64, n=8):
    engine.learn(updates)
    prompts = [engine._policy.prompt("a prompt of words", i) for i in range(problems)]
    steps = engine.generate(
        prompts, n, [manner.cap] * problems, key=1, purpose="rollout", stop=frozenset(), temperature=1.0
    )
    return prompts, [step.tokens for row in steps for step in row]


@pytest.mark.parametrize("manner", [Manner.of(128), Manner.of(4096, 900, 30), Manner.of(32)])
@pytest.mark.parametrize("updates", [0, 1000])
def test_answers_are_as_long_as_they_should_be(manner, updates):
    _, engine, _ = stage(manner)
    _, answers = drawn(engine, manner, updates, problems=256)
    assert fmean(map(len, answers)) == pytest.approx(manner.after(updates), rel=0.06)
    assert max(map(len, answers)) <= manner.cap
    assert manner.after(0) == pytest.approx(manner.length / 2)
    assert manner.after(1000) == pytest.approx(manner.length)


def test_answers_that_the_cap_cuts_off_are_not_solved_and_a_step_goes_on_where_it_was():
    manner = Manner.of(128)
    lab, engine, _ = stage(manner)
    lab.cap = manner.cap
    prompts, answers = drawn(engine, manner, 1000)
    problem = Problem("p", "", tokens=prompts[0])
    judged = lab.verify([Trajectory(problem, (Step(tokens, (0.0,) * len(tokens)),)) for tokens in answers])
    ended = [t for t in judged if t.completion[-1] == EOS]
    assert 0.5 < len(ended) / len(judged) < 1.0
    assert 0.3 < fmean(float(bool(t.solved)) for t in judged) < 0.8
    assert not any(t.solved for t in judged if t.completion[-1] != EOS)
    whole = next(t for t in ended if t.solved)
    split = lab.split(whole)
    assert len(split.steps) == round(whole.length / manner.step) and split.completion == whole.completion
    # one step at a time: the same sizes, and the end token by itself
    path = Trajectory(problem)
    for _ in range(200):
        if lab.finished(path):
            break
        path = path.then(lab.sample([path], 1, stop=("\n",))[0][0])
    assert lab.finished(path)
    sizes = [len(step.tokens) for step in path.steps]
    assert max(sizes) <= manner.step + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((128, 200.0), "length=200 does not fit under sampling.cap=128: the largest mean is 121.6"),
        ((128, 30.0, 20.0), "a step needs 3 tokens; nearest: steps=10"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Manner.of(*arguments)


def prefixes(policy):
    """Trajectories that share prefixes, in tokens that a tiny policy knows."""
    problem = Problem("p", "", tokens=(1, 5, 6, 7))
    first, second, third = (Step(tokens, (0.0,) * len(tokens)) for tokens in ((8, 9), (10, 11, 12), (9,)))
    paths = [(), (first,), (first, second), (first, third), (second,)]
    return [Trajectory(problem, path) for path in paths]


def test_a_value_head_charges_like_the_real_one(policy):
    spent = []
    width = policy.model.config.hidden_size
    for make in (
        lambda ledger: HeadModel(policy, ledger, 0, lr=1e-3, steps=3),
        lambda ledger: _Head(Policy(policy.cost, words), ledger, width, 3),
    ):
        ledger = Ledger()
        model, rows = make(ledger), prefixes(policy)
        ledger.charge_generation("rollout", policy.cost, rows[0].problem.tokens, [(8, 9, 10)])
        model.predict(rows[:3])
        model.predict(rows)
        model.fit(rows, [0.0, 1.0, 0.5, 0.5, 1.0])
        model.predict(rows[1:2])
        spent.append(ledger.by_purpose())
    assert spent[0] == spent[1] and spent[0]["auxiliary_update"]["flops"] > 0


def test_a_step_scorer_charges_like_the_real_one(policy):
    spent = []
    for make in (
        lambda ledger: StepModel(policy, ledger, 0, lr=1e-3, epochs=2, batch=4),
        lambda ledger: _StepScorer(Policy(policy.cost, words), ledger, 2),
    ):
        ledger = Ledger()
        model, rows = make(ledger), prefixes(policy)
        model.predict(rows)
        model.fit(rows, [0.0, 1.0, 0.5, 0.5, 1.0])
        spent.append(
            {p: (a["flops"], a["logical_flops"], a["processed"]) for p, a in ledger.by_purpose().items()}
        )
    # one weight per hidden unit is the scorer's own head, which the stand-in leaves out
    assert spent[0].keys() == spent[1].keys() == {"score", "auxiliary_update"}
    for purpose, real in spent[0].items():
        assert spent[1][purpose] == pytest.approx(real, rel=0.01), purpose


def test_a_judge_is_charged_or_unforeseen():
    lab, _, ledger = stage(Manner.of(128))
    verdicts = lab.judge("a", partial(policy_judge, yes=" yes", no=" no", example=""), ["one two three"] * 2)
    assert len(verdicts) == 2 and all(0 <= v <= 1 for v in verdicts)
    account = ledger.accounts["judge"]
    assert account.tokens == 2 * 4 and account.flops > COST.forward(0, 4, 0)  # a begin token and three words
    with pytest.raises(Unforeseen, match="local judge"):
        lab.judge("b", partial(local_judge, path="x"), ["one"])
    with pytest.raises(Unforeseen, match="auxiliary model mine"):
        lab.value_model("mine", lambda policy, ledger, seed: None)
