"""MLflow's own page in a real browser: the arms' curves are where `python -m ablate.status` points to."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from html import unescape

import pytest
from browser import CHROMIUM, HEADLESS
from sweeping import ROOT, end, runs, start

from ablate.record import read_jsonl

ARMS = ("guess_check", "learn_to_correct")
BUSY = 600  # seconds; a machine with other work on it is slow


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Where a sweep of two arms was mirrored in an sqlite store."""
    folder = tmp_path_factory.mktemp("here")
    process = start(folder, f"strategy={','.join(ARMS)}", "name=two_arms", "tracking=mlflow")
    try:
        assert process.wait(timeout=BUSY) == 0
    finally:
        end(process)
    return folder


@pytest.fixture
def address(here):
    """What the status prints, with the server running that it says how to start."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    status = [sys.executable, "-m", "ablate.status", "results/two_arms"]
    told = subprocess.run(status, cwd=here, env=environment, capture_output=True, text=True, timeout=BUSY)
    command, page = re.search(r"^MLflow: `(mlflow ui .*)`, then (\S+)$", told.stdout, re.MULTILINE).groups()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert "--host 127.0.0.1 --port 5000 " in command and page.startswith("http://127.0.0.1:5000/#/")
    words = [str(port) if word == "5000" else word for word in shlex.split(command)]
    with (here / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *words], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + BUSY
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline and server.poll() is None, (here / "server.log").read_text()
            time.sleep(0.2)
        yield page.replace(":5000/", f":{port}/")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
@pytest.mark.timeout(3 * BUSY)
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium installed")
def test_both_arms_and_their_curves_are_on_mlflows_page(here, address):
    command = [
        CHROMIUM,
        *HEADLESS,
        "--dump-dom",
        f"--screenshot={here / 'page.png'}",
        f"--user-data-dir={here / 'profile'}",
        "--window-size=1600,2400",
        "--virtual-time-budget=60000",  # milliseconds of the page's own clock
        address,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUSY)
    page = done.stdout
    assert {f"{arm}/s0" for arm in ARMS} <= set(texts(page)), done.stderr
    found = charts(page)
    assert {"budget/flops", "budget/tokens", "heldout/length", "heldout/pass_at_1"} <= found.keys()
    for name, (legend, points) in found.items():
        assert {f"{arm}/s0 ({name})" for arm in ARMS} <= legend and len(points) == len(ARMS), name
        assert min(points) > 1, name
    evaluations = [len(read_jsonl(folder / "evaluations.jsonl")) for folder in runs(here, "two_arms")]
    assert sorted(found["heldout/pass_at_1"][1]) == sorted(evaluations)
    assert (here / "page.png").stat().st_size > 50_000


def texts(html):
    return [unescape(each) for each in re.findall(r">([^<>]+)<", html) if each.strip()]


def charts(html):
    """The charts that are drawn, by title: (texts, the legend's among them; the number of points of each
    curve)."""
    found = {}
    for card in html.split('data-testid="experiment-view-compare-runs-card-drag-handle"')[1:]:
        title, *rest = texts(card)
        curves = [trace.count('class="point"') for trace in card.split('class="trace scatter')[1:]]
        found[title] = set(rest), [points for points in curves if points]  # the other traces mark the pointer
    return found
