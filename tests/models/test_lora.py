"""Adapters: what they cost, what they leave alone, and what the model is with them merged in."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from word_problems import WordProblems, make_model

from ablate.ledger import Ledger
from ablate.models.lora import LoRA
from ablate.models.pretrained import Pretrained
from ablate.models.value_models import StepModel
from ablate.types import Problem, Step, Trajectory, UserError

pytest.importorskip("peft")
IDS = torch.arange(3, 23)[None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {tied: make_model(root / str(tied), tied=tied) for tied in (True, False)}


def adapted(folder, dtype="float32", seed=0):
    spec = Pretrained(str(folder), dtype=dtype, lora=LoRA(rank=4, alpha=8))
    return spec.load(WordProblems(), seed, folder)[0]


def moved(policy, seed=1):
    """The policy after some updates: adapters that change something."""
    torch.manual_seed(seed)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    return policy


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_only_adapters_are_trained_in_float32(folders):
    policy = adapted(folders[True], "auto")
    kinds = {(w.requires_grad, w.dtype, "lora" in name) for name, w in policy.model.named_parameters()}
    assert kinds == {(True, torch.float32, True), (False, torch.bfloat16, False)}
    first = next(name for name, w in policy.model.named_parameters() if w.requires_grad)
    one, same, other = (
        dict(adapted(folders[True], "auto", seed).model.named_parameters())[first] for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("tied", [True, False])
def test_merged_weights_are_a_whole_model(folders, tied):
    policy = moved(adapted(folders[tied]))
    plain = Pretrained(str(folders[tied])).load(WordProblems(), 0, folders[tied])[0]
    before, with_adapters = logits(plain.model), logits(policy.model)
    assert (before - with_adapters).abs().max() > 0.1
    weights = dict(policy.weights())
    assert weights.keys() == dict(plain.weights()).keys()
    plain.model.load_state_dict(weights)
    torch.testing.assert_close(logits(plain.model), with_adapters, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits(policy.model), with_adapters)  # merged aside, not in place


def test_early_updates_are_not_rounded_away(folders):
    """What an engine in bfloat16 gets of a change as small as Adam's first steps make, along that change:
    next to nothing if it is rounded to the nearest. And without a change it gets the base."""
    policy = adapted(folders[True], "auto")
    plain = Pretrained(str(folders[True]), dtype="bfloat16").load(WordProblems(), 0, folders[True])[0]
    before = dict(policy.weights())
    assert all(torch.equal(weight, before[name]) for name, weight in plain.weights())
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.uniform_(weight, -2e-5, 2e-5)
    merged = dict(policy.weights(torch.bfloat16))
    dithered = nearest = change = 0.0
    for name, part in policy.whole.named_modules():
        if hasattr(part, "get_delta_weight"):
            delta, frozen = (
                part.get_delta_weight("default").detach().float(),
                before[f"{name}.weight"].float(),
            )
            change += float((delta**2).sum())
            dithered += float(((merged[f"{name}.weight"].float() - frozen) * delta).sum())
            nearest += float((((frozen + delta).bfloat16().float() - frozen) * delta).sum())
    assert nearest / change < 0.2 and dithered / change == pytest.approx(1.0, abs=0.2)


def test_the_start_is_the_same_model_without_its_adapters(folders):
    policy = adapted(folders[True])
    before = logits(policy.model)
    moved(policy)
    after, start = logits(policy.model), policy.start()
    assert torch.equal(logits(start.model), before) and not torch.equal(after, before)
    assert torch.equal(logits(policy.model), after)
    assert all(w.requires_grad == ("lora" in name) for name, w in policy.model.named_parameters())
    assert start.model.to("cpu") is policy.model  # nothing was copied
    plain = Pretrained(str(folders[True])).load(WordProblems(), 0, folders[True])[0]
    assert start.cost == plain.cost and plain.start() is None


def test_a_checkpoint_of_the_adapters_restores_them(folders, tmp_path):
    policy = moved(adapted(folders[True]))
    policy.model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("model*.safetensors"))
    fresh = adapted(folders[True])
    fresh.restore(tmp_path)
    assert torch.equal(logits(fresh.model), logits(policy.model))
    assert {n for n, w in fresh.model.named_parameters() if w.requires_grad} == {
        n for n, w in policy.model.named_parameters() if w.requires_grad
    }


@pytest.mark.parametrize("lora", [True, False])
def test_training_costs_what_torch_executes(folders, lora):
    """Linear layers and head, forward and backward: with adapters, frozen weights have no gradient."""
    policy = adapted(folders[False]) if lora else Pretrained(str(folders[False])).load(None, 0, None)[0]
    model, cost, length = policy.model, policy.cost, IDS.shape[1]
    assert (cost.frozen > 0) == (cost.frozen_head > 0) == lora
    model.get_input_embeddings().register_forward_hook(lambda *a: a[-1].requires_grad_(True))
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=IDS, use_cache=False).logits.sum().backward()
    counts, aten = counter.get_flop_counts()["Global"], torch.ops.aten
    linear = counts.get(aten.mm, 0) + counts.get(aten.addmm, 0)
    attention = 3 * 2 * cost.attention * length * (length + 1)
    assert linear == cost.train(length, length) - attention


def test_the_cost_is_known_before_the_model(folders):
    for spec in (
        Pretrained(str(folders[True])),
        Pretrained(str(folders[False]), lora=LoRA(rank=3)),
    ):
        policy, origin = spec.load(WordProblems(), 0, folders[True])
        assert spec.cost(WordProblems()) == policy.cost
        assert (origin["trained"] < origin["parameters"]) == bool(spec.lora.rank)


def test_a_step_scorer_trains_adapters_on_a_frozen_copy(folders):
    policy, ledger = moved(adapted(folders[True])), Ledger()
    model = StepModel(policy, ledger, 0, lr=1e-2, epochs=2, batch=8, lora=LoRA(rank=4))
    # the copy is the policy as it is, its adapters merged
    inner = model._model.get_base_model().base_model
    mine, theirs = (b(input_ids=IDS).last_hidden_state for b in (inner, policy.backbone))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    frozen = {n: w.clone() for n, w in model._model.named_parameters() if not w.requires_grad}
    assert any(".score." in n for n, w in model._model.named_parameters() if w.requires_grad)
    prefixes = [Trajectory(Problem("p", "", tokens=(1,)), (Step((3 + i % 2,), (-1.0,)),)) for i in range(64)]
    targets = [float(i % 2) for i in range(64)]
    first = model.fit(prefixes, targets)
    for _ in range(4):
        last = model.fit(prefixes, targets)
    assert last < 0.5 * first
    after = dict(model._model.named_parameters())
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)
    full = StepModel(policy, Ledger(), 0, lr=1e-2, epochs=1, batch=8)
    assert model._cost.frozen > 0 and full._cost.frozen == 0


@pytest.mark.parametrize(("settings", "message"), [({"rank": -1}, "rank=-1"), ({"alpha": 0}, "alpha=0")])
def test_impossible_adapters_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        LoRA(**settings)


def test_peft_missing_names_the_extra(monkeypatch):
    monkeypatch.setattr("ablate.models.lora.find_spec", lambda name: None)
    LoRA().check()
    with pytest.raises(UserError, match=r"lora\.rank=8 needs peft.*pip install 'ablate\[peft\]'"):
        LoRA(rank=8).check()
