"""A pretrained model: loaded as it is, and everything that can be wrong with it told before it is loaded."""

import json
import shutil
import time

import pytest
import torch
from word_problems import SYSTEM, WordProblems, make_model

from ablate.models.format import Format
from ablate.models.lora import LoRA
from ablate.models.policy import Policy
from ablate.models.pretrained import Pretrained
from ablate.types import UserError

TASK = WordProblems()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def edit(path, **changes):
    """Change a JSON file; None removes a key."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def refused(spec, message, longest=64):
    started = time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        spec.check(TASK, longest)
    assert "\n" not in str(caught.value) and time.monotonic() - started < 10


def test_prompts_and_answers_are_those_of_the_tokenizer(folder):
    spec = Pretrained(str(folder), format=Format(system=SYSTEM))
    spec.check(TASK, 64)
    policy, origin = spec.load(TASK, 0, folder)
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "1 + 1?"}]
    expected = policy.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert list(policy.prompt("1 + 1?")) == expected
    rows = [(*policy.encode("2\n#### 2"), policy.eos), policy.encode("3")]
    assert policy.answers(rows) == ["2\n#### 2", "3"]
    assert policy.tokenizer.decode([policy.eos]) == "<|im_end|>"
    assert origin["path"] == str(folder) and origin["revision"] is None
    assert origin["trained"] == origin["parameters"] == sum(p.numel() for p in policy.model.parameters())
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    low = Pretrained(str(folder), dtype="bfloat16").load(TASK, 0, folder)[0]
    assert {p.dtype for p in low.model.parameters()} == {torch.bfloat16}


def test_a_begin_token_is_added_where_the_tokenizer_adds_it(folder):
    """Some tokenizers name one and never use it: the model has not seen it at a text's beginning."""
    from tokenizers.processors import TemplateProcessing

    policy, _ = Pretrained(str(folder), format=Format(prompt="{problem}")).load(TASK, 0, folder)
    tokenizer, begin = policy.tokenizer, "<|im_start|>"
    plain = policy.encode("1 + 1?")

    def prompt():
        return Policy(policy.model, tokenizer, policy.format).prompt("1 + 1?")

    assert prompt() == plain
    tokenizer.bos_token = begin
    assert prompt() == plain
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, bos)]
    )
    assert prompt() == (bos, *plain) and policy.encode("1 + 1?") == plain


def test_reasoning_is_hidden_from_the_verifier(folder):
    spec = Pretrained(str(folder), format=Format(begin="<think>\n", end_of_thought="</think>"))
    policy = spec.load(TASK, 0, folder)[0]
    assert policy.tokenizer.decode(policy.prompt("1 + 1?")).endswith("assistant\n<think>\n")
    answer = policy.encode("#### 9\n</think>\n#### 2")
    assert policy.answers([answer]) == ["\n#### 2"] and policy.decode([answer]) == [
        "#### 9\n</think>\n#### 2"
    ]


def test_every_end_token_that_the_model_names_ends_an_answer(folder, copied):
    text = Pretrained(str(folder)).load(TASK, 0, folder)[0]
    assert text.ends == {text.eos}
    start, eos = text.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|endoftext|>"])
    edit(copied / "generation_config.json", eos_token_id=[text.eos, eos])
    policy = Pretrained(str(copied), ends=["<|im_start|>"]).load(TASK, 0, folder)[0]
    assert policy.ends == {text.eos, eos, start} and policy.eos == text.eos
    assert policy.decode([(5, 6, eos), (5, 6, start)]) == policy.decode([(5, 6)] * 2)


def test_a_tokenizer_without_end_token_needs_one_named(copied):
    bare = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": None, "pad_token": None}
    edit(copied / "tokenizer_config.json", **bare)
    edit(copied / "config.json", model_type="llama")  # Qwen2's own tokenizer brings an end token
    refused(Pretrained(str(copied)), r"has no end token: name the token .* model\.ends=")
    spec = Pretrained(str(copied), ends=["<|im_end|>"])
    spec.check(TASK, 64)
    policy = spec.load(TASK, 0, copied)[0]
    assert policy.tokenizer.pad_token_id == policy.eos == policy.tokenizer.convert_tokens_to_ids("<|im_end|>")
    refused(Pretrained(str(copied), ends=["two words"]), "'two words' is not a single token")


def test_a_model_without_chat_template_needs_a_prompt(copied):
    (copied / "chat_template.jinja").unlink()
    refused(Pretrained(str(copied)), r"no chat template: set model\.format\.prompt")
    Pretrained(str(copied), format=Format(prompt="{problem}\n")).check(TASK, 64)


def test_lengths_are_the_models(folder):
    spec = Pretrained(str(folder))
    longest = max(
        len(spec.load(TASK, 0, folder)[0].prompt(TASK.problem(0, split, i).prompt))
        for split in ("train", "heldout")
        for i in range(40)
    )
    spec.check(TASK, 512 - longest)
    refused(spec, f"exceed the 512 positions of .*: the largest product that works is {512 - longest}", 512)
    wordy = Pretrained(str(folder), format=Format(instruction="a long story " * 200))
    refused(wordy, "the prompts alone are too long")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(folder):
    refused(Pretrained(str(folder), device="cuda"), "model.device=cuda, and torch finds no GPU here")


def test_a_boundary_that_no_token_holds_is_refused(folder):
    with pytest.raises(UserError, match="is not part of any single token"):
        Pretrained(str(folder)).check(WordProblems(step_boundary="\n=+=\n"), 64)


def test_only_safetensors_are_read(copied):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    refused(Pretrained(str(copied)), r"holds no \*\.safetensors")
    with pytest.raises(UserError, match=r"no \*\.safetensors"):
        Pretrained(str(copied)).load(TASK, 0, copied)


def test_code_of_the_models_own_is_run_only_when_told(copied, tmp_path):
    edit(
        copied / "config.json",
        model_type="strange",
        auto_map={"AutoConfig": "strange.Config", "AutoModelForCausalLM": "strange.Model"},
    )
    (copied / "strange.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    refused(Pretrained(str(copied)), "comes with code of its own: .*model.trust_remote_code=true")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UserError, match=r"config\.json cannot be used"):
        Pretrained(str(copied), trust_remote_code=True).check(TASK, 64)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "its config.json cannot be used"),
        ("config.json", '{"model_type": "qwen9"}', "its config.json cannot be used: .*qwen9"),
        ("config.json", '{"model_type": "t5"}', "its model cannot be used: .*T5"),
        ("tokenizer.json", "{", "its tokenizer cannot be used"),
    ],
)
def test_damaged_and_foreign_files_are_named(copied, file, content, message):
    (copied / file).write_text(content)
    refused(Pretrained(str(copied)), message)


def test_damaged_weights_are_named(copied):
    (copied / "model.safetensors").write_bytes(b"\x08" + bytes(20))
    with pytest.raises(UserError, match="its weights cannot be used"):
        Pretrained(str(copied)).load(TASK, 0, copied)


def test_a_mixture_of_experts_is_refused_before_it_is_loaded(copied):
    edit(copied / "config.json", model_type="mixtral", num_local_experts=2, sliding_window=None)
    refused(Pretrained(str(copied)), "mixtral.*dense")


def test_an_empty_path_is_refused():
    with pytest.raises(UserError, match="path is empty"):
        Pretrained(" ")


def test_peft_is_asked_for_before_anything_else(monkeypatch):
    monkeypatch.setattr("ablate.models.lora.find_spec", lambda name: None)
    refused(Pretrained("/nowhere", lora=LoRA(rank=8)), "needs peft")
