"""A task judged by a language model: its verdicts, its errors beside a rule, what it costs and where."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from judging import USED, alternatives, body, reply, server, word_policy

from ablate.check.__main__ import main
from ablate.compose import compose
from ablate.config import build
from ablate.engines.hf import HFEngine
from ablate.lab import Laboratory
from ablate.ledger import Ledger
from ablate.models.endpoint import Endpoint
from ablate.scorers.asking import Asking
from ablate.scorers.judged import Judged, errors
from ablate.tasks.constraints import Constraints
from ablate.tasks.countdown import Countdown
from ablate.tasks.written import Written
from ablate.types import Step, Trajectory, UserError
from ablate.verdicts import verdicts

ROOT = Path(__file__).parents[2]
COUNTDOWN = Countdown(numbers=2, largest=8)
TOKENS = sum(USED.values())


def by_looks(handler, question, count):
    """Says yes to whatever ends in ok, right or wrong, and nothing readable to every restart."""
    answer = question.split("An answer to it:\n")[1].split("\n\nIs this")[0]
    if "no \n" in answer:
        reply(handler, body("perhaps"))
        return
    said, other = ("yes", "no") if answer.endswith("ok") else ("no", "yes")
    reply(handler, body(said, [(said, alternatives(**{said: 0.8, other: 0.2}))]))


def judged(url, base=COUNTDOWN, **settings):
    endpoint = Endpoint(url=url, model="m", parameters=1e6, concurrency=1)
    return Judged(base=base, judge=Asking(who="endpoint", endpoint=endpoint), **settings)


def answers(task):
    """Right, wrong but for its looks, wrong, unreadable; and what the judge says."""
    problem = task.problem(0, "train", 0)
    right = task.base.solutions(problem)[0]
    other = next(
        t for i in range(9) for t in task.base.solutions(task.problem(0, "train", i + 1)) if t != right
    )
    texts = [right, other, "1 + 1 = 2 \n ", f"no \n {right}"]
    assert task.rule([problem] * 4, texts) == [True, False, False, True]
    return [problem] * 4, texts, [True, True, False, False]


def laboratory(task, policy=None):
    engine, ledger = HFEngine(), Ledger("tokens", 1e9)
    policy = policy or word_policy()
    engine.start(policy, ledger)
    return Laboratory(task, policy, engine, ledger, cap=64, temperature=1.0, sampling_seed=0), ledger


def trajectories(lab, problems, texts):
    eos = lab._policy.eos
    return [
        Trajectory(lab.problem(p)).then(Step((*lab.encode(t), eos)))
        for p, t in zip(problems, texts, strict=True)
    ]


def test_verdicts_errors_and_cost_in_training():
    with server(by_looks) as (url, requests):
        task = judged(url)
        task.check()
        lab, ledger = laboratory(task)
        problems, texts, expected = answers(task)
        found = lab.verify(trajectories(lab, problems, texts))
        assert [t.solved for t in found] == expected
        assert lab._logged["verifier/false_positive"] == [0.5]  # of two that are wrong
        assert lab._logged["verifier/false_negative"] == [0.5]  # of two that are right
        assert lab._logged["verifier/judge_malformed"] == [0.25] and lab._logged["verifier/judge_failed"] == [
            0.0
        ]
        assert ledger.accounts["judge"].tokens == TOKENS * 4 == ledger.spent
        assert requests[0][2]["messages"][0]["content"] == task.question(problems[0], texts[0])
        # an answer that has not ended is not asked about
        unended = replace(trajectories(lab, problems, texts)[0], steps=(Step(lab.encode(texts[0])),))
        assert lab.verify([unended])[0].solved is False and len(requests) == 4


def test_an_answer_is_not_wrong_because_the_judge_is_down():
    """A few questions may go without an answer; more than that stop the run."""

    def now_and_then(handler, question, count):
        handler.send_error(500) if count == 3 else by_looks(handler, question, count)

    with server(now_and_then) as (url, _):
        task = judged(url)
        task.judge.endpoint.retries = 0
        problems, texts, _ = answers(task)
        figures = {}
        with pytest.raises(UserError, match="the judge gave no answer to 1 of 4 questions"):
            laboratory(task)[0].examine(problems, texts)
        found, figures = laboratory(task)[0].examine([problems[0]] * 40, [texts[0]] * 40)
    assert sum(found) == 40 and figures["verifier/judge_failed"] == 0.0
    assert figures["verifier/false_negative"] == 0.0


def test_in_evaluation_the_judge_is_charged_there():
    with server(by_looks) as (url, _):
        task = judged(url)
        lab, ledger = laboratory(task)
        problems, texts, expected = answers(task)
        found, figures = lab.examine(problems, texts)
        assert found == expected
        assert figures["verifier/false_positive"] == figures["verifier/false_negative"] == 0.5
        assert ledger.spent == 0 and ledger.accounts["evaluate"].tokens == TOKENS * 4
        assert ledger.accounts["judge"].flops == 0.0 and not lab._logged


def test_a_judge_that_is_the_policy_leaves_no_trace_of_an_evaluation():
    """Neither in the account nor in the cache that later questions are charged by."""
    policy = word_policy("yes")
    asking = Asking(yes="yes", no="no")
    task = Judged(base=COUNTDOWN, judge=asking, template="{problem} {answer} :")
    lab, ledger = laboratory(task, policy)
    task.ready(lab)
    problems, texts, _ = answers(task)
    lab.examine(problems, texts)
    evaluated = replace(ledger.accounts["evaluate"])
    assert evaluated.flops > 0 and ledger.spent == 0
    lab.verify(trajectories(lab, problems, texts))
    assert ledger.accounts["judge"].flops == pytest.approx(evaluated.flops)
    assert ledger.accounts["evaluate"] == evaluated


def test_the_words_must_be_readable_before_training():
    lab, _ = laboratory(Judged(base=COUNTDOWN))
    with pytest.raises(UserError, match="the policy has no word 'yes' in its vocabulary"):
        lab._task.ready(lab)


def test_the_threshold_and_what_is_shown():
    with server(by_looks) as (url, requests):
        strict = judged(url, threshold=0.85)
        problems, texts, _ = answers(strict)
        lab, _ = laboratory(strict)
        assert lab.examine(problems, texts)[0] == [False] * 4
        short = judged(url, Constraints(), longest=5)
        problem = short.problem(0, "train", 0)
        question = short.question(problem, "<think>secret</think>0123456789 {problem}")
        assert "secret" not in question and "\nblem}\n" in question and "6789" not in question
        with_reference = judged(url, template="{reference} / {answer} / {problem}")
        problem = with_reference.problem(0, "train", 0)
        gold = with_reference.base.solutions(problem)[0].strip()
        assert with_reference.question(problem, "x") == f"{gold} / x / {problem.prompt.strip()}"
    assert len(requests) == 4


def test_whoever_verifies_without_paying_is_told():
    task = Judged(base=COUNTDOWN)
    with pytest.raises(NotImplementedError, match="which charges the judge"):
        task.verify(task.problem(0, "train", 0), "x")
    with pytest.raises(ValueError, match="has a judge, which must be asked and charged for"):
        verdicts(task, [task.problem(0, "train", 0)], ["x"])


def test_it_is_its_base_in_everything_else():
    task = Judged(base=COUNTDOWN)
    assert task.vocabulary() == COUNTDOWN.vocabulary() and task.correction == COUNTDOWN.correction
    assert task.size("train") == COUNTDOWN.size("train")
    assert task.problem(3, "train", 5) == COUNTDOWN.problem(3, "train", 5)
    assert not hasattr(task, "oracle") and not hasattr(task, "verify_all")  # a judge has neither
    assert not hasattr(Judged(base=Constraints()), "vocabulary")


def test_error_rates():
    assert errors([True, False, True, True], [True, True, False, True]) == {
        "false_positive": 1.0,
        "false_negative": pytest.approx(1 / 3),
    }
    assert errors([True], [True]) == {"false_negative": 0.0} and errors([], []) == {}


# -- problems without a rule --------------------------------------------------------------------------------


@pytest.fixture
def essays(tmp_path):
    rows = [
        {"problem": f"Write about {i}.", **({"reference": f"{i} ok"} if i % 2 else {})} for i in range(40)
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_problems_without_a_rule_have_no_known_errors(essays):
    base = Written(path=essays)
    with pytest.raises(UserError, match=r"use it as task\.base of task=judge"):
        base.check()
    with server(by_looks) as (url, _):
        task = judged(url, base)
        task.check()
        lab, _ = laboratory(task)
        problems = [task.problem(0, "train", i) for i in range(2)]
        found, figures = lab.examine(problems, ["it is ok", "it is not"])
    assert found == [True, False]
    assert figures == {"verifier/judge_failed": 0.0, "verifier/judge_malformed": 0.0}


def command(url, base, *more):
    settings = [f"task.judge.endpoint.{pair}" for pair in (f"url={url}", "model=m", "parameters=1e6")]
    return ["task=judge", "task.judge.who=endpoint", f"task.base._target_={base}", *settings, *more]


def test_the_check_prints_the_judges_errors_and_refuses_one_that_accepts_all(capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    base = "ablate.tasks.countdown.Countdown"
    small = [f"task.base.{each}" for each in ("numbers=2", "largest=5", "ceiling=10")]
    with server(by_looks) as (url, _):
        assert main(command(url, base, *small)) == 1
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == "task=judge: ablate.scorers.judged.Judged" and last.startswith("1 of ")
    assert any("FAILED  answers of other problems are refused: all " in line for line in lines)
    (line,) = [line for line in lines if "the judge's errors" in line]
    assert line.startswith("ok      the judge's errors (false positives 100.0% of ")
    assert ", false negatives 0.0% of " in line


def by_number(handler, question, count):
    """Says yes to what names the problem's number."""
    problem, _, answer = question.partition("An answer to it:\n")
    said = "yes" if re.search(r"\d+", problem)[0] in answer.split() else "no"
    reply(handler, body(said))


