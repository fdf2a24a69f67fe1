"""Length and accuracy, on answers whose truth is known."""

import numpy as np
import pytest
from synthetic_results import curve, write_run
from synthetic_testtime import natural, write_natural

from ablate.report.answers import length
from ablate.report.answers.readings import BOTH, PROBLEMS, Cells, reading
from ablate.report.assemble import assemble
from ablate.report.loading import load


def slopes(draw, seeds=3, **truth):
    """(pooled, within) of a drawn experiment."""
    answers = [natural(seed, problems=60, draw=draw, **truth) for seed in range(seeds)]
    cells, tokens, ended, right = length.table(answers)
    kept = cells.among(ended)
    pooled = length.pooled_curve(kept, tokens[ended], right[ended])[1]
    return pooled, length.within_curve(kept, tokens[ended], right[ended])[1]


def clear(found):
    return found.interval[0] > 0 or found.interval[1] < 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_where_length_does_nothing_the_pooled_slope_misleads_and_the_one_within_problems_does_not(seeds):
    """Simpson's paradox: hard problems have long answers and are rarely solved."""
    found = [slopes(draw, seeds) for draw in range(300)]
    assert np.mean([clear(pooled) and pooled.value < 0 for pooled, _ in found]) > 0.95
    wrong = np.mean([clear(within) for _, within in found])
    assert 0.015 < wrong < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert abs(np.mean([within.value for _, within in found])) < 0.005
    assert found[0][1].over == (BOTH if seeds > 1 else PROBLEMS)


def test_where_length_matters_both_see_it_and_the_size_is_right():
    found = [slopes(draw, confounded=0.0, effect=0.15) for draw in range(60)]
    for pair in zip(*found, strict=True):
        assert np.mean([clear(each) for each in pair]) > 0.9
        assert np.mean([each.value for each in pair]) == pytest.approx(0.15, abs=0.01)
    hidden = [slopes(draw, confounded=0.25, effect=0.15) for draw in range(60)]
    assert np.mean([within.value for _, within in hidden]) == pytest.approx(0.15, abs=0.01)
    assert np.mean([pooled.value for pooled, _ in hidden]) < 0.0  # even its sign is wrong


def test_a_slope_and_its_error_are_those_of_a_regression_with_clustered_errors():
    """With one seed, against the textbook's matrices."""
    rng = np.random.default_rng(3)
    problem = np.repeat(np.arange(40), 6)
    clusters = np.arange(40) % 13
    x, y = rng.normal(size=240) + problem / 20, rng.normal(size=240)
    cells = Cells(np.zeros(240, int), problem, clusters, 1)
    found = cells.slope(cells.within(x), cells.within(y))
    dummies = np.eye(40)[problem]
    design = np.column_stack([x, dummies])
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    assert found.value == pytest.approx(beta[0])
    residual, bread = y - design @ beta, np.linalg.inv(design.T @ design)
    meat = sum(
        np.outer(s, s)
        for k in range(13)
        for s in [design[clusters[problem] == k].T @ residual[clusters[problem] == k]]
    )
    error = np.sqrt((bread @ meat @ bread)[0, 0] * 13 / 12)
    from scipy import stats

    assert found.interval[1] - found.value == pytest.approx(stats.t.ppf(0.975, 12) * error)


def test_small_buckets_are_merged_or_blank_and_nothing_is_lost():
    x = np.concatenate([np.full(150, 3.1), np.full(30, 3.6), np.full(80, 4.1), np.full(20, 5.2)])
    ranges = length.merged(x, np.arange(3.0, 6.0, 0.5))
    counts = [int(((x >= low) & (x < high)).sum()) for low, high in ranges]
    assert counts == [150, 130] and ranges[0][1] == ranges[1][0] == 3.5
    cells = Cells(np.zeros(50, int), np.arange(50) % 10, np.arange(10), 1)
    buckets, _ = length.pooled_curve(cells, np.full(50, 20), np.ones(50))
    assert [(bucket.samples, bucket.accuracy) for bucket in buckets] == [(50, None)]
    few = Cells(np.zeros(9, int), np.array([0, 0, 0, 0, 1, 1, 1, 2, 2]), np.arange(3), 1)
    tokens = np.arange(10, 19)
    _, slope, left_out = length.within_curve(few, tokens, np.arange(9) % 2.0)
    alone = Cells(np.zeros(4, int), np.zeros(4, int), np.arange(3), 1)
    assert left_out == pytest.approx(2 / 3)
    assert slope.value == length.within_curve(alone, tokens[:4], np.arange(4) % 2.0)[1].value


def test_the_cap_curve_counts_what_ended_right_within_it():
    answers = [natural(seed, draw=1, cap=100) for seed in (0, 1)]
    clusters, solved = length.by_cap(answers, [20, 48, 96])
    for cap, found in zip((20, 48, 96), solved, strict=True):
        for seed, each in enumerate(answers):
            right = each["right"] & each["ended"] & (each["tokens"] <= cap)
            assert found[seed].mean() == pytest.approx(right.mean())
    assert len(clusters) == 120 and (solved[0] <= solved[1]).all()
    caps = length.caps_up_to(400, 96)
    assert {24, 48, 96, 192, 384, 400} <= set(caps) and max(caps) == 400 and caps == sorted(set(caps))
    assert reading(np.ones((1, 3)), np.zeros(3)).interval is None  # a single cluster


def test_the_report_takes_caps_from_evaluations_where_there_are_no_natural_samples(tmp_path):
    for seed in (0, 1):
        run = write_run(tmp_path, "guess_check", seed, curve(0.5))
        other = write_run(tmp_path, "mcts", seed, curve(0.5))
        for step in (0, 100):
            widen(other, step, 2.0 if step else 1.5)
        write_natural(tmp_path, run.name, natural(seed, effect=0.1))
    base, mcts = assemble(load(tmp_path), 0.02).length
    assert (base.arm, base.source, base.seeds) == ("guess_check", "natural samples", (0, 1))
    assert base.pooled and base.within_slope.over == BOTH
    assert (mcts.source, mcts.pooled, mcts.pooled_slope) == ("evaluation", (), None)
    assert (mcts.cap, mcts.longest) == (96, 192) and mcts.start[-1].tokens == 144
    by_cap = {point.tokens: point.accuracy.value for point in mcts.caps}
    assert mcts.beyond.value == pytest.approx(by_cap[192] - by_cap[96]) and mcts.beyond.value > 0
    assert mcts.beyond.interval[0] < mcts.beyond.value < mcts.beyond.interval[1]


def test_other_draws_of_a_seed_are_no_seed(tmp_path):
    for seed, sampling in ((0, None), (1, None), (1, 1001)):
        widen(write_run(tmp_path, "guess_check", seed, curve(0.5), sampling_seed=sampling), 100, 2.0)
    (base,) = assemble(load(tmp_path), 0.02).length
    assert base.seeds == (0, 1) and base.beyond.seeds == 2


def widen(run, step, factor):
    """Give an evaluation the columns of a decode beyond the cap."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run / "evaluations" / f"{step:06d}.parquet"
    table = pq.read_table(path)
    decoded = np.random.default_rng(step).integers(10, int(96 * factor), table.num_rows)
    decoded[0] = int(96 * factor)
    table = table.append_column("decoded", pa.array(decoded))
    table = table.append_column("ended", pa.array(np.ones(len(decoded), bool)))
    pq.write_table(table.append_column("right", pa.array(decoded % 2 == 0)), path)
