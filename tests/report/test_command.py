import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_results import curve, write_arms, write_run

from ablate.report.__main__ import main
from ablate.report.content import SCHEMA


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "suspects"
    write_arms(root, {"guess_check": 0.5, "process_rewards": 0.5, "mcts": 0.65}, range(4), wobble=0.003)
    write_run(root, "mcts", 9, curve(0.5), finish=False)
    return root


def test_the_command_writes_and_prints_the_answer(folder, capsys):
    assert main([str(folder), "margin=0.05"]) == 0
    out = capsys.readouterr().out
    page = (folder / "report.md").read_text()
    search = next(line for line in out.splitlines() if line.startswith("Search"))
    assert search.startswith(
        "Search on top of guess + check: helps (needed not tested: no base run at 4x the budget). +1"
    )
    assert search.endswith("worth more than 1x the compute.")
    assert "at 1e12 FLOPs, margin 5, 4 seeds x 120 problems" in search
    assert search.removeprefix("Search") in page
    assert "Sensitivity to search shown: a benefit was seen in this experiment." in out
    assert "left out: mcts-s9-9-1e+12: not finished" in out and "mcts-s9-9-1e+12: not finished" in page
    assert "MLflow" not in out  # the runs are not there either


def test_verdict_json_holds_everything(folder):
    assert main([str(folder), "margin=0.05", "seeds=0,1,2"]) == 0
    verdict = json.loads((folder / "verdict.json").read_text(), parse_constant=pytest.fail)
    assert verdict["schema"] == SCHEMA and verdict["margin"] == 0.05 and verdict["seeds"] == [0, 1, 2]
    claim = {claim["suspect"]: claim for claim in verdict["claims"]}["search"]
    assert claim["word"] == "helps" and claim["weights"] == [["mcts", 1.0], ["guess_check", -1.0]]
    estimate = claim["effect"]["estimate"]
    assert claim["effect"]["interval"][0] < estimate["value"] < claim["effect"]["interval"][1]
    assert estimate["components"]["clusters"] == 30 and not math.isnan(estimate["by_seed"])
    curve = verdict["arms"][0]["curves"][0]
    assert len(curve["accuracy"]) == len(curve["flops"]) == 4 and len(curve["accuracies"]) == 3


def test_controls_are_told_and_take_the_caveat_away(folder, tmp_path, capsys):
    main([str(folder), "margin=0.05"])  # here search helps, and process rewards are not needed
    flat = write_arms(tmp_path / "flat", {"guess_check": 0.5, "mcts": 0.5}, range(4), wobble=0.003)
    chain = write_arms(
        tmp_path / "chain", {"guess_check": 0.3, "process_rewards": 0.6}, range(4), scored=True
    )
    assert main([str(chain)]) == main([str(flat)]) == 0
    out = capsys.readouterr().out
    assert "points [" in out and "in links right at 1e12 FLOPs" in out
    assert "(sensitivity to search not shown)" in out and "Sensitivity to search not shown" in out
    assert main([str(flat), f"control={folder},{chain}", f"control={folder}"]) == 0
    out = capsys.readouterr().out
    assert "(sensitivity" not in out
    assert "Sensitivity to search shown: a benefit was seen in suspects." in out
    assert "Control experiment chain (Countdown, 1e12 FLOPs, margin 2): Process rewards on top of " in out
    page = (flat / "report.md").read_text()
    assert page.count("control experiment suspects |") == 2 and page.count("control experiment chain |") == 1
    assert "control=results/suspects,results/chain" in page


@pytest.mark.parametrize(
    "words, answer",
    [
        ([], "one folder of an experiment expected, 0 given"),
        (["{folder}", "margin=2"], "did you mean 0.02?"),
        (["{folder}", "margin=x"], "margin=x is no share"),
        (["{folder}", "seeds=a"], "seeds=a is no list of whole numbers"),
        (["{folder}", "seeds=77"], "no finished run with seed 77"),
        (["{folder}", "marign=0.02"], "unknown key marign; did you mean margin?"),
        (["{folder}", "--margin=0.02"], "keys are written without dashes"),
        (["{folder}s"], "did you mean suspects?"),
        (["{folder}", "control=nowhere"], "control=nowhere does not exist"),
        (["{folder}", "control={folder}x"], "did you mean suspects?"),
        (["{folder}", "margin=0.01", "margin=0.02"], "margin is given twice: margin=0.01 and margin=0.02"),
        (["{folder}", "tracking=ftp://there"], "not a store that MLflow supports"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, words, answer, capsys):
    assert main([word.format(folder=folder) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ablate: ") and error.count("\n") == 1
    assert answer in error


def test_help_comes_without_heavy_libraries():
    code = (
        "import sys; from ablate.report.__main__ import main; main(['--help']); "
        "assert not {'torch', 'scipy', 'pyarrow', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Is it needed?")
