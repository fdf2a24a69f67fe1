"""Command lines to configurations: bad ones in one line, the user's own files, sweeps checked in full."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
from omegaconf.errors import ReadonlyConfigError

from ablate import machine
from ablate.compose import compose, plan, runs
from ablate.config import build, run_folder
from ablate.report.contrasts import CELL_OF
from ablate.types import UserError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


BAD = [
    ("strategy=gues_check", "unknown strategy gues_check; did you mean guess_check?; choices: correct_"),
    ("task=countdwn", "unknown task countdwn; did you mean countdown?; choices: chain, code, "),
    (
        "strategy/credit=proces",
        "unknown strategy/credit proces; did you mean process?; choices: accepted, outcome",
    ),
    ("strategy/credt=outcome", "unknown group strategy/credt; did you mean strategy/credit?"),
    ("hydra/launcher=jobli", "unknown hydra/launcher jobli; did you mean joblib?"),
    ("experiment=smok", "unknown experiment smok; did you mean smoke?"),
    ("strategy=null", "strategy=null names no choice; choices: correct_always, "),
    ("learner.lrr=1", "unknown key learner.lrr; did you mean learner.lr?"),
    ("+learner.lrr=1", "unknown key learner.lrr; did you mean learner.lr?"),
    ("lerner.lr=1", "unknown key lerner.lr; did you mean learner.lr?"),
    ("stategy.source.n=4", "unknown key stategy.source.n; did you mean strategy.source.n?"),
    ("strategy.sorce.n=4", "unknown key strategy.sorce.n; did you mean strategy.source.n?"),
    # what others call it
    ("learner.learning_rate=1e-6", "unknown key learner.learning_rate; did you mean learner.lr?"),
    ("max_tokens=64", "unknown key max_tokens; did you mean sampling.cap?"),
    ("lerner.lrr=1", "unknown key lerner.lrr; did you mean learner.lr?"),
    ("device=cuda", "unknown key device; pretrained models have model.device"),
    ("strategy=grpo", "unknown strategy grpo; did you mean strategy=guess_check?"),
    ("task=gsm8k", "unknown task gsm8k; did you mean task=math?"),
    ("model=Qwen/Qwen3-0.6B", "did you mean model=pretrained model.path=Qwen/Qwen3-0.6B?"),
    ("~tracking", "~tracking: nothing can be deleted, a run has every setting; did you mean tracking=none?"),
    (
        "~learner.lr",
        "~learner.lr: nothing can be deleted, a run has every setting; set learner.lr=... instead",
    ),
    ("hydra/launcher=slurm", "unknown hydra/launcher slurm; did you mean submitit_slurm?"),
    ("learner={lrr:1}", "unknown key learner.lrr; did you mean learner.lr?"),
    ("lr=1e-3", "unknown key lr; did you mean learner.lr?"),
    ("sed=1", "unknown key sed; did you mean seed?"),
    ("seed.x=1", "unknown key seed.x"),
    ("task.numbrs=4", "unknown key task.numbrs; did you mean task.numbers?"),
    ("model.warm_start.stps=1", "unknown key model.warm_start.stps; did you mean model.warm_start.steps?"),
    ("hydra.foo=1", "unknown key hydra.foo; python -m ablate --cfg hydra lists Hydra's own"),
    ("hydra.launcher.n_jobs=2", "unknown key hydra.launcher.n_jobs: choose another launcher"),
    ("learner.lr=abc", "learner.lr=abc is not a number"),
    ("seed=x", "seed=x is not a whole number"),
    ("seed=1.5", "seed=1.5 is not a whole number"),
    ("progress=maybe", "progress=maybe is not true or false"),
    ("task.numbers=x", "task.numbers=x is not a whole number"),
    ("sampling=3", "sampling=3: sampling has keys of its own"),
    ("seed=", "seed= has no value"),
    ("seed", "seed is not of the form key=value"),
    ("countdown", "countdown is not of the form key=value; did you mean task=countdown?"),
    ("learner.lr==3", "cannot read learner.lr==3: extraneous input '='; expected key=value"),
    ("learner.lr=[1", "cannot read learner.lr=[1: "),
    ("seed=${nowhere}", "seed: Interpolation key 'nowhere' not found"),
    ("seed=0,1", "seed=0,1 has several values: add -m"),
    ("~task", "~task: nothing can be deleted, a run has every setting; set task=... instead"),
    ("task._target_=ablate.tasks.countdown.Countdwn", "did you mean Countdown?"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_a_mistake_is_told_in_one_line_with_the_nearest_valid_choice(line, message):
    with pytest.raises(UserError) as caught:
        compose([line])
    text = str(caught.value)
    assert message in text and "\n" not in text
    assert "+" not in text.replace(line, "").replace("c++", "")  # never advises to add an unknown key


@pytest.mark.parametrize("unit", ["flops", "tokens", "seconds"])
def test_the_unit_on_the_command_line_replaces_the_presets(unit):
    budget = compose([f"budget.{unit}=1e5"]).budget
    assert {name: budget[name] for name in ("flops", "tokens", "seconds") if budget[name]} == {unit: 1e5}
    assert plan([f"budget.{unit}=1e5,2e5"], multirun=True).config.budget[unit] == 1e5


def test_two_units_on_the_command_line_are_refused():
    with pytest.raises(UserError, match=r"budget.tokens=1e5 and budget.flops=1e9 are both set"):
        compose(["budget.tokens=1e5", "budget.flops=1e9"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["seed=0,x"], "seed=x is not a whole number"),
        (["seed=0,1", "strategy=guess_check,mtcs"], "unknown strategy mtcs"),
        (["learner.lr=1e-3,1e-4,0"], "learner.lr=0.0 is too small"),
        (["learner.lr=interval(0,1)"], "learner.lr=0.0 is too small"),
        (["task=glob(zz*)"], "matches nothing"),
        (["hydra.job.name=a,b"], "hydra.job.name=a,b has several values: settings of Hydra itself take one"),
    ],
)
def test_every_choice_of_a_sweep_is_checked_first(lines, message):
    with pytest.raises(UserError, match=message):
        plan(lines, multirun=True)


def test_sweeps_are_handed_on_as_they_were_written():
    checked = plan(["task=glob(*)", "seed=range(0,3)", "strategy.source.n=4,8"], multirun=True)
    assert checked.overrides == ["task=glob(*)", "seed=range(0,3)", "++strategy.source.n=4,8"]


def test_every_run_of_a_sweep_is_what_composing_it_alone_gives():
    lines = ["experiment=smoke", "seed=3,0", "strategy=guess_check,mcts", "learner.lr=1e-3"]
    found = runs(plan(lines, multirun=True))
    alone = [
        compose(["experiment=smoke", f"seed={seed}", f"strategy={name}", "learner.lr=1e-3"])
        for seed in (3, 0)
        for name in ("guess_check", "mcts")
    ]
    assert found == alone and [run_folder(each) for each in found] == [run_folder(each) for each in alone]
    assert runs(plan(["experiment=smoke", "seed=4"])) == [compose(["experiment=smoke", "seed=4"])]
    with pytest.raises(ReadonlyConfigError):
        found[1].seed = 5


def test_values_that_follow_the_seed_follow_it():
    checked = plan(["seed=0,1,2", "sampling_seed=${seed}", "name=of-${seed}"], multirun=True)
    assert [(c.seed, c.sampling_seed, c.name) for c in runs(checked)] == [(i, i, f"of-{i}") for i in range(3)]


@pytest.mark.parametrize(
    ("lines", "jobs"),
    [
        ([], 1),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"], 3),
        (["experiment=suspects"], 5),  # of six cores, what memory allows
        (["experiment=suspects", "hydra.launcher.n_jobs=-3"], 4),
        (["experiment=suspects", "hydra/launcher=basic"], 1),  # any launcher goes with any experiment
    ],
)
def test_how_many_runs_a_launcher_takes_at_a_time(lines, jobs, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(machine, "cores", lambda: 6)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=11 * 2**30))
    assert plan(lines, multirun=True).jobs == jobs


def test_with_gpus_there_is_a_run_for_each_place(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert plan(["experiment=suspects"], multirun=True).jobs == 2
    assert plan(["experiment=suspects", "runs_per_gpu=3"], multirun=True).jobs == 6


def test_runs_that_a_sweeper_chooses_cannot_be_listed():
    with pytest.raises(UserError, match=r"learner.lr=interval\(1e-4,1e-3\) lists no values"):
        runs(plan(["learner.lr=interval(1e-4,1e-3)"], multirun=True))
    checked = replace(plan([], multirun=True), sweeper="optuna")
    with pytest.raises(UserError, match="hydra/sweeper=optuna chooses its runs as it goes"):
        runs(checked)


IDEA = """
from dataclasses import dataclass
from strategies.guess_check import Outcome

