"""The warm start and its cache, with trainings of a few steps."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_policy
from torch.nn.functional import log_softmax

from ablate.models import warm_start
from ablate.models.tiny import TinyModel
from ablate.models.warm_start import (
    PackedBatch,
    WarmStart,
    cache_key,
    demonstration_lengths,
    encode_demonstrations,
    load_or_make,
    packed,
    supervised_loss,
)
from ablate.tasks.chain import Chain
from ablate.tasks.countdown import Countdown
from ablate.types import UserError
from ablate.waiting import locked

SPEC = WarmStart(steps=4, batch=8, demonstrations=64, max_illegal=1.0)
SHAPE = TinyModel(hidden=16, layers=1, heads=2, feedforward=16, positions=256, warm_start=SPEC)
TASK = Countdown(largest=6)


# -- what is learned ----------------------------------------------------------------------------------------


def test_every_demonstration_gets_one_end_token_and_prompts_are_not_learned():
    policy = tiny_policy(vocabulary=TASK.vocabulary())
    pairs = list(TASK.demonstrations(0, 40))
    rows = encode_demonstrations(policy, pairs, length=128)
    assert len(rows) == 40
    for row, (problem, text) in zip(rows, pairs, strict=True):
        prompt = policy.prompt(problem.prompt)
        assert tuple(row["input_ids"]) == (*prompt, *policy.encode(text), policy.eos)
        assert row["input_ids"].count(policy.eos) == 1 and row["prompt"] == len(prompt)
    longest = max(len(row["input_ids"]) for row in rows)
    assert max(len(r["input_ids"]) for r in encode_demonstrations(policy, pairs, longest - 1)) < longest


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_packs_hold_everything_once_and_none_is_longer_than_the_longest(lengths):
    packs = packed(lengths)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    sums = sorted(sum(lengths[i] for i in pack) for pack in packs)
    assert sums[-1] <= max(lengths)
    assert len(sums) < 2 or sums[0] + sums[1] > max(lengths)  # no two of them would have fitted into one


def test_the_loss_is_a_sum_over_learned_tokens_whatever_the_batch():
    """Packed, loss, gradient and the lengths that are charged are those of each demonstration alone."""
    policy = tiny_policy(vocabulary=TASK.vocabulary())
    rows = encode_demonstrations(policy, list(TASK.demonstrations(0, 12)), length=128)
    loss, collate = supervised_loss(10.0), PackedBatch(policy.tokenizer.pad_token_id)

    def total(batches):
        policy.model.zero_grad()
        sums = 0.0
        for batch in map(collate, batches):
            labels = batch.pop("labels")
            one = loss(policy.model(**batch), labels)
            one.backward()
            sums += one.item()
        return sums, torch.cat([p.grad.flatten() for p in policy.model.parameters()])

    policy.model.zero_grad()
    expected = 0.0
    for row in rows:  # alone, token by token
        ids = torch.tensor(row["input_ids"])
        logps = log_softmax(policy.model(ids[None]).logits[0], dim=-1)
        one = -sum(logps[i - 1, ids[i]] for i in range(row["prompt"], len(ids))) / 10.0
        one.backward()
        expected += one.item()
    gradient = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
    whole = collate(rows)
    assert len(whole["input_ids"]) < len(rows) and whole["labels"].shape == whole["input_ids"].shape
    assert sorted(demonstration_lengths(whole["labels"])) == sorted(len(row["input_ids"]) for row in rows)
    for batches in ([rows], [rows[:1], rows[1:]]):
        value, grad = total(batches)
        assert value == pytest.approx(expected, rel=1e-5)
        assert (grad - gradient).abs().max() < 1e-5 * gradient.abs().max()


# -- the cache's key ----------------------------------------------------------------------------------------


def changed(config, name):
    """The same configuration with another value of one field."""
    value = getattr(config, name)
    if name == "problem_file":
        value = "mine.jsonl"
    elif isinstance(value, float):
        value = value / 2 if value else 0.5
    else:
        value = 2 * value
    return dataclasses.replace(config, **{name: value})


def test_the_key_changes_with_every_field_and_the_seed():
    shape, task = TinyModel(), Countdown()
    keys = [cache_key(shape, task, seed) for seed in (0, 1)]
    for field in dataclasses.fields(WarmStart):
        spec = changed(shape.warm_start, field.name)
        keys.append(cache_key(dataclasses.replace(shape, warm_start=spec), task, 0))
    for field in dataclasses.fields(TinyModel):
        if field.name != "warm_start":
            keys.append(cache_key(changed(shape, field.name), task, 0))
    for field in dataclasses.fields(Countdown):
        if field.name not in ("numbers", "ceiling", "problem_file"):
            keys.append(cache_key(shape, changed(task, field.name), 0))
    keys += [cache_key(shape, Countdown(**other), 0) for other in ({"numbers": 4}, {"ceiling": 60})]
    keys += [cache_key(shape, Chain(base=task), 0), cache_key(shape, Chain(links=3, base=task), 0)]
    assert len(set(keys)) == len(keys) > 20
    assert cache_key(TinyModel(), Countdown(), 0) == keys[0]
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


def test_the_key_changes_with_the_content_of_a_problem_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("{}\n")
    task = dataclasses.replace(Countdown(), problem_file=str(path))
    before = cache_key(TinyModel(), task, 0)
    path.write_text("{} \n")
    assert len({before, cache_key(TinyModel(), task, 0), cache_key(TinyModel(), Countdown(), 0)}) == 3


class MyTask(Countdown):
    """A user's own task lives in a file of its own."""


