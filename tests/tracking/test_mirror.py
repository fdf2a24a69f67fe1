"""MLflow gets exactly what the files hold, once, whatever happens to it, and never disturbs the run.

Real stores; what is compared is read back through MLflow's own client. A real server: test_sync.py.
"""

import contextlib
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mirroring import EXPERIMENT, assert_mirrored, expected, row, runs, start, stored

from ablate.tracking.mirror import Mirror, initialise_store, mlflow_hint, push, quieten, resolve_uri
from ablate.tracking.push import mlflow_name
from ablate.tracking.store import _migrate, _revision, connect
from ablate.types import UserError

quieten()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store with nothing in it, made once (the migrations take seconds)."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    initialise_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(tmp_path, template):
    (tmp_path / "results").mkdir()
    shutil.copy(template, tmp_path / "results" / "mlflow.db")
    return resolve_uri(None, tmp_path / "results")


def test_everything_arrives_once(tmp_path, uri, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = start(tmp_path / "results" / "demo" / "run")
    for step in range(400):  # more than one call's worth of metrics
        record.append("steps", row(step))
    record.append("evaluations", {"step": 0, "heldout/pass@1": 0.25, "by": {"easy": 0.5}})
    first = push(record.folder, uri, EXPERIMENT, 60, idle_status="RUNNING")
    assert first.error is None and first.points == 4 * 400 + 2 and first.artifacts == 2
    run = connect(uri).get_run(first.run_id)
    assert run.info.status == "RUNNING" and run.info.run_name == "guess_check/s0"

    record.figures.mkdir()
    (record.figures / "curve.svg").write_text("<svg/>")
    record.append("evaluations", {"step": 399, "heldout/pass@1": math.inf})
    record.finish({"accuracy": 0.5}, "# done")
    second = push(record.folder, uri, EXPERIMENT, 60)
    assert second.error is None and second.run_id == first.run_id
    assert (second.points, second.artifacts) == (1, 4)  # evaluations.jsonl again, summary x 2, the figure
    idle = push(record.folder, uri, EXPERIMENT, 60)
    assert (idle.points, idle.artifacts, idle.error) == (0, 0, None)

    (run,) = runs(uri)
    assert run.info.status == "FINISHED" and run.info.end_time >= run.info.start_time
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    assert tags.pop("ablate.folder") == str(record.folder) and len(tags.pop("ablate.id")) == 32
    assert tags == {"experiment": "demo", "strategy": "guess_check", "seed": "0", "sweep": "w1"}
    params = run.data.params
    assert len(params) == 9 + 130 and params["many.p129"] == "129" and params["long"] == "x" * 500
    assert {params["none"], params["on"], params["empty"], params["blank"]} == {"null", "true", "{}", ""}
    assert params["strategy.stop"] == '["ok", "no"]'
    wanted = expected(record.folder)
    wanted["by/easy", 0] = (0.5, wanted["heldout/pass_at_1", 0][1])
    assert repr(sorted(stored(uri, run.info.run_id).items())) == repr(sorted(wanted.items()))
    artifacts = tmp_path / "results" / "mlflow-artifacts" / EXPERIMENT / run.info.run_id / "artifacts"
    kept = sorted(str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file())
    assert kept == ["config.yaml", "evaluations.jsonl", "figures/curve.svg", "summary.json", "summary.md"]
    assert (artifacts / "evaluations.jsonl").read_text() == (record.folder / "evaluations.jsonl").read_text()
    assert sorted(os.listdir(tmp_path)) == ["results"]  # nothing strays into the working directory
    page = f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    page += "?workflowType=machine_learning"  # else MLflow shows the traces of language models
    from mlflow import MlflowClient

    assert MlflowClient(uri).get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"]
    hint = mlflow_hint(uri, [record.folder])
    assert hint.endswith(page) and "--host 127.0.0.1" in hint and f"--backend-store-uri {uri}`" in hint


def test_interruptions_lose_and_double_nothing(tmp_path, uri):
    record = start(tmp_path / "results" / "demo" / "run")
    note = record.folder / "mlflow.json"
    for step in range(30):
        record.append("steps", row(step))
    stopped = push(record.folder, uri, EXPERIMENT, -1.0)
    assert stopped.error and "in time" in stopped.error
    before = push(record.folder, uri, EXPERIMENT, 60)
    old_note = note.read_bytes()
    for step in range(30, 60):
        record.append("steps", row(step))
    after = push(record.folder, uri, EXPERIMENT, 60)
    for damage in (old_note, b"{", b""):  # killed between sending and noting; a lost note
        note.write_bytes(damage)
        again = push(record.folder, uri, EXPERIMENT, 60)
        assert again.error is None and again.run_id == before.run_id == after.run_id and again.points > 0
    assert_mirrored(uri, record.folder, before.run_id)
    with (record.folder / "steps.jsonl").open("ab") as file:
        file.write(b'{"step": 60, "time": 1')  # half a line is no news
    assert push(record.folder, uri, EXPERIMENT, 60).points == 0
    assert len(runs(uri)) == 1


def test_after_a_resume_mlflow_shows_the_resumed_run_only(tmp_path, uri):
    record = start(tmp_path / "results" / "demo" / "run")
    for step in range(10):
        record.append("steps", row(step))
    checkpoint = record.positions()
    same = push(record.folder, uri, EXPERIMENT, 60)
    for step in range(10, 15):
        record.append("steps", row(step))
    record.truncate_to(checkpoint)  # none of the lost steps was sent
    for step in range(10, 12):
        record.append("steps", row(step))
    assert push(record.folder, uri, EXPERIMENT, 60).run_id == same.run_id
    assert_mirrored(uri, record.folder, same.run_id)

    record.fail("out of memory")
    push(record.folder, uri, EXPERIMENT, 60)
    assert runs(uri)[0].info.status == "FAILED"
    record.truncate_to(checkpoint)  # two of them were
    for step in range(10, 40):
        record.append("steps", row(step, salt=0.5))
    new = push(record.folder, uri, EXPERIMENT, 60)
    assert new.error is None and new.run_id != same.run_id
    assert_mirrored(uri, record.folder, new.run_id)
    assert [run.info.run_id for run in runs(uri)] == [new.run_id]
    assert connect(uri).get_run(same.run_id).info.lifecycle_stage == "deleted"
    push(record.folder, uri, EXPERIMENT, 60)
    assert_mirrored(uri, record.folder, new.run_id)


def test_runs_that_vanish_from_mlflow(tmp_path, uri):
    record = start(tmp_path / "results" / "demo" / "run")
    record.append("steps", row(0))
    first = push(record.folder, uri, EXPERIMENT, 60)
    connect(uri).delete_run(first.run_id)  # by the user: respected
    record.append("steps", row(1))
    assert "was deleted in MLflow: restore it there" in str(push(record.folder, uri, EXPERIMENT, 60).error)
    connect(uri).restore_run(first.run_id)
    assert push(record.folder, uri, EXPERIMENT, 60).error is None

    note = record.folder / "mlflow.json"
    note.write_text(note.read_text().replace(first.run_id, "f" * 32))  # a database that never knew the run
    again = push(record.folder, uri, EXPERIMENT, 60)
    assert again.error is None and again.run_id == first.run_id and again.points > 0
    assert_mirrored(uri, record.folder, first.run_id)
    connect(uri).delete_experiment(runs(uri)[0].info.experiment_id)
    note.unlink()
    assert f"tracking.experiment={EXPERIMENT} was deleted" in str(
        push(record.folder, uri, EXPERIMENT, 60).error
    )


PUSHER = """
import pathlib, sys
from ablate.tracking.mirror import push
result = push(pathlib.Path(sys.argv[1]), sys.argv[2], "trial", 60)
sys.exit(result.error)
"""


@pytest.mark.slow
def test_four_processes_on_a_fresh_store(tmp_path):
    uri = resolve_uri(f"sqlite:///{tmp_path}/results/mlflow.db", Path())
    folders = [tmp_path / "results" / "demo" / f"s{seed}" for seed in range(4)]
    for folder in folders:
        record = start(folder, folder.name)
        for step in range(20):
            record.append("steps", row(step))
        record.finish({}, "")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUSHER, str(folder), uri],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        for folder in folders
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0 and errors == ""
    assert sorted(run.info.run_name for run in runs(uri)) == ["s0", "s1", "s2", "s3"]
    for run in runs(uri):
        assert_mirrored(uri, Path(run.data.tags["ablate.folder"]), run.info.run_id)
    assert sorted(os.listdir(tmp_path)) == ["results"]
    page = mlflow_hint(uri, folders)
    assert "#/compare-runs?runs=%5B%22" in page and "&experiments=%5B%221%22%5D&" in page