@dataclass
class Shifted(Outcome):
    shift: float = 0.5
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_users_own_strategy_merges_with_the_built_in_ones(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "strategies.my_idea", raising=False)
    write(tmp_path / "strategies/my_idea.py", IDEA)
    write(tmp_path / "conf/strategy/credit/shifted.yaml", "_target_: strategies.my_idea.Shifted\n")
    axes = "defaults: [{source: sample}, {recovery: none}, {credit: shifted}]\nname: my_idea\n"
    write(tmp_path / "conf/strategy/my_idea.yaml", axes)
    cfg = compose(["strategy=my_idea", "strategy.credit.shift=2", "strategy.credit.scale=none"])
    assert cfg.strategy.name == "my_idea" and cfg.strategy.source.n == 8
    credit = build(cfg.strategy.credit)
    assert (credit.shift, credit.scale, credit.baseline) == (2.0, "none", "mean")
    with pytest.raises(UserError, match=r"strategy.credit.shift=x is not a number"):
        compose(["strategy=my_idea", "strategy.credit.shift=x"])
    with pytest.raises(UserError, match=r"did you mean strategy.credit.shift"):
        compose(["strategy/credit=shifted", "strategy.credit.shft=1"])
    with pytest.raises(UserError, match=r"unknown strategy my_ide; did you mean my_idea\?"):
        compose(["strategy=my_ide"])
    write(tmp_path / "conf/strategy/bad.yaml", "name: [1\nother: 2\n")
    with pytest.raises(UserError, match=r"conf/strategy/bad.yaml, line 2"):
        compose(["strategy=bad"])


