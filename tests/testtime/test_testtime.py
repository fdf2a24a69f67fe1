"""The command on a real run of experiment=smoke: its files, going on with what is missing, mistakes."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from ablate.cli import main as ablate
from ablate.evaluate import clustered_se
from ablate.testtime.__main__ import main
from ablate.testtime.methods import DEFAULT

POINT = {
    *("run", "strategy", "seed", "method", "guide", "setting", "oracle", "set", "problems", "accuracy"),
    *("accuracy_se", "tokens", "flops", "logical_flops", "compute", "fit_flops", "strata"),
}
FAST = ("problems=12", "learned.problems=12", "learned.samples=2", "learned.epochs=1", "learned.head_steps=4")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """One finished run."""
    root = tmp_path_factory.mktemp("smoke")
    paths = [f"paths.results={root}", f"paths.cache={root / 'cache'}"]
    assert (
        ablate(["experiment=smoke", "budget.tokens=5e3", "budget.milestones=1", "progress=false", *paths])
        == 0
    )
    return root / "smoke"


def points(folder):
    return [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]


def test_every_default_method_leaves_its_rows_and_columns(experiment, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(experiment), *FAST, f"out={out}"]) == 0
    rows = points(out)
    asked = {(name, guide or None) for name, _, guide in (word.partition(":") for word in DEFAULT)}
    asked.remove(("length_prompt", None))  # the tiny model reads no request, and that is said
    assert {(row["method"], row["guide"]) for row in rows} == asked
    assert "length_prompt: model=tiny knows only the words of its task" in capsys.readouterr().err
    (without,) = json.loads((out / "meta.json").read_text())["left_out"]
    assert without[0] == rows[0]["run"] and without[1:3] == ["length_prompt", None]
    assert "no prompt can ask it for a length" in without[3]
    assert json.loads((out / "meta.json").read_text())["version"] == 1
    (run,) = {row["run"] for row in rows}
    table = pq.read_table(out / f"{run}.parquet").to_pandas()
    for row in rows:
        assert set(row) >= POINT and row["problems"] == 12
        assert row["oracle"] == (row["guide"] in ("oracle", "monte_carlo", "verifier"))
        assert (row["fit_flops"] > 0) == (row["guide"] in ("learned", "value"))
        assert sum(row["compute"].values()) == pytest.approx(row["flops"])
        setting = table.setting == json.dumps(row["setting"], sort_keys=True)
        guide = table.guide.isna() if row["guide"] is None else table.guide == row["guide"]
        own = table[(table.method == row["method"]) & guide & setting]
        assert len(own) == own.problem.nunique() == 12
        assert own.solved.mean() == pytest.approx(row["accuracy"])
        assert own.flops.mean() == pytest.approx(row["flops"])
        assert own.tokens.mean() == pytest.approx(row["tokens"], abs=0.5)
        se = clustered_se(own.solved.to_numpy(float), own.cluster.to_numpy())
        assert row["accuracy_se"] == pytest.approx(se, abs=1e-6)
        assert sum(part["problems"] for part in row["strata"].values()) == 12
    types = dict(
        zip(*(lambda s: (s.names, map(str, s.types)))(pq.read_schema(out / f"{run}.parquet")), strict=True)
    )
    assert (types["solved"], types["tokens"], types["flops"]) == ("float", "int32", "double")

    natural = pq.read_table(out / f"{run}-natural.parquet").to_pandas()
    assert len(natural) == 12 * 8 and {"restarts", "attempts", "ended", "right"} <= set(natural.columns)
    for row in rows:  # the cap curve is that of the one long decode
        if row["method"] == "natural":
            within = natural.right & (natural.tokens <= row["setting"]["cap"])
            assert row["accuracy"] == pytest.approx(within.mean())
    verified = {row["setting"]["n"]: row for row in rows if row["guide"] == "verifier"}
    accuracies = [verified[n]["accuracy"] for n in sorted(verified)]
    assert accuracies == sorted(accuracies)  # pass@n over the same draws
    for row in rows:  # no choice among the same answers can beat the verifier's
        if row["method"] == "best_of_n":
            assert row["accuracy"] <= verified[row["setting"]["n"]]["accuracy"]

    # again: nothing is done twice, and what is new is added
    before = (out / "points.jsonl").read_bytes()
    assert main([str(experiment), *FAST, f"out={out}"]) == 0
    assert f"0 of {len(rows)} settings measured now" in capsys.readouterr().out
    assert (out / "points.jsonl").read_bytes() == before
    assert main([str(experiment), *FAST, f"out={out}", "methods=majority", "budgets=3,4"]) == 0
    assert "1 of 2 settings measured now" in capsys.readouterr().out
    assert points(out)[:-1] == rows and points(out)[-1]["setting"] == {"n": 3}
    assert main([str(experiment), f"out={out}", "problems=7", "methods=majority", "budgets=3"]) == 0
    assert [row["problems"] for row in points(out) if row["setting"] == {"n": 3}] == [7]
    assert not [path for path in out.iterdir() if path.suffix == ".tmp"]


def test_other_options_are_measured_anew_and_never_stand_beside_the_first(experiment, tmp_path, capsys):
    def asked(*more):
        assert main([str(experiment), "problems=6", f"out={tmp_path}", "methods=revision", *more]) == 0
        return capsys.readouterr().out.splitlines()[-1].partition(":")[0]

    assert asked("budgets=2,4") == "4 of 4 settings measured now, 0 were there"
    assert asked("budgets=2", "marker=no 1") == "2 of 2 settings measured now, 0 were there"
    assert asked("budgets=2", "marker=no 1") == "0 of 2 settings measured now, 2 were there"
    assert [row["setting"]["answers"] for row in points(tmp_path)] == [2, 2]  # the other marker's are gone
    (table,) = tmp_path.glob("*.parquet")
    assert pq.read_table(table).num_rows == 2 * 6


def test_the_hard_set_stands_beside_the_other(experiment, tmp_path, monkeypatch):
    """Both in one file per run, told apart by a column; here, problems with a chance of at most a half."""
    monkeypatch.setattr("ablate.testtime.runs.HARD", 0.5)
    line = [str(experiment), f"out={tmp_path}", "problems=9", "methods=natural,majority", "budgets=2"]
    assert main(line) == main([*line, "set=hard"]) == 0
    rows = points(tmp_path)
    (run,) = {row["run"] for row in rows}
    table = pq.read_table(tmp_path / f"{run}.parquet").to_pandas()
    hard = set(table[table.set == "hard"].problem)
    assert len(hard) == 9 and hard != set(table[table.set == "heldout"].problem)
    assert set(pq.read_table(tmp_path / f"{run}-natural-hard.parquet")["problem"].to_pylist()) == hard
    majority = [(row["set"], row["accuracy"]) for row in rows if row["method"] == "majority"]
    for which, accuracy in majority:
        own = table[(table.set == which) & (table.method == "majority")]
        assert len(own) == 9 and own.solved.mean() == pytest.approx(accuracy)
    assert {which for which, _ in majority} == {"heldout", "hard"}


def test_the_same_rows_whatever_else_is_asked(experiment, tmp_path):
    """Guides are fitted on the same draws, whichever methods run before them."""
    alone, after = tmp_path / "alone", tmp_path / "after"
    line = [str(experiment), *FAST, "budgets=4"]
    assert main([*line, f"out={alone}", "methods=beam:learned"]) == 0
    assert main([*line, f"out={after}", "methods=majority,mcts:value,beam:learned"]) == 0
    (one,), rows = points(alone), points(after)
    for row in (one, rows[-1]):
        row.pop("seconds")
    assert rows[-1] == one


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methods=beem"], "methods=beem is not a method; did you mean beam?"),
        (["methods=beam:oracel"], "oracel does not guide beam; did you mean oracle?"),
        (["budgets=0"], "budgets=0 is below one sample"),
        (["budgets=4", "methods=natural"], "budgets= is no setting of natural"),
        (["methods=best_of_n:judge"], "model=tiny reads no questions"),
        (["methods=length_prompt"], "length_prompt: model=tiny knows only the words of its task"),
        (["methods=length_prompt", "length_prompt=Be brief."], "must have the field {tokens}"),
        (["methods=majority", "length_prompt={tokens}"], "methods=length_prompt, which is not asked for"),
        (["problems=0"], "problems=0 is too small"),
        (["set=easy"], "set=easy is not a choice; choices: hard, heldout"),
        (["set=hard"], "make runs with python -m ablate -m experiment=hard"),
        (["seeds=7"], "has no run of these seeds and arms; its seeds: 0"),
        (["arms=mtcs"], "has no such arm; choices: guess_check"),
        (["marker=Wait"], "has no word 'Wait'"),
        (["method=beam"], "unknown key method; did you mean methods?"),
        (["learned.problem=3"], "unknown key learned.problem; did you mean learned.problems?"),
        (["problems=3", "problems=4"], "problems is given twice"),
        (["--problems"], "keys are written without dashes"),
    ],
)
def test_mistakes_are_one_line_before_a_model_loads(
    experiment, tmp_path, capsys, monkeypatch, words, message
):
    monkeypatch.setattr("ablate.testtime.runs.Run.load", lambda run: pytest.fail("a model was loaded"))
    assert main([str(experiment), f"out={tmp_path / 'out'}", *words]) == 2
    said = capsys.readouterr().err
    assert message in said.replace("\n", " ") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_runs_without_a_policy_are_named(experiment, tmp_path, capsys):
    copy = tmp_path / "results" / "copy"
    shutil.copytree(experiment, copy, ignore=shutil.ignore_patterns("policy", "checkpoints"))
    (folder,) = copy.glob("guess_check-*")
    assert main([str(copy)]) == 2
    assert "no run has its final policy" in (said := capsys.readouterr().err) and "fresh=true" in said
    other = next(experiment.glob("guess_check-*"))
    shutil.copytree(other, copy / other.name.replace("-s0-", "-s1-"))
    assert main([str(copy), *FAST, "methods=majority", "budgets=1"]) == 0
    assert f"left out: {folder.name}: its final policy is not there" in capsys.readouterr().err
    (row,) = points(copy / "testtime")
    assert row["run"] != folder.name
    (copy.parent / "empty").mkdir()
    assert main([str(copy.parent / "empty")]) == 2
    assert "has no runs" in capsys.readouterr().err
    assert main([str(copy.parent / "cop")]) == 2
    assert "is not a folder; did you mean copy?" in capsys.readouterr().err


def test_help_says_all_keys(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    from ablate.testtime.__main__ import KEYS

    assert [key for key in KEYS if f"{key}=" not in text and f"{key}." not in text] == []
