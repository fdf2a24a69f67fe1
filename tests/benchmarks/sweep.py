"""What a sweep costs beside its runs: the wall time of 8 runs on 2 workers against the sum of their own times
/ 2.

    python tests/benchmarks/sweep.py [runs=8] [repeats=3]

A run's own time is what its summary says (models and libraries loaded, trained, evaluated, recorded),
measured inside the sweep, so that two runs that share two cores share them in both figures. What remains is
the sweep's: composing, starting workers and importing in them, waiting for the last run. Only on an otherwise
idle machine.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sweeping import runs, start

from ablate.record import read_json


def measure(here, name, count):
    """(wall time of the sweep, the sum of its runs' own times), in seconds."""
    seeds = ",".join(map(str, range(count)))
    sweep = [f"seed={seeds}", f"name={name}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    began = time.perf_counter()
    process = start(here, *sweep, "budget.tokens=2e5", "checkpoint.every_steps=25", stdout=subprocess.DEVNULL)
    if process.wait():
        sys.exit(f"the sweep ended with {process.returncode}")
    wall = time.perf_counter() - began
    own = [read_json(folder / "summary.json")["seconds"]["total"] for folder in runs(here, name)]
    assert len(own) == count
    return wall, sum(own)


def main():
    given = dict(word.split("=") for word in sys.argv[1:])
    count, repeats = int(given.get("runs", 8)), int(given.get("repeats", 3))
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), "warm", count)  # the warm starts, which are made once
        ratios = []
        for i in range(repeats):
            wall, own = measure(Path(folder), f"sweep{i}", count)
            ratios.append(wall / (own / 2))
            figures = f"{wall:.1f} s, half of their own times {own / 2:.1f} s"
            print(f"{count} runs on 2 workers: {figures}: {ratios[-1]:.3f}")
    print(
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); to be at most 1.15"
    )


if __name__ == "__main__":
    main()
