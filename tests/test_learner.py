"""The learner's gradient is the textbook loss of the whole batch, however it is cut up and spread out."""

import gc
import math
import os
import time
from dataclasses import replace
from datetime import timedelta
from functools import cache
from random import Random

import pytest
import torch
from tiny import tiny_policy
from transformers import TrainerCallback

from ablate import learner as module
from ablate.checkpoint import latest
from ablate.config import LearnerConfig, SamplingConfig
from ablate.learner import LOSS_TYPES, Learner, NonFiniteLoss
from ablate.ledger import Ledger
from ablate.rows import collate, micro_batches, rows_of
from ablate.runtime import quiet_libraries
from ablate.types import Problem, Step, Trajectory

torch.set_num_threads(1)
quiet_libraries()
gc.freeze()  # every Trainer.train() collects garbage, which the imports alone make half a second
CAP = 20
TEMPERATURE = 0.8
CASES = [(loss, "token") for loss in LOSS_TYPES]
CASES += [(loss, "sequence") for loss in ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")]


# -- an independent reference: no padding, no micro-batches, no library --------------------------------------


def reference_loss(model, groups, config):
    """The loss of the batch, row by row, from the papers' formulas.

    arXiv: grpo 2402.03300, dapo 2503.14476 (and bnpo with the whole batch as its denominator), dr_grpo
    2503.20783, importance="sequence" 2507.18071, cispo 2506.13585, sapo 2511.20347, luspo 2602.05261,
    vespo 2602.10693.
    """
    rows = rows_of(groups)  # its own test is below
    kind, low, high = config.loss_type, 1.0 - config.clip_low, 1.0 + config.clip_high
    all_tokens = sum(sum(row.mask) for row in rows)
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor([row.prompt + row.completion])
        logits = model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].float() / TEMPERATURE
        own = torch.tensor(row.mask)
        logp = logits.log_softmax(-1)[torch.arange(len(row.completion)), torch.tensor(row.completion)][own]
        old, advantage = torch.tensor(row.logprobs)[own], torch.tensor(row.advantages)[own]
        ratio = (logp - old).exp()
        if config.importance == "sequence":
            ratio = (logp - old).mean().exp().expand_as(ratio)
        if kind == "cispo":
            loss = -ratio.detach().clamp(max=config.clip_high) * advantage * logp
        elif kind == "sapo":
            tau = torch.where(advantage > 0, 1.0, 1.05)
            loss = -(4 / tau) * torch.sigmoid(tau * (ratio - 1)) * advantage
        elif kind == "vespo":
            w = (logp - old).sum().exp().detach()
            k, rate = torch.where(advantage >= 0, 2.0, 3.0), torch.where(advantage >= 0, 3.0, 2.0)
            loss = -(w**k * torch.exp(rate * (1 - w))) * advantage * logp
        else:
            loss = -torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
        tokens = {"grpo": len(loss), "sapo": len(loss), "luspo": 1, "dr_grpo": CAP}  # a row's own denominator
        total = total + loss.sum() / (tokens[kind] * len(rows) if kind in tokens else all_tokens)
    return total


def reference_gradient(groups, config, weights=None):
    model = tiny_policy().model
    if weights is not None:
        model.load_state_dict(weights)
    loss = reference_loss(model, groups, config)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}, loss.item()


# -- material ------------------------------------------------------------------------------------------------


@cache
def make_groups(seed=0, count=4, off_policy=0.3):
    """Ragged groups: several steps, foreign steps, weights, advantages of both signs and of zero.

    off_policy: standard deviation of (old - current) log-probability. The third group has no signal at all,
    the last trajectory of the first none of its own, and two in the second not a single own token.
    """
    draw, model = Random(seed), tiny_policy().model
    groups = []
    for g in range(count):
        prompt = tuple(draw.randrange(3, 22) for _ in range(draw.randint(2, 6)))
        group = []
        for i in range(3):
            steps, advantages, sofar = [], [], prompt
            for s in range(draw.randint(1, 4)):
                tokens = tuple(draw.randrange(2, 22) for _ in range(draw.randint(1, 5)))
                foreign = draw.random() < 0.3 if s else g == 1 and i == 1
                logprobs = None if foreign else current(model, sofar, tokens, draw, off_policy)
                steps.append(Step(tokens, logprobs, weight=draw.choice((0.5, 1.0, 2.0))))
                advantages.append(0.0 if g == 2 or draw.random() < 0.2 else draw.gauss(0, 1))
                sofar += tokens
            if g == 0 and i == 2:
                advantages = [0.0] * len(steps)
            if g == 1 and i == 2:
                steps = [step.masked() for step in steps]
            problem = Problem(f"p{g}", "", tokens=prompt)
            group.append(Trajectory(problem, tuple(steps), advantages=tuple(advantages)))
        groups.append(group)
    return groups


def current(model, prefix, tokens, draw, spread):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prefix + tokens])).logits[0].float() / TEMPERATURE
    logp = logits.log_softmax(-1)
    return tuple(float(logp[len(prefix) - 1 + i, t]) + draw.gauss(0, spread) for i, t in enumerate(tokens))


def recredited(groups, change):
    """change(step, advantage) -> advantage"""

    def one(t):
        return replace(t, advantages=tuple(map(change, t.steps, t.advantages)))

    return [[one(t) for t in group] for group in groups]


def without_signal(groups):
    return recredited(groups, lambda step, advantage: 0.0)


