"""Whole runs of a small pretrained model on word problems, whatever the engine."""

import json
from collections import Counter

from word_problems import SYSTEM

from ablate.compose import compose
from ablate.learner import Learner
from ablate.record import read_jsonl
from ablate.run import run

STRATEGIES = ["guess_check", "process_rewards", "mcts", "learn_to_correct"]
SETTINGS = [
    "task=words",
    "model=pretrained",
    f'model.format.system="{SYSTEM}"',
    "tracking=none",
    "progress=false",
    "sampling.cap=24",
    "evaluate.samples=2",
    "evaluate.long_cap_factor=1",
    "learner.problems=6",
    "learner.lr=1e-3",
    "budget.tokens=4e3",
    "budget.milestones=1",
    "checkpoint.every_steps=2",
]


def add_task(folder):
    """Make `task=words` a choice in this working directory."""
    path = folder / "conf" / "task" / "words.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("_target_: word_problems.WordProblems\n")


def train(model, results, *overrides):
    """The folder of a finished run and its summary."""
    paths = [f"model.path={model}", f"paths.results={results}", f"paths.cache={results}"]
    folder = run(compose([*SETTINGS, *paths, *overrides]))
    return folder, json.loads((folder / "summary.json").read_text())


def trace(folder):
    """All that a run computed, without clocks."""
    rows = [*read_jsonl(folder / "steps.jsonl"), *read_jsonl(folder / "evaluations.jsonl")]
    clocks = ("time", "seconds/", "system/")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in rows]


def count(monkeypatch, engine):
    """Tokens that leave this class of engine and enter the learner, counted apart from the ledger."""
    counts = Counter()
    generate, learn = engine.generate, Learner._take_batch

    def counting_generate(self, *args, purpose, **kwargs):
        out = generate(self, *args, purpose=purpose, **kwargs)
        counts[purpose] += sum(len(step.tokens) for steps in out for step in steps)
        return out

    def counting_batch(self):
        rows = learn(self)
        counts["update"] += sum(row.learned for row in rows if row.signal)
        return rows

    monkeypatch.setattr(engine, "generate", counting_generate)
    monkeypatch.setattr(Learner, "_take_batch", counting_batch)
    return counts
