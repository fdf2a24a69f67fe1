"""The planner's power is what simulated experiments have, and what the report's verdicts would have."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_results import write_arms

from ablate.plan.power import Pilot, assumed, doubt, pilot, planned, power
from ablate.report.calibration.fixed import simulate
from ablate.report.calibration.world import World
from ablate.report.statistics import (
    Components,
    chances,
    detectable,
    half_width,
    seeds_for,
    seeds_to_settle,
)
from ablate.types import UserError

MARGIN, FAMILY, EXPERIMENTS = 0.02, 3, 4000
ROLES = {
    "guess_check": "base",
    "mcts": "suspect",
    "process_rewards": "suspect",
    "learn_to_correct": "suspect",
}
SEEDS = {name: range(8) for name in ROLES}


def simulated(world, seeds, effect):
    """Shares of "helps" and of "not needed" among simulated experiments with this true effect."""
    error, a, c = simulate(world, seeds, EXPERIMENTS, np.random.default_rng(seeds), FAMILY)
    half = half_width(a, c, seeds, len(world.sizes), FAMILY)
    low, high = effect + error - half, effect + error + half
    return ((low > 0) & (high >= MARGIN)).mean(), ((high < MARGIN) & (high >= 0)).mean()


@pytest.mark.parametrize("world", [World(), World(problem=0.008, seed=0.03)], ids=["default", "wavering"])
@pytest.mark.parametrize("seeds", [3, 8, 16])
def test_power_agrees_with_simulation_within_five_points(world, seeds):
    problems = sum(world.sizes)
    source = replace(assumed(), others=world.components, problems=problems)
    own = {name: range(seeds) for name in ROLES}
    for contrast in power(own, ROLES, source, MARGIN, problems, 8, len(world.sizes))[:FAMILY]:
        assert contrast.family == FAMILY and contrast.seeds == seeds
        assert simulated(world, seeds, contrast.smallest)[0] == pytest.approx(0.8, abs=0.05)
        assert simulated(world, seeds, 0.0)[1] == pytest.approx(contrast.not_needed, abs=0.05)


def test_the_seeds_that_it_asks_for_have_the_power():
    world = World()
    first = power(SEEDS, ROLES, assumed(), MARGIN, sum(world.sizes), 8, len(world.sizes))[0]
    assert simulated(world, first.seeds_not_needed, 0.0)[1] == pytest.approx(0.8, abs=0.05)
    assert simulated(world, first.seeds_margin, MARGIN)[0] == pytest.approx(0.8, abs=0.05)


COMPONENTS = Components(0.0155**2, 0.003**2, 0.006**2, 200)


def test_they_are_the_smallest():
    for word, effect in (("not needed", 0.0), ("helps", MARGIN)):
        seeds = seeds_for(word, effect, MARGIN, COMPONENTS, 3)
        reached = [chances(effect, MARGIN, COMPONENTS, count, 3)[word] for count in (seeds - 1, seeds)]
        assert reached[0] < 0.8 <= reached[1]
    # without an effect, some verdict is nearly always "not needed"
    assert seeds_for("not needed", 0.0, MARGIN, COMPONENTS) - seeds_to_settle(0.0, MARGIN, COMPONENTS) in (
        0,
        1,
    )
    effect = detectable(MARGIN, COMPONENTS, 8)
    assert chances(effect, MARGIN, COMPONENTS, 8)["helps"] == pytest.approx(0.8, abs=0.001)
    assert detectable(MARGIN, COMPONENTS, 16) < effect < detectable(MARGIN, COMPONENTS, 4)


def test_too_noisy_for_anything():
    noisy = Components(3.0, 3.0, 3.0, 20)
    assert detectable(MARGIN, noisy, 4) is None
    assert seeds_for("helps", MARGIN, MARGIN, noisy) is None


def test_one_seed_has_no_power():
    for contrast in power({name: [0] for name in ROLES}, ROLES, assumed(), MARGIN, 1262, 8, 236):
        assert contrast.smallest is None and contrast.not_needed is None
        assert contrast.seeds_not_needed > 2 and contrast.seeds_margin > 2


def test_more_problems_and_samples_shrink_their_own_parts():
    source = Pilot("pilot", {}, COMPONENTS, 1000, 8, 4)
    same = planned(COMPONENTS, source, 1000, 8, 200)
    assert same == COMPONENTS
    more = planned(COMPONENTS, source, 2000, 16, 400)
    assert more.seed == COMPONENTS.seed and more.clusters == 400
    assert more.problem == pytest.approx(COMPONENTS.problem / 2)
    assert more.rest == pytest.approx(COMPONENTS.rest / 4)


def test_a_pilot_gives_each_contrast_its_own_variance_or_the_mean(tmp_path):
    ends = {"guess_check": 0.5, "mcts": 0.5}
    folder = write_arms(tmp_path / "pilot", ends, range(5), wobble=0.05)
    found = pilot(folder)
    assert found.seeds == 5 and found.problems == 120 and found.samples == 4
    contrasts = {
        each.arm: each for each in power(SEEDS, ROLES, found, MARGIN, 120, 4, 30) if each.on[0] == "g"
    }
    assert contrasts["mcts"].source == str(folder)
    assert contrasts["process_rewards"].source == f"{folder}, mean of its contrasts"
    assert contrasts["mcts"].seed ** 2 == found.own[(1, 0, 0), (0, 0, 0)].seed > 0.02**2
    named = {"sample+none+outcome": range(4), "tree+none+outcome": range(4)}
    roles = {"sample+none+outcome": "base", "tree+none+outcome": "suspect"}
    assert power(named, roles, found, MARGIN, 120, 4, 30)[0].source == str(folder)  # the same arms
    with pytest.raises(UserError, match="no two arms with two seeds in common"):
        pilot(write_arms(tmp_path / "alone", {"guess_check": 0.5}, range(2)))


def test_a_standard_deviation_of_few_seeds_is_doubtful():
    from scipy import stats

    low, high = doubt(3)
    assert low == pytest.approx((2 / stats.chi2.ppf(0.975, 2)) ** 0.5)
    assert high == pytest.approx((2 / stats.chi2.ppf(0.025, 2)) ** 0.5)
    assert doubt(100)[0] > 0.85 and doubt(100)[1] < 1.2
