"""A milestone's evaluation in one process against several, in turn, on the same policy.

    python tests/benchmarks/evaluation.py [--policy results/.../policy] [--workers 2] [--rounds 5]

All held-out problems of the default task x 8 samples at cap 128, torch on one thread, judged as in a run.
Every round checks that both sides come to the same tokens, verdicts, figures and account. The policy is the
warm start unless --policy names a trained one, whose answers are longer. Printed, as the median of the rounds
with their range: wall and CPU seconds of either side, and their ratio. On a busy machine several processes
also get a larger part of it than one: only the CPU seconds, of all processes together, are free of that.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from ablate.config import EvaluateConfig, PathsConfig, SamplingConfig
from ablate.engines.hf import HFEngine
from ablate.evaluate import Evaluation, evaluate, heldout_problems
from ablate.ledger import Ledger
from ablate.models.policy import Policy
from ablate.models.tiny import TinyModel
from ablate.runtime import keep_memory, quiet_libraries
from ablate.tasks.countdown import Countdown


class TimedEngine(HFEngine):
    """Keeps the seconds that the last call of `generate` took, and what it drew."""

    def generate(self, *args, **options):
        """As the engine's."""
        begun = time.perf_counter()
        self.drawn = super().generate(*args, **options)
        self.seconds = time.perf_counter() - begun
        return self.drawn


def one(policy: Policy, task: Countdown, config: EvaluateConfig, cap: int) -> tuple[dict[str, float], tuple]:
    """What an evaluation took, in seconds, and all that it came to."""
    engine, ledger = TimedEngine(), Ledger()
    engine.start(policy, ledger)
    problems = heldout_problems(task, config, 0)
    begun, before = time.perf_counter(), sum(os.times()[:4])
    found = evaluate(engine, policy, task, problems, config, SamplingConfig().cap, cap)
    took = {"wall": time.perf_counter() - begun, "cpu": sum(os.times()[:4]) - before}
    return {**took, "judging": took["wall"] - engine.seconds}, (found, engine.drawn, ledger.accounts)


def check(one: tuple, other: tuple) -> None:
    """Both evaluations are the same, to the last bit."""
    first, second = one[0], other[0]
    assert isinstance(first, Evaluation) and first.metrics == second.metrics
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, second.columns[name])
    assert one[1:] == other[1:], "tokens, log-probabilities or accounts differ"


def spread(values: list[float], unit: str) -> str:
    """Median and range."""
    return f"{median(values):.2f}{unit} ({min(values):.2f} - {max(values):.2f})"


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", help="folder of a trained policy (default: the warm start)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of either side (default: 5)")
    parser.add_argument("--cap", type=int, default=SamplingConfig().cap, help="longest answer, in tokens")
    args = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    keep_memory()
    task = Countdown()
    if args.policy:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(args.policy)
        policy = Policy(model, AutoTokenizer.from_pretrained(args.policy))
    else:
        policy, _ = TinyModel().load(task, 0, Path(PathsConfig().cache), progress=True)
    sides: dict[int, list[dict[str, float]]] = {1: [], args.workers: []}
    for turn in range(args.rounds + 1):
        results = []
        for workers, rounds in sides.items():
            took, found = one(policy, task, EvaluateConfig(workers=workers), args.cap)
            results.append(found)
            if turn:  # the first one warms up
                rounds.append(took)
        check(results[0], results[-1])
    evaluation = results[0][0]
    print(
        f"{len(evaluation.columns['problem'])} answers, mean length {evaluation.metrics['length']:.1f}, "
        f"truncated {evaluation.metrics['truncated']:.0%}; the results are the same in every round"
    )
    for workers, rounds in sides.items():
        figures = [f"{name} {spread([took[name] for took in rounds], ' s')}" for name in rounds[0]]
        print(f"{workers} process{'es' if workers > 1 else '  '}  {'  '.join(figures)}")
    for name in ("wall", "cpu"):
        ratios = [a[name] / b[name] for a, b in zip(sides[1], sides[args.workers], strict=True)]
        print(f"{name} of 1 / {name} of {args.workers}: {spread(ratios, 'x')}")


if __name__ == "__main__":
    main()
