"""Scorers against exact values: Monte Carlo on an enumerable game, learned models on a toy."""

from random import Random

import pytest
import torch
from paper import PaperLab
from tiny import tiny_policy

from ablate.ledger import Ledger
from ablate.models.value_models import HeadModel, StepModel, maximal
from ablate.scorers.learned import Learned, errors
from ablate.scorers.monte_carlo import MonteCarlo
from ablate.types import Problem, Step, Trajectory, UserError

WINS = {(0, 1, 1), (1, 1, 1), (1, 0, 0)}


def prefix(*tokens, name="p"):
    return Trajectory(Problem(name, "", tokens=(1,)), (Step(tokens, (-0.7,) * len(tokens)),))


@pytest.fixture
def lab():
    return PaperLab(lambda digits: digits in WINS, depth=3, probabilities=(0.3, 0.7))


@pytest.mark.parametrize("digits", [(), (0,), (1,), (1, 1), (0, 0)])
def test_monte_carlo_is_the_policys_own_chance(lab, digits):
    exact, rollouts = lab.value(digits), 4000
    (value,) = MonteCarlo(rollouts=rollouts).values([prefix(*digits)], lab)
    assert value == pytest.approx(exact, abs=5 * (exact * (1 - exact) / rollouts) ** 0.5 + 1e-9)
    hard = MonteCarlo(rollouts=4, labels="hard").values([prefix(*digits)] * 1000, lab)
    assert set(hard) <= {0.0, 1.0}
    assert sum(hard) / 1000 == pytest.approx(1 - (1 - exact) ** 4, abs=0.08)  # Math-Shepherd: any succeeds
    with pytest.raises(UserError, match="rollouts=0"):
        MonteCarlo(rollouts=0)


# -- models -------------------------------------------------------------------------------------------------

CHANCES = {3: 0.9, 4: 0.5, 5: 0.1}  # of a prefix that ends with this token, whatever came before


def toy(count, seed=0):
    """Prefixes of random tokens; their labels are draws with the last token's chance."""
    draw = Random(seed)
    prefixes = [
        prefix(*draw.choices((3, 4, 5, 6), k=draw.randint(0, 5)), draw.choice((3, 4, 5)))
        for _ in range(count)
    ]
    return prefixes, [float(draw.random() < CHANCES[p.completion[-1]]) for p in prefixes]


def make(kind, ledger=None, seed=0):
    policy = tiny_policy(sharpness=4.0)
    ledger = ledger or Ledger()
    if kind is HeadModel:
        return HeadModel(policy, ledger, seed, lr=3e-3, steps=60)
    return StepModel(policy, ledger, seed, lr=3e-3, epochs=3, batch=16)


@pytest.mark.parametrize("kind", [HeadModel, StepModel])
def test_models_recover_known_values(kind):
    model, (prefixes, labels) = make(kind), toy(600)
    first = model.fit(prefixes, labels)
    for seed in (1, 2):
        last = model.fit(*toy(600, seed))
    assert last < first
    fresh, _ = toy(300, 9)
    known = [CHANCES[p.completion[-1]] for p in fresh]
    predicted = model.predict(fresh)
    assert all(0.0 <= p <= 1.0 for p in predicted)
    found = errors(predicted, known)
    assert found["error"] < 0.02 and abs(found["bias"]) < 0.06 and found["calibration"] < 0.1
    # and a value does not depend on what else is judged
    assert model.predict(fresh[:3]) == pytest.approx(predicted[:3], abs=1e-5)


@pytest.mark.parametrize("kind", [HeadModel, StepModel])
def test_a_models_state_goes_on_where_it_was(kind):
    """Trained on, saved and loaded into a fresh one: the next training gives the same values, bit for bit."""
    one, other = make(kind), make(kind, seed=5)
    one.fit(*toy(64))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for model in (one, other):
        model.fit(*toy(64, 1))
    fresh, _ = toy(20, 2)
    assert one.predict(fresh) == other.predict(fresh)