def test_the_key_changes_with_the_source(monkeypatch):
    package = Path(warm_start.__file__).parents[1]
    builds = ["models/tiny.py", "models/warm_start.py", "models/policy.py"]
    builds += [f"tasks/{path.name}" for path in (package / "tasks").glob("*.py")]
    edited = None
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + (b"#" if self == edited else b""))
    plain, mine = cache_key(SHAPE, TASK, 0), cache_key(SHAPE, MyTask(largest=6), 0)
    keys = {plain, mine}
    for name in builds:
        edited = package / name
        keys.add(cache_key(SHAPE, TASK, 0))
    edited = Path(__file__)
    assert cache_key(SHAPE, TASK, 0) == plain  # not what makes it
    keys.add(cache_key(SHAPE, MyTask(largest=6), 0))
    assert len(keys) == len(builds) + 3


# -- the cache ----------------------------------------------------------------------------------------------


@pytest.fixture
def makes(monkeypatch):
    """How often a warm start was made."""
    made = []
    make = warm_start._make
    monkeypatch.setattr(warm_start, "_make", lambda *args: made.append(args[2]) or make(*args))
    return made


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with the entry of seed 0."""
    folder = tmp_path_factory.mktemp("cache")
    load_or_make(SHAPE, TASK, 0, folder, False)
    return folder


def weights(policy):
    return {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_warm_start_is_made_once_and_the_same_each_time(cache, makes, tmp_path):
    policy, info = load_or_make(SHAPE, TASK, 0, cache, False)
    assert makes == []
    again, again_info = load_or_make(SHAPE, TASK, 0, tmp_path, False)
    assert makes == [0] and equal(weights(policy), weights(again))
    assert {**info, "seconds": 0} == {**again_info, "seconds": 0} and 0.0 <= info["illegal"] <= 1.0
    other, _ = load_or_make(SHAPE, TASK, 1, tmp_path, False)
    assert makes == [0, 1] and not equal(weights(policy), weights(other))
    untrained = tiny_policy(vocabulary=TASK.vocabulary(), shape=SHAPE, sharpness=1.0)
    assert not equal(weights(policy), weights(untrained))
    # it was trained on `steps` batches, and every pass is on its account
    account = info["account"]
    assert 0 < account["flops"] <= account["logical_flops"] and info["demonstrations"] == 64
    rows = SPEC.steps * SPEC.batch
    lengths = [
        len(row["input_ids"])
        for row in encode_demonstrations(policy, list(TASK.demonstrations(0, SPEC.demonstrations)), 128)
    ]
    gate = 256 * 96  # the samples that the gate judged, at most
    assert rows * min(lengths) < account["tokens"] <= rows * max(lengths) + gate


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f")),
        ("tokenizer.json", lambda path: path.unlink()),
        ("manifest.json", lambda path: path.write_text('{"model.safetensors": ')),
        ("manifest.json", lambda path: path.unlink()),
    ],
)
def test_damage_is_named_and_repaired(cache, makes, capsys, name, damage):
    before = weights(load_or_make(SHAPE, TASK, 0, cache, False)[0])
    folder = cache / "warm_start" / cache_key(SHAPE, TASK, 0)
    damage(folder / name)
    policy, _ = load_or_make(SHAPE, TASK, 0, cache, False)
    told = capsys.readouterr().err
    assert str(folder) in told and "making it again" in told
    assert name in told or "line 1" in told  # a manifest that is no JSON: where it breaks
    assert makes == [0] and equal(weights(policy), before)
    load_or_make(SHAPE, TASK, 0, cache, False)
    assert makes == [0] and "damaged" not in capsys.readouterr().err


def test_what_a_killed_process_left_is_made_anew(cache, makes):
    folder = cache / "warm_start" / cache_key(SHAPE, TASK, 5)
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"half")
    load_or_make(SHAPE, TASK, 5, cache, False)
    assert makes == [5] and not partial.exists() and folder.is_dir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest) == {path.name for path in folder.iterdir()} - {"manifest.json"}


SIDE_BY_SIDE = """
import sys
from pathlib import Path
from ablate.models import warm_start
from ablate.models.tiny import TinyModel
from ablate.models.warm_start import WarmStart
from ablate.tasks.countdown import Countdown
cache, log = map(Path, sys.argv[1:])
make = warm_start._make
def logged(*args):
    with log.open("a") as file:
        file.write("made\\n")
    make(*args)