def own(row, values):
    """Of the tokens that the policy wrote itself."""
    return [value for value, mine in zip(values, row.mask, strict=True) if mine]


def mean_square(groups):
    squares = [a * a for row in rows_of(groups) if row.signal for a in own(row, row.advantages)]
    return sum(squares) / len(squares)


class Probe(TrainerCallback):
    """What the Trainer is about to do and has done, step by step."""

    def __init__(self, save_at=None):
        self.save_at = save_at
        self.gradients, self.weights, self.states, self.rates = [], [], [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        named = ((name.removeprefix("module."), p.grad) for name, p in model.named_parameters())
        self.gradients.append({name: None if grad is None else grad.clone() for name, grad in named})
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        control.should_save = state.global_step == self.save_at
        self.weights.append(snapshot(model))
        self.states.append(
            [{k: v.clone() for k, v in s.items()} for s in optimizer.state_dict()["state"].values()]
        )


def snapshot(model):
    return {name.removeprefix("module."): value.clone() for name, value in model.state_dict().items()}


def make_config(**changes):
    defaults = {"max_steps": 1, "max_grad_norm": 1e9, "normalize_advantages": False, "clip_high": 0.3}
    if changes.get("loss_type") == "cispo":
        defaults["clip_high"] = 1.1  # the bound on the ratio itself
    return LearnerConfig(**defaults | changes)


def train(folder, rollout, config, ledger=None, save_at=None):
    """A trained Learner and its Probe."""
    probe = Probe(save_at)
    sampling = SamplingConfig(cap=CAP, temperature=TEMPERATURE)
    learner = Learner(tiny_policy(), config, sampling, ledger or Ledger(), folder, rollout, [probe])
    learner.train()
    return learner, probe


def distance(left, right):
    """Largest difference of two gradients, relative to the largest entry."""
    assert left.keys() == right.keys()
    largest = max(float(grad.abs().max()) for grad in right.values())
    assert largest > 0
    return max(float((left[name] - right[name]).abs().max()) for name in right) / largest


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# -- the gradient --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss_type", "importance"), CASES)
def test_gradient_is_that_of_the_reference_for_every_loss_and_cut(tmp_path, loss_type, importance):
    groups = make_groups()
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
    model, ratios = tiny_policy().model, []
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
        assert ledger.accounts["update"].tokens == sum(len(row.completion) for row in kept)
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
    policy = tiny_policy()
    before = snapshot(policy.model)
    learner = Learner(policy, make_config(), SamplingConfig(), Ledger(), tmp_path, lambda step: groups)
    with pytest.raises(NonFiniteLoss, match=f"the {what} of step 1 is (nan|inf)"):
        learner.train()
    assert same(snapshot(policy.model), before)


def test_rows_follow_steps_and_refuse_what_does_not_fit():
    problem = Problem("p7", "", tokens=(5, 6))
    steps = (Step((7, 8), (-1.0, -2.0), weight=0.5), Step((9,)), Step((10,), (-3.0,)))
    good = Trajectory(problem, steps, advantages=(2.0, 3.0, -1.0))
    (row,) = rows_of([[good]])
    assert (row.prompt, row.completion, row.mask) == ((5, 6), (7, 8, 9, 10), (True, True, False, True))
    assert row.logprobs == (-1.0, -2.0, 0.0, -3.0) and row.advantages == (1.0, 1.0, 3.0, -1.0)
    assert rows_of([[replace(good, steps=(Step((9,)),), advantages=(1.0,))]]) == []
    with pytest.raises(ValueError, match=r"group 1, trajectory 1 \(p7\): 2 advantages for 3 steps"):
        rows_of([[good], [good, replace(good, advantages=(1.0, 2.0))]])
    short = replace(good, steps=(Step((7, 8), (-1.0,)),), advantages=(1.0,))
    with pytest.raises(ValueError, match=r"group 0, trajectory 0 \(p7\): step 0 has 1 logprobs for 2 tokens"):
        rows_of([[short]])


def test_micro_batches_keep_every_row_and_stay_within_their_tokens():
    rows = rows_of(make_groups(count=12))
    for limit in (1, 30, 100, 10**6):
        chunks = micro_batches(rows, limit)
        flat = [row for chunk in chunks for row in chunk]
        assert sorted(map(hash, flat)) == sorted(map(hash, rows))
        assert [row.length for row in flat] == sorted(row.length for row in rows)
        assert all(len(chunk) == 1 or len(chunk) * chunk[-1].length <= limit for chunk in chunks)


def test_padding_is_on_the_right_and_takes_no_part():
    rows = rows_of(make_groups())
    batch = collate(rows, 0, 2.0, "cpu")
    shared, width = batch["prompt_ids"].shape[1], max(row.length for row in rows)
    whole = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    assert shared == min(len(row.prompt) for row in rows) and whole.shape == (len(rows), width)
    for i, row in enumerate(rows):
        begin = len(row.prompt) - shared
        inside = slice(begin, begin + len(row.completion))
        assert tuple(whole[i, : row.length].tolist()) == row.prompt + row.completion
        assert tuple(batch["tool_mask"][i, inside].bool().tolist()) == row.mask
        assert batch["tool_mask"][i].sum() == sum(row.mask)
        assert batch["old_per_token_logps"][i, inside].tolist() == pytest.approx(row.logprobs)
        assert batch["advantages"][i, inside].tolist() == pytest.approx([2 * a for a in row.advantages])


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
