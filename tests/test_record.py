"""The run's own files survive what happens to runs: kill -9, a full disk, numbers that JSON cannot hold."""

import json
import math
import resource
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.record import (
    Record,
    load_evaluation,
    read_json,
    read_jsonl,
    read_rows,
    status,
    system_metrics,
    write_json,
)
from ablate.types import UserError

COLUMNS = {
    "problem": ["a", "a", "b", "b"],
    "cluster": ["k", "k", "l", "l"],
    "stratum": ["easy", "easy", "hard", "hard"],
    "sample": np.array([0, 1, 0, 1]),
    "solved": np.array([True, False, True, True]),
    "tokens": np.array([5, 6, 7, 8], dtype=np.int32),
    "truncated": np.array([False, False, True, False]),
    "attempts": np.array([1.0, 2.0, 0.5, 4.0], dtype=np.float32),
}


def strict(text):
    """JSON as the standard has it, without Python's NaN and Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in {text}"))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("xyz", min_size=1), values, max_size=4))
def test_any_row_is_one_strict_line_and_comes_back(tmp_path_factory, row):
    record = Record(tmp_path_factory.mktemp("run"))
    record.append("steps", {"step": 3, "time": 1.5, **row})
    record.close()
    (line,) = (record.folder / "steps.jsonl").read_bytes().splitlines(keepends=True)
    (read,) = read_jsonl(record.folder / "steps.jsonl")
    assert line.endswith(b"\n") and strict(line) == read

    def numbers(value, path):
        if isinstance(value, float) and not math.isfinite(value):
            yield path
        items = (
            value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
        )
        for key, item in items:
            yield from numbers(item, f"{path}/{key}" if path else key)

    def finite(value):
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    broken = list(numbers(row, ""))
    assert read.pop("nonfinite", []) == broken
    assert read == {"step": 3, "time": 1.5, **finite(row)}


def test_numbers_of_numpy_and_torch_become_plain(tmp_path):
    torch = pytest.importorskip("torch")
    record = Record(tmp_path)
    row = {"a": np.float32(0.5), "b": np.int64(7), "c": np.array([1.0, math.nan]), "d": torch.tensor(2.0)}
    record.append("steps", {"step": np.int64(1), **row})
    (read,) = read_jsonl(tmp_path / "steps.jsonl")
    assert abs(read.pop("time") - time.time()) < 5
    assert read == {"step": 1, "a": 0.5, "b": 7, "c": [1.0, None], "d": 2.0, "nonfinite": ["c/1"]}
    with pytest.raises(ValueError, match="step"):
        record.append("steps", {"loss": 1.0})
    with pytest.raises(ValueError, match="stepz"):
        record.append("stepz", {"step": 1})


def test_a_line_torn_anywhere_costs_only_itself(tmp_path):
    record = Record(tmp_path)
    for step in range(3):
        record.append("steps", {"step": step, "text": 'ü"\n{'})
    record.close()
    path = tmp_path / "steps.jsonl"
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert [row["step"] for row in read_jsonl(path)] == list(range(complete))
        again = Record(tmp_path)
        again.append("steps", {"step": complete})
        again.close()
        assert [row["step"] for row in read_jsonl(path)] == [*range(complete), complete]
    assert read_rows(path, ends[0])[0][0]["step"] == 1
    assert read_jsonl(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize("line", [b'{"step": 1,\n', b"[1]\n", b"\n", b"\x00\x00\n", b"\xff\n"])
def test_a_line_broken_elsewhere_is_named(tmp_path, line):
    path = tmp_path / "steps.jsonl"
    path.write_bytes(b'{"step": 0}\n' + line + b'{"step": 2}\n')
    with pytest.raises(UserError, match=r"steps\.jsonl, line 2"):
        read_jsonl(path)
    with pytest.raises(UserError, match=r"steps\.jsonl, line 2"):
        read_rows(path, len(b'{"step": 0}\n'))


def test_kill_9_in_the_middle_of_writing(tmp_path):
    script = (
        "import sys, pathlib; from ablate.record import Record; record = Record(pathlib.Path(sys.argv[1]))\n"
        "for step in range(10**9): record.append('steps', {'step': step, 'text': 'x' * (step % 5000)})"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    path = tmp_path / "steps.jsonl"
    while not path.exists() or path.stat().st_size < 3_000_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    steps = [row["step"] for row in read_jsonl(path)]
    assert len(steps) > 500 and steps == list(range(len(steps)))


def test_resume_cuts_the_record_back_to_the_checkpoint(tmp_path):
    record = Record(tmp_path / "deep" / "run")
    folder = record.folder
    assert status(folder) == "new"
    record.write_config({"seed": 1})
    record.write_evaluation(0, COLUMNS, {"heldout/pass@1": 0.25})
    record.append("steps", {"step": 1})
    positions = record.positions()
    before = {name: (folder / name).read_bytes() for name in ("steps.jsonl", "evaluations.jsonl")}
    record.append("steps", {"step": 2})
    record.write_evaluation(2, COLUMNS, {"heldout/pass@1": 0.5})
    (folder / ".summary.json.1.tmp").write_text("left by a kill")
    record.fail("ValueError: the loss is NaN")
    assert status(folder) == "failed" and "NaN" in read_json(folder / "failure.json")["message"]

    record.truncate_to(positions)
    assert status(folder) == "unfinished"
    assert {name: (folder / name).read_bytes() for name in before} == before
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == ["config.yaml", "evaluations.jsonl", "evaluations/000000.parquet", "steps.jsonl"]

    record.append("steps", {"step": 2})
    record.finish({"accuracy": math.nan}, "done")
    assert status(folder) == "finished"
    summary = strict((folder / "summary.json").read_text())
    assert summary["accuracy"] is None and summary["nonfinite"] == ["accuracy"]
    record.close()

    (folder / "steps.jsonl").write_bytes(before["steps.jsonl"][:-1])
    with pytest.raises(UserError, match="does not reach back to its checkpoint"):
        record.truncate_to(positions)
    assert status(folder) == "finished"  # refused before anything was touched
    record.truncate_to({})
    assert read_jsonl(folder / "steps.jsonl") == [] and not list(folder.glob("evaluations/*"))


def test_an_evaluation_comes_back_column_by_column(tmp_path):
    record = Record(tmp_path)
    record.write_evaluation(40, COLUMNS, {"heldout/pass@1": 0.75})
    columns = load_evaluation(tmp_path, 40)
    assert list(columns) == list(COLUMNS)
    for name, expected in COLUMNS.items():
        np.testing.assert_array_equal(columns[name], expected)
    assert columns["solved"].dtype == bool and columns["tokens"].dtype == np.int32
    assert read_jsonl(tmp_path / "evaluations.jsonl")[0]["step"] == 40
    with pytest.raises(ValueError, match="stratum"):
        record.write_evaluation(41, {k: v for k, v in COLUMNS.items() if k != "stratum"}, {})
    with pytest.raises(UserError, match=r"000041\.parquet"):
        load_evaluation(tmp_path, 41)
    path = tmp_path / "evaluations" / "000040.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"000040\.parquet"):
        load_evaluation(tmp_path, 40)


def test_a_disk_that_refuses_is_named_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/run: Not a directory"):
        Record(tmp_path / "file" / "run")

    record = Record(tmp_path / "run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # what a full disk does: the write fails half way
    try:
        with pytest.raises(UserError, match=r"cannot write to .*run: File too large"):
            for step in range(100):
                record.append("steps", {"step": step, "text": "x" * 100})
        with pytest.raises(UserError, match=r"cannot write to .*summary\.json"):
            write_json(tmp_path / "run" / "summary.json", {"text": "x" * 5000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["steps.jsonl"]  # no half-made file
    steps = [row["step"] for row in read_jsonl(tmp_path / "run" / "steps.jsonl")]
    assert steps == list(range(len(steps))) and len(steps) > 20


def test_meta_says_what_ran_and_not_where(tmp_path):
    record = Record(tmp_path)
    first = record.write_meta("guess_check/s0", {"strategy": "guess_check", "seed": "0"}, gpus=["H200"])
    again = record.write_meta("other", {})
    assert again == read_json(tmp_path / "meta.json")
    assert {key: again[key] for key in first} == first and len(first["id"]) == 32
    (resumed,) = again["resumed"]
    assert resumed["started"] > first["started"] and resumed["libraries"] == first["libraries"]
    assert first["machine"]["gpus"] == ["H200"] and first["machine"]["cores"] >= 1
    assert first["git"] is None or set(first["git"]) == {"revision", "dirty"}
    assert first["libraries"]["numpy"] == np.__version__
    assert socket.gethostname() not in json.dumps({k: v for k, v in first.items() if k != "command"})
    record.write_config({"seed": 0})
    record.write_config({"seed": 1})
    assert (tmp_path / "config.yaml").read_text() == "seed: 0\n"


def test_system_metrics_are_numbers_for_the_record():
    metrics = system_metrics()
    assert 0 <= metrics["system/cpu_percent"] <= 100 and 0.001 < metrics["system/rss_gib"] < 1000
    assert all(name.startswith("system/") and isinstance(value, float) for name, value in metrics.items())