def test_the_check_of_problems_without_a_rule(capsys, monkeypatch, essays):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with server(by_number) as (url, _):
        assert main(command(url, "ablate.tasks.written.Written", f"task.base.path={essays}")) == 0
    out = capsys.readouterr().out
    assert "the judge's errors (not known: there is no rule to compare it with)" in out
    assert "problems have none" in out and "every property holds" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("task=judge task.base._target_=ablate.tasks.written.Written", "task.base: task.path is not set"),
        ("task=judge task.judge.who=endpoint", "judge.who=endpoint needs judge.endpoint.url"),
        ("task=judge task.template=x", "task.template has no field {answer}"),
        ("task=judge task.threshold=1", "task.threshold=1.0 must lie in"),
        ("task=judge task.longest=0", "task.longest=0 must be at least 1"),
        ("task=judge task.judge.who=nobody", "task.judge.who=nobody is not a choice"),
        ("task=judge task.base=3", "task.base"),
    ],
)
def test_a_mistake_is_one_line(line, message):
    with pytest.raises(UserError) as caught:
        build(compose(line.split()).task)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_whole_run(tmp_path):
    """Countdown judged by its looks: the errors are on record, and the policy is paid by the judge."""
    small = ["numbers=2", "largest=5", "ceiling=10", "heldout_percent=30", "tuning_percent=10"]
    model = ["hidden=32", "layers=2", "heads=2", "feedforward=64"]
    start = [
        "steps=40",
        "batch=32",
        "lr=5e-3",
        "demonstrations=500",
        "length=48",
        "skill=0.5",
        "max_illegal=1",
    ]
    with server(by_looks) as (url, requests):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ablate", "threads=1", "tracking=none", "progress=false"),
                *command(url, "ablate.tasks.countdown.Countdown", *(f"task.base.{each}" for each in small)),
                *(f"model.{each}" for each in model),
                *(f"model.warm_start.{each}" for each in start),
                *("evaluate.split=train", "evaluate.problems=20", "evaluate.samples=2", "sampling.cap=32"),
                *("learner.problems=4", "budget.tokens=2e4", "budget.milestones=1"),
                *(f"paths.cache={tmp_path / 'cache'}", f"paths.results={tmp_path}"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "no_proxy": "127.0.0.1"},
        )
    assert done.returncode == 0, done.stderr + done.stdout
    (folder,) = (path.parent for path in tmp_path.rglob("summary.json"))
    summary = json.loads((folder / "summary.json").read_text())
    compute = summary["compute"]
    assert compute["judge"]["tokens"] % TOKENS == 0 and compute["judge"]["tokens"] > 0
    asked = compute["judge"]["tokens"] // TOKENS
    assert 0 < len(requests) - asked <= 2 * 20 * 2  # the rest in two evaluations
    assert summary["totals"]["tokens"] == compute["judge"]["tokens"] + compute["rollout"]["tokens"]
    rows = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert any(row.get("train/verifier/false_positive", 0.0) > 0.0 for row in rows)
    evaluations = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    assert any("verifier/false_positive" in json.dumps(row) for row in evaluations)
