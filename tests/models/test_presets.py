"""The named models of conf/model: what their files say of themselves, by the sizes that their owners publish.

Nothing is fetched: sizes are from the models' config.json on the hub.
"""

import re

import pytest
import torch
from omegaconf import OmegaConf

from ablate.compose import compose
from ablate.config import build
from ablate.models.flops import PassCost
from ablate.naming import conf_dir

# hidden, layers, heads, key-value heads, head size, feedforward, vocabulary, tied, positions
SIZES = {
    "qwen2.5-0.5b": ("qwen2", 896, 24, 14, 2, 64, 4864, 151936, True, 32768),
    "qwen2.5-1.5b": ("qwen2", 1536, 28, 12, 2, 128, 8960, 151936, True, 32768),
    "qwen2.5-7b": ("qwen2", 3584, 28, 28, 4, 128, 18944, 152064, False, 32768),
    "qwen2.5-math-1.5b": ("qwen2", 1536, 28, 12, 2, 128, 8960, 151936, True, 4096),
    "qwen2.5-math-7b": ("qwen2", 3584, 28, 28, 4, 128, 18944, 152064, False, 4096),
    "llama-3.2-1b": ("llama", 2048, 16, 32, 8, 64, 8192, 128256, True, 131072),
    "llama-3.2-3b": ("llama", 3072, 28, 24, 8, 128, 8192, 128256, True, 131072),
    "qwen3-0.6b": ("qwen3", 1024, 28, 16, 8, 128, 3072, 151936, True, 40960),
    "qwen3-1.7b": ("qwen3", 2048, 28, 16, 8, 128, 6144, 151936, True, 40960),
    "qwen3-4b": ("qwen3", 2560, 36, 32, 8, 128, 9728, 151936, True, 40960),
}
NAMES = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
NAMES = [name for name in NAMES if name not in ("tiny", "pretrained")]
PROMPT = 120  # tokens, about what a word problem takes


def meta_model(name, lora):
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, hidden, layers, heads, groups, head, feedforward, words, tied, _ = SIZES[name]
    config = AutoConfig.for_model(
        kind,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=head,
        intermediate_size=feedforward,
        vocab_size=words,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if lora:
        model.requires_grad_(False)  # adapters add a few per cent
    return model


@pytest.mark.parametrize("name", NAMES)
def test_the_budget_is_what_the_file_says(name):
    """About 200 batches of guess + check, answers of the length that its comment names."""
    cfg, base = compose([f"model={name}"]), name.removesuffix("-instruct")
    comment = (conf_dir() / "model" / f"{base}.yaml").read_text().rpartition("answers of ")[2]
    length = int(comment.split()[0])
    model = meta_model(base, cfg.model.lora.rank)
    billions = float(re.search(r"-([\d.]+)b", name)[1])
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.25)
    cost, rows = PassCost.of(model), cfg.learner.problems * cfg.strategy.source.n
    batch = rows * (cost.forward(PROMPT, length, length) + cost.train(PROMPT + length, length))
    assert 170 < cfg.budget.flops / batch < 230


@pytest.mark.parametrize("name", NAMES)
def test_what_a_model_brings_fits_it(name):
    cfg = compose([f"model={name}"])
    longest = cfg.sampling.cap * cfg.evaluate.long_cap_factor
    assert longest + 2 * PROMPT < SIZES[name.removesuffix("-instruct")][-1]
    assert cfg.learner.bf16 and cfg.learner.gradient_checkpointing and cfg.threads is None
    assert cfg.model.device == "cuda" and not cfg.model.trust_remote_code
    assert cfg.learner.lr == (1e-5 if cfg.model.lora.rank else 1e-6)
    spec = build(cfg.model)
    assert spec.path.split("/")[1].lower() == name


def test_the_command_line_wins_over_what_a_model_brings():
    cfg = compose(["model=qwen2.5-0.5b", "learner.lr=3e-6", "budget.tokens=1e6", "model.device=cpu"])
    assert (cfg.learner.lr, cfg.budget.tokens, cfg.budget.flops) == (3e-6, 1e6, None)
    assert cfg.model.device == "cpu" and cfg.model.path == "Qwen/Qwen2.5-0.5B"
    rest = OmegaConf.to_container(compose(["model=tiny"]))
    assert rest == OmegaConf.to_container(compose([]))


@pytest.mark.parametrize("name", NAMES)
def test_sampling_fits_the_gpu_that_the_file_names(name):
    """Weights, AdamW's moments, the start, and keys and values of as many full-length rows as are decoded
    at a time, with a fifth left for passes and fragments. engine=vllm has a memory of its own."""
    cfg, base = compose([f"model={name}"]), name.removesuffix("-instruct")
    _, _, layers, _, groups, head, *_ = SIZES[base]
    comment = (conf_dir() / "model" / f"{base}.yaml").read_text()
    gigabytes = float(re.search(r"One (\d+) GB GPU", comment)[1])
    weights = sum(p.numel() for p in meta_model(base, cfg.model.lora.rank).parameters())
    kept = weights * (2 if cfg.model.lora.rank else 4 + 8 + 4)
    length = PROMPT + cfg.sampling.cap * cfg.evaluate.long_cap_factor
    cache = cfg.engine.max_rows * length * layers * 2 * groups * head * 2
    assert kept + cache < 0.8 * gigabytes * 1e9
