"""Which folders of an experiment are runs, for everybody who reads them."""

from pathlib import Path

import pytest

from ablate.experiments import ASIDE, TESTTIME, check_experiment, no_runs, run_folders
from ablate.plan.records import finished
from ablate.record import write_json
from ablate.report.loading import load as reported
from ablate.status import overview
from ablate.testtime.runs import find
from ablate.tuning.trials import load as tried
from ablate.types import UserError


@pytest.fixture
def experiment(tmp_path):
    """What fresh=true moved aside, and what test time left, beside a run that did not finish."""
    for name in ("mcts-s0-1", f"mcts-s0-1{ASIDE}1", TESTTIME):
        (tmp_path / "mine" / name).mkdir(parents=True)
        write_json(tmp_path / "mine" / name / "meta.json", {})
    (tmp_path / "mine" / ".sweeps").mkdir()
    (tmp_path / "mine" / "figures").mkdir()
    return tmp_path / "mine"


def test_only_runs_are_runs(experiment):
    assert [each.name for each in run_folders(experiment)] == ["mcts-s0-1"]
    assert run_folders(Path("nowhere")) == []
    assert [run.run for run in overview(experiment).runs] == ["mcts-s0-1"]
    assert finished([experiment]) == ([], [])


@pytest.mark.parametrize("read", [reported, tried, overview, lambda folder: find(folder, None, None)])
def test_every_reader_says_the_same_of_a_folder_that_is_none(experiment, read):
    with pytest.raises(UserError, match=r"mines is not a folder; did you mean mine\?"):
        read(experiment.with_name("mines"))
    (experiment / "mcts-s0-1" / "config.yaml").touch()
    with pytest.raises(UserError, match=r"is a single run; give the folder of its experiment: .*mine$"):
        read(experiment / "mcts-s0-1")


def test_experiments_below_are_named(experiment):
    check_experiment(experiment.parent)
    assert str(no_runs(experiment.parent)).endswith("has no runs; experiments in it: mine")
