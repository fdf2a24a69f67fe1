"""The instrument, on thousands of experiments whose truth is known. The table: python -m
ablate.report.calibration"""

import numpy as np
import pytest

from ablate.report.calibration import rare
from ablate.report.calibration.__main__ import main
from ablate.report.calibration.fixed import EXPERIMENTS, table, to_text
from ablate.report.calibration.world import World, measured
from ablate.report.loading import load
from ablate.report.statistics import half_width, two_way

NOISE = 3 * np.sqrt(0.05 * 0.95 / EXPERIMENTS)  # three Monte Carlo standard errors


@pytest.fixture(scope="module")
def rows():
    return {row.seeds: row for row in table(World())}


def test_false_verdicts_are_as_rare_as_promised(rows):
    for row in rows.values():
        assert row.false_null <= 0.05 + NOISE, row
        assert row.false_margin <= 0.05 + NOISE, row


def test_intervals_cover_as_often_as_promised_and_hardly_more(rows):
    for seeds, row in rows.items():
        for covered in (row.covered, row.covered_alone):
            assert covered >= 0.93 or seeds < 4, row
            assert covered <= 0.97 + NOISE or seeds < 8, row


def test_not_knowing_the_variances_costs_little_width(rows):
    for seeds in (8, 12, 16):
        assert max(rows[seeds].width, rows[seeds].width_alone) <= 1.2


def test_power_is_as_predicted(rows):
    for row in rows.values():
        for predicted, simulated in (row.power_null, row.power_helps):
            assert simulated == pytest.approx(predicted, abs=0.05), row


@pytest.mark.parametrize(
    "world",
    [World(problem=0.0), World(seed=0.0), World(problem=0.02), World(tails=4.0), World(uneven=3.0)],
    ids=["seeds alone", "no seeds", "problems above all", "heavy tails", "an arm that wavers"],
)
def test_false_verdicts_stay_rare_in_other_worlds(world):
    noise = 3 * np.sqrt(0.05 * 0.95 / 1000)
    for row in table(world, (3, 8), experiments=1000):
        assert max(row.false_null, row.false_margin) <= 0.05 + noise, row


def test_where_training_works_on_some_seeds_only_few_seeds_do_not_do():
    """The known limit that the report warns of (`ablate.report.learned`)."""
    found = {(share, seeds): covered for share, seeds, covered, _ in rare.table(World(), 1000)}
    assert found[0.1, 4] < 0.5 and found[0.9, 4] < 0.5
    assert found[0.5, 8] > 0.93 and found[0.25, 16] > 0.9


def test_variances_that_were_pooled_over_arms_would_not_do():
    """Why every contrast has its own: where one arm wavers, a common variance is too small for it."""
    from ablate.report.calibration.fixed import simulate

    world = World(problem=0.0, rest=0.001, uneven=3.0)
    error, a, c = simulate(world, 8, 2000, np.random.default_rng(3))
    pooled = np.broadcast_to(a.mean(1, keepdims=True), a.shape)
    outside = {
        name: np.mean(np.abs(error[:, -1]) > half_width(part, c, 22 if name == "pooled" else 8, 236)[:, -1])
        for name, part in (("own", a), ("pooled", pooled))
    }
    assert outside["own"] < 0.065 and outside["pooled"] > 0.1


def test_satterthwaites_degrees_of_freedom_would_not_do():
    """Why parts are weighed before they are counted."""
    from ablate.report.calibration.fixed import simulate
    from ablate.report.statistics import critical

    error, a, c = simulate(World(), 4, 2000, np.random.default_rng(4))
    df = (a + c) ** 2 / (a**2 / 3 + c**2 / 235)
    plain = critical(df, 3) * np.sqrt(a + c)
    assert (np.abs(error) > plain).any(1).mean() > 0.07
    assert (np.abs(error) > half_width(a, c, 4, 236, 3)).any(1).mean() < 0.05


def test_the_table_says_what_it_measured(rows):
    text = to_text(World(), list(rows.values()))
    assert "4,000 simulated experiments" in text and "| 16 |" in text
    assert two_way(np.ones((2, 3, 4)), np.ones(4))[0].tolist() == [1.0, 1.0]


def test_components_come_from_an_experiment_if_one_is_given(tmp_path, capsys, monkeypatch):
    from synthetic_results import write_arms

    from ablate.report.calibration import fixed

    folder = write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.5}, range(4), wobble=0.05)
    assert load(folder).arms == ["guess_check", "mcts"]
    world = measured(folder)
    assert 0.01 < world.seed < 0.2 and sum(world.sizes) == 120
    monkeypatch.setattr(fixed, "SEEDS", (4,))
    assert main([str(tmp_path)]) == 2
    assert "experiments in it: arms" in capsys.readouterr().err
