"""The learner's gradient is the textbook loss of the whole batch, however it is cut up and spread out."""

import gc
import math
import os
import time
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
import torch
from learning import (
    CASES,
    TEMPERATURE,
    current,
    distance,
    make_config,
    make_groups,
    mean_square,
    mild_policy,
    own,
    recredited,
    reference_gradient,
    same,
    snapshot,
    train,
    without_signal,
)

from ablate import learner as module
from ablate.checkpoint import latest
from ablate.config import SamplingConfig
from ablate.learner import Learner, NonFiniteLoss
from ablate.ledger import Ledger
from ablate.rows import rows_of
from ablate.runtime import quiet_libraries

torch.set_num_threads(1)
quiet_libraries()
gc.freeze()  # every Trainer.train() collects garbage, which the imports alone make half a second


# -- the gradient --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss_type", "importance"), CASES)
def test_gradient_is_that_of_the_reference_for_every_loss_and_cut(tmp_path, loss_type, importance):
    groups = make_groups(teach=0.7)
    assert any(math.isnan(p) for row in rows_of(groups) for p in row.logprobs)
    expected, loss = reference_gradient(groups, make_config(loss_type=loss_type, importance=importance))
    kept = [row for row in rows_of(groups) if row.signal]
    for limit, passes in ((1, len(kept)), (60, None), (10**6, 1)):
        config = make_config(loss_type=loss_type, importance=importance, micro_batch_tokens=limit)
        learner, probe = train(tmp_path, lambda step: groups, config)
        assert distance(probe.gradients[0], expected) < 1e-5
        assert learner.report["loss"] == pytest.approx(loss, abs=1e-5)
        assert passes is None or learner.report["micro_batches"] == passes
        assert learner.report["signal_rows"] == len(kept) / len(rows_of(groups))


def test_reference_material_exercises_what_it_should():
    rows = rows_of(make_groups())
    assert len({row.length for row in rows}) > 4 and len(rows) == 10  # two of twelve have no own token
    assert 0 < sum(not row.signal for row in rows) < len(rows)
    assert any(0 < sum(row.mask) < len(row.mask) for row in rows)
    assert any(len({*row.advantages}) > 1 for row in rows)
    model, ratios = mild_policy().model, []
    for row in rows:
        now = torch.tensor(current(model, row.prompt, row.completion, Random(0), 0.0))
        ratios += own(row, (now - torch.tensor(row.logprobs)).exp().tolist())
    assert min(ratios) < 0.8 and max(ratios) > 1.3 and any(0.8 < ratio < 1.3 for ratio in ratios)


def test_foreign_tokens_get_no_gradient_and_only_signal_is_charged(tmp_path, monkeypatch):
    groups, gradients = make_groups(), []
    loud = recredited(groups, lambda step, advantage: advantage if step.logprobs else 7.0)

    def noisy(row):
        return replace(
            row, logprobs=tuple(p if m else -3.0 for p, m in zip(row.logprobs, row.mask, strict=True))
        )

    def noisy_rows(groups):
        return [noisy(row) for row in rows_of(groups)]

    config = make_config(normalize_advantages=True)
    for given, rows in ((groups, rows_of), (loud, rows_of), (groups, noisy_rows)):
        monkeypatch.setattr(module, "rows_of", rows)
        ledger = Ledger()
        _, probe = train(tmp_path, lambda step, given=given: given, config, ledger)
        gradients.append(probe.gradients[0])
        kept = [row for row in rows_of(groups) if row.signal]
        assert ledger.accounts["update"].tokens == sum(row.learned for row in kept)
        assert ledger.accounts["update"].processed == sum(row.length for row in kept)
    assert same(gradients[0], gradients[1]) and same(gradients[0], gradients[2])


