"""A run's figures, drawn from its record alone."""

import json
from xml.etree import ElementTree

from ablate.figures import draw


def test_figures_show_what_the_record_holds(tmp_path):
    evaluations = [
        {
            "step": step,
            "budget/flops": 1e9 * step,
            "heldout/pass@1": 0.3 + step / 100,
            "heldout/pass@1_se": 0.01,
            "heldout/length": 40 + step,
            "heldout/truncated": step / 50,
        }
        for step in (0, 10, 20)
    ]
    steps = [
        {
            "step": step,
            "budget/flops": 1e9 * step,
            "train/solved": 0.3,
            "train/length": 40.0,
            "train/truncated": 0.1,
        }
        for step in range(1, 21)
    ]
    for name, rows in (("evaluations", evaluations), ("steps", steps)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    svg, png = draw(tmp_path, "an arm <b>, seed 0")
    assert png.read_bytes().startswith(b"\x89PNG")
    root = ElementTree.parse(svg).getroot()  # well formed, whatever the title holds
    assert root.tag.endswith("svg")
    again, _ = draw(tmp_path, "an arm <b>, seed 0")
    assert again == svg and sorted(p.name for p in svg.parent.iterdir()) == ["curves.png", "curves.svg"]
    before = svg.read_bytes()
    partly = [row | {"heldout/score": 0.5, "heldout/score_se": 0.01} for row in evaluations]
    (tmp_path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in partly))
    draw(tmp_path, "answers that are right in part")
    assert svg.read_bytes() != before
    (tmp_path / "steps.jsonl").write_text("")  # a run whose budget ended before its first step was written
    draw(tmp_path, "no steps")