def test_another_choice_on_an_axis_is_an_arm_of_its_own():
    """As it stands in results, reports and tuned learning rates; a name of the user's wins."""
    named = {
        "strategy/source=tree": "tree+none+outcome",
        "strategy=mcts strategy/recovery=correct": "tree+correct+outcome",
        "strategy=process_oracle strategy/recovery=correct": "process_oracle+sample+correct+process",
        "strategy/source=tree strategy.name=mine": "mine",
        "strategy.source.n=4": "guess_check",
    }
    assert {line: compose(line.split()).strategy.name for line in named} == named
    swept = plan(["strategy/source=sample,tree", "strategy/credit=outcome,process"], multirun=True)
    cells = [config.strategy.name for config in runs(swept)]
    assert cells == ["guess_check", "sample+none+process", "tree+none+outcome", "tree+none+process"]
    assert swept.varied == ["strategy/source", "strategy/credit"]
    assert set(cells) <= set(CELL_OF)


def test_whoever_makes_another_choice_on_an_axis_names_the_arm(tmp_path):
    """An experiment's file, one that it is made from, or its sweep; strategies of the user's, too."""

    def experiment(name, text):
        write(tmp_path / f"conf/experiment/{name}.yaml", f"# @package _global_\n{text}")

    def names(*lines):
        return [config.strategy.name for config in runs(plan(lines, multirun=True))]

    experiment("searched", "defaults:\n  - override /strategy/source: tree\n")
    experiment("heir", "defaults:\n  - searched\n  - _self_\n")
    for name in ("searched", "heir"):
        assert compose([f"experiment={name}"]).strategy.name == "tree+none+outcome"
        assert names(f"experiment={name}", "strategy=learn_to_correct,mcts") == [
            "tree+correct+outcome",
            "mcts",
        ]
    experiment("named", "defaults:\n  - searched\n  - _self_\nstrategy:\n  name: own\n")
    assert compose(["experiment=named"]).strategy.name == "own"
    placebos = "defaults:\n  - override /strategy: mcts_uniform\nhydra:\n  sweeper:\n    params:\n"
    experiment("placebos", f"{placebos}      strategy/recovery: none,correct\n")
    assert names("experiment=placebos") == ["mcts_uniform", "mcts_uniform+tree+correct+outcome"]
    experiment(
        "credited", "hydra:\n  sweeper:\n    params:\n      strategy: process_rewards,process_shuffled\n"
    )
    assert names("experiment=credited", "strategy/source=tree") == [
        "tree+none+process",
        "process_shuffled+tree+none+process",
    ]
    write(tmp_path / "conf/strategy/heir.yaml", "defaults:\n  - process_shuffled\nname: heir\n")
    assert compose(["strategy=heir"]).strategy.name == "heir"
    assert compose(["strategy=heir", "strategy/source=tree"]).strategy.name == "heir+tree+none+process"


