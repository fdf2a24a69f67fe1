"""Test-time compute from its files, whose outcomes are known."""

import json

import numpy as np
import pytest
from synthetic_results import BUDGET, PROBLEMS, curve, write_run
from synthetic_testtime import (
    FOLLOWED,
    METHODS,
    ONE,
    PROMPT,
    natural,
    write_meta,
    write_natural,
    write_testtime,
)

from ablate.report.answers.files import Setting, read
from ablate.report.answers.testtime import Path, named
from ablate.report.assemble import assemble
from ablate.report.loading import load
from ablate.report.markdown import to_markdown
from ablate.report.page import to_html
from ablate.types import UserError


def write(root, arms=("guess_check", "mcts"), seeds=(0, 1, 2), methods=METHODS, **changes):
    root.mkdir(exist_ok=True)
    for arm in arms:
        for seed in seeds:
            run = write_run(root, arm, seed, curve(0.5))
            write_testtime(root, run.name, seed, methods=methods, **changes)
    return root


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return assemble(load(write(tmp_path_factory.mktemp("results") / "arms")), 0.02)


def arm(report, name):
    return next(each for each in report.testtime[0].arms if each.arm == name)


def test_a_curve_is_the_mean_over_runs_at_each_setting(report):
    (found,) = report.testtime
    assert (found.set, found.problems, found.over) == ("heldout", PROBLEMS, "seeds and problems")
    base = arm(report, "guess_check")
    assert [curve.label for curve in base.curves][:3] == [
        "majority vote",
        "best of n, oracle",
        "best of n, learned",
    ]
    assert "natural" not in {curve.method for curve in base.curves}
    vote = base.curves[0]
    assert len(vote.settings) == 7 and list(vote.flops) == sorted(vote.flops)
    assert vote.flops[0] == pytest.approx(ONE, rel=0.05)
    assert {curve.label for curve in base.curves if curve.oracle} == {
        "best of n, oracle",
        "depth-1 search, oracle",
    }
    assert named(("beam", "learned")) == "beam search, learned"
    # forms of a method that cost the same are curves of their own
    forms = [curve for curve in base.curves if curve.method.startswith("revision")]
    assert [curve.label for curve in forms] == ["revision, the last answer", "revision, a vote"]
    assert all(len(curve.settings) == 5 for curve in forms)


def test_gains_are_paired_and_at_equal_flops(report):
    base = arm(report, "guess_check")
    gains = {gain.label: gain for gain in base.gains}
    assert gains["majority vote"].gain is None and gains["majority vote"].accuracy > 0.6
    oracle = gains["depth-1 search, oracle"]
    assert oracle.oracle and oracle.gain.interval[0] > 0.05
    for label, gain in gains.items():
        curves = [c for a in report.testtime[0].arms for c in a.curves if c.label in (label, "majority vote")]
        assert gain.level <= 1.05 * min(curve.flops[-1] for curve in curves)
        if gain.gain is not None:
            assert gain.gain.interval[0] < gain.gain.value < gain.gain.interval[1]


def test_reading_between_settings_is_linear_in_the_logarithm_and_never_beyond_the_ends():
    def setting(flops, solved):
        return Setting("beam", None, "{}", False, 1.0, 0.0, np.full(4, solved), np.full(4, flops))

    path = Path((setting(1.0, 0.2), setting(4.0, 0.6)), np.array([True, True, False, True]))
    assert path.at(2.0) == pytest.approx(np.full(3, 0.4))
    assert path.at(1.0) == pytest.approx(0.2) and path.at(4.0) == pytest.approx(0.6)
    assert path.at(0.9) is None and path.at(4.2) is None
    assert (path.within(0.1), path.within(9.0)) == (1.0, 4.0)


