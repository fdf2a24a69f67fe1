"""Folders of results as runs leave them, with outcomes that a test chooses."""

import numpy as np

from ablate.record import Record, write_json
from ablate.report.contrasts import CELL_OF

PROBLEMS, CLUSTERS, SAMPLES = 120, 30, 4
BUDGET = 1e12
STRATA = ("easy", "medium", "hard")


def config(strategy, seed, budget=BUDGET, **changes):
    """A run's config; changes: dotted keys."""
    known = tuple(int(strategy.startswith(name)) for name in ("mcts", "correct", "process"))
    search, correct, process = CELL_OF.get(strategy, known)
    credit = "Turns" if strategy == "score" else ("Outcome", "Process")[process]
    tree = {
        "strategy": {
            "name": strategy,
            "source": {"_target_": f"strategies.x.{('Sample', 'Tree')[search]}"},
            "recovery": {"_target_": f"strategies.x.{('NoRecovery', 'Correct')[correct]}"},
            "credit": {"_target_": f"strategies.x.{credit}", "scorer": "monte_carlo"},
        },
        "task": {"_target_": "ablate.tasks.countdown.Countdown", "numbers": 3},
        "model": {"_target_": "ablate.models.tiny.TinyModel", "hidden": 64},
        "engine": {"_target_": "ablate.engines.hf.HFEngine", "max_rows": 1024},
        "learner": {"lr": 6e-4, "schedule": "constant"},
        "budget": {"flops": budget, "tokens": None, "seconds": None, "milestones": 3},
        "evaluate": {"samples": SAMPLES, "problems": None, "split": "heldout", "workers": 2},
        "sampling": {"cap": 96, "temperature": 1.0},
        "seed": seed,
        "sampling_seed": None,
    }
    for key, value in changes.items():
        *groups, leaf = key.split(".")
        node = tree
        for group in groups:
            node = node[group]
        node[leaf] = value
    return tree


def write_run(
    root,
    strategy,
    seed,
    accuracy,
    budget=BUDGET,
    shares=(0.0, 0.25, 0.5, 1.0),
    overshoot=0.004,
    logical=1.02,
    revision="abc",
    ids="p",
    finish=True,
    scored=False,
    command=None,
    summary=(),
    **changes,
):
    """One run. accuracy: at each milestone, a number or one per problem; the share of right answers comes as
    near to it as the samples allow, with the rest drawn. scored: it is the task's score that does, and hardly
    any answer is right as a whole. summary: what else the summary says. Returns the folder."""
    tree = config(strategy, seed, budget, **changes)
    sampling = seed if tree["sampling_seed"] is None else tree["sampling_seed"]
    folder = root / f"{strategy}-s{seed}-{sampling}-{budget:g}"
    record = Record(folder)
    record.write_config(tree)
    write_json(
        folder / "meta.json",
        {
            "git": {"revision": revision, "dirty": False},
            "libraries": {"torch": "2.13.0"},
            "python": "3.11.7",
            "command": command or f"python -m ablate strategy={strategy} seed={seed}",
        },
    )
    rng = np.random.default_rng([seed, sampling, *strategy.encode()])
    names = [f"{ids}{i:03d}" for i in range(PROBLEMS)]
    figures = []
    for share, level in zip(shares, accuracy, strict=True):
        wanted = np.broadcast_to(np.asarray(level, float), PROBLEMS) * SAMPLES
        right = np.floor(wanted + rng.random(PROBLEMS)).astype(int)
        solved = np.arange(SAMPLES) < right[:, None]
        spent = share * (1 + overshoot)
        row = {
            "milestone": share,
            "problems": PROBLEMS,
            "heldout/pass@1": 0.01 if scored else float(solved.mean()),
            **({"heldout/score": float(solved.mean())} if scored else {}),
            "heldout/behaviour/attempts": 2 + share,
            "heldout/kl_per_answer": 3 * share,
            "heldout/length": 20 + 10 * share,
            "heldout/truncated": 0.1,
            "budget/flops": spent * budget,
            "budget/logical_flops": spent * budget * logical,
            "budget/tokens": spent * 1e6,
            "budget/spent": spent,
        }
        columns = {
            "problem": np.repeat(names, SAMPLES),
            "cluster": np.repeat([f"c{i % CLUSTERS}" for i in range(PROBLEMS)], SAMPLES),
            "stratum": np.repeat([STRATA[i % 3] for i in range(PROBLEMS)], SAMPLES),
            "sample": np.tile(np.arange(SAMPLES), PROBLEMS),
            "solved": np.zeros(PROBLEMS * SAMPLES, bool) if scored else solved.ravel(),
            **({"score": solved.ravel().astype(float)} if scored else {}),
            "tokens": np.full(PROBLEMS * SAMPLES, 20),
            "truncated": np.zeros(PROBLEMS * SAMPLES, bool),
        }
        order = rng.permutation(PROBLEMS * SAMPLES)
        step = int(share * 100 * budget / BUDGET)
        record.write_evaluation(step, {name: values[order] for name, values in columns.items()}, row)
        figures.append(row)
    if finish:
        record.finish(
            {
                "strategy": strategy,
                "steps": step,
                "budget": {
                    "unit": "flops",
                    "declared": budget,
                    "spent": figures[-1]["budget/spent"] * budget,
                    "largest_batch": 0.01,
                },
                "metric": "links right" if scored else "pass@1",
                "totals": {"flops": budget, "logical_flops": logical * budget, "tokens": 1e6},
                "compute": {"rollout": {"flops": 0.4 * budget}, "update": {"flops": 0.6 * budget}},
                "seconds": {"total": 120.0},
                "alarms": [],
                **dict(summary),
            },
            "done",
        )
    record.close()
    return folder


def curve(end, start=0.3, shares=(0.0, 0.25, 0.5, 1.0)):
    """Accuracies at milestones: from `start` to `end`, linear in the logarithm from a 16th of the budget."""
    return [start + (end - start) * max(0.0, 1 + np.log2(share) / 4) if share else start for share in shares]


def write_arms(root, ends, seeds=range(6), wobble=0.01, start=0.3, **changes):
    """Runs of several arms, {name: accuracy at the budget}, whose seeds differ by about `wobble`."""
    for name, end in ends.items():
        for seed in seeds:
            noise = np.random.default_rng([seed, 1, *name.encode()]).normal(0, wobble)
            write_run(root, name, seed, curve(end + noise, start), **changes)
    return root
