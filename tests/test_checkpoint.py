"""A checkpoint exists whole or not at all, is never a pickle, and resumes bit for bit."""

import json
import os
import signal
import zipfile
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.checkpoint import STATE, appear, checkpoints, latest, load_state, prune
from ablate.manifest import MANIFEST
from ablate.types import UserError


def save(folder, step, files=None, writer=True):
    with appear(folder, step, {"at": step}, writer) as partial:
        made = os.path.join(partial, f"checkpoint-{step}")
        if writer:
            os.makedirs(os.path.join(made, "deep"))
            for name, content in {"weights": b"w" * 100, "deep/more": b"m", **(files or {})}.items():
                with open(os.path.join(made, name), "wb") as handle:
                    handle.write(content)


def names(folder):
    return [path.name for path in checkpoints(folder)]


def test_checkpoints_are_in_the_order_of_their_steps_and_only_the_newest_are_kept(tmp_path):
    assert latest(tmp_path / "nowhere") is None and latest(tmp_path) is None
    for step in (5, 100, 25):
        save(tmp_path, step)
    assert names(tmp_path) == ["checkpoint-5", "checkpoint-25", "checkpoint-100"]
    assert latest(tmp_path).name == "checkpoint-100" and load_state(latest(tmp_path)) == {"at": 100}
    save(tmp_path, 100, {"weights": b"of a resumed run"})
    assert (latest(tmp_path) / "weights").read_bytes() == b"of a resumed run"
    prune(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-25", "checkpoint-100"]
    prune(tmp_path, 5)
    assert len(names(tmp_path)) == 2


def test_only_the_writing_process_writes(tmp_path):
    save(tmp_path / "of the writer", 1, writer=False)
    assert not (tmp_path / "of the writer").exists()


def test_a_save_that_fails_leaves_no_checkpoint(tmp_path):
    save(tmp_path, 1)
    with (
        pytest.raises(UserError, match=f"cannot write to {tmp_path}: disk full"),
        appear(tmp_path, 2, {}, True) as partial,
    ):
        os.makedirs(f"{partial}/checkpoint-2")
        raise OSError("disk full")
    assert names(tmp_path) == ["checkpoint-1"] and not (tmp_path / ".partial").exists()  # its space is free
    save(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2"]


@pytest.mark.parametrize("moment", ["hashing", "syncing", "renaming"])
def test_a_save_that_is_killed_leaves_no_checkpoint(tmp_path, monkeypatch, moment):
    save(tmp_path, 1)
    child = os.fork()
    if child == 0:

        def die(*args):
            os.kill(os.getpid(), signal.SIGKILL)

        name = {"hashing": "ablate.manifest._sha256", "syncing": "os.fsync", "renaming": "os.replace"}[moment]
        monkeypatch.setattr(name, die)
        save(tmp_path, 2, {"stale": b"left by the killed one"})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert names(tmp_path) == ["checkpoint-1"] and latest(tmp_path).name == "checkpoint-1"
    save(tmp_path, 2)
    assert not (latest(tmp_path) / "stale").exists()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_damage_is_named_and_passed_over(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (1, 2):
        save(folder, step)
    victim = folder / "checkpoint-2" / data.draw(st.sampled_from(["weights", "deep/more", STATE, MANIFEST]))
    content = victim.read_bytes()
    match data.draw(st.sampled_from(["flip", "cut", "remove"])):
        case "flip":
            at = data.draw(st.integers(0, len(content) - 1))
            victim.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        case "cut":
            victim.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        case "remove":
            victim.unlink()
    assert latest(folder).name == "checkpoint-1"


def test_damage_is_told_and_without_a_whole_checkpoint_there_is_no_resuming(tmp_path, capsys):
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "checkpoint-2" / "weights").write_bytes(b"")
    assert latest(tmp_path).name == "checkpoint-1"
    told = capsys.readouterr().err
    assert str(tmp_path / "checkpoint-2") in told and "weights has changed" in told
    (tmp_path / "checkpoint-1" / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged; fresh=true"):
        latest(tmp_path)


def test_what_the_learner_saves_holds_no_pickle_and_resumes_bit_for_bit(tmp_path):
    import torch
    from tiny import tiny_policy
    from transformers import TrainerCallback
    from transformers.trainer_pt_utils import safe_globals
    from transformers.trainer_utils import set_seed

    from ablate.config import LearnerConfig, SamplingConfig
    from ablate.learner import Learner
    from ablate.ledger import Ledger
    from ablate.runtime import quiet_libraries
    from ablate.types import Problem, Step, Trajectory

    torch.set_num_threads(1)
    quiet_libraries()
    losses = {}

    class SaveAt2(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_save = state.global_step == 2

    def rollout(batch):
        draw = Random(batch)
        problem = Problem("p", "", tokens=(3, 4, 5))

        def answer(advantage):
            tokens = tuple(draw.randrange(2, 22) for _ in range(draw.randint(2, 9)))
            step = Step(tokens, tuple(draw.uniform(-4, -1) for _ in tokens))
            return Trajectory(problem, (step,), advantages=(advantage,))

        return [[answer(1.0), answer(-0.5)]]

    def run(name, resume=None):
        config = LearnerConfig(max_steps=4, lr=0.01, rms_decay=0.5)
        policy = tiny_policy()
        extra = {"state": lambda: {"mine": [1, 2]}, "callbacks": [SaveAt2()]}
        learner = Learner(policy, config, SamplingConfig(), Ledger(), tmp_path / name, rollout, **extra)
        set_seed(7)
        if resume:
            learner.restore(load_state(resume))
        learner.train(resume_from_checkpoint=str(resume) if resume else None)
        losses[name] = learner.report["loss"]
        return policy.model.state_dict(), learner._mean_square

    weights, square = run("whole")
    saved = latest(tmp_path / "whole")
    assert saved.name == "checkpoint-2" and load_state(saved)["mine"] == [1, 2]
    files = {path.name for path in saved.iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", STATE, MANIFEST} <= files
    for path in saved.iterdir():
        if path.suffix in (".pt", ".pth"):
            assert zipfile.is_zipfile(path)
            with safe_globals():  # the Trainer's own list: arrays of the numpy generator's state
                torch.load(path, weights_only=True)
        elif path.suffix != ".safetensors":
            path.read_text(encoding="utf-8")  # no other binary file, hence no pickle
    assert "training_args.bin" not in files and "training_args.bin" not in json.loads(
        (saved / MANIFEST).read_text()
    )
    again, again_square = run("resumed", saved)
    assert square == again_square and losses["whole"] == losses["resumed"]
    assert all(torch.equal(weights[name], again[name]) for name in weights)
