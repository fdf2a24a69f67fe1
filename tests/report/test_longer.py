"""Training far past the plateau, on runs that get worse or do not."""

import json

import numpy as np
import pytest
import yaml
from synthetic_results import PROBLEMS, SAMPLES, curve, write_run

from ablate.report.__main__ import main
from ablate.report.answers.longer import chosen
from ablate.report.assemble import assemble
from ablate.report.loading import load
from ablate.types import UserError

SHARES = (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0)


def write(root, falls, seeds=range(4)):
    """falls: (kl, problems) -> what accuracy loses in each of the last two doublings."""
    for (kl, problems), fall in falls.items():
        for seed in seeds:
            ends = [0.3, 0.45, 0.5, 0.55, 0.55 - fall, 0.55 - 2 * fall]
            settings = {"learner.kl": kl, "learner.distinct_problems": problems}
            apart = seed + 100 * round(100 * kl) + 10 * (problems or 0)
            run = write_run(root, "guess_check", seed, ends, shares=SHARES, sampling_seed=apart, **settings)
            config = yaml.safe_load((run / "config.yaml").read_text())
            (run / "config.yaml").write_text(yaml.safe_dump({**config, "sampling_seed": None}))
            rows = [{"step": step, "learner/entropy": 1.0 - step / 200} for step in range(1, 101)]
            (run / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


ALL = {(0.0, None): 0.0, (0.0, 64): 0.1, (0.05, None): 0.0, (0.05, 64): 0.0}


def test_settings_of_one_strategy_are_arms_and_the_one_that_falls_is_named(tmp_path, capsys):
    root = write(tmp_path / "long_run", ALL)
    assert main([str(root), "tracking=none"]) == 0
    said = capsys.readouterr().out
    report = json.loads((root / "verdict.json").read_text())
    arms = {arm["arm"]: arm for arm in report["longer"]["arms"]}
    assert list(arms) == [
        *("no KL, all problems", "no KL, 64 problems", "KL 0.05, all problems", "KL 0.05, 64 problems"),
    ]
    assert {arm["role"] for arm in report["arms"]} == {"variant"} and report["claims"] == []
    worse = arms["no KL, 64 problems"]
    assert worse["word"] == "worse" and worse["accuracy"]["difference"]["value"] == pytest.approx(
        -0.2, abs=0.02
    )
    assert all(arm["word"] == "no change shown" for name, arm in arms.items() if arm is not worse)
    assert "no KL, 64 problems: it gets worse" in said and "no change is shown" in said
    changes = {change["name"]: change for change in worse["changes"]}
    assert {"length (tokens)", "cut off at the cap (share)", "attempts"} <= changes.keys()
    entropy = changes["entropy (nats per token)"]
    assert entropy["difference"]["over"] == "seeds" and entropy["difference"]["value"] < -0.3
    effects = dict(report["longer"]["effects"])
    assert effects["with the penalty, minus without"]["value"] == pytest.approx(0.1, abs=0.02)
    assert effects["on few problems, minus on all"]["value"] == pytest.approx(-0.1, abs=0.02)
    html = (root / "report.html").read_text()
    assert (
        "Does it just run longer?" in html and 'id="figure-longer"' in html and 'id="figure-entropy"' in html
    )
    assert not any("learner.kl differs" in note for note in report["notes"])


def test_being_chosen_as_the_best_does_not_make_the_last_look_worse(tmp_path):
    """Flat curves: the best of four evaluations stands above the last by chance alone."""
    naive, fair = [], []
    for draw in range(12):
        root = tmp_path / str(draw)
        for problems in (None, 64):
            for seed in range(2):
                settings = {"learner.kl": 0.0, "learner.distinct_problems": problems}
                level = np.random.default_rng([draw, seed, problems or 0]).normal(0.5, 0.03, 6)
                write_run(root, "guess_check", seed + 10 * bool(problems), level, shares=SHARES, **settings)
        for runs in load(root).arms:
            own = [run for run in load(root).runs if run.arm == runs]
            curves = np.array([run.heldout("pass@1") for run in own])
            naive.append((curves[:, -1] - curves[:, 1:-1].max(1)).mean())
            for run, places in zip(own, chosen(own), strict=True):
                index = [row["milestone"] for row in run.milestones].index(places[0])
                fair.append(run.heldout("pass@1")[-1] - run.heldout("pass@1")[index])
    error = np.std(fair) / np.sqrt(len(fair))
    assert np.mean(naive) < -0.02 < np.mean(fair) + error and abs(np.mean(fair)) < 3 * error


def test_one_seed_is_cross_fitted_over_problems_and_said_to_be_one(tmp_path, capsys):
    root = write(tmp_path / "x", {(0.0, None): 0.0, (0.0, 64): 0.15}, seeds=[3])
    assert main([str(root), "tracking=none"]) == 0
    said = capsys.readouterr().out
    assert "64 problems: it gets worse" in said and "over problems only" in said
    (run, _) = load(root).runs
    (places,) = chosen([run])
    assert len(places) == PROBLEMS and len(set(places.tolist())) <= 2


def test_without_outcomes_per_problem_the_runs_own_figures_serve(tmp_path):
    root = write(tmp_path / "x", {(0.0, None): 0.0, (0.0, 64): 0.15})
    for path in root.glob("*/evaluations/*.parquet"):
        if path.stem != "000100":
            path.unlink()
    worse = assemble(load(root), 0.02).longer.arms[1]
    assert worse.accuracy.difference.over == "seeds" and worse.word == "worse"


def test_beside_other_strategies_the_default_keeps_its_name_and_other_settings_stay_refused(tmp_path):
    write_run(tmp_path, "guess_check", 0, curve(0.5), **{"learner.kl": 0.0})
    write_run(tmp_path, "guess_check", 0, curve(0.5), sampling_seed=9, **{"learner.kl": 0.1})
    write_run(tmp_path, "mcts", 0, curve(0.5))
    found = load(tmp_path)
    assert set(found.arms) == {"guess_check", "guess_check (KL 0.1)", "mcts"}
    report = assemble(found, 0.02)
    assert {arm.name: arm.role for arm in report.arms}["guess_check (KL 0.1)"] == "variant"
    assert [claim.title for claim in report.claims] == ["Search"] and SAMPLES
    twin = write_run(tmp_path, "mcts", 0, curve(0.5), sampling_seed=5, **{"learner.lr": 1e-3})
    config = yaml.safe_load((twin / "config.yaml").read_text())
    (twin / "config.yaml").write_text(yaml.safe_dump({**config, "sampling_seed": None}))
    with pytest.raises(UserError, match="two runs of mcts"):
        load(tmp_path)
