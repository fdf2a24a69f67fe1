"""For tests of the learner: an independent reference, material to exercise it, a Trainer to look into."""

from dataclasses import replace
from functools import cache
from random import Random

import torch
from tiny import tiny_policy
from transformers import TrainerCallback

from ablate.config import LearnerConfig, SamplingConfig
from ablate.learner import LOSS_TYPES, Learner
from ablate.ledger import Ledger
from ablate.rows import rows_of
from ablate.types import Problem, Step, Trajectory

CAP = 20
TEMPERATURE = 0.8
CASES = [(loss, "token") for loss in LOSS_TYPES]
CASES += [(loss, "sequence") for loss in ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")]


def mild_policy():
    """Random weights; of a sharper model, single precision itself gets the gradient wrong by 1e-5."""
    return tiny_policy(sharpness=4.0)


# -- an independent reference: no padding, no micro-batches, no library --------------------------------------


def reference_loss(model, groups, config):
    """The loss of the batch in double precision, row by row, from the papers' formulas.

    arXiv: grpo 2402.03300, dapo 2503.14476 (and bnpo with the whole batch as its denominator), dr_grpo
    2503.20783, importance="sequence" 2507.18071, cispo 2506.13585, sapo 2511.20347, luspo 2602.05261,
    vespo 2602.10693.
    """
    rows = rows_of(groups)  # tested on their own
    kind, low, high = config.loss_type, 1.0 - config.clip_low, 1.0 + config.clip_high
    all_tokens = sum(sum(row.mask) for row in rows)
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        ids = torch.tensor([row.prompt + row.completion])
        logits = model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1] / TEMPERATURE
        mine = torch.tensor(row.mask)
        logp = logits.log_softmax(-1)[torch.arange(len(row.completion)), torch.tensor(row.completion)][mine]
        old, advantage = (torch.tensor(v, dtype=torch.float64)[mine] for v in (row.logprobs, row.advantages))
        old = torch.where(old.isnan(), logp.detach(), old)  # tokens to imitate: a ratio of 1
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
    model = mild_policy().model.double()
    if weights is not None:
        model.load_state_dict(weights)
    loss = reference_loss(model, groups, config)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}, loss.item()


# -- material ------------------------------------------------------------------------------------------------


@cache
def make_groups(seed=0, count=4, off_policy=0.3, teach=0.0):
    """Ragged groups: several steps, foreign steps, weights, advantages of both signs and of zero.

    off_policy: standard deviation of (old - current) log-probability. teach: weight of imitation of foreign
    steps in odd places, by the right answers (the first of each group). The third group has no signal at all,
    the last trajectory of the first none of its own, and two in the second not a single own token.
    """
    draw, model = Random(seed), mild_policy().model
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
                taught = teach if foreign and s % 2 else 0.0
                steps.append(Step(tokens, logprobs, weight=draw.choice((0.5, 1.0, 2.0)), imitate=taught))
                advantages.append(0.0 if g == 2 or draw.random() < 0.2 else draw.gauss(0, 1))
                sofar += tokens
            if g == 0 and i == 2:
                advantages = [0.0] * len(steps)
            if g == 1 and i == 2:
                steps = [step.masked() for step in steps]
            problem = Problem(f"p{g}", "", tokens=prompt)
            group.append(Trajectory(problem, tuple(steps), solved=i == 0, advantages=tuple(advantages)))
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


def train(folder, rollout, config, ledger=None, save_at=None, reference=None):
    """A trained Learner and its Probe."""
    probe = Probe(save_at)
    sampling = SamplingConfig(cap=CAP, temperature=TEMPERATURE)
    learner = Learner(
        mild_policy(), config, sampling, ledger or Ledger(), folder, rollout, [probe], reference=reference
    )
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