warm_start._make = logged
spec = WarmStart(steps=4, batch=8, demonstrations=64, max_illegal=1.0)
shape = TinyModel(hidden=16, layers=1, heads=2, feedforward=16, positions=256, warm_start=spec)
policy, _ = warm_start.load_or_make(shape, Countdown(largest=6), 0, cache, False)
print(sum(p.double().abs().sum().item() for p in policy.model.parameters()))
"""


def test_two_processes_side_by_side_make_it_once(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", SIDE_BY_SIDE, str(tmp_path / "cache"), str(log)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert log.read_text() == "made\n" and printed[0] == printed[1] != ""


def test_a_whole_one_is_read_whoever_holds_the_lock(cache, makes, capsys):
    folder = cache / "warm_start" / cache_key(SHAPE, TASK, 0)
    with locked(folder.with_suffix(".lock"), "it"):
        load_or_make(SHAPE, TASK, 0, cache, False)
    assert makes == [] and "waiting" not in capsys.readouterr().err


# -- refusals -----------------------------------------------------------------------------------------------


def test_a_bad_result_is_refused_and_not_kept(tmp_path):
    shape = dataclasses.replace(SHAPE, warm_start=dataclasses.replace(SPEC, max_illegal=0.01))
    with pytest.raises(UserError, match=r"% of sampled steps are illegal.*max_illegal=0.01 .*now 4"):
        load_or_make(shape, TASK, 0, tmp_path, False)
    assert not (tmp_path / "warm_start" / cache_key(shape, TASK, 0)).exists()


def test_mistakes_are_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match=rf"paths.cache={blocked} cannot be written .* ABLATE_CACHE"):
        load_or_make(SHAPE, TASK, 0, blocked, False)
    short = dataclasses.replace(SHAPE, warm_start=dataclasses.replace(SPEC, length=5))
    with pytest.raises(UserError, match=r"longest=5 has no room"):
        load_or_make(short, TASK, 0, tmp_path, False)

    @dataclasses.dataclass
    class Silent:
        name = "silent"

    with pytest.raises(UserError, match="task=silent has no demonstrations"):
        load_or_make(SHAPE, Silent(), 0, tmp_path, False)
    for name, value in (("steps", 0), ("batch", 0), ("length", 0), ("skill", 1.5), ("max_illegal", -0.1)):
        with pytest.raises(UserError, match=rf"model.warm_start.{name}={value}"):
            WarmStart(**{name: value})
