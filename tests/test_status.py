"""Many runs at a glance, from files as runs and sweeps leave them."""

import json
import shutil
import subprocess
import sys
import time
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import pytest

from ablate.compose import named_runs, plan
from ablate.config import run_folder
from ablate.owner import NAME, owned
from ablate.record import write_json
from ablate.status import _rest, lines, main, overview
from ablate.sweeps.planned import FOLDER, Planned, declare
from ablate.types import UserError

ROOT = Path(__file__).parents[1]
STATES = ("done", "running", "failed", "stopped", "waiting")


def write(root, name, state, spent=0.5, rows=40, began=None, mlflow="http://127.0.0.1:5000"):
    """A run's folder as far as the status reads it; a waiting one has none."""
    if state == "waiting":
        return
    folder = root / name
    folder.mkdir(parents=True)
    write_json(folder / "meta.json", {"ablate": "0.1.0", "started": 0.0})
    began = time.time() - 10.0 * rows if began is None else began
    share = 1.0 if state == "done" else spent
    steps = [
        {
            "step": i + 1,
            "time": began + 10.0 * (i + 1),
            "budget/spent": share * (i + 1) / rows,
            "fill": "x" * 300,
        }
        for i in range(rows)
    ]
    (folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps) + '{"step": 9')
    row = {"step": rows, "heldout/pass@1": 0.25, "budget/spent": share}
    (folder / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
    if state == "done":
        budget = {"spent": 1.01e6, "declared": 1e6}
        write_json(folder / "summary.json", {"finished": True, "seconds": {"total": 100.0}, "budget": budget})
    if state == "failed":
        write_json(folder / "failure.json", {"message": "NonFiniteLoss: the loss of step 3\nis nan"})
    note = {
        "uri": mlflow,
        "experiment": "ablate",
        "experiment_id": "1",
        "run_id": f"{hash(name) % 16**8:032x}",
    }
    write_json(folder / "mlflow.json", {"mirrors": [note]})


@pytest.fixture
def experiment(tmp_path):
    """Two runs of each state, and locks that hold the running ones until the test ends."""
    root = tmp_path / "results/demo"
    for seed, state in enumerate(STATES * 2):
        write(root, f"guess_check-s{seed}-0000000{seed}", state)
    names = {f"guess_check-s{seed}-0000000{seed}": f"seed={seed}" for seed in range(10)}
    locks = [owned(root / name) for name, state in zip(names, STATES * 2, strict=True) if state == "running"]
    held = [lock.__enter__() for lock in locks]
    from ablate.owner import this_process

    (root / FOLDER).mkdir()
    write_json(root / FOLDER / "1.json", asdict(Planned(names, ["seed"], {}, this_process())))
    yield root
    for lock in held:
        lock.release()


def test_every_state_is_told_from_the_files(experiment):
    found = overview(experiment)
    assert found.counts == {"running": 2, "failed": 2, "stopped": 2, "waiting": 2, "done": 2}
    assert found.sweeps == 1
    by_state = {run.state: run for run in found.runs}
    assert by_state["running"].spent == by_state["stopped"].spent == 0.5 and by_state["done"].spent == 1.01
    assert by_state["running"].accuracy == 0.25 and by_state["running"].metric == "pass@1"
    # half of the budget in 40 steps of 10 s, the tail's pace
    assert by_state["running"].left == pytest.approx(400, abs=15)
    # two running: their own rest, 2 x half of a mean run, 2 whole ones, two at a time
    assert found.left == pytest.approx((2 * 400 + 2 * 50 + 2 * 100) / 2, abs=20)
    assert by_state["failed"].text == "NonFiniteLoss: the loss of step 3 is nan"
    assert by_state["waiting"].text in ("seed=4", "seed=9") and by_state["waiting"].seed in ("4", "9")
    text = "\n".join(lines(found, None))
    assert "10 runs: 2 running, 2 failed, 2 stopped, 2 waiting, 2 done · about 9:" in text
    search = "searchFilter=tags.experiment%20%3D%20%27demo%27"
    assert f"#/experiments/1/runs?{search}&compareRunsMode=CHART&workflowType=" in text


def test_a_pause_is_no_work(tmp_path):
    ago = [(23 - i) * 10 + (12 * 3600 if i < 20 else 0) for i in range(24)]
    rows = [{"time": time.time() - each, "budget/spent": (i + 1) / 100} for i, each in enumerate(ago)]
    (tmp_path / "steps.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert _rest(tmp_path) == pytest.approx(760, abs=15)


def test_what_died_is_stopped_and_what_cannot_be_read_is_said(experiment, capsys):
    for path in experiment.glob(f"*/{NAME}"):
        held = json.loads(path.read_text())
        path.write_text(json.dumps({**held, "pid": 2**22 + 1}))
    folder = next(experiment.glob("*-s0-*"))
    meta = json.loads((folder / "meta.json").read_text())
    write_json(folder / "meta.json", {**meta, "format": 99, "ablate": "9.0"})
    other = next(experiment.glob("*-s5-*"))
    write_json(other / "summary.json", {"finished": True, "old": 1})
    (next(experiment.glob("*-s8-*")) / "steps.jsonl").write_text("{}\nnonsense\n")
    path = experiment / FOLDER / "1.json"
    values = json.loads(path.read_text())
    write_json(path, {**values, "owner": {**values["owner"], "pid": 2**22 + 1}})
    assert main([str(experiment)]) == 0
    out = capsys.readouterr().out
    assert "10 runs: 2 failed, 3 unreadable, 3 stopped, 2 waiting\n" in out
    assert "was recorded by ablate 9.0 in format 99; this is" in out and "another version's files" in out
    assert "no process is at work: the same command with resume=true goes on" in out
    assert main([str(experiment), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 10


def test_a_thousand_runs_take_seconds_and_little_memory(tmp_path):
    root = tmp_path / "results/many"
    names = [f"arm{i % 5}-s{i // 5}-{i:08x}" for i in range(1000)]
    for i, name in enumerate(names):
        write(root, name, STATES[i % 5] if STATES[i % 5] != "running" else "stopped", rows=300)
    size = sum(path.stat().st_size for path in root.glob("*/steps.jsonl"))
    tracemalloc.start()
    began = time.process_time()
    found = overview(root)
    seconds = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.counts == {"failed": 200, "stopped": 400, "done": 200}
    assert seconds < 20 and peak < 8 << 20 < size / 8, (seconds, peak)  # 3 s traced, on a busy machine
    text = lines(found, 40)
    assert len(text) < 100 and "... and 760 more (--all)" in text
    search = "searchFilter=tags.experiment%20%3D%20%27many%27"
    assert any(f"#/experiments/1/runs?{search}&" in line for line in text)


def test_a_sweeps_plan_is_read_back_and_replaced_by_the_same_sweeps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked = plan(["experiment=smoke", "strategy=guess_check,mcts", "seed=0,1"], multirun=True)
    listed = named_runs(checked)
    (path,) = declare(listed, checked.config, checked.varied)
    found = overview(path.parents[1])
    assert found.counts == {"waiting": 4} and found.left is None and found.sweeps == 1
    assert {run.run: run.text for run in found.runs} == {run_folder(c).name: text for c, text in listed}
    assert {run.text for run in found.runs} == {
        f"strategy={s} seed={i}" for s in ("guess_check", "mcts") for i in (0, 1)
    }
    values = json.loads(path.read_text())
    write_json(path, {**values, "owner": {**values["owner"], "pid": 2**22 + 1}})  # its process is gone
    time.sleep(1.1)
    (again,) = declare(listed, checked.config, checked.varied)
    assert list(path.parent.iterdir()) == [again]


def test_two_sweeps_of_one_name_with_different_settings_are_refused_with_the_difference(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def try_sweep(*words):
        checked = plan(["experiment=smoke", *words], multirun=True)
        return declare(named_runs(checked), checked.config, checked.varied)

    try_sweep("seed=0,1", "name=mine")
    try_sweep("seed=0,1", "name=mine", "strategy=mcts", "learner.lr=1e-4", "budget.tokens=9e4")  # may differ
    with pytest.raises(
        UserError, match=r"mine has task.numbers=2 and this one 3: .* another name=\.\.\. keeps"
    ):
        try_sweep("seed=0,1", "name=mine", "task.numbers=3")
    with pytest.raises(UserError, match="has budget=tokens and this one flops"):
        try_sweep("seed=0,1", "name=mine", "budget.flops=1e12")
    try_sweep("task.numbers=2,3", "name=mine", "seed=0")  # on purpose
    try_sweep("seed=0,1", "name=single")
    try_sweep("seed=0,1", "name=single", "task.numbers=3")  # where everything goes that has no name


def test_a_sweep_that_came_to_nothing_blocks_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def try_sweep(*words):
        checked = plan(["experiment=smoke", "seed=0,1", "name=mine", *words], multirun=True)
        return named_runs(checked), *declare(named_runs(checked), checked.config, checked.varied)

    listed, path = try_sweep()
    values = json.loads(path.read_text())
    write_json(path, {**values, "owner": {**values["owner"], "pid": 2**22 + 1}})  # its process is gone
    run = run_folder(listed[0][0])
    run.mkdir()
    write_json(run / "meta.json", {})
    with pytest.raises(UserError, match=r"has task\.numbers=2 and this one 3"):
        try_sweep("task.numbers=3")
    shutil.rmtree(run)
    try_sweep("task.numbers=3")


def test_mistakes_are_one_line_and_nothing_heavy_is_loaded(tmp_path, capsys):
    (tmp_path / "suspects/run").mkdir(parents=True)
    write(tmp_path / "suspects", "guess_check-s0-00000000", "done")
    for path, message in (
        ("suspect", "did you mean suspects?"),
        ("", "experiments in it: suspects"),
        ("suspects/guess_check-s0-00000000", "is a single run; give the folder of its experiment"),
    ):
        assert main([str(tmp_path / path)]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    code = "import sys, ablate.status as s; s.main([sys.argv[1]]); "
    code += "print({'torch', 'mlflow', 'numpy'} & set(sys.modules))"
    command = [sys.executable, "-c", code, str(tmp_path / "suspects")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stderr
