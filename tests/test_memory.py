"""Memory that runs out in an update: smaller micro-batches, the same gradient. In a process with a real
limit."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learning import distance, make_config, make_groups, same, train

from ablate.learner import Learner
from ablate.rows import rows_of
from ablate.runtime import quiet_libraries
from ablate.types import UserError

torch.set_num_threads(1)
quiet_libraries()
ROOM = 200 << 20  # bytes beyond what the process has mapped; the whole batch takes more in one pass


def test_the_gradient_is_the_same_when_memory_runs_out(tmp_path):
    """RLIMIT_AS makes torch's own allocator fail, forward or backward."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    said = [line for line in done.stderr.splitlines() if line.startswith("out of memory")]
    assert said and len(said) == found["halved"] and said[0].endswith("from here on, with the same gradient")
    assert found["micro_batches"] > found["unlimited"] == 1 and found["distance"] < 1e-4
    assert found["charged"] == found["charged_unlimited"] and found["kept"] < 10**7


def test_a_failure_halfway_leaves_nothing_of_the_first_attempt(tmp_path, monkeypatch):
    """In the backward pass of the second micro-batch, when the first one's gradient is there already."""
    groups, config = make_groups(), make_config(micro_batch_tokens=60)
    _, whole = train(tmp_path, lambda step: groups, config)
    _, smaller = train(tmp_path, lambda step: groups, make_config(micro_batch_tokens=29))
    original, calls = Learner._local_loss, []

    def failing(self, model, batch):
        calls.append(len(batch["prompt_ids"]))
        loss = original(self, model, batch)
        if len(calls) == 2:
            loss.register_hook(
                lambda grad: (_ for _ in ()).throw(torch.OutOfMemoryError("tried to allocate"))
            )
        return loss

    monkeypatch.setattr(Learner, "_local_loss", failing)
    learner, probe = train(tmp_path, lambda step: groups, config)
    assert distance(probe.gradients[0], whole.gradients[0]) < 1e-5 and len(calls) > 3
    assert learner._micro_batch_tokens < 31 and learner.report["micro_batch_tokens"] < 31
    if learner._micro_batch_tokens == 29:
        assert same(probe.gradients[0], smaller.gradients[0])


def test_an_answer_that_does_not_fit_alone_is_told_and_other_errors_stay(tmp_path, monkeypatch):
    def never(self, model, batch):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8 bytes"
        )

    monkeypatch.setattr(Learner, "_local_loss", never)
    with pytest.raises(UserError, match=r"out of memory with a single answer of \d+ tokens"):
        train(tmp_path, lambda step: make_groups(), make_config())

    def other(self, model, batch):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Learner, "_local_loss", other)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(tmp_path, lambda step: make_groups(), make_config())


def limited(folder):
    """In a process of its own: a batch under a limit of memory, then without."""
    import psutil

    from ablate.ledger import Ledger

    groups = [group for seed in range(2) for group in make_groups(seed)] * 150
    config = make_config(micro_batch_tokens=10**7)
    train(folder / "warm", lambda step: make_groups(), config)  # what libraries allocate once
    ledgers = [Ledger(), Ledger()]
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + ROOM, hard))
    learner, small = train(folder / "limited", lambda step: groups, config, ledgers[0])
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    free, whole = train(folder / "free", lambda step: groups, config, ledgers[1])
    halved, kept = 0, learner._micro_batch_tokens
    largest = len([row for row in rows_of(groups) if row.signal]) * max(row.length for row in rows_of(groups))
    while kept < largest:
        kept, halved = kept * 2, halved + 1
    charged = [ledger.accounts["update"].flops for ledger in ledgers]
    print(
        json.dumps(
            {
                "distance": distance(small.gradients[0], whole.gradients[0]),
                "micro_batches": learner.report["micro_batches"],
                "unlimited": free.report["micro_batches"],
                "kept": learner._micro_batch_tokens,
                "halved": halved,
                "charged": charged[0],
                "charged_unlimited": charged[1],
            }
        )
    )


if __name__ == "__main__":
    limited(Path(sys.argv[1]))
