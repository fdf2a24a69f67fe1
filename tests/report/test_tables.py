"""Tables of arms and of claims."""

import pytest
from synthetic_results import curve, write_arms, write_run

from ablate.report.assemble import assemble
from ablate.report.loading import load
from ablate.report.tables import tables


def told(root, **options):
    return {table.key: table for table in tables(assemble(load(root), 0.02, **options))}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "arms"
    return write_arms(root, {"guess_check": 0.5, "process_rewards": 0.65, "mcts": 0.3}, range(4))


def test_every_row_has_its_heads_columns_and_a_name(root):
    for table in told(root).values():
        assert table.rows and table.title
        assert {len(row) for row in table.rows} == {len(table.head)}
        assert all(row[0] for row in table.rows)


def test_claims_and_how_sure_they_are(root):
    found = told(root)
    process, search = found["claims"].rows
    assert process[0] == "Process rewards on guess + check"
    assert process[2] == "helps (needed not tested: no base run at 4x the budget)"
    assert process[4] == "–" and process[5] == "more than 1x"
    assert search[2] == (
        "harmful (mcts learned on none of 4 seeds; that it does on up to 53 % of seeds is not excluded; "
        "sensitivity to search not shown)"
    )
    assert search[5].startswith("less than 0.25x")
    assert [row[0] for row in found["certainty"].rows] == [process[0], search[0]]
    (note,) = found["accounts"].notes
    assert note.startswith("Not tested at equal logical FLOPs and updates: whether a suspect is “needed”")


def test_needed_on_other_accounts_is_told_where_it_was_tested(root):
    for seed in range(4):
        write_run(root, "guess_check", seed, curve(0.55), budget=4e12)
    found = told(root)["accounts"]
    assert found.notes == ()
    assert all("needed, at" in cell for cell in found.rows[0][2:])


def test_one_seed_leaves_nothing_to_be_sure_of(tmp_path):
    found = told(write_arms(tmp_path / "arms", {"guess_check": 0.5, "mcts": 0.6}, [0]))
    assert "certainty" not in found and found["claims"].rows[0][2].startswith("no verdict (one seed")


def test_settings_of_scorers_that_nobody_asks_are_left_out(tmp_path):
    for name, scorer in (("process_rewards", "monte_carlo"), ("process_learned", "learned")):
        settings = {
            "strategy.credit.scorer": scorer,
            "strategy.credit.learned": {"lr": 0.001},
            "strategy.credit.monte_carlo": {"rollouts": 3},
            "strategy.credit.outcome": {"scale": "std" if scorer == "learned" else "none"},
        }
        for seed in range(2):
            write_run(tmp_path / "arms", name, seed, curve(0.5), **settings)
    write_arms(tmp_path / "arms", {"guess_check": 0.5}, range(2))
    found = told(tmp_path / "arms")["settings"]
    assert found.head == ("setting", "guess_check", "process_learned", "process_rewards")
    rows = {row[0]: row[1:] for row in found.rows}
    assert rows["credit.scorer"] == ("monte_carlo", "learned", "monte_carlo")
    assert rows["credit.learned.lr"] == ("–", "0.001", "–")
    assert rows["credit.monte_carlo.rollouts"] == ("–", "–", "3")
    assert rows["credit.outcome.scale"] == ("–", "std", "none")
