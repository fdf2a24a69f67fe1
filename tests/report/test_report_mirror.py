"""The report in a real MLflow store, and what becomes of it when there is none."""

import socket
import time

import pytest
from synthetic_results import write_arms

from ablate.report.__main__ import main
from ablate.report.loading import load
from ablate.report.mirror import target
from ablate.tracking.store import connect, initialise_store
from ablate.types import UserError

OPEN = {"enabled": True, "uri": None, "experiment": "trial", "every_seconds": 10.0}


def write(root, tracking):
    return write_arms(root, {"guess_check": 0.5, "mcts": 0.6}, range(2), tracking=tracking)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    initialise_store(f"sqlite:///{results / 'mlflow.db'}")
    return write(results / "arms", OPEN)


def reports(folder):
    client = connect(f"sqlite:///{folder.parent / 'mlflow.db'}")
    known = client.get_experiment_by_name("trial")
    return client, client.search_runs([known.experiment_id]) if known else []


def test_the_report_goes_where_the_runs_are_and_replaces_an_earlier_one(folder, capsys):
    for _ in range(2):
        assert main([str(folder), "margin=0.05"]) == 0
    assert "MLflow: `mlflow ui" in capsys.readouterr().out
    client, (run,) = reports(folder)
    assert run.info.run_name == "arms/report" and run.info.status == "FINISHED"
    assert run.data.tags["experiment"] == "arms"
    assert run.data.tags["verdict.search"] in ("helps", "inconclusive")
    assert "Search on top of guess + check" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["effect/search"] == pytest.approx(10, abs=3)
    low, high = (run.data.metrics[f"effect/search_{end}"] for end in ("low", "high"))
    assert low < run.data.metrics["effect/search"] < high
    assert run.data.metrics["accuracy/mcts"] == pytest.approx(60, abs=3)
    assert run.data.params["margin"] == "0.05" and run.data.params["arms"] == "guess_check mcts"
    kept = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert kept == {"report.html", "report.md", "verdict.json", "figures"}
    drawn = {each.path for each in client.list_artifacts(run.info.run_id, "figures")}
    assert drawn == {f"figures/{path.name}" for path in (folder / "figures").iterdir()} and drawn


def test_it_can_be_left_out(folder, tmp_path, capsys):
    before = [run.info.run_id for run in reports(folder)[1]]
    assert main([str(folder), "tracking=none"]) == 0
    assert "MLflow" not in capsys.readouterr().out
    assert [run.info.run_id for run in reports(folder)[1]] == before
    closed = write(tmp_path / "closed", {"enabled": False})
    assert main([str(closed)]) == 0 and not (tmp_path / "mlflow.db").exists()


def test_a_dead_server_does_not_hurt(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = write(tmp_path / "arms", {**OPEN, "uri": f"http://127.0.0.1:{port}"})
    begun = time.monotonic()
    assert main([str(root)]) == 0
    assert time.monotonic() - begun < 60
    out = capsys.readouterr().out
    assert "MLflow was not reachable (connection refused): nothing is lost" in out
    assert (root / "report.html").exists()


def test_where_it_goes(tmp_path):
    results = tmp_path / "results"
    write(results / "arms", {**OPEN, "uri": "http://one:5000"})
    experiment = load(results / "arms")
    assert target(experiment, None) == ("http://one:5000", "trial")
    assert target(experiment, "http://two:5000") == ("http://two:5000", "trial")
    assert target(experiment, "none") is None
    with pytest.raises(UserError, match="not a store"):
        target(experiment, "nowhere")
    write(results / "other", {"enabled": False})
    assert target(load(results / "other"), None) is None
    assert target(load(results / "other"), f"sqlite:///{tmp_path}/m.db") == (
        f"sqlite:///{tmp_path}/m.db",
        "ablate",
    )
    write(results / "default", OPEN)
    assert target(load(results / "default"), None) == (f"sqlite:///{results}/mlflow.db", "trial")
