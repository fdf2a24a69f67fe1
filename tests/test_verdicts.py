"""A verifier that hangs ends the run with the problem's name, whatever it does to hang."""

import re
import signal
import time
from types import SimpleNamespace

import pytest

from ablate import verdicts as module
from ablate.types import Problem, UserError
from ablate.verdicts import verdicts

PROBLEMS = [Problem(f"p{i}", "") for i in range(3)]


def loop():
    try:
        while True:
            pass
    except Exception:  # as of a verifier that never raises
        return False


def swallow():
    try:
        time.sleep(30)
    except BaseException:
        return True


HANGS = {
    "python": loop,
    "sleep": lambda: time.sleep(30),
    "regular expression": lambda: re.fullmatch("(a+)+b", "a" * 40),
    "swallowed": swallow,
}


@pytest.mark.parametrize("kind", HANGS)
def test_a_hanging_verifier_is_named_with_its_problem(monkeypatch, kind):
    monkeypatch.setattr(module, "VERIFY_SECONDS", 0.3)
    before = signal.getsignal(signal.SIGALRM)

    def verify(problem, text):
        return HANGS[kind]() if problem.id == "p1" else True

    task = SimpleNamespace(name="mine", verify=verify)
    began = time.monotonic()
    with pytest.raises(
        UserError, match=r"task=mine: .* within 0.3 s on the problem 'p1' and the answer 'two'"
    ):
        verdicts(task, PROBLEMS, ["one", "two", "three"])
    assert time.monotonic() - began < 10 and signal.getsignal(signal.SIGALRM) == before


def test_a_slow_batch_is_no_hanging_verifier_and_an_earlier_timer_goes_on(monkeypatch):
    monkeypatch.setattr(module, "VERIFY_SECONDS", 0.5)
    heard = []

    def verify(problem, text):
        time.sleep(0.25)
        return text == "two"

    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    earlier = signal.setitimer(signal.ITIMER_REAL, 0.4)
    try:
        found = verdicts(SimpleNamespace(name="mine", verify=verify), PROBLEMS, ["one", "two", "three"])
        time.sleep(0.2)
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, earlier[0])
    assert found == [False, True, False] and len(heard) == 1
