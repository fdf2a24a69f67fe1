import hashlib
from random import Random

import pytest

from ablate.tasks.chain import Chain
from ablate.tasks.countdown import Countdown
from ablate.tasks.demonstrate import Demonstrator
from ablate.types import UserError

TASK = Countdown()
PINNED = "64e7faadb15094e3"


def counts(demonstrations, task=TASK):
    total: dict[str, float] = {"solved": 0.0}
    for problem, text in demonstrations:
        total["solved"] += task.verify(problem, text)
        for name, value in task.behaviours(problem, text).items():
            total[name] = total.get(name, 0.0) + value
    return total


def test_demonstrations_are_pure_and_from_training_problems():
    first = list(TASK.demonstrations(3, 500))
    assert first == list(Countdown().demonstrations(3, 500))
    assert [p for p, _ in first] != [p for p, _ in TASK.demonstrations(4, 500)]
    assert {p.cluster for p, _ in first}.isdisjoint(
        TASK.problem(0, split, i).cluster for split in ("heldout", "tuning") for i in range(TASK.size(split))
    )
    written = "".join(problem.prompt + text for problem, text in first)
    assert hashlib.sha256(written.encode()).hexdigest()[:16] == PINNED


def test_every_line_is_legal_and_honest():
    longest = 0
    for problem, text in TASK.demonstrations(0, 5000):
        conduct = TASK.behaviours(problem, text)
        assert conduct["illegal_steps"] == conduct["wrong_checks"] == 0
        assert text.endswith((" ok \n ", " < \n ", " > \n "))
        assert text.count(" ok \n ") == TASK.verify(problem, text)  # success ends the demonstration
        longest = max(longest, text.count(" ") + problem.prompt.count(" ") + 2)
    assert 100 < longest <= 128


def test_the_chances_are_as_asked():
    found = counts(TASK.demonstrations(1, 10_000, longest=2000))
    failed = found["checks"] - found["solved"]
    abandoned = found["attempts"] - found["checks"]
    assert abandoned / found["attempts"] == pytest.approx(0.05, abs=0.01)
    assert (found["restarts"] - abandoned) / failed == pytest.approx(0.6, abs=0.02)
    assert found["gave_up"] + found["solved"] == pytest.approx(10_000, abs=20)
    assert found["attempts"] / 10_000 == pytest.approx(2.0, abs=0.1)


def test_skill_is_the_share_of_moves_that_keep_the_target():
    problems = [TASK.problem(0, "train", i) for i in range(2000)]
    chance = sum(problem.difficulty for problem in problems) / len(problems)
    rates = []
    for skill in (0.0, 0.1, 1.0):
        found = counts(TASK.demonstrations(0, 4000, skill=skill, persistence=0.0, bail=0.0))
        rates.append(found["solved"] / 4000)
    assert rates[0] == pytest.approx(chance, abs=0.02)
    assert rates[0] + 0.02 < rates[1] < 0.35
    assert rates[2] == 1.0


def test_patience_ends_with_the_room():
    found = counts(TASK.demonstrations(0, 500, skill=0.0, persistence=1.0, longest=25))
    assert found["restarts"] == 0 and found["attempts"] == 500
    always = counts(TASK.demonstrations(0, 300, skill=0.0, persistence=1.0, longest=5000))
    assert always["solved"] == 300


def test_dead_ends_are_abandoned():
    demonstrator = Demonstrator(skill=0.0, persistence=1.0, bail=0.0)
    texts = [demonstrator.answer((5, 5, 25), 5, 49, Random(seed)) for seed in range(200)]
    dead = [text for text in texts if "5 * 5 = 25 , 25 \n no \n " in text]
    assert dead and not any("25 , 25 \n 5" in text for text in texts)


def test_chains_are_made_of_demonstrations():
    task = Chain(links=3)
    for problem, text in task.demonstrations(0, 200):
        conduct = task.behaviours(problem, text)
        assert conduct["links_opened"] == 3
        assert conduct["illegal_steps"] == conduct["wrong_checks"] == 0
        assert conduct["links_right"] == text.count(" ok \n ")


def test_impossible_demonstrators_are_refused():
    with pytest.raises(UserError, match=r"skill=1\.5 is a chance: use a value in 0\.\.1"):
        next(TASK.demonstrations(0, 1, skill=1.5))
    with pytest.raises(UserError, match="longest=24 has no room for one attempt: use at least 25"):
        next(TASK.demonstrations(0, 1, longest=24))
