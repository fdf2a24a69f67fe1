"""What a task owes the laboratory, property by property: see `types.Task` and `ablate.check`.

A task proves itself with its own answers: right ones must pass its verifier, and nothing else may.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from ablate.check.properties import Finding
from ablate.ledger import Ledger
from ablate.schema import one_line
from ablate.types import JudgeModel, Problem, Task, UserError, Verdict
from ablate.verdicts import verdicts

SPLITS = ("heldout", "tuning", "train")
MOST = {"heldout": 2000, "tuning": 200, "train": 200}  # problems of a split that are looked at
FEW = 5  # problems that odd texts are tried on
ODD = (
    *("", " \n\t ", "\x00", "\ud800", "no", "-", "0", "9" * 20_000, "{" * 5_000, "[" * 5_000, "null"),
    *("\\boxed{" * 500, "\\boxed{}", "####", "<answer></answer>", "</think>", "<think>", "```python\n```"),
    *("(" * 3_000 + ")" * 3_000, "{}", "\u0661\u0662", "\\frac{1}{0}"),
)
SLOW = ("\\boxed{9^{9^{9^{9}}}}",)  # takes a verifier of formulas all its time: for one problem

Answers = list[tuple[Problem, str]]


def check_task(task: Any, again: Any, whole: bool = False) -> list[Finding]:
    """One finding per property of a task. again: the same task, built anew. whole: look at every problem.

    Raises UserError for a mistake in the task's configuration.
    """
    if hasattr(task, "judge_all") and task.judge.who == "policy":
        raise UserError("task.judge.who=policy: this check has no policy; choose local or endpoint")
    if check := getattr(task, "check", None):
        check()
    counts = {split: task.size(split) for split in SPLITS}
    if not whole:
        counts = {split: min(count, MOST[split]) for split, count in counts.items()}
    pools = {split: [task.problem(0, split, i) for i in range(n)] for split, n in counts.items()}
    referee = _Referee(task)
    right: Answers = []
    found = []
    for split, problems in pools.items():
        if problems:
            answers, finding = _gold(task, referee, split, problems)
            right += answers
            found.append(finding)
    few = [problem for problems in pools.values() for problem in problems[:FEW]]
    return [
        *found,
        _others(task, referee, right),
        *([_errors(referee)] if referee.judged else []),
        _odd(task, referee, few),
        _pure(task, again, pools),
        _apart(pools),
        _described(task, few),
    ]


class _Referee:
    """Verdicts, with a judge's own ledger and figures."""

    def __init__(self, task: Task) -> None:
        self._task, self._ledger = task, Ledger()
        self._judges: dict[str, JudgeModel] = {}
        self.judged = hasattr(task, "judge_all")
        self.ruled: dict[bool, list[bool]] = {True: [], False: []}  # the judge's verdicts, by the rule's

    def __call__(self, answers: Answers) -> list[bool]:
        problems, texts = [problem for problem, _ in answers], [text for _, text in answers]
        found = verdicts(self._task, problems, texts, self._ask)
        task: Any = self._task
        if self.judged and task.ruled and answers:
            for said, right in zip(found, task.rule(problems, texts), strict=True):
                self.ruled[right].append(said)
        return found

    def _ask(self, name: str, make: Callable[..., JudgeModel], questions: Sequence[str]) -> list[Verdict]:
        if name not in self._judges:
            from ablate.runtime import device

            nobody = SimpleNamespace(device=device())  # of the policy, a local judge wants its device alone
            self._judges[name] = make(nobody, self._ledger)
        return self._judges[name].ask(questions)


def _gold(task: Any, referee: _Referee, split: str, problems: list[Problem]) -> tuple[Answers, Finding]:
    """Right answers of a split, and whether they pass."""
    rule = f"right answers pass ({split})"
    if not hasattr(task, "solutions"):
        return [], Finding(rule, (), "the task has none of its own: it has no `solutions`")
    answers = [(problem, text) for problem in problems for text in task.solutions(problem, 1)]
    started = time.monotonic()
    passed = referee(answers)
    each = (time.monotonic() - started) / max(1, len(answers))
    note = f"{sum(passed)} of {len(answers)}, {1000 * each:.2g} ms each"
    if len(answers) < len(problems):
        note += f"; {len(problems) - len(answers)} problems have none"
    refused = [
        f"{problem.id}: {text[:80]!r}" for (problem, text), ok in zip(answers, passed, strict=True) if not ok
    ]
    wrong = (
        () if referee.judged else tuple(f"{sum(passed)} of {len(answers)} pass; refused {r}" for r in refused)
    )
    return answers, Finding(rule, wrong, note)


