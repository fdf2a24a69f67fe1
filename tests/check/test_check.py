"""The contract test: every strategy of the project passes, and each way of breaking the contract is named."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ablate.check import check_strategy
from ablate.check.__main__ import main
from ablate.compose import compose
from ablate.types import Step, Trajectory
from strategies.guess_check import Outcome, Sample

ROOT = Path(__file__).parents[2]
STRATEGIES = sorted(path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml"))

FINITE = "one finite advantage per step"
ROLLED = "batches are rolled out"
RAGGED = "one log-probability per sampled token"
TOKENS = "every token is the tokenizer's"
MASKED = "what the policy did not sample is masked"
LOGPROBS = "log-probabilities are the policy's"
SOLVED = "solved is the verifier's verdict"
GROUPS = "trajectories of a group share their problem"
CAP = "no trajectory is longer than the cap"
LEDGER = "every token is on the ledger"
SEED = "the same sampling seed gives the same groups"
OTHER_SEED = "another sampling seed gives others"
RESUMED = "a resumed run gives the same groups"
NOTHING = "a batch in which nothing is solved"
EVERYTHING = "a batch in which everything is solved"


# a task that a strategy is for, if not the default
TASKS = {"process_verified": ["task=chain", "task.links=2", "task.steps=link"]}
QUICK = ["sampling.cap=32", "strategy.source.simulations=6"]


def failed(config):
    """What is wrong, by property."""
    return {finding.rule: str(finding) for finding in check_strategy(config) if not finding.ok}


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_projects_own_strategies_keep_the_contract(name):
    search = "source: tree" in (ROOT / "conf" / "strategy" / f"{name}.yaml").read_text()
    settings = [*QUICK[: 1 + search], *TASKS.get(name, [])]
    assert failed(compose([f"strategy={name}", *settings])) == {}


def test_on_another_task_with_another_seed():
    overrides = ["strategy=full_minus_search", "task=chain", "task.links=2", "sampling_seed=3"]
    assert failed(compose([*QUICK[:1], *overrides])) == {}


# -- strategies that break it -------------------------------------------------------------------------------


def changed(change):
    """A credit that does right and then changes every trajectory."""

    @dataclass
    class Changed:
        outcome: Outcome = field(default_factory=Outcome)

        def __call__(self, groups, lab):
            return [[change(t, lab) for t in group] for group in self.outcome(groups, lab)]

    return Changed


def with_steps(trajectory, lab, *steps):
    """Other steps, and all else as it should be."""
    return lab.verify([replace(trajectory, steps=steps, advantages=(0.5,) * len(steps))])[0]


def foreign(trajectory, lab):
    """The marker, with the log-probabilities that the policy gives it: it was not sampled all the same."""
    if trajectory.length + len(lab.marker) > lab.cap:
        return trajectory
    (scores,) = lab.score([trajectory.then(Step(lab.marker))])
    return with_steps(trajectory, lab, *trajectory.steps, Step(lab.marker, tuple(scores[-len(lab.marker) :])))


def shifted(trajectory, lab):
    (step,) = trajectory.steps
    return with_steps(trajectory, lab, replace(step, logprobs=tuple(p + 0.01 for p in step.logprobs)))


def cut(trajectory, lab):
    (step,) = trajectory.steps
    return with_steps(trajectory, lab, replace(step, logprobs=step.logprobs[1:]))


Short = changed(lambda t, lab: replace(t, advantages=t.advantages[1:]))
Scalar = changed(lambda t, lab: replace(t, advantages=1.0))
Infinite = changed(lambda t, lab: replace(t, advantages=(float("inf"),)))
Foreign = changed(foreign)
Shifted = changed(shifted)
Ragged = changed(cut)
Solver = changed(lambda t, lab: replace(t, solved=True))
GlobalRandom = changed(lambda t, lab: replace(t, advantages=(random.random(),)))
LongWinded = changed(lambda t, lab: with_steps(t, lab, *t.steps, Step((5,) * lab.cap)))
Babel = changed(lambda t, lab: with_steps(t, lab, Step((*t.completion[:-1], 10**6))))


@dataclass
class Remembering:
    """Credit that grows from batch to batch by what the instance remembers."""

    def __post_init__(self):
        self.calls = 0

    def __call__(self, groups, lab):
        self.calls += 1
        return [[replace(t, advantages=(float(self.calls),) * len(t.steps)) for t in g] for g in groups]


@dataclass
class Share:
    """Divides by the number of right answers."""

    def __call__(self, groups, lab):
        right = sum(t.solved for group in groups for t in group)
        return [[replace(t, advantages=(1 / right,) * len(t.steps)) for t in g] for g in groups]


@dataclass
class Nobody:
    def __call__(self, groups, lab):
        return None


@dataclass
class Pooled(Sample):
    """All answers of the batch in one group."""

    def __call__(self, problems, lab):
        return [[t for group in super().__call__(problems, lab) for t in group]]


@dataclass
class Fixed(Sample):
    """The same words whatever the seed."""

    imitate: float = 1.0

    def __call__(self, problems, lab):
        return [[Trajectory(p, (Step((7, 8, 9), imitate=self.imitate),))] * self.n for p in problems]


@dataclass
class Smuggler(Sample):
    """Draws past the laboratory: with the engine's inner function, the model itself, or on a free account."""

    by: str = "engine"

    def __call__(self, problems, lab):
        engine = lab._engine
        if self.by == "engine":
            import numpy as np
            import torch

            with torch.inference_mode():
                engine._decode([problems[0].tokens], [4], np.full((1, 4), 0.5), 1.0, torch.tensor([2]))
        elif self.by == "model":
            import torch

            lab._policy.model(input_ids=torch.tensor([problems[0].tokens]))
        else:
            engine.generate([problems[0].tokens], 2, [4], key=1, purpose="evaluate")
        return super().__call__(problems, lab)


