"""Who waits for a lock says for what, once, and gets it."""

import threading
import time

from filelock import FileLock

from ablate import waiting


def test_whoever_waits_says_so_and_then_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)
    path, order = tmp_path / "lock", []

    def wait():
        with waiting.locked(path, "the warm start of seed 3"):
            order.append("second")

    other = FileLock(path)
    with other:
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    said = "ablate: waiting for the warm start of seed 3, which another process makes\n"
    assert capsys.readouterr().err == said
    with waiting.locked(path, "nothing"):
        pass  # free again, and nobody had to wait
    assert capsys.readouterr().err == ""