def test_a_batch_is_used_as_often_as_configured(tmp_path):
    batches = [make_groups(0), make_groups(1), []]
    asked = []

    def rollout(step):
        asked.append(step)
        return batches[step]

    config = make_config(iterations=2, max_steps=6, lr=0.01, warmup_steps=0)
    _, probe = train(tmp_path, rollout, config)
    assert asked == [0, 1, 2]
    for step, gradient in enumerate(probe.gradients[:4]):
        before = probe.weights[step - 1] if step else None
        expected, _ = reference_gradient(batches[step // 2], config, before)
        assert distance(gradient, expected) < 1e-5


def test_imitation_is_a_likelihood_term_of_its_own_scale(tmp_path):
    """Without advantages, the gradient is that of -teach x log-likelihood; no RMS touches it."""
    groups = without_signal(make_groups(teach=0.7, off_policy=0.0))
    tokens = sum(sum(row.mask) for row in rows_of(groups))
    model = mild_policy().model.double()
    loss = torch.zeros((), dtype=torch.float64)
    for row in rows_of(groups):
        logits = model(input_ids=torch.tensor([row.prompt + row.completion])).logits[0] / TEMPERATURE
        for i, (token, logprob) in enumerate(zip(row.completion, row.logprobs, strict=True)):
            if math.isnan(logprob):
                loss = loss - 0.7 * logits.log_softmax(-1)[len(row.prompt) + i - 1, token] / tokens
    loss.backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    for normalize in (False, True):
        _, probe = train(tmp_path, lambda step: groups, make_config(normalize_advantages=normalize))
        assert distance(probe.gradients[0], expected) < 1e-5
    credited = make_groups(teach=0.7)
    learner, _ = train(tmp_path, lambda step: credited, make_config(normalize_advantages=True))
    assert learner.report["advantage_rms"] ** 2 == pytest.approx(mean_square(make_groups()))


def test_advantages_are_divided_by_their_running_rms(tmp_path):
    batches = [make_groups(seed) for seed in (0, 1)]
    small = [recredited(batch, lambda step, advantage: advantage / 50) for batch in batches]
    config = make_config(normalize_advantages=True, rms_decay=0.75, max_steps=2, lr=1e-30)
    gradients, squares = {}, []
    for given in (batches, small):
        learner, probe = train(tmp_path, lambda step, given=given: given[step], config)
        gradients[id(given)] = probe.gradients
        squares.append(learner.report["advantage_rms"] ** 2)
    expected = 0.75 * mean_square(batches[0]) + 0.25 * mean_square(batches[1])
    assert squares == pytest.approx([expected, expected / 50**2])
    for one, other in zip(*gradients.values(), strict=True):
        assert distance(one, other) < 1e-5  # the scale of the credit does not matter
    plain, _ = reference_gradient(batches[1], config)
    scaled = {name: grad * expected**-0.5 for name, grad in plain.items()}
    assert distance(gradients[id(batches)][1], scaled) < 1e-5
    learner.restore({"mean_square": 4.0})
    assert learner._mean_square == 4.0


def test_a_kl_penalty_stands_beside_the_credit_and_is_not_scaled_with_it(tmp_path):
    """Without credit, the gradient is kl x (log p - log p_start) on the log-likelihood of sampled tokens;
    with it, the credit's own (divided by its RMS) is added, and no row without credit takes part in that
    RMS."""
    groups = make_groups(teach=0.7, off_policy=0.0)

    def start(rows):  # any other distribution will do
        return [[-1.0 - 0.25 * (token % 5) for token in row.completion] for row in rows]

    def expected(groups, kl):
        model, tokens = mild_policy().model.double(), sum(sum(row.mask) for row in rows_of(groups))
        scale, loss = mean_square(groups) ** -0.5, torch.zeros((), dtype=torch.float64)
        for row, reference in zip(rows_of(groups), start(rows_of(groups)), strict=True):
            logits = model(input_ids=torch.tensor([row.prompt + row.completion])).logits[0] / TEMPERATURE
            for i, token in enumerate(row.completion):
                if row.mask[i] and not math.isnan(row.logprobs[i]):
                    weight = row.advantages[i] * scale - kl * (row.logprobs[i] - reference[i])
                    logp = logits.log_softmax(-1)[len(row.prompt) + i - 1, token]
                    loss = loss - weight * logp / tokens
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters()}

    config = make_config(normalize_advantages=True, kl=0.3)
    credited = make_groups(off_policy=0.0)
    _, probe = train(tmp_path, lambda step: credited, config, reference=start)
    assert distance(probe.gradients[0], expected(credited, 0.3)) < 1e-4
    assert distance(probe.gradients[0], expected(credited, 0.0)) > 1e-2
    silent = without_signal(groups)
    learner, probe = train(tmp_path, lambda step: silent, config, reference=start)
    assert learner.report["signal_rows"] > 0.0  # what is taught
    assert not same(probe.weights[0], snapshot(mild_policy().model))
    with pytest.raises(ValueError, match="KL penalty"):
        train(tmp_path, lambda step: groups, config)


# -- what must not happen ------------------------------------------------------------------------------------


def test_no_signal_no_step(tmp_path):
    groups = make_groups()
    batches = [groups, without_signal(groups), [], groups]
    learner, probe = train(tmp_path, lambda step: batches[step], make_config(max_steps=4, weight_decay=0.1))
    for quiet in (1, 2):
        assert all(grad is None for grad in probe.gradients[quiet].values())
        assert same(probe.weights[quiet], probe.weights[0])
        assert all(same(*pair) for pair in zip(probe.states[quiet], probe.states[0], strict=True))
    assert not same(probe.weights[3], probe.weights[0])
    assert learner.state.global_step == 4


@pytest.mark.parametrize(("advantage", "what"), [(float("nan"), "loss"), (1e36, "gradient norm")])
def test_a_loss_that_is_not_finite_stops_with_the_weights_untouched(tmp_path, advantage, what):
    first, *others = make_groups()[0]
    groups = [[replace(first, advantages=(advantage,) * len(first.steps)), *others]]
    policy = mild_policy()
    before = snapshot(policy.model)
    learner = Learner(policy, make_config(), SamplingConfig(), Ledger(), tmp_path, lambda step: groups)
    with pytest.raises(NonFiniteLoss, match=f"the {what} of step 1 is (nan|inf)"):
        learner.train()
    assert same(snapshot(policy.model), before)


# -- learning rate -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "factors"), [("constant", [1, 1, 1, 1]), ("linear", [1, 0.8, 0.6, 0.4]), ("cosine", None)]
)
def test_learning_rate_warms_up_and_follows_the_budget(tmp_path, schedule, factors):
    groups, ledger = make_groups(count=1), Ledger("tokens", 10.0)

    def rollout(step):
        ledger.accounts["rollout"].tokens += 2
        return groups

    config = make_config(lr=0.01, warmup_steps=2, max_steps=4, schedule=schedule)
    _, probe = train(tmp_path, rollout, config, ledger)
    if factors is None:
        factors = [0.5 * (1 + math.cos(math.pi * f)) for f in (0, 0.2, 0.4, 0.6)]
    warm = [0.5, 1.0, 1.0, 1.0]
    assert probe.rates == pytest.approx([0.01 * w * f for w, f in zip(warm, factors, strict=True)])


