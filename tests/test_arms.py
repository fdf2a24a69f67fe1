"""Every arm as a whole run on a tiny model: the same start and problems, equal budgets, all on the ledger."""

from collections import Counter
from itertools import product

import pytest

from ablate.compose import compose
from ablate.engines.hf import HFEngine
from ablate.learner import Learner
from ablate.record import load_evaluation, read_jsonl
from ablate.run import run

AXES = {"source": ("sample", "tree"), "recovery": ("none", "correct"), "credit": ("outcome", "process")}
CELLS = [
    [f"strategy/{axis}={choice}" for axis, choice in zip(AXES, cell, strict=True)]
    for cell in product(*AXES.values())
]
ARMS = ["score", "process_learned", "process_naive", "mcts_uniform", "correct_resampled", "rejection_sft"]
COMMON = ["experiment=smoke", "progress=false", "budget.tokens=6e3", "budget.milestones=1"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def counted(monkeypatch):
    """What leaves the engine and enters the learner, counted apart from the ledger."""
    counts = Counter()
    generate, score, learn = HFEngine.generate, HFEngine.score, Learner._take_batch

    def counting_generate(self, *args, purpose, **kwargs):
        out = generate(self, *args, purpose=purpose, **kwargs)
        counts[purpose] += sum(len(step.tokens) for steps in out for step in steps)
        return out

    def counting_score(self, prefixes, continuations, *, purpose, **kwargs):
        counts[purpose] += sum(map(len, continuations))
        return score(self, prefixes, continuations, purpose=purpose, **kwargs)

    def counting_batch(self):
        rows = learn(self)
        counts["update"] += sum(row.learned for row in rows if row.signal)
        return rows

    monkeypatch.setattr(HFEngine, "generate", counting_generate)
    monkeypatch.setattr(HFEngine, "score", counting_score)
    monkeypatch.setattr(Learner, "_take_batch", counting_batch)
    return counts


def trained(cache, results, *overrides):
    import json

    common = COMMON if not any(each.startswith("budget.") for each in overrides) else COMMON[:2]
    folder = run(compose([*common, f"paths.cache={cache}", f"paths.results={results}", *overrides]))
    return folder, json.loads((folder / "summary.json").read_text())


STARTS = []


@pytest.mark.parametrize("choice", [*CELLS, *([f"strategy={name}"] for name in ARMS)], ids=" ".join)
def test_an_arm_differs_in_its_strategy_alone(cache, tmp_path, counted, choice, capsys):
    folder, summary = trained(cache, tmp_path, *choice)
    # the same start and the same evaluation: the first milestone agrees to the bit in every arm
    start = load_evaluation(folder, 0)
    STARTS.append((start["solved"].tolist(), start["tokens"].tolist()))
    assert STARTS[0] == STARTS[-1]
    # the same problems in the same order
    stream = [row["problems"] for row in read_jsonl(folder / "steps.jsonl")]
    expected = [f"{value:016x}" for value in problem_stream(cache, tmp_path, len(stream))]
    assert stream == expected
    # equal budgets, within one batch
    budget = summary["budget"]
    assert budget["declared"] <= budget["spent"] <= budget["declared"] * (1 + budget["largest_batch"])
    # every token that was drawn, scored and trained on is on the ledger
    accounts = summary["compute"]
    for purpose in ("rollout", "label", "update"):
        assert accounts.get(purpose, {"tokens": 0})["tokens"] == counted[purpose], purpose
    if "strategy=score" in choice:
        assert accounts["score"]["tokens"] == counted["score"]


@pytest.mark.parametrize(
    "arm",
    [
        ["strategy=mcts"],
        ["strategy=process_learned", "strategy.credit.learned.every=2"],
        ["strategy=score"],
    ],
    ids=lambda arm: arm[0],
)
def test_an_arm_with_models_of_its_own_resumes_bit_for_bit(cache, tmp_path, monkeypatch, arm):
    """A crash after the fifth step, with a checkpoint every second one: value head, scorer, reference."""

    def trace(folder):
        rows = [*read_jsonl(folder / "steps.jsonl"), *read_jsonl(folder / "evaluations.jsonl")]
        clocks = ("time", "seconds/", "system/")
        return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in rows]

    settings = [*arm, "checkpoint.every_steps=2", "learner.problems=2"]
    whole, _ = trained(cache, tmp_path / "whole", *settings)
    step = Learner.training_step

    def failing(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise RuntimeError("the power failed")
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power"):
        patch.setattr(Learner, "training_step", failing)
        trained(cache, tmp_path / "killed", *settings)
    resumed, _ = trained(cache, tmp_path / "killed", *settings, "resume=true")
    assert trace(resumed) == trace(whole)


def problem_stream(cache, results, batches):
    from ablate.config import build
    from ablate.randomness import hash64

    config = compose([*COMMON, f"paths.cache={cache}", f"paths.results={results}"])
    task, size = build(config.task), config.learner.problems
    for batch in range(batches):
        yield hash64(*(task.problem(0, "train", i).id for i in range(batch * size, (batch + 1) * size)))


def test_a_strategy_that_never_spends_the_budget_is_stopped(cache, tmp_path):
    from ablate.types import UserError

    with pytest.raises(UserError, match=r"budget\.tokens=.*nearest: budget\.flops"):
        trained(cache, tmp_path, "strategy=more_demonstrations")
    _, summary = trained(cache, tmp_path, "strategy=more_demonstrations", "budget.flops=4e8")
    assert set(summary["compute"]) == {"update", "warm_start", "evaluate"}


def test_a_batch_that_is_trained_on_twice_spends_its_tokens_once(cache, tmp_path):
    _, summary = trained(cache, tmp_path, "learner.iterations=2", "budget.tokens=3e3")
    assert summary["finished"] and summary["steps"] > 2


def test_the_chain_pays_for_every_link_and_the_base_for_none(cache, tmp_path):
    """The control in small: the same verifier, asked for the parts in one arm, for the whole in the other."""
    small = [
        "experiment=chain",
        *("task.base.numbers=2", "task.base.largest=5", "task.base.ceiling=10"),
        *("model.hidden=32", "model.layers=2", "model.heads=2", "model.feedforward=64"),
        *("model.warm_start.steps=200", "model.warm_start.lr=5e-3", "model.warm_start.warmup_steps=20"),
        *("model.warm_start.batch=16", "model.warm_start.demonstrations=2000"),
        *(
            "model.warm_start.max_illegal=1",
            "task.links=2",
            "sampling.cap=96",
            "evaluate.split=train",
            "evaluate.problems=8",
        ),
        *("learner.problems=4", "budget.flops=1.5e9", "budget.milestones=1", "tracking=none"),
        *(f"paths.cache={cache}", f"paths.results={tmp_path}"),
    ]
    rows = {}
    for arm in ("guess_check", "process_verified"):
        folder = run(compose([*small, f"strategy={arm}"]))
        rows[arm] = read_jsonl(folder / "steps.jsonl")
    fine, whole = rows["process_verified"], rows["guess_check"]
    assert [row["problems"] for row in fine] == [row["problems"] for row in whole[: len(fine)]]
    for row in fine:
        paid, right = row["train/reward/process"], row["train/behaviour/links_right"] / 2
        assert paid == pytest.approx(right)
    assert any(row["train/reward/process"] for row in fine)
    assert all(row["learner/signal_rows"] == row["train/groups_with_signal"] for row in whole)


PLACEBOS = {
    "process_shuffled": ("process_rewards", {"credit.shuffle"}),
    "mcts_uniform": ("mcts", {"source.select"}),
    "mcts_deep_uniform": ("mcts_deep", {"source.select"}),
    "correct_resampled": ("learn_to_correct", {"recovery.resample"}),
    "correct_always": ("learn_to_correct", {"recovery.always"}),
    "guess_check_wide": ("guess_check", {"source.n"}),
    "process_oracle": ("process_rewards", {"credit.scorer"}),
    "process_verified": ("process_rewards", {"credit.scorer", "credit.coefficient"}),
    "process_naive": ("process_oracle", {"credit.form"}),
}


@pytest.mark.parametrize("placebo", PLACEBOS)
def test_a_placebo_differs_from_its_arm_in_the_idea_alone(placebo):
    arm, idea = PLACEBOS[placebo]
    one, other = (flat(compose([f"strategy={name}"])) for name in (arm, placebo))
    assert {key for key in one if one[key] != other[key]} == {f"strategy.{key}" for key in {"name", *idea}}
    assert one.keys() == other.keys()


def flat(config):
    from omegaconf import OmegaConf

    def walk(node, prefix):
        for key, value in node.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield prefix + str(key), value

    return dict(walk(OmegaConf.to_container(config, resolve=True), ""))


def test_recipes_are_the_cells_their_names_say():
    cells = {
        "essay": "Sample Correct Outcome",
        "full": "Tree Correct Process",
        "full_minus_search": "Sample Correct Process",
        "full_minus_process": "Tree Correct Outcome",
        "full_minus_correct": "Tree NoRecovery Process",
    }
    for name, expected in cells.items():
        strategy = compose([f"strategy={name}"]).strategy
        chosen = [getattr(strategy, axis)["_target_"].rpartition(".")[2] for axis in AXES]
        assert " ".join(chosen) == expected and strategy.name == name


def test_a_tree_that_the_budget_cannot_hold_is_refused_with_what_fits(cache, tmp_path):
    from ablate.types import UserError

    with pytest.raises(
        UserError, match=r"strategy\.source\.simulations=16 .*smallest that works is"
    ) as caught:
        trained(cache, tmp_path, "strategy=mcts", "budget.tokens=2e3")
    assert "learner.problems=3 would fit" in str(caught.value)
