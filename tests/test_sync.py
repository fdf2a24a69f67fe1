"""A tracking server that dies costs nothing but time: `python -m ablate.sync` fills in what it missed."""

import json
import time

import pytest
from mirroring import CONFIG, EXPERIMENT, Server, assert_mirrored, row, runs, start

from ablate.sync import main as sync
from ablate.tracking.mirror import Mirror
from ablate.tracking.store import connect


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "server")
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_dies_in_mid_run_is_filled_in_later(tmp_path, server, capsys):
    record = start(tmp_path / "results" / "demo" / "run")
    record.folder.joinpath("config.yaml").write_text(
        json.dumps({**CONFIG, "tracking": {"uri": server.uri, "experiment": EXPERIMENT}})
    )
    mirror = Mirror(record.folder, server.uri, EXPERIMENT, every_seconds=0.2)
    for step in range(60):
        record.append("steps", row(step))
        time.sleep(0.02)
        if step == 40:
            deadline = time.monotonic() + 60
            while not mirror.result.points:
                assert time.monotonic() < deadline, mirror.result
                time.sleep(0.05)
            reached = mirror.result.url
            server.kill()
    record.append("evaluations", {"step": 59, "heldout/pass@1": 0.5})
    record.finish({"accuracy": 0.5}, "# done")
    assert "nothing is lost" in mirror.close()
    assert sync([str(record.folder)]) == 1
    assert "not sent (connection refused)" in capsys.readouterr().out

    server.start()
    assert sync([str(tmp_path / "results")]) == 0
    assert reached in capsys.readouterr().out
    (run,) = runs(server.uri)
    assert run.info.status == "FINISHED" and run.info.run_id in reached
    assert_mirrored(server.uri, record.folder, run.info.run_id)
    names = [file.path for file in connect(server.uri).list_artifacts(run.info.run_id)]
    assert names == ["config.yaml", "evaluations.jsonl", "summary.json", "summary.md"]
    assert sync([str(record.folder)]) == 0
    assert "nothing to send" in capsys.readouterr().out

    again = start(tmp_path / "results" / "demo" / "interrupted", "interrupted")
    again.append("steps", row(0))
    mirror = Mirror(again.folder, server.uri, EXPERIMENT, every_seconds=0.2)
    assert mirror.close().startswith(f"MLflow: {server.uri}/#/experiments/") and mirror.complete
    assert connect(server.uri).get_run(mirror.result.run_id).info.status == "KILLED"


def test_sync_says_what_is_wrong_with_the_call(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments in ([str(tmp_path / "absent")], [str(tmp_path / "empty")], [str(tmp_path), "--uri", "x"]):
        assert sync(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
    record = start(tmp_path / "demo" / "run")
    (record.folder / "config.yaml").write_text("tracking: [")
    assert sync([str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith(f"{record.folder}: not sent (cannot read")