# -- two processes -------------------------------------------------------------------------------------------

SHARES = {"ragged": ((0, 3), (3, 4)), "one without signal": ((0, 2), (2, 3)), "one empty": ((0, 4), (4, 4))}


def _rank(rank, folder):
    """Runs in a process of its own: this rank's share of every case; what it saw goes to a file."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=60), rank=rank, world_size=2
    )
    save = Learner._save_rng_state
    Learner._save_rng_state = lambda *args: (time.sleep(rank), save(*args))  # the second rank saves late
    groups, seen = make_groups(), {}
    for share, bounds in SHARES.items():
        mine = groups[slice(*bounds[rank])]
        for loss_type, importance in CASES if share == "ragged" else CASES[:5]:
            config = make_config(loss_type=loss_type, importance=importance, micro_batch_tokens=60)
            learner, probe = train(folder, lambda step, mine=mine: mine, config)
            assert learner.accelerator.num_processes == 2
            seen[share, loss_type, importance] = (probe.gradients[0], learner.report["loss"])
    mine = groups[slice(*SHARES["ragged"][rank])]
    batches = [mine, without_signal(mine)]
    config = make_config(max_steps=2, normalize_advantages=True)
    learner, probe = train(folder, lambda step: batches[step], config, save_at=1)
    seen["rms"] = learner._mean_square
    seen["quiet"] = (probe.weights, probe.states)
    broken = recredited(mine, lambda step, advantage: float("nan"))
    try:
        train(folder, lambda step: broken if rank else mine, make_config())
    except NonFiniteLoss as error:
        seen["nan"] = str(error)
    torch.save(seen, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_make_the_gradient_of_one(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    seen = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    groups = make_groups()
    for share, bounds in SHARES.items():
        whole = groups[: bounds[1][1]]
        for loss_type, importance in CASES if share == "ragged" else CASES[:5]:
            config = make_config(loss_type=loss_type, importance=importance)
            expected, loss = reference_gradient(whole, config)
            for rank in seen:
                gradient, reported = rank[share, loss_type, importance]
                assert distance(gradient, expected) < 1e-5, (share, loss_type, importance)
                assert reported == pytest.approx(loss, abs=1e-5)
    for rank in seen:
        assert rank["rms"] == pytest.approx(mean_square(groups))
        weights, states = rank["quiet"]
        assert same(weights[0], weights[1]) and same(weights[0], seen[0]["quiet"][0][0])
        assert all(same(*pair) for pair in zip(*states, strict=True))
        assert "loss of step 1 is nan" in rank["nan"]
    saved = {path.name for path in latest(tmp_path).iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= saved  # waited for by the process that writes
