"""Every file in conf/ composes, is valid and builds; limits; fingerprints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from ablate import config
from ablate.compose import compose, groups
from ablate.naming import conf_dir
from ablate.types import UserError

ROOT = Path(__file__).parents[1]
AXES = ("source", "recovery", "credit")
CHOICES = [f"{group}={choice}" for group, choices in groups().items() for choice in choices]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def changed():
    """The default configuration with one value changed, checked again; quicker than composing it."""
    base = OmegaConf.to_container(compose())

    def change(line):
        cfg = OmegaConf.create(base)
        OmegaConf.update(cfg, *line.split("="))
        return config.validate(cfg)

    return change


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_every_component_builds(choice):
    needed = {"model=pretrained": "model.path=a/b", "tuned=combinations": "strategy=full"}
    cfg = compose([choice, *([needed[choice]] if choice in needed else [])])
    for node in (cfg.task, cfg.model, cfg.engine, *(getattr(cfg.strategy, axis) for axis in AXES)):
        built = config.build(node)
        assert f"{type(built).__module__}.{type(built).__qualname__}" == node._target_


def test_every_file_in_conf_is_a_choice_of_a_group():
    files = {path.relative_to(conf_dir()).with_suffix("").as_posix() for path in conf_dir().rglob("*.yaml")}
    assert files == {choice.replace("=", "/") for choice in CHOICES} | {"config"}


def test_the_result_is_complete_typed_and_read_only():
    cfg = compose(["learner.lr=1e-3", "name=7", "threads=2"])
    assert (cfg.learner.lr, cfg.name, cfg.threads, cfg.sampling.cap) == (1e-3, "7", 2, 128)
    assert cfg.strategy.source == {"_target_": "strategies.guess_check.Sample", "n": 8}
    with pytest.raises(ReadonlyConfigError):
        cfg.learner.lr = 1.0
    again = OmegaConf.create(OmegaConf.to_yaml(cfg))
    assert config.validate(again) == cfg


def test_a_store_with_a_password_is_refused_before_it_stands_anywhere():
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        compose(["tracking.uri=http://me:s3cret@127.0.0.1:9"])
    assert "s3cret" not in str(caught.value)
    assert compose(["tracking.uri=nowhere", "tracking.enabled=false"]).tracking.uri == "nowhere"


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", "/somewhere/else")
    assert compose().paths.cache == "/somewhere/else"


@pytest.mark.parametrize(
    "line",
    [
        *(
            f"learner.{key}=0"
            for key in ("problems", "lr", "max_grad_norm", "clip_low", "iterations", "max_steps")
        ),
        *(f"learner.{key}=1" for key in ("beta1", "beta2", "rms_decay")),
        *(
            "learner.weight_decay=-1",
            "learner.warmup_steps=-1",
            "learner.micro_batch_tokens=0",
            "learner.lr=inf",
        ),
        *("budget.flops=0", "budget.tokens=-1", "budget.seconds=nan", "budget.milestones=0"),
        *("evaluate.samples=0", "evaluate.problems=0", "evaluate.long_cap_factor=0", "evaluate.workers=0"),
        *("sampling.cap=0", "sampling.temperature=0", "checkpoint.every_steps=0", "checkpoint.keep=0"),
        *("tracking.every_seconds=0", "threads=0", "seed=-1", "sampling_seed=-1", "strategy.source.n=1"),
        *("engine.max_rows=0", "model.warm_start.steps=0", "task.numbers=0"),
    ],
)
def test_values_outside_their_limits_are_named(changed, line):
    key = line.partition("=")[0]
    with pytest.raises(UserError, match=rf"^{key}\b") as caught:
        changed(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["learner.loss_type=dap"], "did you mean dapo"),
        (["learner.loss_type=cispo"], "learner.clip_high=0.2 with loss_type=cispo caps"),
        (["evaluate.split=held_out"], "did you mean heldout"),
        (["budget.flops=null"], "budget has no unit"),
        (["budget={tokens:1e5}"], "budget.flops and budget.tokens are both set"),
        (["resume=true", "fresh=true"], "exclude each other"),
        (["name=../x"], "cannot name a folder; did you mean name=x"),
        (["strategy.name=a b"], "did you mean strategy.name=a-b"),
    ],
)
def test_values_that_do_not_fit_together(lines, message):
    with pytest.raises(UserError, match=message):
        compose(lines)


def test_the_fingerprint_is_the_same_in_every_process():
    program = "from ablate import compose, config; print(config.fingerprint(compose.compose()))"
    seen = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        seen.add(
            subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True).stdout
        )
    assert seen == {f"{config.fingerprint(compose())}\n"}


def test_the_fingerprint_changes_with_what_determines_the_result_and_with_nothing_else(changed):
    def fingerprint(line):
        return config.fingerprint(changed(line))

    same = fingerprint("seed=0")
    assert len(same) == 8 and int(same, 16) >= 0
    result = ["seed=1", "sampling_seed=1", "learner.lr=1e-3", "budget.flops=1e9", "sampling.cap=48"]
    result += [
        "strategy.credit.scale=none",
        "evaluate.samples=4",
        "model.warm_start.steps=10",
        "task.largest=12",
    ]
    assert len({same, *map(fingerprint, result)}) == len(result) + 1
    record = ["tracking.enabled=false", "paths.results=x", "paths.cache=x", "progress=false", "resume=true"]
    record += [
        "fresh=true",
        "checkpoint.keep=9",
        "name=other",
        "threads=2",
        "evaluate.workers=7",
        "sampling_seed=0",
        "learner.lr=6e-4",
    ]
    assert {fingerprint(line) for line in record} == {same}


def test_the_run_folder_names_experiment_strategy_seed_and_fingerprint():
    cfg = compose(["name=grid", "seed=3"])
    assert config.run_folder(cfg) == Path("results/grid") / f"guess_check-s3-{config.fingerprint(cfg)}"


def test_a_multiple_of_the_budget_adds_milestones_and_keeps_the_declared_ones():
    from ablate.ledger import milestones

    once, longer = (
        compose(["budget.milestones=3"]).budget,
        compose(["budget.milestones=3", "budget.times=4"]).budget,
    )
    assert (longer.flops, longer.milestones, longer.times) == (4 * once.flops, 5, None)
    at = [share * longer.flops for share in milestones(longer.milestones)]
    assert at[:3] == [share * once.flops for share in milestones(3)]
    same = compose(["budget.milestones=5", f"budget.flops={4 * once.flops}"])
    assert config.fingerprint(same) == config.fingerprint(compose(["budget.milestones=3", "budget.times=4"]))
    with pytest.raises(UserError, match=r"budget.times=3 is no power of two; nearest: 2 and 4"):
        compose(["budget.times=3"])


def test_a_value_by_strategy_is_the_strategys_own():
    lines = ["learner.lr={guess_check:1e-3,mcts:2e-3}", "budget.times={mcts:2}"]
    base, mcts = (compose([*lines, f"strategy={name}"]) for name in ("guess_check", "mcts"))
    assert (base.learner.lr, mcts.learner.lr) == (1e-3, 2e-3)
    assert mcts.budget.flops == 2 * base.budget.flops == 6e12
    with pytest.raises(
        UserError, match=r"learner.lr has no value for strategy=full, only for guess_check, mcts"
    ):
        compose([*lines, "strategy=full"])
    with pytest.raises(UserError, match=r"learner.lr=x is not a number"):
        compose(["learner.lr={guess_check:x}"])
