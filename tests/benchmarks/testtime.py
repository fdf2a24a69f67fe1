"""Beam search over many problems in lockstep against one problem at a time.

    python tests/benchmarks/testtime.py [--experiment results/single] [--problems 64] [--alone 8] [--rounds 3]

The default model (warm-started once, cached), or the first run of an experiment, on held-out problems, guided
by a step scorer and by the exact oracle, both sides in one process and in turn, on one thread. Problems per
second of processor time, which other work on the machine moves less than the clock, and their ratio per
round; the same answers on both sides, up to draws that the last bits of a pass decide.
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
from ablate.runtime import keep_memory, quiet_libraries, set_threads
from ablate.testtime.bench import Bench
from ablate.testtime.frame import Frame
from ablate.testtime.guides import Fitting, OracleGuide, examples, fit
from ablate.testtime.runs import find
from ablate.testtime.stepwise import beam

SETTING = {"n": 8, "m": 4}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experiment", type=Path)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--alone", type=int, default=8)  # one at a time: enough to know their speed
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quiet_libraries()
    set_threads(1)
    keep_memory()
    if options.experiment:
        run = find(options.experiment, None, None)[0][0]
        config, task, policy = run.config, run.task, run.load()
    else:
        config = compose([])
        task = build(config.task)
        policy, _ = build(config.model).load(task, 0, Path(config.paths.cache), True)
    bench = Bench(task, policy, HFEngine(), config.sampling.cap, 1.0, seed=0)
    problems = [bench.problem(task.problem(0, "heldout", i)) for i in range(options.problems)]
    fitting = Fitting(problems=64, epochs=1)
    guides = {"learned": fit("learned", bench, examples(bench, fitting), fitting), "oracle": OracleGuide()}

    def searched(batches, guide):
        """Processor seconds, and the answers."""
        begun, answers = time.process_time(), []
        for batch in batches:
            frame = Frame(bench, batch, config.sampling.cap, ())
            answers += [answer.completion for found in beam(frame, guide, SETTING) for answer in found]
        return time.process_time() - begun, answers

    for name, guide in guides.items():
        together, alone, ratios, same = [], [], [], 0
        for _ in range(options.rounds):
            seconds, answers = searched([problems], guide)
            together.append(len(problems) / seconds)
            seconds, own = searched([[problem] for problem in problems[: options.alone]], guide)
            alone.append(options.alone / seconds)
            ratios.append(together[-1] / alone[-1])
            same += sum(a == b for a, b in zip(answers, own, strict=False))
        print(f"beam search, {SETTING['n']} candidates, guide {name}")
        print(f"  {len(problems)} in lockstep {median(together):8.2f} problems/s")
        print(f"  one at a time  {median(alone):8.2f} problems/s")
        spread = f"{min(ratios):.1f} to {max(ratios):.1f}, {options.rounds} rounds"
        print(f"  ratio          {median(ratios):8.1f} ({spread})")
        print(f"  same answers   {same} of {options.rounds * options.alone}", flush=True)


if __name__ == "__main__":
    main()
