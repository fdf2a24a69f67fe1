import pytest

from ablate.report import contrasts
from ablate.report.contrasts import CELLS

PLAIN = {"source": {"_target_": "a.Sample"}, "credit": {"_target_": "a.Outcome", "scorer": "monte_carlo"}}


def roles(*names):
    return {name: contrasts.role(name, PLAIN) for name in names}


def pairs(found):
    return [(each.suspect, *each.pair) for each in found]


def test_suspects_are_added_to_guess_and_check_and_to_the_essay():
    arms = roles("guess_check", "process_rewards", "mcts", "learn_to_correct", "essay", "full", "my_idea")
    on_base, on_essay = contrasts.families(arms)
    assert pairs(on_base) == [
        ("process", "process_rewards", "guess_check"),
        ("search", "mcts", "guess_check"),
        ("correct", "learn_to_correct", "guess_check"),
        ("my_idea", "my_idea", "guess_check"),
    ]
    assert pairs(on_essay) == [("full", "full", "essay")]


def test_names_of_a_sweep_over_the_axes_fill_the_same_cells():
    arms = roles(*(names[-1] for names in CELLS.values()))
    assert arms["tree+none+process"] == "combination" and arms["sample+none+outcome"] == "base"
    on_base, on_essay = contrasts.families(arms)
    assert {each.pair[1] for each in on_base} == {"sample+none+outcome"}
    assert pairs(on_essay) == [
        ("process", "sample+correct+process", "sample+correct+outcome"),
        ("search", "tree+correct+outcome", "sample+correct+outcome"),
        ("full", "tree+correct+process", "sample+correct+outcome"),
    ]
    assert contrasts.cells(arms)[1] == []


def test_what_is_privileged_or_outside_the_ranking_gets_no_verdict():
    oracle = {**PLAIN, "credit": {"_target_": "a.Process", "scorer": "oracle"}}
    turns = {**PLAIN, "credit": {"_target_": "strategies.score.Turns"}}
    assert contrasts.role("process_rewards", oracle) == "upper bound"
    assert contrasts.role("score", turns) == "outside"
    arms = {**roles("guess_check", "rejection_sft", "mcts_uniform"), "process_rewards": "upper bound"}
    assert arms["rejection_sft"] == "floor"
    assert contrasts.families(arms) == [[], []]


def made(source="Sample", recovery="NoRecovery", credit="Outcome", **settings):
    axes = {"source": source, "recovery": recovery, "credit": credit}
    strategy = {axis: {"_target_": f"strategies.x.{name}"} for axis, name in axes.items()}
    strategy["credit"] |= settings
    return strategy


def test_parts_of_a_strategy():
    assert contrasts.parts(made()) == ()
    assert contrasts.parts(made("Tree", "Correct", "Process")) == ("search", "correct", "process")
    assert contrasts.parts(made(recovery="SecondTurn")) == ("correct",)


@pytest.mark.parametrize(
    "strategy, scorer",
    [
        (made(credit="Process", scorer="learned"), "learned"),
        (made(credit="Process", scorer="monte_carlo", form="difference"), "monte_carlo"),
        (made(credit="Process", scorer="oracle", form="auto", until=1.0, shuffle=False), "oracle"),
        (made(credit="Process", scorer="oracle", form="difference"), None),  # naive, and wrong on purpose
        (made(credit="Process", scorer="learned", shuffle=True), None),
        (made(credit="Process", scorer="learned", until=0.3), None),
        (made(source="Tree", credit="Process", scorer="monte_carlo"), None),
        (made(source="Demonstrations", credit="Process", scorer="monte_carlo"), None),
        (made(scorer="monte_carlo"), None),
    ],
)
def test_rungs_of_the_ladder_differ_in_the_scorer_alone(strategy, scorer):
    assert contrasts.rung(strategy) == scorer


def test_other_scorers_widen_nobodys_interval():
    names = ("guess_check", "process_rewards", "process_learned", "process_judge", "mine")
    arms = roles(*names)
    ladder = names[1:4]
    assert pairs(contrasts.families(arms, ladder)[0]) == [
        ("process", "process_rewards", "guess_check"),
        ("mine", "mine", "guess_check"),
    ]
    # without process_rewards they stand for it
    del arms["process_rewards"]
    assert pairs(contrasts.families(arms, ladder)[0]) == [
        ("process_judge", "process_judge", "guess_check"),
        ("process_learned", "process_learned", "guess_check"),
        ("mine", "mine", "guess_check"),
    ]
    del arms["process_judge"]
    alone = contrasts.families(arms, ladder)[0][0]
    assert (alone.suspect, alone.title) == ("process", "Process rewards (process_learned)")


def test_placebos_are_compared_with_their_arm():
    arms = roles("mcts", "mcts_uniform", "learn_to_correct", "correct_resampled", "correct_always")
    assert pairs(contrasts.placebos(arms)) == [
        ("search", "mcts", "mcts_uniform"),
        ("correct", "learn_to_correct", "correct_resampled"),
        ("correct", "learn_to_correct", "correct_always"),
    ]
    assert contrasts.placebos(roles("mcts_uniform", "guess_check")) == []


def test_effects_of_the_factorial():
    grid = contrasts.cells(roles(*(names[0] for names in CELLS.values())))[0]
    # additive but for one interaction
    truth = {grid[s, c, p]: 0.3 + 0.01 * s + 0.02 * c + 0.04 * p + 0.08 * s * p for s, c, p in CELLS}
    found = {
        each.suspect: sum(weight * truth[arm] for arm, weight in each.weights)
        for each in contrasts.main_effects(grid) + contrasts.interactions(grid)
    }
    assert found == pytest.approx(
        {
            "search": 0.01 + 0.04,
            "correct": 0.02,
            "process": 0.04 + 0.04,
            "search x process": 0.08,
            "search x correct": 0,
            "correct x process": 0,
        },
        abs=1e-12,
    )
    simple = contrasts.simple_effects(grid)
    assert len(simple) == 12
    by_pair = {each.pair: truth[each.pair[0]] - truth[each.pair[1]] for each in simple}
    assert by_pair["mcts", "guess_check"] == pytest.approx(0.01)
    assert by_pair["full", "full_minus_search"] == pytest.approx(0.09)


def test_a_missing_cell_is_named():
    grid, missing = contrasts.cells(roles("guess_check", "mcts", "process_rewards"))
    assert len(grid) == 3 and "full or tree+correct+process" in missing
    assert pairs(contrasts.simple_effects(grid)) == [
        ("search", "mcts", "guess_check"),
        ("process", "process_rewards", "guess_check"),
    ]