def test_a_method_without_a_vote_as_dear_is_left_blank_with_the_reason(tmp_path):
    methods = [
        ("majority", None, False, 1, 3, 0.0, 0.0),
        ("beam", None, False, 16, 3, 0.1, 0.0),
        ("revision", None, False, 1, 2, 0.0, 0.0),
        ("budget_forcing:stop", None, False, 0.2, 2, 0.0, 0.0),
    ]
    report = assemble(load(write(tmp_path / "x", ["guess_check"], methods=methods)), 0.02)
    gains = {gain.label: gain for gain in report.testtime[0].arms[0].gains}
    assert gains["beam search"].accuracy is None
    assert "costs more" in gains["beam search"].reason
    assert gains["revision"].gain is not None
    assert gains["stopped early"].reason == "costs less than a plain sample"
    assert "its cheapest setting costs more" in to_markdown(report)


@pytest.mark.parametrize(("cost", "read"), [(0.7, True), (0.2, False)])
def test_a_run_that_ends_sooner_is_read_where_it_ends_and_does_not_set_the_budget(tmp_path, cost, read):
    """A search that stops when it has found something is the cheaper the better it is."""
    methods = [("majority", None, False, 1, 7, 0.0, 0.0), ("depth1", "oracle", True, 2, 4, 0.2, 0.02)]
    sooner = [methods[0], ("depth1", "oracle", True, 2 * cost, 4, 0.2, 0.02)]
    root = write(tmp_path / "x", ["guess_check"], (0, 1), methods=methods)
    write(root, ["guess_check"], [2], methods=sooner)
    (base,) = assemble(load(root), 0.02).testtime[0].arms
    gain = next(gain for gain in base.gains if gain.oracle)
    assert gain.level == pytest.approx(16 * ONE * cost ** (1 / 3), rel=0.05)
    assert (gain.gain is not None and gain.gain.interval[0] > 0) == read
    assert (gain.reason == "") == read


def test_the_best_method_and_where_its_curve_crosses_the_votes(tmp_path):
    methods = [
        ("majority", None, False, 1, 7, 0.0, 0.0),
        ("beam", "learned", False, 1, 7, -0.4, 0.14),  # ahead from 2^3 samples on
        ("best_of_n", "oracle", True, 1, 7, 0.3, 0.0),
    ]
    report = assemble(load(write(tmp_path / "x", ["guess_check"], range(4), methods=methods)), 0.02)
    (base,) = report.testtime[0].arms
    best = {each.multiple: each for each in base.best if each.stratum == "all"}
    assert best[1.0].label == "majority vote" and best[1.0].equal == ()
    last = best[max(best)]
    assert last.label == "beam search, learned" and last.equal == ()
    clear = [each for each in base.overtakes if None not in each.interval]
    assert len(clear) == 1 and clear[0].gains and clear[0].label == "beam search, learned"
    assert clear[0].interval[0] < clear[0].level < clear[0].interval[1]
    assert 3 * ONE < clear[0].level < 16 * ONE
    assert {each.stratum for each in base.best} == {"all", "easy", "medium", "hard"}
    assert "gets ahead of the majority vote" in to_markdown(report)


def test_one_seed_says_that_its_intervals_are_over_problems(tmp_path):
    report = assemble(load(write(tmp_path / "x", ["guess_check"], [0])), 0.02)
    (found,) = report.testtime
    assert found.over == "problems"
    gain = next(gain for gain in found.arms[0].gains if gain.oracle).gain
    assert gain.over == "problems" and gain.interval[0] > 0
    assert "intervals are over problems only" in to_markdown(report)


def test_a_longer_run_is_told_apart_and_the_hard_set_stands_by_itself(tmp_path):
    root = write(tmp_path / "x", ["guess_check"], [0, 1])
    for seed in (0, 1):
        long = write_run(root, "guess_check", seed, curve(0.5), 4 * BUDGET)
        write_testtime(root, long.name, seed, where="hard")
    report = assemble(load(root), 0.02)
    assert [(each.set, each.arms[0].times) for each in report.testtime] == [("heldout", 1.0), ("hard", 4.0)]
    text = to_markdown(report)
    assert "guess_check (4x budget)" in text and "## Train x test (hard set)" in text


def section(text, title):
    return text.partition(f"## {title}")[2].partition("\n## ")[0]