@dataclass
class Forger(Sample):
    """Gives itself back what it paid."""

    def __call__(self, problems, lab):
        groups = super().__call__(problems, lab)
        lab._ledger.accounts["rollout"].tokens -= 10
        return groups


@pytest.fixture(scope="module")
def guess_check():
    return compose(["sampling.cap=24"])


PLACE = r"batch 0, group 0, trajectory 0 \(\d+,\d+,\d+:\d+\)"


@pytest.mark.parametrize(
    ("change", "rules", "words"),
    [
        (
            "credit=Short",
            {FINITE, NOTHING, EVERYTHING},
            f"credit=test_check.Short: {PLACE} has 0 advantages for 1 step ",
        ),
        ("credit=Scalar", {FINITE, NOTHING, EVERYTHING}, "has 1.0 in place of advantages for 1 step"),
        ("credit=Infinite", {FINITE, NOTHING, EVERYTHING}, "step 0: advantage=inf"),
        (
            "credit=Foreign",
            {MASKED},
            r"step 1: has logprobs, but the policy did not sample \d of its \d tokens here",
        ),
        ("credit=Shifted", {LOGPROBS}, r"step 0: logprob 0 is -\d.\d+, the policy's -\d.\d+"),
        ("credit=Ragged", {RAGGED}, r"step 0 has \d+ logprobs? for \d+ tokens?"),
        ("credit=Solver", {SOLVED}, "says solved=True, the verifier False"),
        ("credit=GlobalRandom", {SEED, RESUMED}, "other advantages than before"),
        ("credit=Remembering", {RESUMED}, r"batch 1, .* other advantages than before"),
        ("credit=LongWinded", {CAP}, r"has \d+ tokens, the cap is 24"),
        ("credit=Babel", {TOKENS}, r"step 0 has the token 1000000, which is no whole number in 0..\d+"),
        ("credit=Share", {NOTHING}, r"ZeroDivisionError: .* \(.*test_check.py, line \d+\)"),
        ("credit=Nobody", {ROLLED}, "the rollout returned a NoneType instead of a list of lists"),
        ("source=Pooled", {GROUPS}, "batch 0, group 0 mixes 4 problems: "),
        ("source=Fixed", {OTHER_SEED}, "sampling_seed makes no difference"),
        ("source=Fixed imitate=0", {ROLLED}, "in 2 batches no token to learn from, sampled or to imitate"),
        (
            "source=Smuggler",
            {LEDGER},
            r"the policy was run \d+ times past the engine, with nothing on the ledger",
        ),
        ("source=Smuggler by=model", {LEDGER}, "the policy was run 2 times past the engine"),
        (
            "source=Smuggler by=account",
            {LEDGER},
            r"\d tokens on the account evaluate, which is no part of the budget",
        ),
        ("source=Forger", {LEDGER}, r"\d+ tokens on the account rollout, \d+ counted at the engine"),
    ],
)
def test_a_broken_contract_is_named(guess_check, change, rules, words):
    part, *options = change.split()
    axis, name = part.split("=")
    broken = OmegaConf.masked_copy(guess_check, list(guess_check))
    OmegaConf.set_readonly(broken, False)
    target = {"_target_": f"test_check.{name}"}
    broken.strategy[axis] = OmegaConf.merge(target, OmegaConf.from_dotlist(options))
    wrong = failed(broken)
    assert wrong.keys() == rules
    assert any(re.search(words, line) for line in wrong.values()), wrong
    assert all("\n" not in line and line.startswith(f"FAILED  {rule}: ") for rule, line in wrong.items())


