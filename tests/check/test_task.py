"""The check of tasks: sound ones pass, and each way of being unsound is named."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from ablate.check import __main__ as command
from ablate.check.__main__ import main
from ablate.check.task import check_task
from ablate.tasks.constraints import Constraints
from ablate.tasks.countdown import Countdown
from ablate.types import UserError

ROOT = Path(__file__).parents[2]
PASS = "right answers pass (heldout)"
OTHERS = "answers of other problems are refused"
ODD = "odd texts raise nothing, and an empty one does not pass"
PURE = "a problem is a function of (seed, split, index)"
APART = "splits share no problem"
DESCRIBED = "every answer is described by the same figures"


def failed(task, again=None):
    found = check_task(task, again or task)
    return {finding.rule: str(finding) for finding in found if not finding.ok}


@pytest.mark.parametrize("task", ["countdown", "chain", "constraints"])
def test_the_projects_own_tasks_are_sound(task, capsys):
    assert main([f"task={task}"]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"task={task}: ablate.tasks.") and last == "every property holds"
    assert all(line.startswith("ok      ") for line in lines)
    (line,) = [line for line in lines if PASS in line]
    passed, of = re.search(r"\((\d+) of (\d+), ", line).groups()
    assert passed == of and int(of) >= 200


def test_every_problem_if_told(capsys, tmp_path):
    pytest.importorskip("math_verify", reason="math-verify is not installed (the extra [math])")
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps({"problem": f"{i}?", "answer": str(i)}) for i in range(900)))
    for options, count in (([], 200), (["--all"], 700)):
        assert main(["task=math", f"task.path={path}", *options]) == 0
        out = capsys.readouterr().out
        assert int(re.search(r"right answers pass \(train\) \((\d+) of", out)[1]) >= count


@dataclass
class Sound(Constraints):
    """To be broken."""

    heldout_problems: int = 30
    tuning_problems: int = 20
    epoch: int = 40


@dataclass
class Deaf(Sound):
    def verify(self, problem, completion):
        return False


@dataclass
class Kind(Sound):
    def verify(self, problem, completion):
        return True


@dataclass
class Fragile(Sound):
    def verify(self, problem, completion):
        completion.encode()
        return super().verify(problem, completion)


@dataclass
class Moody(Sound):
    def problem(self, seed, split, index):
        return super().problem(seed + id(self), split, index)


@dataclass
class Seedless(Sound):
    def problem(self, seed, split, index):
        return super().problem(0, split, index)


@dataclass
class Leaky(Sound):
    def problem(self, seed, split, index):
        return super().problem(seed, "train" if split == "tuning" else split, index)


@dataclass
class Vague(Sound):
    def behaviours(self, problem, completion):
        return {"words": 1.0, **({"empty": 1.0} if not completion else {})}


UNSOUND = [
    (Deaf, {PASS}, "0 of 30 pass; refused "),
    (Kind, {OTHERS, ODD}, "all "),
    (Fragile, {ODD}, "'\\ud800' raises UnicodeEncodeError"),
    (Moody, {PURE}, "tuning 0, seed 0"),
    (Seedless, {PURE}, "seeds 0 and 1 give the same problems in the same order"),
    (Leaky, {APART}, "is in tuning and in train"),
    (Vague, {DESCRIBED}, "['empty'] are not always there"),
]


def test_what_they_are_made_of_is_sound():
    assert failed(Sound(), Sound()) == {}


@pytest.mark.parametrize(("make", "rules", "message"), UNSOUND)
def test_an_unsound_task_is_named(make, rules, message):
    found = failed(make(), make())
    assert rules <= set(found) and message in " ".join(found.values())
    assert all(line.startswith("FAILED  ") and "\n" not in line for line in found.values())


def test_a_command_line_with_a_strategy_is_about_the_strategy(capsys, monkeypatch):
    monkeypatch.setattr(command, "check_strategy", lambda config, start: [])
    assert main(["strategy=guess_check", "task=chain", "task.links=2"]) == 0
    assert capsys.readouterr().out.startswith("strategy=guess_check: ")


@pytest.mark.parametrize("task", sorted(path.stem for path in (ROOT / "conf" / "task").glob("*.yaml")))
def test_every_task_composes_and_says_which_model_it_needs(task, monkeypatch, tmp_path):
    """In one line, before anything is loaded or asked for."""
    from ablate.compose import compose
    from ablate.config import build
    from ablate.refusals import check_model

    config = compose([f"task={task}"])
    built = build(config.task)
    assert built.step_boundary and isinstance(getattr(built, "correction", ""), str)
    if hasattr(built, "vocabulary"):
        check_model(config, built, build(config.model))
        return
    with pytest.raises(UserError) as caught:
        check_model(config, built, build(config.model))
    name = built.name
    assert str(caught.value) == (
        f"task={name} is natural language, which model=tiny cannot read: it needs model=pretrained"
    )


def test_a_task_without_solutions_says_so():
    @dataclass
    class Silent(Countdown):
        solutions = None

    task = Silent(numbers=2, largest=8)
    del Silent.solutions

    class Without:
        def __getattr__(self, name):
            if name == "solutions":
                raise AttributeError(name)
            return getattr(task, name)

    found = [str(finding) for finding in check_task(Without(), Without())]
    assert any(f"ok      {PASS} (the task has none of its own" in line for line in found)
