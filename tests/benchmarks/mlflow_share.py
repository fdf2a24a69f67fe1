"""MLflow's share of a run's wall time, for an sqlite store and for a server on the same machine.

    python tests/benchmarks/mlflow_share.py [--steps 150] [--seconds 0.7] [--repeats 3] [--every 10]

Three runs in turn, each in a fresh process that has loaded TRL as a training process has: without a mirror,
mirrored to sqlite, mirrored to a server. A step is a fixed amount of work of a small torch model on one thread
(about --seconds on an idle machine), recorded with as many metrics as a real step. Printed per store, mean and
standard deviation over the repeats:

    share     CPU seconds of the mirror (loading the store, pushes, the last push) / wall time of the run
    slowdown  wall time of the run / wall time of the run without a mirror just before it - 1; on a busy machine
              this is mostly the noise of the machine
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METRICS, MILESTONES = 35, 6


def work(model, inputs, seconds, calls):
    """Fixed work if `calls` is known; else as much as fits into `seconds`. Returns the number of calls."""
    begun, done = time.perf_counter(), 0
    while done < calls if calls else time.perf_counter() - begun < seconds:
        model(inputs).square().mean().backward()
        done += 1
    return done


def child(kind, folder, uri, steps, seconds, every):
    """One synthetic run; returns what it took."""
    import torch
    import trl.trainer.grpo_trainer  # noqa: F401  what a training process has loaded

    from ablate.mirror import Mirror
    from ablate.record import Record, system_metrics

    torch.set_num_threads(1)
    layer = torch.nn.TransformerEncoderLayer(64, 4, 192, batch_first=True)
    model, inputs = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), torch.randn(32, 48, 64)
    work(model, inputs, 1.0, 0)
    calls = max(1, round(work(model, inputs, 1.0, 0) * seconds))
    begun = time.perf_counter()
    record = Record(folder)
    record.write_config({f"group{i}": {f"key{j}": i * j for j in range(10)} for i in range(8)})
    record.write_meta(f"{kind}/s0", {"strategy": kind, "seed": "0"})
    mirror = Mirror(folder, uri, "share", every) if uri else None
    for step in range(1, steps + 1):
        work(model, inputs, seconds, calls)
        row = {f"train/metric{i}": step / (i + 1) for i in range(METRICS - 4)}
        record.append(
            "steps",
            {"step": step, "budget/tokens": 1e4 * step, "budget/flops": 1e9 * step}
            | row
            | (system_metrics() if step % 5 == 0 else {}),
        )
        if step % max(1, steps // MILESTONES) == 0:
            record.append("evaluations", {"step": step} | {f"heldout/metric{i}": i / step for i in range(20)})
    record.finish({"steps": steps}, "# done")
    closing = time.perf_counter()
    line = mirror.close() if mirror else "MLflow: none"
    ended = time.perf_counter()
    assert line.startswith("MLflow: "), line
    cpu = mirror.cost.cpu_seconds if mirror else 0.0
    return {
        "wall": ended - begun,
        "cpu": cpu,
        "close": ended - closing,
        "pushes": mirror.cost.pushes if mirror else 0,
    }


def start_server(folder):
    """An MLflow server on loopback; returns its process and address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}"
        time.sleep(0.1)
    raise RuntimeError("the server did not come up within a minute")


def main():
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=0.7, help="work per step, on an idle machine")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between pushes")
    parser.add_argument("--child", nargs=3, metavar=("KIND", "FOLDER", "URI"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, folder, uri = options.child
        print(json.dumps(child(kind, Path(folder), uri, options.steps, options.seconds, options.every)))
        return
    from ablate.mirror import initialise_store

    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stores = {"none": "", "sqlite": f"sqlite:///{folder}/mlflow.db"}
        for name in ("mlflow", "server"):
            initialise_store(f"sqlite:///{folder}/{name}.db")
        server, stores["http"] = start_server(folder)
        results = {kind: [] for kind in stores}
        try:
            for repeat in range(options.repeats):
                for kind, uri in stores.items():
                    command = [
                        sys.executable,
                        __file__,
                        "--steps",
                        str(options.steps),
                        "--seconds",
                        str(options.seconds),
                        "--every",
                        str(options.every),
                        "--child",
                        kind,
                        str(folder / f"{kind}{repeat}"),
                        uri,
                    ]
                    done = subprocess.run(
                        command, env=environment, check=True, capture_output=True, text=True
                    )
                    results[kind].append(json.loads(done.stdout.splitlines()[-1]))
        finally:
            os.killpg(server.pid, 9)
            server.wait()
    for kind, rows in results.items():
        shares = [100 * row["cpu"] / row["wall"] for row in rows]
        slowdowns = [
            100 * (row["wall"] / base["wall"] - 1) for row, base in zip(rows, results["none"], strict=True)
        ]
        print(
            f"{kind:7} wall {spread([row['wall'] for row in rows])} s   mirror CPU {spread([r['cpu'] for r in rows])} s"
            f" in {rows[0]['pushes']} pushes, close {spread([row['close'] for row in rows])} s   "
            f"share {spread(shares)} %   slowdown {spread(slowdowns)} %"
        )


def spread(values):
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


if __name__ == "__main__":
    main()
