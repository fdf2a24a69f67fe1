"""Tuning by Optuna: equal trials, a storage that a rerun continues, failures that count."""

import math
import sqlite3
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ablate import tune
from ablate.cli import main
from ablate.compose import compose
from ablate.config import run_folder, validate
from ablate.record import Record
from ablate.sweeps import jobs
from ablate.tuning import studies
from ablate.tuning.trials import load

BEST = {"guess_check": 4e-4, "mcts": 2e-3}  # learning rates


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(studies, "PATIENCE", 0.2)


@pytest.fixture
def runs(monkeypatch):
    """Stands in for a run: its record with an accuracy that falls with the distance from the best learning
    rate. Returns what was run; `runs.stop_at`: the number of the run that is interrupted; `runs.diverge`
    and `runs.fail`: learning rates beyond which they do."""

    class Runs(list):
        stop_at, diverge, fail = None, math.inf, math.inf

    done = Runs()

    def run(cfg, *rest):
        config = validate(cfg)
        folder = run_folder(config)
        if jobs.status(folder) == "finished":
            return "known", "", folder
        record = Record(folder)
        record.write_config(OmegaConf.to_container(config))
        record.append("steps", {"step": 1, "budget/flops": 1e8, "budget/logical_flops": 1e8})
        if len(done) == done.stop_at:
            done.stop_at = None
            raise KeyboardInterrupt
        lr = config.learner.lr
        done.append((config.strategy.name, lr, config.seed))
        for limit, message in ((done.fail, "RuntimeError: no"), (done.diverge, "NonFiniteLoss: nan")):
            if lr > limit:
                record.fail(message)
                raise RuntimeError(message)
        accuracy = 0.6 - 0.2 * abs(math.log10(lr / BEST[config.strategy.name])) + config.seed / 1e4
        row = {"step": 9, "heldout/pass@1": accuracy, "heldout/pass@1_se": 0.001}
        record.append("evaluations", row)
        record.finish({"totals": {"flops": 1e9, "logical_flops": 2e9, "tokens": 1000}}, "done")
        record.close()
        return "finished", "", folder

    monkeypatch.setattr(jobs, "_run", run)
    return done


def search(*words, trials=8, name="found", space="learner.lr=tag(log, interval(1e-4, 1e-2))"):
    """The command line; returns its exit code."""
    common = ["-m", "hydra/sweeper=studies", "tracking=none", "paths.cache=cache", "progress=false"]
    common += ["evaluate.split=tuning", "seed=100", "resume=true", "budget.milestones=1"]
    own = ["strategy=guess_check,mcts", f"hydra.sweeper.trials={trials}", f"name={name}", space]
    return main([*common, *own, *words])


def trials_of(name):
    return studies.read(Path("results") / name / studies.STORAGE)


def test_every_arm_gets_as_many_trials_and_its_own_winner(runs, capsys):
    assert search("seed=100,101", trials=5) == 0
    assert len(runs) == 2 * 5 * 2 and {seed for _, _, seed in runs} == {100, 101}
    assert tune.main(["results/found", "name=mine"]) == 0
    out = capsys.readouterr().out
    chosen = {
        arm: compose([f"strategy={arm}", "tuned=mine"]) for arm in ("guess_check", "mcts", "mcts_uniform")
    }
    for name, config in chosen.items():
        arm = name.removesuffix("_uniform")
        tried = {lr for each, lr, _ in runs if each == arm}
        assert len(tried) == 5
        assert config.learner.lr == min(tried, key=lambda lr: abs(math.log(lr / BEST[arm])))
    assert chosen["mcts"].tuning.flops == 10e9 and list(chosen["mcts"].tuning.seeds) == [100, 101]
    assert "in 5 trials of Optuna's, seeds 100, 101" in Path("conf/tuned/mine.yaml").read_text()
    for arm in BEST:
        for what in ("history", "importance"):
            figure = Path("results/found/figures") / f"{what}-{arm}"
            assert figure.with_suffix(".svg").read_text().startswith("<?xml")
            assert figure.with_suffix(".png").stat().st_size > 5000
            assert str(figure) in out


