"""The summary of a run, from the figures of its record."""

import json

from ablate.record import step_means
from ablate.summary import SCORER, to_text

FIGURES = {"pass@1": 0.04, "pass@1_se": 0.005, "length": 300.0, "truncated": 0.1, "kl_per_answer": 0.0}
SUMMARY = {
    "strategy": "guess_check",
    "seed": 3,
    "problems": 200,
    "samples": 8,
    "cap": 512,
    "steps": 40,
    "metric": "pass@1",
    "before": FIGURES,
    "after": FIGURES,
    "compute": {"rollout": {"flops": 1e9, "logical_flops": 1e9, "tokens": 100.0}},
    "alarms": [],
    "budget": {"spent": 1e9, "declared": 1e9, "unit": "flops"},
    "seconds": {"total": 10.0, "train": 8.0, "evaluate": 2.0},
    "totals": {"tokens": 100.0},
}


def test_a_score_that_is_not_the_share_of_solved_answers_stands_before_it():
    plain = to_text(SUMMARY)
    assert "links right" not in plain and "4.0 % ± 1.0" in plain
    score = {"score": 0.5, "score_se": 0.01, "score_easy": 0.7, "score_cap256": 0.25}
    text = to_text({**SUMMARY, "metric": "links right", "before": FIGURES | score, "after": FIGURES | score})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "50.0 % ± 2.0" in rows[1] and rows[1].startswith("| links right ")
    assert rows[2].startswith("| pass@1 ")
    assert "| links right, easy" in text and "| links right, cap 256" in text


def test_what_a_scorer_was_worth_is_the_mean_over_the_batches_that_say_so(tmp_path):
    rows = [
        {"step": 1, "train/scorer/prefixes": 10},
        {"step": 2, "train/scorer/prefixes": 30, "train/scorer/error": 0.2, "train/solved": 1.0},
        {"step": 3, "train/scorer/error": 0.4},
        {"step": 4, "train/scorer/error": None, "nonfinite": ["train/scorer/error"]},
    ]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = step_means(tmp_path, SCORER)
    assert list(found) == ["error", "prefixes"]
    assert abs(found["error"] - 0.3) < 1e-12 and found["prefixes"] == 20
