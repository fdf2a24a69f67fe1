"""MLflow's share of a run's wall time, for an sqlite store and for a server on the same machine.

    python tests/benchmarks/mlflow_share.py [--steps 150] [--seconds 0.7] [--repeats 3] [--every 10]

Three runs in turn, each in a fresh process: without a mirror, mirrored to sqlite, mirrored to a server. As in
a real run the mirror is made first, then TRL is imported, then come the steps: each a fixed amount of work of
a small torch model on one thread (about --seconds on an idle machine), recorded with as many metrics as a
real step. Printed per store, mean and standard deviation over the repeats:

    share     CPU seconds of the mirror (database layer, pushes, the last push) / wall time of the run
    slowdown  wall time of the run / wall time of the run without a mirror just before it - 1; on a busy
              machine this is mostly the noise of the machine
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
METRICS, MILESTONES = 35, 6


def workload():
    """Work to be called: forward and backward of a small model on one thread."""
    import torch

    torch.set_num_threads(1)
    layer = torch.nn.TransformerEncoderLayer(64, 4, 192, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    inputs = torch.randn(32, 48, 64)
    return lambda: model(inputs).square().mean().backward()


def calibrate(seconds):
    """How many calls of the work take `seconds`."""
    work, took = workload(), []
    for _ in range(50):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return max(1, round(seconds / min(took)))


def one_run(folder, uri, steps, calls, every):
    """A synthetic run; returns (wall seconds, CPU seconds of the mirror, seconds to close, pushes)."""
    from ablate.record import Record, system_metrics
    from ablate.tracking.mirror import Mirror

    begun = time.perf_counter()
    record = Record(folder)
    record.write_config({f"group{i}": {f"key{j}": i * j for j in range(10)} for i in range(8)})
    record.write_meta(folder.name, {"strategy": "none", "seed": "0"})
    mirror = Mirror(folder, uri, "share", every) if uri else None
    import trl.trainer.grpo_trainer  # noqa: F401

    work = workload()
    for step in range(1, steps + 1):
        for _ in range(calls):
            work()
        row = {f"train/metric{i}": step / (i + 1) for i in range(METRICS)}
        record.append("steps", {"step": step, **row, **(system_metrics() if step % 5 == 0 else {})})
        if step % max(1, steps // MILESTONES) == 0:
            record.append("evaluations", {"step": step} | {f"heldout/metric{i}": i / step for i in range(20)})
    record.finish({"steps": steps}, "# done")
    ended = time.perf_counter()
    if mirror is None:
        return ended - begun, 0.0, 0.0, 0
    line = mirror.close()
    assert mirror.result.error is None, line
    closed = time.perf_counter()
    return closed - begun, mirror.cost.cpu_seconds, closed - ended, mirror.cost.pushes


def main():
    """The command."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=0.7, help="work per step, on an idle machine")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between pushes")
    options = parser.parse_args()
    from mirroring import Server

    from ablate.tracking.mirror import initialise_store

    processes = multiprocessing.get_context("spawn")
    with processes.Pool(1, maxtasksperchild=1) as pool, tempfile.TemporaryDirectory() as scratch:
        calls = pool.apply(calibrate, (options.seconds,))
        stores = {"none": None, "sqlite": f"sqlite:///{scratch}/mlflow.db"}
        initialise_store(stores["sqlite"])
        server = Server(Path(scratch) / "server")
        stores["http"] = server.uri
        results = {kind: [] for kind in stores}
        try:
            for repeat in range(options.repeats):
                for kind, uri in stores.items():
                    folder = Path(scratch) / f"{kind}{repeat}"
                    run = (folder, uri, options.steps, calls, options.every)
                    results[kind].append(pool.apply(one_run, run))
        finally:
            server.kill()
    alone = [wall for wall, *_ in results["none"]]
    for kind, runs in results.items():
        walls, cpus, closes, pushes = zip(*runs, strict=True)
        shares = [100 * cpu / wall for cpu, wall in zip(cpus, walls, strict=True)]
        slower = [100 * (wall / base - 1) for wall, base in zip(walls, alone, strict=True)]
        print(
            f"{kind:6}  wall {spread(walls)} s  mirror CPU {spread(cpus)} s in {pushes[0]} pushes  "
            f"close {spread(closes)} s  share {spread(shares)} %  slowdown {spread(slower)} %"
        )


def spread(values):
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


if __name__ == "__main__":
    main()
