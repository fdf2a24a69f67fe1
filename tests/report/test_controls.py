import json

import pytest
from synthetic_results import write_arms

from ablate.report.__main__ import main
from ablate.report.controls import control, seen
from ablate.types import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "chain"
    write_arms(root, {"guess_check": 0.3, "process_rewards": 0.6, "mcts": 0.3}, range(4), scored=True)
    assert main([str(root), "margin=0.03"]) == 0
    return root


def test_a_control_is_read_from_its_own_report(folder):
    found = control(folder)
    assert (found.experiment, found.task, found.metric) == ("chain", "Countdown", "links right")
    assert (found.margin, found.unit, found.budget) == (0.03, "flops", 1e12)
    process, search = found.claims
    assert (process.title, process.on, process.word) == ("Process rewards", "guess + check", "helps")
    assert (process.adds, search.adds) == (("process",), ("search",))
    assert process.value == pytest.approx(0.3, abs=0.02) and process.interval[0] < process.value
    assert (process.seeds, process.problems) == (4, 120)
    assert process.settings["credit._target_"] == "strategies.x.Process"
    assert search.word == "no verdict"  # it and the base stay where they started
    assert seen([], [found]) == ("process",) and seen([], []) == ()


def test_a_control_without_a_verdict_shows_nothing(tmp_path):
    root = write_arms(tmp_path / "one", {"guess_check": 0.3, "process_rewards": 0.6}, [0])
    write_arms(root, {"mcts": 0.5}, [1])
    assert main([str(root)]) == 0
    process, search = control(root).claims
    assert process.interval is None and process.word == "no verdict"
    assert (search.value, search.seeds, search.problems) == (None, 0, 0)
    assert seen([], [control(root)]) == ()


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda report: {**report, "schema": 1}, "of another version: python -m ablate.report"),
        (lambda report: {key: report[key] for key in report if key != "claims"}, "cannot be read ('claims')"),
        (lambda report: {**report, "claims": [{"title": "Search"}]}, "cannot be read ("),
        (lambda report: {**report, "claims": 3}, "cannot be read"),
    ],
)
def test_a_report_that_cannot_be_used_is_told_in_one_line(folder, tmp_path, damage, words):
    report = json.loads((folder / "verdict.json").read_text())
    (tmp_path / "verdict.json").write_text(json.dumps(damage(report)))
    with pytest.raises(UserError) as error:
        control(tmp_path)
    assert words in str(error.value) and "\n" not in str(error.value)