@pytest.mark.slow
def test_a_store_of_another_mlflow_is_migrated_or_refused(tmp_path):
    import sqlalchemy
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import InitialBase, _get_alembic_config

    def build(name):
        engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/{name}.db")
        InitialBase.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("PRAGMA synchronous=OFF"))
            config.attributes["connection"] = connection
            command.upgrade(config, older)
        engine.dispose()
        return f"sqlite:///{tmp_path}/{name}.db"

    config = _get_alembic_config("sqlite://")
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    older = scripts.get_revision(head).down_revision
    record = start(tmp_path / "demo" / "run")
    record.append("steps", row(0))
    uri = build("old")
    result = push(record.folder, uri, EXPERIMENT, 60)
    assert result.error is None and _revision(tmp_path / "old.db") == head
    assert_mirrored(uri, record.folder, result.run_id)

    uri = build("older")
    _migrate(tmp_path / "older.db")
    assert _revision(tmp_path / "older.db") == head
    assert _revision(tmp_path / f"older.db.{older}.bak") == older

    with contextlib.closing(sqlite3.connect(tmp_path / "older.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    error = push(record.folder, uri, EXPERIMENT, 60).error
    assert error and "older.db was made by another version of MLflow and cannot be migrated" in error


def test_a_store_that_is_locked_holds_nobody_up(tmp_path, uri):
    """Another program has the file to itself: the run goes on, and what was not sent is sent later."""
    record = start(tmp_path / "results" / "demo" / "run")
    record.append("steps", row(0))
    with contextlib.closing(
        sqlite3.connect(tmp_path / "results" / "mlflow.db", isolation_level=None)
    ) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert _revision(tmp_path / "results" / "mlflow.db") == "locked"
        initialise_store(uri)
        mirror = Mirror(record.folder, uri, EXPERIMENT)
        said = mirror.close(deadline_seconds=1.0)
        assert "nothing is lost" in said and "\n" not in said
        other.execute("ROLLBACK")
    mirror._thread.join(60)
    result = push(record.folder, uri, EXPERIMENT, 60)
    assert result.error is None
    assert_mirrored(uri, record.folder, result.run_id)


def test_what_cannot_be_a_store_is_said_in_one_line(tmp_path):
    for uri in ("./mlruns", "file:///tmp/mlruns", "htp://host:5000", "sqlite:///", "sqlite://mlflow.db"):
        with pytest.raises(UserError, match=r"tracking\.uri="):
            resolve_uri(uri, tmp_path)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        resolve_uri("https://me:secret@host", tmp_path)
    assert "secret" not in str(caught.value)
    assert resolve_uri("http://host:5000/", tmp_path) == "http://host:5000"
    assert resolve_uri(None, Path("a/../b")) == f"sqlite:///{Path.cwd()}/b/mlflow.db"
    other = tmp_path / "mlflow.db"
    other.write_text("somebody's notes, not a database")
    with pytest.raises(UserError, match=r"mlflow\.db is not a readable MLflow database"):
        initialise_store(f"sqlite:///{other}")
    assert other.read_text() == "somebody's notes, not a database"
    with pytest.raises(UserError, match="cannot write to"):
        initialise_store(f"sqlite:///{other}/below/mlflow.db")


@given(st.text() | st.text("ab./@:% "))
@example("..0")
@example("a/../b")
@settings(max_examples=500)
def test_mlflow_accepts_every_metric_name(name):
    from mlflow.utils.validation import _validate_metric_name

    if mlflow_name(name):
        _validate_metric_name(mlflow_name(name))
        assert len(mlflow_name(name)) <= 250
    assert mlflow_name("heldout/pass@1") == "heldout/pass_at_1"


def work(record, rows):
    """A training loop in small: the seconds it takes."""
    begun = time.perf_counter()
    for step in range(rows):
        sum(range(30_000))
        record.append("steps", row(step))
    return time.perf_counter() - begun


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_dead_server_costs_the_run_nothing(tmp_path, kind):
    """No port, or a port that takes connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
    if kind == "closed":
        listener.close()
    alone = min(work(start(tmp_path / f"alone{i}"), 400) for i in range(3))
    record = start(tmp_path / "mirrored")
    mirror = Mirror(record.folder, uri, EXPERIMENT, every_seconds=0.1)
    beside = min(work(start(tmp_path / f"beside{i}"), 400) for i in range(3))
    begun = time.perf_counter()
    line = mirror.close(deadline_seconds=2.0)
    assert not mirror.complete
    assert time.perf_counter() - begun < 2.5
    reason = {"closed": "connection refused", "silent": "no answer within 2 s"}[kind]
    assert line == (
        f"MLflow was not reachable ({reason}): nothing is lost; "
        f"`python -m ablate.sync {record.folder}` fills it in"
    )
    print(f"{kind}: {1000 * alone:.0f} ms alone, {1000 * beside:.0f} ms beside the mirror")
    assert beside < 1.5 * alone + 1.0  # a call that blocks would take two seconds
    assert mirror.cost.cpu_seconds < 2.0
    listener.close()


SILENT = """
import pathlib, sys, warnings, logging
from ablate.tracking.mirror import Mirror, quieten
quieten()
import mlflow
from ablate.record import Record
folder = pathlib.Path(sys.argv[1])
record = Record(folder)
record.write_config({"seed": 0})
record.write_meta("silent", {})
record.append("steps", {"step": 1, "loss": 0.5})
mirror = Mirror(folder, sys.argv[2], "trial", every_seconds=0.05)
record.finish({}, "")
line = mirror.close()
assert line.startswith("MLflow: `mlflow ui "), line
from mlflow.telemetry import get_telemetry_client
assert get_telemetry_client() is None
assert logging.getLogger().level == logging.WARNING and not logging.getLogger().handlers
"""


def test_mlflow_is_silent_and_reports_to_nobody(tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTEST", "CI"))
    }
    done = subprocess.run(
        [sys.executable, "-c", SILENT, str(tmp_path / "run"), f"sqlite:///{tmp_path}/mlflow.db"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
