"""MLflow's own page, in a real browser, shows the curves of a sweep's arms."""

import shutil
import subprocess

import pytest
from mirroring import EXPERIMENT, Server, start

from ablate.mirror import push
from ablate.status import overview

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARMS = ("guess_check", "process_rewards", "mcts")


def page(url, folder, seconds=40):
    """What a headless browser has made of a page after so many seconds of its own clock."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    command += ["--window-size=1600,2400", f"--virtual-time-budget={1000 * seconds}", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=240).stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_compare_page_shows_a_curve_for_every_arm(tmp_path):
    server = Server(tmp_path / "server")
    try:
        for i, arm in enumerate(ARMS):
            record = start(tmp_path / f"results/demo/{arm}-s0-0000000{i}", f"{arm}/s0")
            for step in range(1, 30):
                record.append("steps", {"step": step, "train/solved": (i + 1) * step / 100})
            record.finish({"accuracy": 0.5}, "# done")
            assert push(record.folder, server.uri, EXPERIMENT, 60).error is None
        url = overview(tmp_path / "results/demo").mlflow
        assert url.startswith(server.uri) and "compare-runs" in url
        seen = page(url, tmp_path / "browser")
        (tmp_path / "page.html").write_text(seen)
        assert all(f"{arm}/s0" in seen for arm in ARMS) and "train/solved" in seen
        # a chart per metric, with a line for each arm (plotly draws them as paths of this class)
        assert seen.count('class="js-line"') >= len(ARMS)
    finally:
        server.kill()