# -- the command line ---------------------------------------------------------------------------------------


def test_one_line_per_property_and_the_exit_code(capsys):
    assert main(["strategy.source.n=3"]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert "strategies.guess_check.Sample" in first and last == "every property holds"
    assert len(lines) > 12 and all(line.startswith("ok      ") for line in lines)

    assert main(["strategy.credit._target_=test_check.Solver"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == len(lines) + 2 and out[-1] == f"1 of {len(lines)} properties FAILED"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strategy=gues_check"], "unknown strategy gues_check; did you mean guess_check?"),
        (["learner.lrr=1"], "unknown key learner.lrr; did you mean learner.lr?"),
        (["--stat"], "unknown option --stat; did you mean --start?"),
        (["task.problem_file=nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["strategy.credit._target_=test_check.Unknown"], "test_check has no Unknown"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out.count("\n") <= 1 and len(err.splitlines()) == 1 and message in err


# -- a user's own working directory -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Where the guide's example was typed in."""
    here = tmp_path_factory.mktemp("own")
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## A strategy")[1].split("\n## ")[0]
    for path, text in re.findall(r"`([\w/.]+)`:\n\n```\w+\n(.*?)```", section, re.S):
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
    (here / "commands").write_text(re.search(r"```sh\n(.*?)```", section, re.S)[1])
    return here


SHORT = ["budget.tokens=3e3", "model.warm_start.steps=20", "model.warm_start.max_illegal=1"]


def shell(own, command, *more):
    """A command of the guide's, in that directory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ABLATE_CACHE": str(own / "cache")}
    words = [sys.executable, *command.split()[1:], *more]
    return subprocess.run(words, cwd=own, env=environment, capture_output=True, text=True, timeout=200)


def test_the_guides_example_works(own):
    checked, run = (own / "commands").read_text().splitlines()
    assert len((own / "strategies" / "brief.py").read_text().splitlines()) <= 20
    done = shell(own, checked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "strategies.brief.Brief" in done.stdout and "FAILED" not in done.stdout
    done = shell(own, run, *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    (summary,) = own.glob("results/smoke/brief-*/summary.json")
    assert json.loads(summary.read_text())["finished"]


def test_with_the_model_that_a_run_would_start_from(own, capsys):
    """The verifier's own verdicts, the configured cap."""
    assert main(["--start", "experiment=smoke", *SHORT, f"paths.cache={own / 'cache'}"]) == 0
    assert "every property holds" in capsys.readouterr().out


def test_a_run_that_gets_misaligned_groups_stops_with_one_line(own):
    """Named: the strategy's class, the trajectory, the shapes; the record says that the run failed."""
    (own / "strategies" / "short.py").write_text(
        "from dataclasses import dataclass, replace\n\n\n@dataclass\nclass Short:\n"
        "    def __call__(self, groups, lab):\n"
        "        return [[replace(t, advantages=(1.0, 1.0)) for t in g] for g in groups]\n"
    )
    own_credit = "strategy.credit._target_=strategies.short.Short"
    done = shell(own, "python -m ablate experiment=smoke progress=false name=short", own_credit, *SHORT)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for words in ("credit=strategies.short.Short", "group 0, trajectory 0 (", "2 advantages for 1 steps"):
        assert words in line
    (folder,) = own.glob("results/short/*")
    assert "2 advantages for 1 steps" in json.loads((folder / "failure.json").read_text())["message"]
    from ablate.record import status

    assert status(folder) == "failed"
