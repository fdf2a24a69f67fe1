"""The Markdown says what the page says: the same sentences, the same tables."""

import pytest
from synthetic_results import write_arms, write_run

from ablate.report.assemble import assemble
from ablate.report.loading import load
from ablate.report.markdown import WIDE, to_markdown
from ablate.report.tables import tables
from ablate.report.wording import sentences


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "suspects"
    arms = {"guess_check": 0.5, "process_rewards": 0.55, "mcts": 0.45, "mcts_uniform": 0.3}
    write_arms(root, arms, range(3))
    write_run(root, "mcts", 9, (0.3,) * 4, finish=False)
    return assemble(load(root), 0.02)


def test_the_order_is_verdict_design_numbers_then_how_to_repeat_it(report):
    text = to_markdown(report)
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    shown = [table.title for table in tables(report) if table.key not in WIDE]
    assert titles == ["The design", *shown, "Notes", "How to reproduce it"]
    assert text.startswith("# suspects: is it needed?")
    for line in sentences(report):
        assert line.partition(" on top")[2] in text.partition("## The design")[0]
    assert "left out: mcts-s9-9-1e+12: not finished" in text


def test_every_row_of_every_table_is_there(report):
    text = to_markdown(report)
    for table in tables(report):
        if table.key in WIDE:
            continue
        for row in table.rows:
            cells = [cell.replace("|", "\\|") for cell in row]
            assert any(
                [cell.strip() for cell in line.strip("|").split(" | ")] == cells
                for line in text.splitlines()
                if line.startswith("|")
            ), row
        assert all(note in text for note in table.notes)


def test_what_was_not_run_has_no_heading(tmp_path):
    write_arms(tmp_path / "one", {"mcts": 0.5}, range(2))
    text = to_markdown(assemble(load(tmp_path / "one"), 0.02))
    assert "No verdict: no suspect ran" in text
    assert "Effects" not in text and "ladder" not in text and "Controls" not in text


def test_commands_stand_in_a_block(report):
    block = to_markdown(report).rpartition("```bash\n")[2]
    assert block.splitlines() == [
        "python -m ablate -m strategy=guess_check,mcts,mcts_uniform,process_rewards seed=0,1,2",
        "python -m ablate.report results/suspects",
        "```",
    ]
