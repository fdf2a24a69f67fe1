"""Whole runs on a tiny model: the same seeds give the same run, killed or not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ablate.record import load_evaluation, read_jsonl
from ablate.summary import to_text
from ablate.tasks.countdown import Countdown

ROOT = Path(__file__).parents[1]
SMOKE = ["experiment=smoke", "threads=1", "strategy=guess_check"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def command(cache: Path, results: Path, *overrides: str) -> list[str]:
    paths = [f"paths.cache={cache}", f"paths.results={results}"]
    return [sys.executable, "-m", "ablate", *SMOKE, *paths, *overrides]


def ablate(cache: Path, results: Path, *overrides: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(cache, results, *overrides), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def only_run(results: Path) -> Path:
    (folder,) = (path for path in results.glob("*/*") if (path / "config.yaml").exists())
    return folder


def trace(folder: Path) -> list[dict]:
    """All that a run computed, without clocks."""
    rows = [*read_jsonl(folder / "steps.jsonl"), *read_jsonl(folder / "evaluations.jsonl")]
    skip = ("time", "seconds/", "system/")
    return [{k: v for k, v in row.items() if not k.startswith(skip)} for row in rows]


@pytest.fixture(scope="session")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    results = tmp_path_factory.mktemp("whole")
    ablate(cache, results)
    return only_run(results)


def test_a_run_learns_and_leaves_a_complete_record(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["finished"]
    assert summary["after"]["pass@1"] > summary["before"]["pass@1"] + 0.1
    budget = summary["budget"]
    assert budget["declared"] <= budget["spent"] <= budget["declared"] * (1 + budget["largest_batch"])
    steps = read_jsonl(whole / "steps.jsonl")
    assert [row["step"] for row in steps] == list(range(1, summary["steps"] + 1))
    evaluations = read_jsonl(whole / "evaluations.jsonl")
    assert evaluations[0]["step"] == 0 and evaluations[-1]["step"] == summary["steps"]
    columns = load_evaluation(whole, summary["steps"])
    assert columns["solved"].mean() == pytest.approx(summary["after"]["pass@1"])
    assert len(columns["solved"]) == summary["problems"] * summary["samples"]
    assert "pass@1" in (whole / "summary.md").read_text()
    # diagnostics: distance from the start, drift, shared prefixes, no alarm
    assert summary["before"]["kl_per_token"] == 0.0 < summary["after"]["kl_per_token"]
    lengths = [row["train/length"] for row in steps]
    assert steps[0]["train/length_drift"] == 0.0
    assert steps[-1]["train/length_drift"] == pytest.approx(lengths[-1] - np.mean(lengths[:5]))
    assert all(0.0 < row["train/overlap"] < 1.0 for row in steps)
    assert summary["alarms"] == [] and not any(row["train/alarm"] for row in steps)
    rang = {"kind": "reward", "step": 3, "cleared": None, "text": "up and down"}
    text = to_text({**summary, "alarms": [rang, {**rang, "cleared": 7}]})
    assert "Alarm (reward) from step 3 on: up and down." in text and "from step 3 to 7: up" in text
    assert (whole / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    # tokens on the ledger = tokens that the steps say were sampled
    sampled = sum(row["train/length"] * 8 * 8 for row in steps)
    assert summary["totals"]["tokens"] == pytest.approx(sampled)


def test_a_penalty_keeps_the_policy_near_its_start_and_is_charged(
    cache: Path, whole: Path, tmp_path: Path
) -> None:
    """On two problems, over and over."""
    ablate(cache, tmp_path, "learner.kl=1", "learner.distinct_problems=2", "budget.tokens=2e4")
    folder = only_run(tmp_path)
    summary, free = (json.loads((each / "summary.json").read_text()) for each in (folder, whole))
    at_half = next(row for row in read_jsonl(whole / "evaluations.jsonl") if row["milestone"] == 0.5)
    assert 0.0 < summary["after"]["kl_per_token"] < 0.5 * at_half["heldout/kl_per_token"]
    assert summary["compute"]["score"]["flops"] > 0.0 and "score" not in free["compute"]
    steps = read_jsonl(folder / "steps.jsonl")
    assert len({row["problems"] for row in steps}) <= 2**4  # four epochs of two problems in each batch
    assert all(row["learner/loss"] != 0.0 for row in steps)


def test_the_policy_loads_with_transformers(whole: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(whole / "policy")
    tokenizer = AutoTokenizer.from_pretrained(whole / "policy")
    prompt = tokenizer(tokenizer.bos_token + " 2 3 : 5 \n", add_special_tokens=False, return_tensors="pt")
    out = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    assert "=" in tokenizer.decode(out[0])


def test_the_same_seeds_give_the_same_run(cache: Path, whole: Path, tmp_path: Path) -> None:
    ablate(cache, tmp_path, "fresh=true")
    assert trace(only_run(tmp_path)) == trace(whole)


def test_another_sampling_seed_changes_the_draws_alone(cache: Path, whole: Path, tmp_path: Path) -> None:
    ablate(cache, tmp_path, "sampling_seed=7")
    other = only_run(tmp_path)
    first, second = (read_jsonl(folder / "evaluations.jsonl")[0] for folder in (whole, other))
    assert first["heldout/pass@1"] == second["heldout/pass@1"]  # same start, same evaluation
    for folder in (whole, other):
        assert (folder / "steps.jsonl").exists()
    a, b = (read_jsonl(folder / "steps.jsonl") for folder in (whole, other))
    assert [row["problems"] for row in a[:5]] == [row["problems"] for row in b[:5]]
    assert a[0]["train/solved"] != b[0]["train/solved"] or a[0]["train/length"] != b[0]["train/length"]


@pytest.mark.parametrize("after", [0, 3, pytest.param(9, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_bit_for_bit(cache: Path, whole: Path, tmp_path: Path, after: int) -> None:
    """kill -9 when `after` steps are on disk (0: in the first evaluation), then the same command again."""
    victim = subprocess.Popen(
        command(cache, tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(tmp_path, "steps.jsonl" if after else "evaluations.jsonl", max(after, 1), victim)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    refused = ablate(cache, tmp_path, code=2)
    assert "resume=true" in refused.stderr and "Traceback" not in refused.stderr
    ablate(cache, tmp_path, "resume=true")
    folder = only_run(tmp_path)
    assert trace(folder) == trace(whole)
    for row in read_jsonl(whole / "evaluations.jsonl"):
        ours, theirs = load_evaluation(folder, row["step"]), load_evaluation(whole, row["step"])
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    ours, theirs = ((f / "policy" / "model.safetensors").read_bytes() for f in (folder, whole))
    assert ours == theirs


def wait_for(results: Path, name: str, lines: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(len(path.read_bytes().splitlines()) >= lines for path in results.glob(f"*/*/{name}")):
            return
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.01)
    raise AssertionError(f"no {lines} lines in {name}")


def test_ctrl_c_leaves_a_resumable_run(cache: Path, whole: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(cache, tmp_path), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path, "steps.jsonl", 2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "resume=true" in errors and "Traceback" not in errors
    ablate(cache, tmp_path, "resume=true")
    assert trace(only_run(tmp_path)) == trace(whole)


@pytest.mark.slow
def test_a_stop_falls_between_batches_that_are_trained_on_several_times(cache: Path, tmp_path: Path) -> None:
    more = ["learner.iterations=3", "checkpoint.every_steps=4"]
    process = subprocess.Popen([*command(cache, tmp_path), *more], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(tmp_path, "steps.jsonl", 5, process)
    kept = [int(path.name.rpartition("-")[2]) for path in tmp_path.glob("*/*/checkpoints/checkpoint-*")]
    process.send_signal(signal.SIGTERM)
    process.wait()
    folder = only_run(tmp_path)
    steps = len(read_jsonl(folder / "steps.jsonl"))
    left = {int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoints/checkpoint-*")}
    assert steps % 3 == 0 and steps in left and all(step % 3 == 0 for step in kept)
    ablate(cache, tmp_path, "resume=true", *more)
    (tmp_path / "other").mkdir()
    ablate(cache, tmp_path / "other", *more)
    assert trace(folder) == trace(only_run(tmp_path / "other"))


def test_a_finished_run_shows_its_summary_and_is_not_run_again(cache: Path, whole: Path) -> None:
    before = (whole / "steps.jsonl").stat().st_mtime_ns
    done = ablate(cache, whole.parents[1])
    assert "finished already" in done.stdout and "pass@1" in done.stdout
    assert (whole / "steps.jsonl").stat().st_mtime_ns == before


def test_fresh_keeps_the_earlier_run(cache: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole.parent, tmp_path / whole.parent.name)
    ablate(cache, tmp_path, "fresh=true")
    folder, earlier = sorted(tmp_path.glob("smoke/*"))
    assert earlier.name == folder.name + ".before-1" == whole.name + ".before-1"
    assert trace(earlier) == trace(folder) == trace(whole)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["budget.tokens=0"], ["budget.tokens"]),
        (["budget.tokens=100"], ["budget.tokens", "smallest", "2.05e+03"]),
        (["budget.tokens=null", "budget.flops=1e3"], ["budget.flops", "smallest"]),
        (["learner.lr=abc"], ["learner.lr", "abc"]),
        (["learner.distinct_problems=99999"], ["learner.distinct_problems=99999", "at most"]),
        (["strategy=gues_check"], ["gues_check", "guess_check"]),
        (["task.problem_file={broken}"], ["broken.jsonl:2"]),
    ],
)
def test_mistakes_are_one_line(cache: Path, tmp_path: Path, overrides: list[str], words: list[str]) -> None:
    broken = tmp_path / "broken.jsonl"
    task = Countdown(numbers=2, largest=5, ceiling=10, heldout_percent=30, tuning_percent=10)
    good = dict(task.problem(0, "train", 0).answer)
    broken.write_text(json.dumps(good) + '\n{"numbers": [1, 2], "targ\n')
    done = ablate(cache, tmp_path / "out", *(o.format(broken=broken) for o in overrides), code=2)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unwritable_results_folder_is_named(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = ablate(cache, tmp_path / "file", code=2)
    assert str(tmp_path / "file") in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    cache: Path, whole: Path, tmp_path: Path
) -> None:
    victim = subprocess.Popen(
        command(cache, tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(tmp_path, "steps.jsonl", 9, victim)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    newest = max(only_run(tmp_path).glob("checkpoints/checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    weights = bytearray((newest / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (newest / "model.safetensors").write_bytes(weights)
    done = ablate(cache, tmp_path, "resume=true")
    assert f"{newest.name} is damaged (model.safetensors has changed)" in done.stderr
    assert trace(only_run(tmp_path)) == trace(whole)


ROTTEN = """
from dataclasses import dataclass, field, replace
from strategies.guess_check import Outcome

