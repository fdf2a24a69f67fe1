"""Splits of a data set: by the problems' texts, once and for all."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.tasks.math import Math
from ablate.tasks.prose import text_key
from ablate.types import UserError


def rows(count, offset=0):
    return [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(offset, offset + count)]


def write(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in found))
    return path


def everything(task):
    return {s: [task.problem(0, s, i) for i in range(task.size(s))] for s in ("train", "tuning", "heldout")}


def apart(pools):
    clusters = [{problem.cluster for problem in pool} for pool in pools.values()]
    return sum(map(len, clusters)) == len(set().union(*clusters))


def test_one_file_is_split_by_text(tmp_path):
    task = Math(path=str(write(tmp_path / "own.jsonl", rows(400))), heldout_percent=20, tuning_percent=10)
    pools = everything(task)
    assert 55 <= len(pools["heldout"]) <= 105 and 20 <= len(pools["tuning"]) <= 60
    assert sum(map(len, pools.values())) == 400 and apart(pools)
    assert len({p.id for pool in pools.values() for p in pool}) == 400
    # another order of rows, other rows beside them: every problem stays where it is
    other = Math(
        path=str(write(tmp_path / "b.jsonl", rows(500)[::-1])), heldout_percent=20, tuning_percent=10
    )
    where = {p.id: split for split, pool in everything(other).items() for p in pool}
    assert all(where[p.id] == split for split, pool in pools.items() for p in pool)


def test_the_same_problem_is_in_one_split_and_one_cluster(tmp_path):
    found = rows(60)
    twice = [{**row, "question": f"  {row['question'].upper()}\n"} for row in found]
    task = Math(path=str(write(tmp_path / "own.jsonl", found + twice)))
    pools = everything(task)
    assert apart(pools) and sum(map(len, pools.values())) == 120
    for pool in pools.values():
        assert len({p.cluster for p in pool}) * 2 == len(pool) == len({p.id for p in pool})


def test_what_is_held_out_is_not_trained_on(tmp_path):
    write(tmp_path / "d" / "test.jsonl", rows(30))
    write(tmp_path / "d" / "train.jsonl", rows(200, offset=20))
    task = Math(path=str(tmp_path / "d"))
    pools = everything(task)
    assert len(pools["heldout"]) == 30 and task.left_out() == 10 and apart(pools)
    assert len(pools["train"]) + len(pools["tuning"]) == 190


def test_a_stream_is_a_pure_function(tmp_path):
    path = str(write(tmp_path / "own.jsonl", rows(200)))
    task, again = Math(path=path), Math(path=path)
    size = task.size("train")
    epoch = [task.problem(3, "train", i).id for i in range(2 * size)]
    assert epoch == [again.problem(3, "train", i).id for i in range(2 * size)]
    assert sorted(epoch[:size]) == sorted(epoch[size:]) and epoch[:size] != epoch[size:]
    other = [task.problem(4, "train", i).id for i in range(size)]
    assert sum(a == b for a, b in zip(other, epoch, strict=False)) < size / 10
    heldout = [task.problem(3, "heldout", i) for i in range(task.size("heldout"))]
    assert heldout == [again.problem(9, "heldout", i) for i in range(again.size("heldout"))]
    with pytest.raises(IndexError, match="there is no number"):
        task.problem(0, "heldout", len(heldout))
    with pytest.raises(ValueError, match="unknown split 'test'"):
        task.problem(0, "test", 0)


@settings(max_examples=50)
@given(st.text(min_size=1), st.text(min_size=1))
def test_problems_differ_if_their_texts_do(one, other):
    assert text_key(one) == text_key(f" {one}\n")
    if "".join(one.split()).casefold().isascii() and "".join(other.split()).casefold().isascii():
        assert (text_key(one) == text_key(other)) == (
            "".join(one.split()).casefold() == "".join(other.split()).casefold()
        )


def test_what_leaves_a_split_empty_is_told(tmp_path):
    for found, message in (([], "holds no problems"), (rows(1), "no problem is left for the")):
        with pytest.raises(UserError, match=message):
            Math(path=str(write(tmp_path / "own.jsonl", found))).size("train")
    with pytest.raises(UserError, match=r"task.path is not set"):
        Math(train=replace(Math().train, dataset=None))
