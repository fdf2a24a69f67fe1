"""Processes that are spoken with: whatever they do, the answer is there by the deadline, or `Stopped`."""

import sys
import time

import psutil
import pytest

from ablate.tasks.child import Child, Crew, Stopped, worker, worker_environment

ECHO = "import sys\nfor line in sys.stdin: sys.stdout.write(line); sys.stdout.flush()"


def child(code, **options):
    return Child([sys.executable, "-c", code], **options)


def soon(seconds=20.0):
    return time.monotonic() + seconds


@pytest.fixture
def kept():
    """Children that are closed whatever happens."""
    children = []
    yield children
    for each in children:
        each.close()


def test_messages_of_any_size_go_there_and_back(kept):
    kept.append(child(ECHO))
    for message in ({"a": [1, "\ud800", None]}, "x" * 500_000, 2**80):
        assert kept[0].ask(message, soon()) == message


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import time; time.sleep(60)", "time"),
        ("while True: pass", "time"),
        ("", "ended"),
        ("import os; os._exit(0)", "ended"),
        ("print('no json', flush=True); import time; time.sleep(60)", "noise"),
        (r"import os; os.write(1, b'\xff\xfe\n')", "noise"),
        ("print('[' * 100_000, flush=True)", "noise"),
        ("print('9' * 10_000, flush=True)", "noise"),
        ("import os\nwhile True: os.write(1, b'x' * 65536)", "flood"),
        ("print('\"' + 'x' * 3_000_000 + '\"', flush=True)", "flood"),
        ("import os, time; os.close(1); time.sleep(60)", "ended"),
        # says nothing until its time is up, a byte at a time
        ("import os, time\nwhile True: os.write(1, b' '); time.sleep(0.01)", "time"),
    ],
)
def test_what_goes_wrong_is_told_in_time(kept, code, why):
    kept.append(child(code))
    started = time.monotonic()
    with pytest.raises(Stopped) as caught:
        kept[0].hear(soon(1.5 if why == "time" else 20.0))
    assert caught.value.why == why and time.monotonic() - started < 15


def test_a_child_that_does_not_listen_does_not_hold_up(kept):
    kept.append(child("import time; time.sleep(60)"))
    with pytest.raises(Stopped, match="time"):
        kept[0].tell("x" * 5_000_000, soon(0.5))
    kept.append(child("import os; os.close(0); import time; time.sleep(60)"))
    time.sleep(0.5)
    with pytest.raises(Stopped, match="ended"):
        for _ in range(100):
            kept[1].tell("x" * 100_000, soon(5))


def test_closing_kills_the_session():
    code = (
        "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    parent = child(f"{code}\nprint(p.pid, flush=True)\nimport time; time.sleep(60)")
    grandchild = psutil.Process(parent.hear(soon()))
    parent.close()
    gone, _ = psutil.wait_procs([grandchild], timeout=10)
    assert gone and not psutil.pid_exists(parent.pid)


SERVANT = "import json, sys, time\nprint('{\"ready\": true}', flush=True)\nfor line in sys.stdin:\n"
SLEEPER = SERVANT + "    time.sleep(json.loads(line)); print(line, end='', flush=True)"


def test_an_overrun_costs_the_child_and_not_the_next_job():
    pids = []

    def start():
        made = child(SLEEPER)
        pids.append(made.pid)
        return made

    crew = Crew(start, 1)
    assert crew.ask(0.0, 20) == 0.0 and crew.ask(0.01, 20) == 0.01
    with pytest.raises(Stopped, match="time"):
        crew.ask(30, 0.5)
    assert not psutil.pid_exists(pids[0])
    assert crew.map([0.0, 30, 0.02], 1.0) == [0.0, None, 0.02]
    assert len(pids) == 3


def test_a_crew_works_side_by_side_and_ends_with_its_owner():
    made = []

    def start():
        made.append(child(SLEEPER))
        return made[-1]

    crew = Crew(start, 4)
    crew.map([0.3] * 4, 20)
    started = time.monotonic()
    assert crew.map([0.5] * 8, 20) == [0.5] * 8
    assert time.monotonic() - started < 3.0 and len(made) == 4  # 4.0 in a row
    processes = [psutil.Process(each.pid) for each in made]
    del crew
    gone, alive = psutil.wait_procs(processes, timeout=10)
    assert len(gone) == 4 and not alive


@pytest.mark.parametrize("code", ["", "print('[]', flush=True); input()", "raise SystemExit(1)"])
def test_a_worker_that_does_not_start_is_an_error(code):
    with pytest.raises(RuntimeError, match="did not start"):
        Crew(lambda: child(code), 1).ask({}, 20)


def test_a_worker_serves_what_the_module_answers(tmp_path, monkeypatch):
    (tmp_path / "servant.py").write_text(
        "from ablate.tasks.child import serve\n\n\ndef main():\n    serve(answer, 1 << 33)\n\n\n"
        "def answer(job):\n    print('noise')\n    return [hash('a'), job['x'] * 2]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    crew = Crew(lambda: Child(worker("servant"), worker_environment()), 2)
    hashes = {tuple(crew.ask({"x": 4, "seconds": 5}, 20)) for _ in range(3)}
    hashes |= {tuple(answer) for answer in crew.map([{"x": 4, "seconds": 5}] * 8, 20)}
    assert len(hashes) == 1 and hashes.pop()[1] == 8  # texts hash alike in all of them
