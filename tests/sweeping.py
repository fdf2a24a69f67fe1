"""What the tests of whole sweeps share: how one is started, and all that its runs computed."""

import os
import sys
from pathlib import Path

import numpy as np
import psutil

from ablate.record import load_evaluation, read_jsonl, status

ROOT = Path(__file__).parents[1]
TINY = ["experiment=smoke", "progress=false", "resume=true", "paths.cache=cache", "checkpoint.every_steps=2"]
TINY += ["budget.tokens=1.2e4", "budget.milestones=2"]


def start(here, *overrides, **options):
    """A sweep of small runs in the folder `here`, in a session of its own."""
    command = [sys.executable, "-m", "ablate", "-m", *TINY, *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return psutil.Popen(command, cwd=here, env=environment, start_new_session=True, text=True, **options)


def runs(here, name):
    """The folders of a sweep's runs."""
    return sorted((here / "results" / name).glob("*-s*"))


def computed(folder):
    """All that a finished run computed, without clocks: equal if and only if the runs are equal bit for
    bit."""
    assert status(folder) == "finished", folder
    rows = [*read_jsonl(folder / "steps.jsonl"), *read_jsonl(folder / "evaluations.jsonl")]
    skip = ("time", "seconds/", "system/")
    kept = [{k: v for k, v in row.items() if not k.startswith(skip)} for row in rows]
    answers = {}
    for row in read_jsonl(folder / "evaluations.jsonl"):
        columns = load_evaluation(folder, row["step"])
        answers[row["step"]] = {name: np.asarray(values).tolist() for name, values in columns.items()}
    return kept, answers, (folder / "policy/model.safetensors").read_bytes()


def end(process):
    """Kill what is left of a sweep."""
    for each in [*process.children(recursive=True), process] if process.is_running() else []:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
