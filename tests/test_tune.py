"""Equal tuning: who wins, what is refused, and that a comparison takes the winners."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from ablate import tune
from ablate.compose import compose, plan
from ablate.config import fingerprint
from ablate.record import Record
from ablate.types import UserError

RATES, SEEDS = (3e-4, 6e-4, 1.2e-3), (100, 101)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def composed():
    """The configurations of tuning runs as plain containers, by strategy."""
    from omegaconf import OmegaConf

    names = ("guess_check", "mcts")
    return {
        name: OmegaConf.to_container(compose(["experiment=tune", f"strategy={name}"]), resolve=True)
        for name in names
    }


@pytest.fixture
def trial(tmp_path, composed):
    """Writes a tuning run; returns its folder."""

    def write(arm, lr, seed, accuracy, finish=True, failure=None, error=0.01, **changes):
        config = yaml.safe_load(yaml.safe_dump(composed[arm]))
        config["learner"]["lr"], config["seed"] = lr, seed
        for key, value in changes.items():
            group, _, leaf = key.partition(".")
            config[group][leaf] = value
        folder = tmp_path / "results/tune" / f"{arm}-s{seed}-{lr:g}"
        shutil.rmtree(folder, ignore_errors=True)
        record = Record(folder)
        record.write_config(config)
        record.append("steps", {"step": 1, "budget/flops": 5e8, "budget/logical_flops": 6e8})
        record.append("evaluations", {"step": 0, "heldout/pass@1": 0.9, "heldout/pass@1_se": error})
        record.append("evaluations", {"step": 9, "heldout/pass@1": accuracy, "heldout/pass@1_se": error})
        if failure:
            record.fail(failure)
        elif finish:
            record.finish({"totals": {"flops": 1e9, "logical_flops": 2e9, "tokens": 1000}}, "done")
        record.close()
        return folder

    return write


@pytest.fixture
def grid(trial):
    """All trials of two strategies: accuracies by learning rate, the second seed's one point higher."""

    def write(guess_check=(0.3, 0.5, 0.4), mcts=(0.2, 0.3, 0.4), **changes):
        for arm, accuracies in (("guess_check", guess_check), ("mcts", mcts)):
            for lr, accuracy in zip(RATES, accuracies, strict=True):
                for i, seed in enumerate(SEEDS):
                    trial(arm, lr, seed, accuracy + i / 100, **changes)

    return write


def test_the_best_mean_wins_and_a_comparison_uses_it(grid, capsys):
    grid()
    assert tune.main(["results/tune", "name=mine"]) == 0
    out = capsys.readouterr().out
    assert "mcts: 0.0012 is best; at the edge of the grid, extend it" in out and "guess_check: " not in out
    assert "All trials: 1.2e+10 FLOPs." in out and "tuned=mine" in out
    text = Path("conf/tuned/mine.yaml").read_text()
    for line in out.splitlines()[:8]:
        assert f"# {line}".rstrip() in text  # the file says what was tried
    chosen = {
        name: compose([f"strategy={name}", "tuned=mine"])
        for name in ("guess_check", "mcts", "mcts_uniform", "guess_check_wide")
    }
    assert {name: config.learner.lr for name, config in chosen.items()} == {
        "guess_check": 6e-4,
        "mcts": 1.2e-3,
        "mcts_uniform": 1.2e-3,  # a placebo runs at its arm's
        "guess_check_wide": 6e-4,
    }
    spent = chosen["mcts"].tuning
    assert (spent.flops, spent.logical_flops, spent.tokens) == (6e9, 12e9, 6000)
    # a cell of the factorial by its axes has its arm's rate
    assert compose(["strategy/source=tree", "tuned=mine"]).learner.lr == 1.2e-3
    # where the learning rate comes from does not matter to the result
    alike = compose(["strategy=mcts", "learner.lr=1.2e-3"])
    assert fingerprint(alike) == fingerprint(chosen["mcts"])
    # the command line wins
    assert compose(["strategy=mcts", "tuned=mine", "learner.lr=1e-3"]).learner.lr == 1e-3
    assert compose(["strategy=essay", "tuned=mine", "learner.lr=1e-3"]).tuning.flops == 0


def test_a_strategy_that_was_not_tuned_and_a_tuning_seed_are_refused_before_a_sweep_starts(grid):
    grid()
    tune.main(["results/tune", "name=mine"])
    with pytest.raises(UserError, match=r"learner\.lr has no value for strategy=essay, only for guess_check"):
        plan(["strategy=mcts,essay", "tuned=mine"], multirun=True)
    with pytest.raises(UserError, match=r"seed=101 was used for tuning .*others"):
        plan(["seed=0,101", "tuned=mine"], multirun=True)
    with pytest.raises(UserError, match=r"unknown tuned mind; did you mean mine\?"):
        compose(["tuned=mind"])


