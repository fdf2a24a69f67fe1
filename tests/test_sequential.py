"""The sequential sweep: blocks of seeds until every headline verdict is reached."""

import sys
from pathlib import Path

import pytest
import yaml

from ablate import cli, sequential
from ablate.config import run_folder
from ablate.record import read_json

sys.path.insert(0, str(Path(__file__).parent / "report"))
from synthetic_results import curve, write_run

COMMON = ["experiment=smoke", "strategy=guess_check,mcts", "name=seq"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def blocks(monkeypatch):
    """Stands in for the sweep: every run that the checked command line names, with outcomes of our choice.
    Returns the seeds of each block."""
    from ablate.compose import plan, runs

    seen = []

    def sweep(argv, gain=0.15, wobble=0.003):
        every = runs(plan(argv[1:], multirun=True))
        seen.append(sorted({each.seed for each in every}))
        for each in every:
            assert each.resume
            end = 0.5 + gain * (each.strategy.name == "mcts") + wobble * ((each.seed * 7) % 5 - 2)
            declared = {"at": list(each.looks.at), "spending": each.looks.spending}
            write_run(run_folder(each).parent, each.strategy.name, each.seed, curve(end), looks=declared)
        return 0

    monkeypatch.setattr(cli, "main", sweep)
    return seen


def test_it_stops_when_every_verdict_is_reached(blocks, capsys):
    assert sequential.main([*COMMON, "looks=4,8,12", "spending=pocock", "margin=0.05"]) == 0
    assert blocks == [[0, 1, 2, 3]]
    out = capsys.readouterr().out
    assert "Search on top of guess + check: helps" in out
    assert (
        "Stop: every headline verdict is reached. The fixed design of 12 seeds would have taken 16 runs"
        in out
    )
    assert "67 % of its compute is saved" in out and "author's word" not in out
    config = yaml.safe_load(next(Path("results/seq").glob("*/config.yaml")).read_text())
    assert config["looks"] == {"at": [4, 8, 12], "spending": "pocock"}


def test_it_goes_on_while_one_is_inconclusive_and_reads_each_look_alone(blocks, monkeypatch, capsys):
    sweep = cli.main
    monkeypatch.setattr(cli, "main", lambda argv: sweep(argv, gain=0.02, wobble=0.04))
    assert sequential.main([*COMMON, "looks=2,4", "seed=10,11,12,13"]) == 0
    assert blocks == [[10, 11], [12, 13]]
    out = capsys.readouterr().out
    assert "Go on: not every headline verdict is reached; the next look is at 4 seeds." in out
    assert "This was the last look" in out
    assert read_json(Path("results/seq/verdict.json"))["seeds"] == [10, 11, 12, 13]
    # the same command again: the first look is read without the later seeds, as it was
    again = sequential.main([*COMMON, "looks=2,4", "seed=10,11,12,13"])
    assert again == 0 and capsys.readouterr().out == out


def test_a_block_with_failed_runs_is_no_look(monkeypatch, capsys):
    monkeypatch.setattr(cli, "main", lambda argv: 1)
    assert sequential.main([*COMMON, "looks=2,4"]) == 1
    assert "without these runs there is no look" in capsys.readouterr().err
    assert not Path("results/seq/verdict.json").exists()


@pytest.mark.parametrize(
    "words, answer",
    [
        (COMMON, "looks are missing, as in looks=4,8,12"),
        ([*COMMON, "looks=4,4"], "do not grow; did you mean 4?"),
        ([*COMMON, "looks=2,4", "seed=1,2"], "seed=1,2 has 2 seeds; the last look is at 4"),
        ([*COMMON, "looks=2,4", "looks=2,3"], "looks is given twice"),
        ([*COMMON, "looks=2,4", "margin=3"], "margin=3 is no share"),
        ([*COMMON, "looks=2,4", "control=nowhere"], "control=nowhere does not exist"),
        ([*COMMON, "looks=2,4", "learner.lrr=1"], "unknown key learner.lrr; did you mean learner.lr?"),
        (["strategy=guess_check,rejection_sft", "looks=2,4"], "no suspect beside what it is added to"),
        ([*COMMON, "looks=2,4", "--resume"], "keys are written without dashes"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(words, answer, monkeypatch, capsys):
    monkeypatch.setattr(cli, "main", lambda argv: pytest.fail("a run began"))
    assert sequential.main(words) == 2
    error = capsys.readouterr().err
    assert answer in error and error.count("\n") == 1
