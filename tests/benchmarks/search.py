"""Search with all trees in lockstep against one tree at a time, and what a prefix cache saves.

    python tests/benchmarks/search.py [--trees 32] [--rounds 3]

The default model (warm-started once, cached) and the `mcts` strategy's own source on held-out problems, both
sides in one process and in turn, on one thread. Simulations per second, their ratio per round, and the share
of prefix positions that the cached convention does not charge.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")

import argparse
import time
from pathlib import Path
from statistics import median

from ablate.compose import compose
from ablate.config import build
from ablate.engines.hf import HFEngine
from ablate.lab import Laboratory
from ablate.ledger import Ledger
from ablate.runtime import keep_memory, quiet_libraries, set_threads


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trees", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quiet_libraries()
    set_threads(1)
    keep_memory()
    config = compose(["strategy=mcts"])
    task = build(config.task)
    policy, _ = build(config.model).load(task, 0, Path(config.paths.cache), True)
    source = build(config.strategy.source)

    def searched(batches: list[range]) -> tuple[float, Ledger]:
        """Seconds and the ledger of one source call per batch of held-out problems."""
        engine, ledger = HFEngine(), Ledger()
        engine.start(policy, ledger)
        lab = Laboratory(task, policy, engine, ledger, config.sampling.cap, 1.0, sampling_seed=0)
        begun = time.perf_counter()
        for i, batch in enumerate(batches):
            lab.begin(i)
            source([lab.problem(task.problem(0, "heldout", index)) for index in batch], lab)
        return time.perf_counter() - begun, ledger

    ratios, together_rates, alone_rates = [], [], []
    few = max(1, options.trees // 4)  # trees one at a time: enough to know their speed
    for _ in range(options.rounds):
        together, ledger = searched([range(options.trees)])
        alone, _ = searched([range(i, i + 1) for i in range(few)])
        together_rates.append(options.trees * source.simulations / together)
        alone_rates.append(few * source.simulations / alone)
        ratios.append(together_rates[-1] / alone_rates[-1])
    account = ledger.accounts["rollout"]
    print(f"{options.trees} trees, {source.simulations} simulations each, {source.parallel} at a time")
    print(f"in lockstep   {median(together_rates):8.1f} simulations/s")
    print(f"one at a time {median(alone_rates):8.1f} simulations/s")
    print(
        f"ratio         {median(ratios):8.2f} ({min(ratios):.2f}-{max(ratios):.2f}, {options.rounds} rounds)"
    )
    saved = 1.0 - account.processed / account.logical_processed
    print(
        f"positions read, cached / logical: {account.processed:,} / {account.logical_processed:,}: ", end=""
    )
    print(
        f"a cache saves {saved:.1%} of them, {1.0 - account.flops / account.logical_flops:.1%} of the FLOPs"
    )


if __name__ == "__main__":
    main()