@pytest.mark.parametrize(
    ("accuracies", "best", "notes"),
    [
        ((0.3, 0.5, 0.4), 6e-4, ()),
        ((0.3, 0.5, 0.5), 6e-4, ("a tie with 0.0012: the smallest was taken",)),
        ((0.5, 0.3, 0.3), 3e-4, ("at the edge of the grid, extend it",)),
        ((0.492, 0.5, 0.3), 6e-4, ("0.0003 within one standard error over problems",)),
    ],
)
def test_ties_edges_and_close_calls_are_said(grid, accuracies, best, notes):
    grid(guess_check=accuracies)
    choice = tune.choose(tune.load(Path("results/tune")))[0]
    assert (choice.best.lr, choice.notes) == (best, notes)


def test_where_a_task_has_a_score_of_its_own_it_decides(grid):
    grid()
    for path in Path("results/tune").glob("*/evaluations.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        better = {"heldout/score": 0.9 if "0.0003" in path.parent.name else 0.1, "heldout/score_se": 0.01}
        path.write_text("".join(json.dumps({**row, **better}) + "\n" for row in rows))
    choices = tune.choose(tune.load(Path("results/tune")))
    assert [each.best.lr for each in choices] == [3e-4, 3e-4]
    assert "score on tuning problems" in tune.to_yaml(choices, "")


def test_a_trial_from_before_a_key_existed_is_one_with_its_default(grid, trial):
    grid()
    path = next(Path("results/tune").glob("*/config.yaml"))
    config = yaml.safe_load(path.read_text())
    assert config["learner"].pop("kl") == 0.0
    path.write_text(yaml.safe_dump(config))
    assert tune.main(["results/tune"]) == 0


def test_missing_trials_are_named(grid, trial, tmp_path):
    grid()
    trial("mcts", 6e-4, 101, 0.3, finish=False)
    trial("mcts", 1.2e-3, 100, 0.3, failure="RuntimeError: no\nmemory")
    trial("guess_check", 2.4e-3, 100, 0.3)
    with pytest.raises(UserError) as caught:
        tune.load(Path("results/tune"))
    text = str(caught.value)
    assert "5 of 16 are missing" in text
    for each in (
        "mcts learner.lr=0.0006 seed=101 (not finished)",
        "mcts learner.lr=0.0012 seed=100 (failed: RuntimeError: no)",
        "guess_check learner.lr=0.0024 seed=101 (not run)",
        "mcts learner.lr=0.0024 seed=100 (not run)",
    ):
        assert each in text


def test_a_run_that_diverged_is_a_trial_that_lost(grid, trial):
    grid()
    for arm in ("guess_check", "mcts"):
        trial(arm, 2.4e-3, 100, 0.99, failure="NonFiniteLoss: the loss is nan")
        trial(arm, 2.4e-3, 101, 0.99)
    first, second = tune.choose(tune.load(Path("results/tune")))
    assert (first.best.lr, second.best.lr) == (6e-4, 1.2e-3) and second.notes == ()
    assert first.cost("flops") == 7e9 + 5e8  # what it had spent when it stopped
    assert "diverged 99.0" in tune.to_yaml([first, second], "")


def test_trials_that_cannot_be_compared_are_refused(grid, trial):
    with pytest.raises(UserError, match="is not a folder"):
        tune.load(Path("results/tun"))
    grid(**{"evaluate.split": "heldout"})
    with pytest.raises(UserError, match=r"judged on evaluate\.split=heldout: settings are chosen on tuning"):
        tune.load(Path("results/tune"))
    grid()
    trial("mcts", 6e-4, 101, 0.3, **{"learner.problems": 8})
    with pytest.raises(UserError, match=r"learner\.problems is 32 in .* and 8 in mcts-s101"):
        tune.load(Path("results/tune"))
    trial("mcts", 6e-4, 101, 0.3, **{"budget.flops": 1e9})
    with pytest.raises(
        UserError, match=r"budget\.flops is 3000000000000\.0 in .* and 1000000000\.0 in mcts-s101"
    ):
        tune.load(Path("results/tune"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one folder"),
        (["results/tune", "nam=x"], "unknown key nam; did you mean name?"),
        (["results/tune", "name=a/b"], "name=a/b cannot name a choice"),
        (["results/tune", "name=countdown"], "name=countdown is a built-in choice of tuned"),
        (["results/tune", "name=own"], "conf/tuned/own.yaml was not written by this command"),
        (["results"], "results has no runs: python -m ablate -m experiment=tune makes them"),
    ],
)
def test_a_mistake_is_one_line(grid, capsys, arguments, message):
    grid()
    Path("conf/tuned").mkdir(parents=True)
    Path("conf/tuned/own.yaml").write_text("# mine\n")
    assert tune.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("ablate: ") and message in err and err.count("\n") == 1


def test_tuning_runs_use_problems_and_seeds_of_their_own():
    checked = plan(["experiment=tune"], multirun=True)
    assert checked.config.evaluate.split == "tuning"
    sweep = dict(line.split("=", 1) for line in checked.overrides)
    compared = dict(line.split("=", 1) for line in plan(["experiment=suspects"], multirun=True).overrides)
    assert not set(sweep["seed"].split(",")) & set(compared["seed"].split(","))
    assert set(compared["strategy"].split(",")) <= set(sweep["strategy"].split(","))
