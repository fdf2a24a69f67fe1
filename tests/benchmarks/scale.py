"""How long `python -m ablate.report` takes for 1,000 runs x 500 problems, and how much memory.

    python tests/benchmarks/scale.py [runs=1000] [problems=500] [folder=...]

Makes synthetic runs (8 arms of the 2 x 2 x 2, 5 evaluations of 8 samples each), then times the command in a
process of its own. The bars, 60 s and 4 GB, are for 1,000 runs x 500 problems; under load the time is an
upper bound. Exit code 1: a bar is missed.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS, GIGABYTES = 60.0, 4.0
ARMS = {
    "guess_check": 0.50,
    "process_rewards": 0.50,
    "mcts": 0.51,
    "learn_to_correct": 0.52,
    "full_minus_search": 0.52,
    "full_minus_process": 0.53,
    "full_minus_correct": 0.51,
    "full": 0.53,
}
SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)


def make(folder: Path, runs: int, problems: int) -> None:
    """As many seeds of every arm as come to about so many runs."""
    sys.path.insert(0, str(ROOT / "tests" / "report"))
    import synthetic_results as synthetic

    synthetic.PROBLEMS, synthetic.CLUSTERS, synthetic.SAMPLES = problems, max(2, problems // 5), 8
    for number in range(runs):
        seed, arm = divmod(number, len(ARMS))
        name = list(ARMS)[arm]
        synthetic.write_run(
            folder,
            name,
            seed,
            synthetic.curve(ARMS[name] + 0.01 * ((seed * 7) % 5 - 2), shares=SHARES),
            shares=SHARES,
        )


def measure(folder: Path) -> tuple[float, float, float]:
    """(seconds, processor seconds, peak gigabytes) of the report."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "ablate.report", str(folder), "tracking=none"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    spent = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, cpu, after.ru_maxrss / 2**20


def main(words: list[str]) -> int:
    """Print what was measured; returns the exit code."""
    given = dict(word.partition("=")[::2] for word in words)
    runs, problems = int(given.get("runs", 1000)), int(given.get("problems", 500))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.get("folder", temporary)).resolve() / "scale"
        if not folder.exists():
            make(folder, runs, problems)
        seconds, cpu, gigabytes = measure(folder)
    print(
        f"report of {runs:,} runs x {problems:,} problems: {seconds:.1f} s ({cpu:.1f} s of processor time), "
        f"{gigabytes:.2f} GB at most; the bars: {SECONDS:g} s, {GIGABYTES:g} GB"
    )
    return int(seconds > SECONDS or gigabytes > GIGABYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