@pytest.mark.slow
def test_a_sweep_that_was_stopped_goes_on_to_the_same_trials(runs):
    seeds = "seed=100,101"
    assert search(seeds, trials=2, name="undisturbed") == 0
    whole = list(runs)
    runs.clear()
    for stop in (3, 6):  # between two seeds of a trial, and between two arms
        runs.stop_at = stop
        assert search(seeds, trials=2) == 130
        assert len(runs) == stop
    assert search(seeds, trials=2) == 0
    assert sorted(runs) == sorted(whole)
    assert {arm: [(v, s) for v, s, _ in each] for arm, each in trials_of("found").items()} == {
        arm: [(v, s) for v, s, _ in each] for arm, each in trials_of("undisturbed").items()
    }
    assert search(seeds, trials=2) == 0 and len(runs) == len(whole)  # nothing is left
    assert search(seeds, trials=3) == 0 and len(runs) == len(whole) + 4
    assert [len(each) for each in trials_of("found").values()] == [3, 3]


def test_failures_are_trials(runs, capsys):
    runs.diverge, runs.fail = 1e-3, 4e-3
    assert search(trials=6) == 1
    found = trials_of("found")
    states = {state for each in found.values() for _, state, _ in each}
    assert states == {"complete", "fail"} and [len(each) for each in found.values()] == [6, 6]
    known = {trial.lr: trial.state for trial in load(Path("results/found"))}
    assert all(
        state == ("failed" if lr > 4e-3 else "diverged" if lr > 1e-3 else "") for lr, state in known.items()
    )
    assert {"failed", "diverged", ""} == set(known.values())
    assert tune.main(["results/found", "name=mine"]) == 0
    assert " diverged " in capsys.readouterr().out
    assert compose(["strategy=mcts", "tuned=mine"]).learner.lr <= 1e-3


def test_a_storage_of_another_space_is_refused_with_the_difference(runs, capsys):
    assert search(trials=1) == 0
    for words, space, answer in (
        (
            (),
            "learner.lr=tag(log, interval(1e-4, 1e-3))",
            "learner.lr is 0.0001..0.01, logarithmic there and",
        ),
        (("seed=102",), "learner.lr=tag(log, interval(1e-4, 1e-2))", "seeds is [100] there and [102] here"),
        (
            ("learner.problems=8",),
            "learner.lr=tag(log, interval(1e-4, 1e-2))",
            "learner.problems is 32 there",
        ),
    ):
        assert search(*words, trials=2, space=space) == 2
        error = capsys.readouterr().err
        assert "holds another study of guess_check: " in error and answer in error and error.count("\n") == 1
    assert search(trials=2) == 0 and search(trials=1) == 2
    assert "hydra.sweeper.trials=1 is too small, the smallest valid value is 2" in capsys.readouterr().err
    assert len(runs) == 4


def test_a_storage_that_another_process_holds_is_told(runs, capsys):
    assert search(trials=1) == 0
    path = Path("results/found") / studies.STORAGE
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert search(trials=2) == 2
    error = capsys.readouterr().err
    assert "optuna.db is locked by another process" in error and error.count("\n") == 1
    with studies.alone(path):
        assert search(trials=2) == 2
    assert "optuna.db is locked: another sweep adds trials to it" in capsys.readouterr().err
    path.write_text("no database at all\n" * 100)
    assert search(trials=2) == 2
    error = capsys.readouterr().err
    assert "cannot be used as Optuna's storage: " in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "words, answer",
    [
        (["hydra.sweeper.trials=0"], "hydra.sweeper.trials=0 is too small: the smallest valid value is 1"),
        (["hydra.sweeper.sampler=tpee"], "hydra.sweeper.sampler=tpee is not a choice; did you mean tpe?"),
        (["learner.lrr=interval(1, 2)"], "unknown key learner.lrr; did you mean learner.lr?"),
        (["learner.lr=6e-4"], "nothing is searched"),
        (
            ["sampling.cap=64,128"],
            "sampling.cap=64,128 cannot be tuned: what is found is kept by strategy for",
        ),
        (
            ["learner.lr=tag(lg, interval(1e-4, 1e-2))"],
            "learner.lr=tag(lg, interval(1e-4, 1e-2)): unknown tag lg; choices: log",
        ),
        (["learner.lr=tag(log, interval(1e-2, 1e-4))"], "learner.lr=tag(log, interval(1e-2, 1e-4)): "),
        (["evaluate.split=heldout"], "evaluate.split=heldout: settings are chosen on tuning problems"),
        (["seed=interval(1, 2)"], "seed="),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(runs, words, answer, capsys):
    assert search(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ablate: {answer}") and error.count("\n") == 1 and not runs


def test_trials_that_are_not_over_are_named(runs, capsys):
    runs.stop_at = 3  # in the second round
    assert search(trials=2) == 130
    capsys.readouterr()
    assert tune.main(["results/found"]) == 2
    error = capsys.readouterr().err
    assert "every strategy needs as many trials; finished are guess_check 2, mcts 1" in error
