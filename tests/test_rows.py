"""Trajectories become rows token by token, and rows tensors, with nothing lost and nothing added."""

from dataclasses import replace

import pytest
import torch
from learning import make_groups

from ablate.rows import collate, micro_batches, rows_of
from ablate.types import Problem, Step, Trajectory


def test_rows_follow_steps_and_refuse_what_does_not_fit():
    problem = Problem("p7", "", tokens=(5, 6))
    steps = (Step((7, 8), (-1.0, -2.0), weight=0.5), Step((9,)), Step((10,), (-3.0,)))
    good = Trajectory(problem, steps, advantages=(2.0, 3.0, -1.0))
    (row,) = rows_of([[good]])
    assert (row.prompt, row.completion, row.mask) == ((5, 6), (7, 8, 9, 10), (True, True, False, True))
    assert row.logprobs == (-1.0, -2.0, 0.0, -3.0) and row.advantages == (1.0, 1.0, 3.0, -1.0)
    assert rows_of([[replace(good, steps=(Step((9,)),), advantages=(1.0,))]]) == []
    with pytest.raises(ValueError, match=r"group 1, trajectory 1 \(p7\): 2 advantages for 3 steps"):
        rows_of([[good], [good, replace(good, advantages=(1.0, 2.0))]])
    short = replace(good, steps=(Step((7, 8), (-1.0,)),), advantages=(1.0,))
    with pytest.raises(ValueError, match=r"group 0, trajectory 0 \(p7\): step 0 has 1 logprobs for 2 tokens"):
        rows_of([[short]])


def test_micro_batches_keep_every_row_and_stay_within_their_tokens():
    rows = rows_of(make_groups(count=12))
    for limit in (1, 30, 100, 10**6):
        chunks = micro_batches(rows, limit)
        flat = [row for chunk in chunks for row in chunk]
        assert sorted(map(hash, flat)) == sorted(map(hash, rows))
        assert [row.length for row in flat] == sorted(row.length for row in rows)
        assert all(len(chunk) == 1 or len(chunk) * chunk[-1].length <= limit for chunk in chunks)


def test_padding_is_on_the_right_and_takes_no_part():
    rows = rows_of(make_groups())
    batch = collate(rows, 0, 2.0, "cpu")
    shared, width = batch["prompt_ids"].shape[1], max(row.length for row in rows)
    whole = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    assert shared == min(len(row.prompt) + row.mask.index(True) for row in rows)
    assert whole.shape == (len(rows), width)
    for i, row in enumerate(rows):
        begin = len(row.prompt) - shared
        inside = slice(max(begin, 0), begin + len(row.completion))
        seen = max(-begin, 0)  # of the completion, what all rows' prompts hold already
        assert tuple(whole[i, : row.length].tolist()) == row.prompt + row.completion
        assert tuple(batch["tool_mask"][i, inside].bool().tolist()) == row.mask[seen:]
        assert batch["tool_mask"][i].sum() == sum(row.mask)
        assert batch["old_per_token_logps"][i, inside].tolist() == pytest.approx(row.logprobs[seen:])
        assert batch["advantages"][i, inside].tolist() == pytest.approx(
            [2 * a for a in row.advantages[seen:]]
        )
