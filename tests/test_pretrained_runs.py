"""A pretrained model with a BPE tokenizer and a chat template, trained by every suspect as a whole run."""

import pytest
import torch
from word_problems import make_model
from word_runs import STRATEGIES, add_task, count, trace, train

from ablate.check import check_strategy
from ablate.compose import compose
from ablate.engines.hf import HFEngine
from ablate.learner import Learner
from ablate.record import read_jsonl
from ablate.types import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), steps=150)


@pytest.fixture(autouse=True)
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add_task(tmp_path)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_suspect_trains_it(model, tmp_path, monkeypatch, strategy):
    from transformers import AutoModelForCausalLM

    counts = count(monkeypatch, HFEngine)
    folder, summary = train(model, tmp_path, f"strategy={strategy}")
    accounts = summary["compute"]
    for purpose in ("rollout", "label", "update"):
        assert accounts.get(purpose, {"tokens": 0})["tokens"] == counts[purpose], purpose
    steps = read_jsonl(folder / "steps.jsonl")
    assert max(step["learner/grad_norm"] for step in steps) > 0
    before = AutoModelForCausalLM.from_pretrained(model)
    after = AutoModelForCausalLM.from_pretrained(folder / "policy")
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert summary["start"]["path"] == str(model)


LEARNED = [
    "strategy=process_learned",
    *(f"strategy.credit.learned.{key}" for key in ("every=2", "first=24", "prefixes=12")),
]
VARIANTS = {
    "lora": ["model.lora.rank=4"],
    "lora, mixed": ["model.lora.rank=4", "learner.bf16=true", "learner.gradient_checkpointing=true"],
    "lora, reference": ["model.lora.rank=4", "strategy=score"],
    "scorer of adapters": [*LEARNED, "strategy.credit.learned.train=lora"],
    "scorer's head": [*LEARNED, "strategy.credit.learned.train=head"],
    "value head": ["strategy=mcts", "learner.bf16=true"],
}


QUICK = ("lora, mixed", "scorer of adapters")  # what the timed suite has time for


@pytest.mark.parametrize(
    "variant", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
)
def test_its_variants_resume_bit_for_bit(model, tmp_path, monkeypatch, variant):
    """A crash in the fourth step, with a checkpoint every second one."""
    if any("lora" in setting for setting in VARIANTS[variant]):
        pytest.importorskip("peft")
    settings = [*VARIANTS[variant], "learner.problems=2", "budget.tokens=8e3"]
    whole, _ = train(model, tmp_path / "whole", *settings)
    step = Learner.training_step

    def failing(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise RuntimeError("the power failed")
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power"):
        patch.setattr(Learner, "training_step", failing)
        train(model, tmp_path / "killed", *settings)
    resumed, _ = train(model, tmp_path / "killed", *settings, "resume=true")
    assert trace(resumed) == trace(whole)


def test_a_finished_run_of_adapters_is_summarised_from_its_checkpoint(model, tmp_path, monkeypatch):
    """Killed between the last step and the summary."""
    pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power"):
        patch.setattr("ablate.summary.summarise", lambda *a: (_ for _ in ()).throw(RuntimeError("power")))
        train(model, tmp_path, "model.lora.rank=4")
    folder, _ = train(model, tmp_path, "model.lora.rank=4", "resume=true")
    loaded = AutoModelForCausalLM.from_pretrained(folder / "policy")  # adapters, on the model they belong to
    weights = {n: w for n, w in loaded.named_parameters() if "lora_B" in n}
    assert weights and all(w.abs().max() > 0 for w in weights.values())


def test_mistakes_are_told_before_anything_is_trained(model, tmp_path):
    for overrides, message in (
        (["sampling.cap=600"], "exceed the 512 positions"),
        (["budget.tokens=10"], "less than one batch can cost"),
        (["model.path=/nowhere"], "is no folder here"),
    ):
        with pytest.raises(UserError, match=message):
            train(model, tmp_path, *overrides)
    assert not list(tmp_path.glob("single/*/steps.jsonl"))


@pytest.mark.parametrize("strategy", ["learn_to_correct", "mcts"])
def test_strategies_keep_their_contract_on_it(model, strategy):
    chosen = ["task=words", "model=pretrained", f"model.path={model}", f"strategy={strategy}"]
    found = check_strategy(compose([*chosen, "sampling.cap=24"]), start=True)
    assert [str(each) for each in found if not each.ok] == []


@pytest.mark.slow
def test_outcome_rewards_make_it_better(model, tmp_path):
    settings = ["learner.problems=16", "learner.lr=5e-4", "budget.tokens=1.5e5", "evaluate.samples=8"]
    _, summary = train(make_model(tmp_path / "taught", steps=300), tmp_path, *settings)
    assert summary["after"]["pass@1"] > summary["before"]["pass@1"] + 0.1
