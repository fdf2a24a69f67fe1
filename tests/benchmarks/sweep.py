"""What a sweep costs beside its runs: the wall time of 8 runs on 2 workers against the sum of their own times
/ 2.

    python tests/benchmarks/sweep.py [runs=8] [repeats=3] [tokens=6e5]
    python tests/benchmarks/sweep.py runs=2 repeats=1 tokens=1.2e4     does it work? its ratio says nothing

A run's own time is what its summary says (model loaded, trained, evaluated, recorded), measured inside the
sweep, so that two runs that share two cores share them in both figures. What remains is the sweep's:
composing, starting workers and importing torch in them, waiting for the last run. Work of other processes
lengthens both figures, but not by the same factor, so what they took is printed, and only on an otherwise
idle machine is the ratio held against the bar.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from sweeping import runs, start

from ablate.record import read_json

BAR = 1.15
IDLE = 0.1  # cores that other processes may use


def work():
    """Seconds of processor time so far: (of the whole machine, of this process's finished children)."""
    spent = psutil.cpu_times()
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.user + spent.nice + spent.system, own.ru_utime + own.ru_stime


def measure(here, name, count, tokens):
    """(wall time of the sweep, the sum of its runs' own times), in seconds, and cores that others used."""
    seeds = ",".join(map(str, range(count)))
    sweep = [f"seed={seeds}", f"name={name}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    sweep += [f"budget.tokens={tokens}", "checkpoint.every_steps=25"]
    began, before = time.perf_counter(), work()
    process = start(here, *sweep, stdout=subprocess.DEVNULL)
    if process.wait():
        sys.exit(f"the sweep ended with {process.returncode}")
    wall, after = time.perf_counter() - began, work()
    everything, children = (b - a for a, b in zip(before, after, strict=True))
    own = [read_json(folder / "summary.json")["seconds"]["total"] for folder in runs(here, name)]
    assert len(own) == count
    return wall, sum(own), max(0.0, everything - children) / wall


def main():
    given = dict(word.split("=") for word in sys.argv[1:])
    if unknown := given.keys() - {"runs", "repeats", "tokens"}:
        sys.exit(f"unknown {sorted(unknown)[0]}; choices: runs, repeats, tokens")
    count, repeats = int(given.get("runs", 8)), int(given.get("repeats", 3))
    tokens = given.get("tokens", "6e5")
    print(f"{os.cpu_count()} cores, load at the start {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), "warm", count, "1.2e4")  # the warm starts, which are made once
        ratios, others = [], []
        for i in range(repeats):
            wall, own, other = measure(Path(folder), f"sweep{i}", count, tokens)
            ratios.append(wall / (own / 2))
            others.append(other)
            figures = f"{wall:.1f} s, half of their own times {own / 2:.1f} s"
            print(f"{count} runs on 2 workers: {figures}: {ratios[-1]:.3f}; others used {other:.1f} cores")
    spread = f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    if (count, tokens) != (8, "6e5"):
        print(f"{spread}; the bar of {BAR} is for 8 runs of 6e5 tokens")
    elif max(others) > IDLE:
        print(f"{spread}; not held against the bar of {BAR}: the machine was not idle")
    else:
        print(f"{spread}; the bar of {BAR} is {'kept' if statistics.median(ratios) <= BAR else 'MISSED'}")


if __name__ == "__main__":
    main()
