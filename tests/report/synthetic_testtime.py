"""The files that `python -m ablate.testtime` leaves, with outcomes that a test chooses."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic_results import CLUSTERS, PROBLEMS, STRATA

from ablate.record import write_json

ONE = 2e7  # FLOPs of one plain sample
# (method, guide, oracle, FLOPs of its cheapest setting in plain samples, settings, gain over the vote, growth
# of the gain per doubling)
METHODS = [
    ("majority", None, False, 1, 7, 0.0, 0.0),
    ("best_of_n", "oracle", True, 1, 7, 0.02, 0.05),
    ("best_of_n", "learned", False, 1.2, 7, 0.0, 0.01),
    ("best_of_n", "value", False, 1.1, 7, -0.01, 0.0),
    ("depth1", "monte_carlo", False, 6, 4, -0.05, 0.02),
    ("depth1", "oracle", True, 2, 4, 0.2, 0.02),
    ("beam", "learned", False, 3, 5, -0.06, 0.03),
    ("dvts", "learned", False, 3, 5, -0.05, 0.02),
    ("rebase", "learned", False, 3, 5, -0.04, 0.02),
    ("mcts", None, False, 8, 4, -0.06, 0.02),
    ("budget_forcing:wait", None, False, 1, 4, -0.01, 0.0),
    ("revision:last", None, False, 1.1, 5, -0.1, 0.0),
    ("revision:majority", None, False, 1.1, 5, 0.01, 0.0),
    ("natural", None, False, 1, 1, 0.0, 0.0),
]
PROMPT = "<|{tokens}|>"  # a token of the model's own that asks for a length
FOLLOWED = {"tokens": 24.0, "ratio": 1.5, "within": 0.25, "ended": 0.9}
NAMES = [f"p{i:03d}" for i in range(PROBLEMS)]
CLUSTER = [f"c{i % CLUSTERS}" for i in range(PROBLEMS)]
STRATUM = [STRATA[i % 3] for i in range(PROBLEMS)]


def write_meta(root, version=1):
    """The folder itself."""
    folder = root / "testtime"
    folder.mkdir(exist_ok=True)
    write_json(folder / "meta.json", {"version": version, "revision": "abc"})
    return folder


def write_testtime(
    root, run, seed, level=0.5, shift=0.0, methods=METHODS, cost=1.0, drop=(), where="heldout"
):
    """One run's points and outcomes. level: its accuracy with one plain sample; shift: added to every gain of
    a search; cost: FLOPs of an answer, in those of others."""
    folder = write_meta(root)
    rng = np.random.default_rng([seed, len(run)])
    hardness = np.array([0.3, 0.0, -0.3])[np.arange(PROBLEMS) % 3]
    rows, points = [], []
    for name, guide, oracle, least, count, gain, growth in methods:
        method, _, form = name.partition(":")
        for j in range(count):
            times = least * 2.0**j
            doublings = np.log2(times)
            extra = 0.0 if method in ("majority", "natural") else gain + growth * doublings
            extra += shift if guide and not oracle else 0.0
            chance = np.clip(level + hardness + 0.035 * doublings + extra, 0.02, 0.98)
            solved = (rng.random(PROBLEMS) < chance).astype("float32")
            flops = ONE * cost * times * (1 - 0.4 * hardness) * rng.uniform(0.9, 1.1, PROBLEMS)
            setting = {"n": 2**j, "c": 1.5} if j % 2 else {"c": 1.5, "n": 2**j}
            if form:
                setting = {form: 2**j} if form in ("wait", "stop") else {"answers": 2**j, "choose": form}
            if form == "ask":
                setting = {"ask": 16 * 2**j, "samples": 4, "prompt": PROMPT}
            points.append(
                {
                    "run": run,
                    "strategy": run.split("-")[0],
                    "seed": seed,
                    "method": method,
                    "guide": guide,
                    "setting": setting,
                    "oracle": oracle,
                    "set": where,
                    "problems": PROBLEMS,
                    "accuracy": float(solved.mean()),
                    "accuracy_se": 0.01,
                    "tokens": 40.0 * times,
                    "flops": float(flops.mean()),
                    "logical_flops": float(flops.mean()),
                    "compute": {"rollout": float(flops.mean())},
                    "fit_flops": 3e10 if guide == "learned" else 0.0,
                    "strata": {},
                    **({"followed": FOLLOWED} if form == "ask" else {}),
                }
            )
            rows += [
                (
                    method,
                    guide,
                    json.dumps(setting),
                    NAMES[i],
                    CLUSTER[i],
                    STRATUM[i],
                    solved[i],
                    40,
                    flops[i],
                )
                for i in rng.permutation(PROBLEMS)
            ]
    with (folder / "points.jsonl").open("a") as handle:
        handle.writelines(json.dumps(point) + "\n" for point in points)
    names = ("method", "guide", "setting", "problem", "cluster", "stratum", "solved", "tokens", "flops")
    columns = {
        name: list(column)
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
        if name not in drop
    }
    pq.write_table(pa.table(columns), folder / f"{run}.parquet")
    return points


def natural(seed, samples=16, problems=PROBLEMS, confounded=0.25, effect=0.0, cap=512, draw=0):
    """Columns of plain samples. Problem p has difficulty z_p; log2 length = 5 + 0.5 z_p + noise (with
    `confounded`), chance = 0.5 - confounded z_p + effect x the noise, in [0.05, 0.95] for what tests use."""
    fixed = np.random.default_rng([draw, 7])
    rng = np.random.default_rng([draw, seed, 8])
    hard = np.repeat(fixed.uniform(-1, 1, problems), samples)
    noise = rng.uniform(-0.9, 0.9, problems * samples)
    tokens = np.round(2 ** (5.5 + (0.7 * hard if confounded else 0.0) + noise)).astype(int)
    ended = tokens < cap
    right = ended & (rng.random(len(tokens)) < 0.5 - confounded * hard + effect * noise)
    return {
        "problem": np.repeat([f"p{i:03d}" for i in range(problems)], samples),
        "cluster": np.repeat([f"c{i % (problems // 3)}" for i in range(problems)], samples),
        "stratum": np.repeat([STRATA[i % 3] for i in range(problems)], samples),
        "sample": np.tile(np.arange(samples), problems),
        "tokens": np.minimum(tokens, cap).astype("int32"),
        "ended": ended,
        "right": right,
        "restarts": rng.integers(0, 5, len(tokens)).astype("float32"),
    }


def write_natural(root, run, columns):
    """One run's plain samples."""
    pq.write_table(pa.table(columns), write_meta(root) / f"{run}-natural.parquet")