def _others(task: Any, referee: _Referee, right: Answers) -> Finding:
    """Are answers of other problems refused? Some may be right here, too; not all."""
    rule = "answers of other problems are refused"
    pairs = list(pairwise(right))
    answers = [
        (problem, text)
        for (problem, own), (other, text) in pairs
        if task.answer(problem, own) != task.answer(problem, text) and problem.id != other.id
    ]
    if not answers:
        return Finding(rule, (), "there is none to try")
    passed = sum(referee(answers))
    wrong = (f"all {passed} pass: the verifier tells nothing apart",) if passed == len(answers) else ()
    return Finding(rule, wrong, f"{passed} of {len(answers)} pass")


def _errors(referee: _Referee) -> Finding:
    """A judge's errors on right answers and on those of other problems, where a rule shows them."""
    refused, accepted = referee.ruled[True], referee.ruled[False]
    parts = []
    if accepted:
        parts.append(f"false positives {sum(accepted) / len(accepted):.1%} of {len(accepted)}")
    if refused:
        parts.append(f"false negatives {refused.count(False) / len(refused):.1%} of {len(refused)}")
    return Finding(
        "the judge's errors", (), ", ".join(parts) or "not known: there is no rule to compare it with"
    )


def _odd(task: Any, referee: _Referee, problems: list[Problem]) -> Finding:
    """No text makes the verifier fail, and none is right that says nothing."""
    wrong = []
    for i, problem in enumerate(problems if not referee.judged else ()):
        for text in ODD if i else ODD + SLOW:
            try:
                passed = referee([(problem, text)])[0]
            except Exception as error:  # whatever it is, it should not have been raised
                wrong.append(f"{problem.id}: {text[:20]!r} raises {type(error).__name__}: {one_line(error)}")
                continue
            if passed and not text.strip():
                wrong.append(f"{problem.id}: {text!r} passes")
    note = (
        "a judge has no rule to try them on"
        if referee.judged
        else f"{len(ODD)} texts, {len(problems)} problems"
    )
    return Finding("odd texts raise nothing, and an empty one does not pass", tuple(wrong), note)


def _pure(task: Any, again: Any, pools: dict[str, list[Problem]]) -> Finding:
    """The same problem from the same (seed, split, index), heldout whatever the seed."""
    wrong = []
    for split, problems in pools.items():
        for i in (0, len(problems) // 2, len(problems) - 1) if problems else ():
            seeds = (0, 1) if split == "heldout" else (0,)
            wrong += [f"{split} {i}, seed {s}" for s in seeds if again.problem(s, split, i) != problems[i]]
    if len(pools["train"]) > 1:
        other = [task.problem(1, "train", i).id for i in range(len(pools["train"]))]
        if other == [problem.id for problem in pools["train"]]:
            wrong.append("train: seeds 0 and 1 give the same problems in the same order")
    return Finding("a problem is a function of (seed, split, index)", tuple(wrong))


def _apart(pools: dict[str, list[Problem]]) -> Finding:
    """No problem, cluster or prompt is in two splits."""
    wrong = []
    for kind in ("id", "cluster", "prompt"):
        where: dict[str, str] = {}
        for split, problems in pools.items():
            for problem in problems:
                value = getattr(problem, kind)
                if value and where.setdefault(value, split) != split:
                    wrong.append(f"{kind} {value[:60]!r} is in {where[value]} and in {split}")
    note = ", ".join(f"{len(problems)} {split}" for split, problems in pools.items())
    return Finding("splits share no problem", tuple(wrong), note)


def _described(task: Any, problems: list[Problem]) -> Finding:
    """The same behaviours of every answer, as numbers."""
    wrong = []
    names: set[str] | None = None
    for problem in problems:
        for text in ("", "Wait, let me check.\n\n4"):
            found = task.behaviours(problem, text)
            if names is not None and set(found) != names:
                wrong.append(f"{problem.id}: {sorted(set(found) ^ names)} are not always there")
            names = set(found)
    return Finding(
        "every answer is described by the same figures", tuple(wrong), ", ".join(sorted(names or ()))
    )
