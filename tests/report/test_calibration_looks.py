"""Sequential experiments whose truth is known. The table: python -m ablate.report.calibration looks=4,8,12"""

from dataclasses import replace

import numpy as np
import pytest

from ablate.report.calibration.__main__ import main
from ablate.report.calibration.fixed import EXPERIMENTS
from ablate.report.calibration.sequential import simulate, table
from ablate.report.calibration.world import World
from ablate.report.looks import SPENDINGS, Looks
from ablate.report.statistics import half_width

NOISE = 3 * np.sqrt(0.05 * 0.95 / EXPERIMENTS)  # three Monte Carlo standard errors
# of results/arms, whose arms waver three times as much: python -m ablate.report.calibration results/arms
ARMS = replace(World(), seed=0.0444, problem=0.0024, rest=0.0057)


@pytest.mark.parametrize("world", [World(), ARMS], ids=["the default task", "results/arms"])
def test_looks_keep_the_false_verdict_rates_of_the_fixed_design(world):
    fixed, *rows = table(world, [Looks((4, 8, 12), spending) for spending in SPENDINGS])
    assert fixed.looks.at == (12,) and fixed.seeds_null == fixed.seeds_helps == 12
    for row in (fixed, *rows):
        assert row.false_null <= 0.05 + NOISE, row
        assert row.false_margin <= 0.05 + NOISE, row
        assert row.stopped_null <= row.false_null and row.stopped_margin <= row.false_margin, row


@pytest.mark.parametrize(
    "world",
    [World(problem=0.0), World(problem=0.02), World(tails=4.0), World(uneven=3.0)],
    ids=["seeds alone", "problems above all", "heavy tails", "an arm that wavers"],
)
def test_false_verdicts_stay_rare_in_other_worlds(world):
    noise = 3 * np.sqrt(0.05 * 0.95 / 1000)
    for row in table(world, [Looks((3, 5, 8), spending) for spending in SPENDINGS], experiments=1000):
        assert max(row.false_null, row.false_margin) <= 0.05 + noise, row


def test_looking_saves_seeds_where_the_effect_is_clear():
    fixed, row, _ = table(World(), [Looks((4, 8, 12), spending) for spending in SPENDINGS], experiments=1000)
    assert row.seeds_helps < 9.5 and row.power_helps > 0.95
    assert row.power_null > fixed.power_null - 0.05


def test_looking_without_paying_for_it_would_not_do():
    """Three looks, each with the intervals of a fixed design."""
    drawn = simulate(World(), (4, 8, 12), 1000, np.random.default_rng(5))
    outside = [np.abs(e) > half_width(a, c, seeds, 236, 3) for seeds, (e, a, c) in drawn.items()]
    assert np.any(outside, axis=0).any(1).mean() > 0.07


def test_looks_are_as_correlated_as_is_assumed():
    """Cov(l, m) = Var(m), the problems' part included: information is not proportional to the seeds."""
    world = World(problem=0.012)
    drawn = simulate(world, (4, 12), 1000, np.random.default_rng(6))
    early, late = (drawn[seeds][0].ravel() for seeds in (4, 12))
    parts = {seeds: sum(world.components.parts(seeds)) for seeds in (4, 12)}
    assert early.var() == pytest.approx(parts[4], rel=0.1)
    assert late.var() == pytest.approx(parts[12], rel=0.1)
    assert np.cov(early, late)[0, 1] == pytest.approx(parts[12], rel=0.15)
    assert parts[12] > 1.5 * parts[4] / 3


def test_the_command_takes_looks(capsys, monkeypatch):
    from ablate.report.calibration import sequential

    monkeypatch.setattr(sequential, "EXPERIMENTS", 100)
    assert main(["looks=2,3"]) == 0
    out = capsys.readouterr().out
    assert "| 2, 3 | obrien fleming |" in out and "| 2, 3 | pocock |" in out and "| 3 | - |" in out
    assert main(["looks=3,2"]) == 2
    assert "do not grow; did you mean 2,3?" in capsys.readouterr().err