def test_an_experiment_can_choose_set_and_sweep(tmp_path):
    text = """# @package _global_
defaults:
  - override /task: chain
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: 0,1
      strategy.source.n: 4,8
learner:
  lr: 1e-3
"""
    write(tmp_path / "conf/experiment/mine.yaml", text)
    checked = plan(["experiment=mine", "learner.problems=16"])
    assert checked.multirun and checked.config.learner.lr == 1e-3 and checked.config.learner.problems == 16
    assert checked.config.task._target_.endswith("Chain") and checked.config.strategy.source.n == 4
    assert {"seed=0,1", "++strategy.source.n=4,8", "hydra.sweeper.params=null"} <= set(checked.overrides)
    write(tmp_path / "conf/experiment/mine.yaml", text.replace("4,8", "4,x"))
    with pytest.raises(UserError, match=r"strategy.source.n=x is not a whole number"):
        plan(["experiment=mine"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("strategies/__init__.py", "strategies/__init__.py hides the built-in strategies: remove this file"),
        ("strategies/guess_check.py", "strategies/guess_check.py has the name of a built-in file: rename it"),
        ("conf/task/chain.yaml", "conf/task/chain.yaml has the name of a built-in file: rename it"),
    ],
)
def test_files_that_would_hide_each_other_are_refused(tmp_path, name, message):
    write(tmp_path / name, "")
    with pytest.raises(UserError, match=message):
        compose()


def test_the_experiments_share_a_folder_and_its_runs():
    """What suspects ran is finished for the factorial; nothing of controls and replicates is run twice."""
    plans = {
        name: plan([f"experiment={name}"], multirun=True)
        for name in ("suspects", "factorial", "controls", "replicates")
    }
    strategies = {
        name: dict(line.split("=", 1) for line in checked.overrides)["strategy"].split(",")
        for name, checked in plans.items()
    }
    assert set(strategies["factorial"]) - set(strategies["suspects"]) == {"full_minus_correct"}
    assert not set(strategies["controls"]) & set(strategies["factorial"])
    base = {name: compose([f"experiment={name}"]) for name in plans}
    assert {run_folder(base[name]) for name in ("suspects", "factorial", "controls")} == {
        run_folder(base["suspects"])
    }
    assert base["suspects"].budget.flops == 4 * base["replicates"].budget.flops
    assert base["replicates"].sampling_seed not in (None, 0, 1, 2)
    others = [compose(["experiment=suspects", f"strategy={name}"]) for name in strategies["suspects"][1:]]
    assert {each.budget.flops for each in others} == {base["replicates"].budget.flops}


def test_a_choice_that_a_group_lacks_is_named():
    with pytest.raises(UserError, match=r"unknown tuned mine; choices: .*countdown"):
        compose(["tuned=mine"])