def test_what_a_run_cannot_have_is_said_with_the_reason(tmp_path):
    root = write(tmp_path / "x", ["guess_check", "mcts"], [0, 1])
    names = {run.arm: [] for run in load(root).runs}
    for run in load(root).runs:
        names[run.arm].append(run.folder.name)
    why = "task=mine has no step oracle; nearest: beam:monte_carlo"
    left = [[name, "beam", "oracle", why] for name in names["guess_check"]]
    left += [[names["mcts"][1], "rebase", "judge", "nobody to ask"], ["stranger-s0-1", "dvts", "oracle", why]]
    left += [[names["mcts"][0], "beam", "learned", "it could not at first"]]  # and has rows since
    meta = root / "testtime" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "left_out": left}))
    report = assemble(load(root), 0.02)
    (found,) = report.testtime
    assert [(each.label, each.arm, each.seeds, each.reason) for each in found.without] == [
        ("beam search, oracle", "guess_check", (0, 1), why),
        ("REBASE, judge", "mcts", (1,), "nobody to ask"),
    ]
    text = section(to_markdown(report), "Test-time methods left out")
    assert why in text and "REBASE, judge" in text and "beam search, learned" not in text
    page = to_html(report, [])
    assert why in page.partition('<section id="testtime">')[2].partition("</section>")[0]
    # nothing to say, nothing said
    meta.write_text(json.dumps({"version": 1, "revision": "abc"}))
    assert "left out" not in to_markdown(assemble(load(root), 0.02))


def test_an_asked_length_is_a_curve_and_a_table_of_its_own(tmp_path):
    methods = [METHODS[0], ("length_prompt:ask", None, False, 1, 3, 0.0, 0.0)]
    report = assemble(load(write(tmp_path / "x", ["guess_check"], [0, 1], methods=methods)), 0.02)
    (base,) = report.testtime[0].arms
    (curve,) = [each for each in base.curves if each.method.startswith("length_prompt")]
    assert curve.label == f"asked: {PROMPT}" and [each.asked for each in curve.followed] == [16, 32, 64]
    assert all(vars(each) == {"asked": each.asked, **FOLLOWED} for each in curve.followed)
    text = section(to_markdown(report), "Asked for a length").replace("\\|", "|")
    assert PROMPT in text and "24 (1.50x)" in text and "25.0" in text and "90.0" in text


def test_files_of_another_version_are_refused_and_broken_ones_left_out_by_name(tmp_path):
    root = write(tmp_path / "x", ["guess_check"], [0, 1, 2], methods=METHODS[:2])
    runs = [run.folder.name for run in load(root).runs]
    columns = natural(0)
    del columns["ended"]
    write_natural(root, runs[0], columns)
    write_natural(root, "stranger-s0-1", natural(0))
    write_testtime(root, runs[1], 1, methods=METHODS[:1], drop=["stratum", "flops"])
    (root / "testtime" / f"{runs[2]}.parquet").write_bytes(b"no parquet")
    report = assemble(load(root), 0.02)
    left = dict(report.left_out)
    assert left[f"testtime/{runs[0]}-natural.parquet"] == "has no column ended"
    assert left["testtime/stranger-s0-1-natural.parquet"] == "its run is no part of this report"
    assert left[f"testtime/{runs[1]}.parquet"] == "has no column stratum, flops"
    assert left[f"testtime/{runs[2]}.parquet"].startswith("cannot be read")
    assert report.testtime[0].arms[0].seeds == (0,) and not report.length
    points = root / "testtime" / "points.jsonl"
    points.write_text(json.dumps({"run": runs[0], "method": "majority"}) + "\n")
    with pytest.raises(UserError, match=r"points\.jsonl, line 1: no 'guide'"):
        read(load(root))
    write_meta(root, version=2)
    with pytest.raises(UserError, match="version 2, and this report reads version 1") as error:
        read(load(root))
    assert "testtime/meta.json" in str(error.value) and "\n" not in str(error.value)