@dataclass
class Rotten:
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self):
        self.calls = 0

    def __call__(self, groups, lab):
        self.calls += 1
        credited = self.outcome(groups, lab)
        if self.calls < 6:
            return credited
        return [[replace(t, advantages=(float("nan"),) * len(t.steps)) for t in g] for g in credited]
"""


def test_nan_stops_the_run_with_its_last_good_checkpoint(cache: Path, tmp_path: Path) -> None:
    """A user's own credit, in the working directory, that breaks in the sixth batch."""
    own = tmp_path / "own"
    (own / "strategies").mkdir(parents=True)
    (own / "conf" / "strategy" / "credit").mkdir(parents=True)
    (own / "strategies" / "rotten.py").write_text(ROTTEN)
    (own / "conf" / "strategy" / "credit" / "rotten.yaml").write_text("_target_: strategies.rotten.Rotten\n")
    results = tmp_path / "results"
    done = subprocess.run(
        command(cache, results, "strategy/credit=rotten"),
        cwd=own,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "step 6" in done.stderr and "checkpoint-4" in done.stderr and "learner.lr" in done.stderr
    folder = only_run(results)
    assert "NonFiniteLoss" in json.loads((folder / "failure.json").read_text())["message"]
    assert len(read_jsonl(folder / "steps.jsonl")) == 5


def test_every_seed_has_its_own_start(cache: Path, whole: Path, tmp_path: Path) -> None:
    ablate(cache, tmp_path, "seed=1", "budget.tokens=3e3")
    other = read_jsonl(only_run(tmp_path) / "evaluations.jsonl")[0]
    assert other["heldout/pass@1"] != read_jsonl(whole / "evaluations.jsonl")[0]["heldout/pass@1"]