def test_prefixes_of_one_answer_share_a_pass_on_the_ledger():
    ledger = Ledger()
    model = make(StepModel, ledger)
    model.predict([prefix(3, 4), prefix(3), prefix(3, 4, 5), prefix(6)])
    account = ledger.accounts["score"]
    assert account.processed == 4 + 1  # <1 3 4 5>, and of <1 6> what is new
    assert account.flops == pytest.approx(model._cost.forward(0, 4, 0) + model._cost.forward(1, 1, 0))
    model.fit(*toy(32))
    assert ledger.accounts["auxiliary_update"].flops > 0


def test_a_head_shares_the_policys_passes():
    ledger = Ledger()
    model = make(HeadModel, ledger)
    ledger.charge_generation("rollout", model._policy.cost, (1,), [(3, 4, 5)])
    model.predict([prefix(3)])  # the sampler has read this
    assert ledger.accounts["score"].flops == model._flops and ledger.accounts["score"].processed == 0
    model.predict([prefix(6)])
    assert ledger.accounts["score"].processed == 1
    model.predict([prefix(6)])
    assert ledger.accounts["score"].processed == 1
    ledger.new_policy_version()  # other hidden states
    with torch.no_grad():
        model._policy.model.get_input_embeddings().weight.mul_(-1.0)
    fresh = HeadModel(model._policy, Ledger(), 0, lr=3e-3, steps=60)
    assert model.predict([prefix(6)]) == fresh.predict([prefix(6)])
    assert ledger.accounts["score"].processed == 3


def test_maximal_rows():
    rows = [(1, 2), (1,), (1, 2, 3), (2,), (1, 3), (1, 2)]
    whole, owner = maximal(rows)
    assert sorted(whole) == [(1, 2, 3), (1, 3), (2,)]
    assert all(whole[owner[row]][: len(row)] == row for row in rows)


def test_calibration_figures():
    found = errors([0.9, 0.9, 0.1, 0.1], [1.0, 1.0, 0.0, 1.0])
    assert found["bias"] == pytest.approx(-0.25)
    assert found["error"] == pytest.approx((0.01 + 0.01 + 0.01 + 0.81) / 4)
    assert found["calibration"] == pytest.approx((0.2 + 0.8) / 4)
    assert errors([0.5] * 4, [0.0, 1.0, 1.0, 0.0])["calibration"] == 0.0


def test_the_learned_scorer_is_refreshed_as_told(lab):
    """Labels in the batches that say so, errors measured on them before it learns from them."""

    class Counting:
        def __init__(self):
            self.events = []

        def predict(self, prefixes):
            self.events.append(("predict", len(prefixes)))
            return [0.5] * len(prefixes)

        def fit(self, prefixes, targets):
            self.events.append(("fit", len(prefixes)))
            return 0.7

    model = Counting()
    lab.value_model = lambda name, factory: model
    scorer = Learned(first=6, prefixes=4, every=3)
    prefixes = [prefix(d, name=str(i)) for i in range(5) for d in (0, 1)]
    for lab.batch in range(4):
        scorer.values(prefixes, lab)
    assert model.events == [
        ("fit", 6),
        ("predict", 10),
        ("predict", 10),
        ("predict", 10),
        ("predict", 4),
        ("fit", 4),
        ("predict", 10),
    ]
    assert {"scorer/error", "scorer/bias", "scorer/calibration", "scorer/loss"} <= set(lab.logged)
    assert lab.asked == {"label": 3 * (6 + 4)}


def test_training_leaves_the_policy_alone():
    for kind in (HeadModel, StepModel):
        model = make(kind)
        before = {name: value.clone() for name, value in model._policy.model.state_dict().items()}
        model.fit(*toy(32))
        after = model._policy.model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(p.grad is None for p in model._policy.model.parameters())
