"""Sequential looks: boundaries against published ones, and what a report says at a look and between looks."""

import json

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from synthetic_results import curve, write_arms, write_run

from ablate.report.__main__ import main
from ablate.report.looks import Looks, boundaries, parse
from ablate.types import UserError

ARMS = {"guess_check": 0.5, "process_rewards": 0.5, "mcts": 0.65}


def test_boundaries_are_the_published_ones():
    """Jennison & Turnbull (2000), Lan & DeMets' spending of Pocock's type, five equal steps, alpha .05."""
    times = np.arange(1, 6) / 5
    looks = Looks((2, 4, 6, 8, 10), "pocock")
    found = boundaries(times, [looks.spent(i) for i in range(1, 6)])
    assert found == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=0.001)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
def test_boundaries_spend_what_they_should(spending):
    """Against the multivariate normal's own integral."""
    looks = Looks((3, 8, 12), spending)
    z = [norm.ppf(0.5 + 0.5 * looks.confidence(i, 3)) for i in (1, 2, 3)]
    times = np.array(looks.at) / 12
    correlation = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    for n in (1, 2, 3):
        own = multivariate_normal(np.zeros(n), correlation[:n, :n])
        inside = own.cdf(z[:n], lower_limit=-np.array(z[:n]), rng=np.random.default_rng(0))
        assert 1 - inside == pytest.approx(looks.spent(n, 3), abs=2e-5)
    assert looks.spent(3, 3) == pytest.approx(1 - 0.95 ** (1 / 3)) and looks.spent(3) == pytest.approx(0.05)
    assert Looks((7,), spending).confidence(1, 3) == pytest.approx(0.95 ** (1 / 3))  # a fixed design


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "suspects"
    looks = {"looks": {"at": [4, 6, 8], "spending": "pocock"}}
    return write_arms(root, ARMS, range(7), wobble=0.003, **looks)


def test_a_look_has_its_interval_and_says_what_is_saved(folder, capsys):
    assert main([str(folder), "margin=0.1", "seeds=0,1,2,3,4,5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Look 2 of 3 looks at 4, 6 and 8 seeds, spending pocock: up to here 4.")
    assert "Stop: every headline verdict is reached. The fixed design of 8 seeds would have" in out
    assert "taken 6 runs and 6e+12 FLOPs more" in out.replace("6e12", "6e+12") and "25 % of its" in out
    told = json.loads((folder / "verdict.json").read_text())
    assert told["look"]["number"] == 2 and told["look"]["stop"] and told["look"]["declared"]
    effect = told["claims"][0]["effect"]
    from ablate.report.loading import load
    from ablate.report.statistics import Components, Estimate

    values = effect["estimate"] | {"components": Components(**effect["estimate"]["components"])}
    estimate, looks = Estimate(**values), Looks((4, 6, 8), "pocock")
    assert effect["interval"] == pytest.approx(estimate.interval(2, looks.confidence(2, 2)))
    fixed = estimate.interval(2)
    assert effect["interval"][0] < fixed[0] and fixed[1] < effect["interval"][1]
    assert load(folder, frozenset({0, 1})).seeds == tuple(range(7))
    for page in ("report.md", "report.html"):
        assert "Look 2 of 3 looks" in (folder / page).read_text()


def test_only_the_runs_that_are_missing_are_saved(tmp_path, capsys):
    root = write_arms(tmp_path / "suspects", ARMS, range(6), wobble=0.003)
    write_arms(root, {"guess_check": ARMS["guess_check"]}, (6, 7), wobble=0.003)
    assert main([str(root), "margin=0.1", "looks=4,6,8", "spending=pocock"]) == 0
    assert f"would have taken {2 * (len(ARMS) - 1)} runs and 4e12 FLOPs more" in capsys.readouterr().out


def test_seeds_between_two_looks_give_no_verdict_and_say_why(folder, capsys):
    assert main([str(folder), "margin=0.1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "No look, so no verdict: 7 seeds in every headline comparison; declared are 3 looks at 4, 6 and 8 "
        "seeds, spending pocock. That of 6 can be read again with seeds=.\n"
    )
    assert out.count("no verdict (7 paired seeds are no declared look (declared: 4, 6, 8)") == 2
    assert "helps" not in out and "not needed" not in out
    main([str(folder), "margin=0.1", "seeds=0,1,2,6"])  # picked, not the first four
    assert "its 4 seeds are not the first 4" in capsys.readouterr().out


def test_an_unfinished_look_goes_on_and_the_last_one_ends(tmp_path, capsys):
    root = write_arms(tmp_path / "wide", {"guess_check": 0.5, "mcts": 0.52}, range(6), wobble=0.05)
    assert main([str(root), "looks=4,6", "seeds=0,1,2,3"]) == 0
    out = capsys.readouterr().out
    assert (
        "Look 1 of 2 looks" in out and "Go on: not every headline verdict is reached; the next look is" in out
    )
    assert "The runs do not declare these looks" in out and "seeds would settle it" not in out
    assert main([str(root), "looks=4,6"]) == 0
    assert "This was the last look" in capsys.readouterr().out
    assert "looks=4,6 spending=obrien_fleming" in (root / "report.md").read_text()


@pytest.mark.parametrize(
    "words, answer",
    [
        (["looks=4,8"], "is not what the runs declare: looks=4,6,8 spending=pocock"),
        (["spending=obrien_fleming"], "is not what the runs declare"),
        (["looks=4,x"], "looks=4,x is no list of numbers of seeds"),
        (["looks=8,4"], "do not grow; did you mean 4,8?"),
        (["looks=1,4"], "the smallest valid value is 2"),
        (["looks=4,6,8", "spending=pococ"], "spending=pococ is not a choice; did you mean pocock?"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, words, answer, capsys):
    assert main([str(folder), *words]) == 2
    error = capsys.readouterr().err
    assert answer in error and error.count("\n") == 1


def test_runs_that_declare_different_looks_are_refused(tmp_path, capsys):
    for seed, at in enumerate(([2, 3], [2, 4])):
        for arm in ("guess_check", "mcts"):
            looks = {"looks": {"at": at, "spending": "pocock"}}
            write_run(tmp_path / "x", arm, seed, curve(0.5), **looks)
    assert main([str(tmp_path / "x")]) == 2
    assert "looks are declared once: looks=2,3 spending=pocock in" in capsys.readouterr().err


def test_a_config_declares_looks_and_they_do_not_change_the_run():
    from ablate.compose import compose
    from ablate.config import fingerprint

    plain, declared = compose(["experiment=smoke"]), compose(["experiment=smoke", "looks.at=[4,8]"])
    assert list(declared.looks.at) == [4, 8] and fingerprint(plain) == fingerprint(declared)
    with pytest.raises(UserError, match="do not grow; did you mean 4,8"):
        compose(["looks.at=[8,4]"])
    with pytest.raises(UserError, match="looks names no number"):
        Looks(())
    assert parse("4,8").spending == "obrien_fleming"
