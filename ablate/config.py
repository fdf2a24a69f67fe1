"""The configuration: every key with its type, default, unit and limits.

Plain nodes (`learner`, `budget`, ...) are the dataclasses below. Components (`task`, `model`, `engine` and
the axes of `strategy`) name a dataclass by `_target_`, which is their schema, the user's own included.
`validate` checks what Hydra composed, before anything heavy is imported; `build` makes a component.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ablate.ledger import UNITS
from ablate.naming import arm_name
from ablate.schema import COMPONENT, construct, limited, read
from ablate.schema import build as build
from ablate.types import UserError


@dataclass
class StrategyConfig:
    """One choice from each axis."""

    name: str = MISSING  # names the run's folder and the arm in reports
    source: Any = field(default=MISSING, metadata=COMPONENT)  # problems -> groups
    recovery: Any = field(default=MISSING, metadata=COMPONENT)  # what happens to failures
    credit: Any = field(default=MISSING, metadata=COMPONENT)  # groups -> advantages


@dataclass
class SamplingConfig:
    """How the policy answers in training, the same in every arm."""

    cap: int = limited(128, at_least=1)  # most tokens after the prompt
    temperature: float = limited(1.0, above=0)


@dataclass
class LearnerConfig:
    """Credited groups -> gradient: AdamW on one of TRL's losses."""

    problems: int = limited(32, at_least=1)  # per batch
    # train on so many of a seed's problems only, over and over; null: all of the split
    distinct_problems: int | None = limited(None, at_least=1)
    lr: float = limited(6e-4, above=0)
    beta1: float = limited(0.9, at_least=0, below=1)
    beta2: float = limited(0.95, at_least=0, below=1)
    weight_decay: float = limited(0.0, at_least=0)
    max_grad_norm: float = limited(1.0, above=0)
    warmup_steps: int = limited(5, at_least=0)  # linear
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # over the budget's fraction
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = "dapo"  # TRL's
    clip_low: float = limited(0.2, above=0)  # TRL's epsilon
    clip_high: float = limited(0.2, above=0)  # TRL's epsilon_high
    importance: Literal["token", "sequence"] = "token"  # TRL's importance_sampling_level
    iterations: int = limited(1, at_least=1)  # optimizer steps on each batch, TRL's num_iterations
    micro_batch_tokens: int = limited(4096, at_least=1)  # most tokens, padding included, in one forward pass
    normalize_advantages: bool = True  # divide by the arm's running RMS
    rms_decay: float = limited(0.95, at_least=0, below=1)  # of that RMS, per batch
    kl: float = limited(0.0, at_least=0)  # penalty on the log-ratio to the start, per nat and token
    max_steps: int = limited(100_000, at_least=1)  # a ceiling; the budget ends the run
    gradient_checkpointing: bool = False
    # full: trained weights in shards over a launch's processes (FSDP2), beside a whole copy to sample from
    sharding: Literal["none", "full"] = "none"
    bf16: bool = False  # passes in bfloat16, the sampler's and the scorers', too; weights keep their type


@dataclass
class BudgetConfig:
    """What a run may spend, in exactly one unit."""

    flops: float | None = limited(None, above=0)  # cached FLOPs, every charged purpose
    tokens: float | None = limited(None, above=0)  # generated in training
    seconds: float | None = limited(None, above=0)  # wall time of training
    milestones: int = limited(5, at_least=1)  # evaluations: at the budget, its half, its quarter, ...
    # 4: four times as much, evaluated at the same milestones and two more. `validate` puts it into the above
    times: int | None = limited(None, at_least=1)


@dataclass
class EvaluateConfig:
    """Plain decoding from the policy at every milestone."""

    samples: int = limited(8, at_least=1)  # per problem
    problems: int | None = limited(None, at_least=1)  # None: all of the split
    split: Literal["heldout", "tuning", "train"] = "heldout"
    long_cap_factor: int = limited(2, at_least=1)  # decode up to this multiple of sampling.cap
    temperature: float = limited(1.0, above=0)
    # processes that decode at a time, on a CPU with threads=1; each holds one batch; null: one per core
    workers: int | None = limited(2, at_least=1)


@dataclass
class CheckpointConfig:
    """What a killed run resumes from."""

    every_steps: int = limited(25, at_least=1)
    keep: int = limited(2, at_least=1)


@dataclass
class TrackingConfig:
    """The mirror of a run's record in MLflow."""

    enabled: bool = True
    uri: str | None = None  # None: sqlite
    experiment: str = "ablate"
    every_seconds: float = limited(10.0, above=0)


@dataclass
class TuningConfig:
    """What finding a strategy's settings cost, on an account of its own; set by a file of conf/tuned/."""

    seeds: list[int] = field(default_factory=list)  # that no comparison may use
    flops: float = limited(0.0, at_least=0)
    logical_flops: float = limited(0.0, at_least=0)
    tokens: int = limited(0, at_least=0)


Spending = Literal["obrien_fleming", "pocock"]


@dataclass
class LooksConfig:
    """When an experiment is looked at while it goes on: declared before its runs (`ablate.report.looks`)."""

    at: list[int] = field(default_factory=list)  # numbers of seeds; none: once, at the end
    spending: Spending = "obrien_fleming"  # how the error is spread over the looks


def check_looks(at: Sequence[int]) -> None:
    """Raises UserError for numbers of seeds that cannot be looked at one after the other."""
    text = ",".join(map(str, at))
    if any(seeds < 2 for seeds in at):
        raise UserError(f"looks at {text} seeds: the smallest valid value is 2, one seed gives no verdict")
    if list(at) != sorted(set(at)):
        raise UserError(
            f"looks at {text} seeds do not grow; did you mean {','.join(map(str, sorted(set(at))))}?"
        )


def _cache() -> str:
    return os.environ.get("ABLATE_CACHE") or str(Path("~/.cache/ablate").expanduser())


@dataclass
class PathsConfig:
    """Where things are kept; relative paths start at the working directory."""

    results: str = "results"
    cache: str = field(default_factory=_cache)  # warm starts; $ABLATE_CACHE, else ~/.cache/ablate


@dataclass
class Config:
    """One run. `validate` returns a read-only OmegaConf DictConfig with these attributes."""

    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    task: Any = field(default=MISSING, metadata=COMPONENT)
    model: Any = field(default=MISSING, metadata=COMPONENT)
    engine: Any = field(default=MISSING, metadata=COMPONENT)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    looks: LooksConfig = field(default_factory=LooksConfig)
    seed: int = limited(0, at_least=0)  # warm start and problem stream
    sampling_seed: int | None = limited(None, at_least=0)  # None: seed
    threads: int | None = limited(1, at_least=1)  # null: all cores; the tiny model is faster on 1
    runs_per_gpu: int = limited(1, at_least=1)  # of a sweep with joblib: small runs can share a GPU
    name: str = "single"  # what the run is part of: results/<name>/...
    resume: bool = False  # go on where a killed run of the same command stopped
    fresh: bool = False  # throw away what an earlier run of the same command left
    progress: bool = True


# These say where and how a run is recorded, or what came before it, not what it computes.
NOT_THE_RESULT = (
    *("tracking", "paths", "tuning", "progress", "resume", "fresh", "checkpoint", "name", "threads"),
    *("looks", "runs_per_gpu", "evaluate.workers", "budget.times"),
)
# A value of these may be one per strategy: {guess_check: 6e-4, mcts: 3e-4}
BY_STRATEGY = ("learner", "budget", "tuning")


def of_the_learner(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded run's keys of the learner; those that did not exist then at their defaults, which do what
    was done before."""
    return asdict(LearnerConfig()) | dict(recorded)


def validate(cfg: Any) -> Config:
    """The complete, checked, read-only form of what Hydra composed: a DictConfig that reads like `Config`.

    Every component is made once, so that its own checks speak too. Of values by strategy the run's own is
    taken. Raises UserError.
    """
    try:
        given = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    values = read(Config, _of_strategy(cast(dict[str, Any], given)), "")
    _check(values)
    values["budget"] = _multiplied(values["budget"])
    typed = OmegaConf.merge(OmegaConf.structured(Config), values)
    OmegaConf.set_readonly(typed, True)
    return cast(Config, typed)


def validate_job(cfg: Any, choices: Mapping[str, Any] | None = None) -> Config:
    """`validate` of what Hydra composed for a job. Another choice on an axis names the arm.

    choices: by group; None: the running job's.
    """
    choices = HydraConfig.get().runtime.choices if choices is None else choices
    given = cfg.copy()
    if isinstance(given.get("strategy"), DictConfig):
        OmegaConf.set_struct(given, False)
        OmegaConf.set_readonly(given, False)
        if name := arm_name(choices, given.strategy.get("name")):
            given.strategy.name = name
    return validate(given)


def validate_composed(composed: DictConfig) -> Config:
    """`validate_job` of all but Hydra's own part, which values such as ${hydra:runtime.cwd} are read from."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(composed)
    try:
        return validate_job(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))
    finally:
        HydraConfig.instance().cfg = before


def _of_strategy(given: dict[str, Any]) -> dict[str, Any]:
    """The same with the strategy's own value for each that is given by strategy."""
    strategy = given.get("strategy")
    name = strategy.get("name") if isinstance(strategy, Mapping) else None
    for group in BY_STRATEGY:
        values = given.get(group)
        for key, value in values.items() if isinstance(values, Mapping) else ():
            if not isinstance(value, Mapping):
                continue
            if name in value:
                chosen = {key: value[name]}
            elif group != "learner":  # the default: no other budget, nothing spent on tuning
                chosen = {}
            else:
                raise UserError(
                    f"{group}.{key} has no value for strategy={name}, only for {', '.join(map(str, value))}: "
                    f"tune it with them (python -m ablate.tune --help), or set {group}.{key}=..."
                )
            rest = {other: given[group][other] for other in given[group] if other != key}
            given = {**given, group: {**rest, **chosen}}
    return given


def _multiplied(budget: dict[str, Any]) -> dict[str, Any]:
    """The budget with `times` put into it: milestones lie a factor of two apart, so a doubling adds one."""
    times = budget["times"] or 1
    more = times.bit_length() - 1
    if times != 2**more:
        raise UserError(f"budget.times={times} is no power of two; nearest: {2**more} and {2 ** (more + 1)}")
    longer = {unit: times * budget[unit] for unit in UNITS if budget[unit] is not None}
    return {**budget, **longer, "milestones": budget["milestones"] + more, "times": None}


def fingerprint(cfg: Config) -> str:
    """8 hex digits of a hash of everything that determines a run's result."""
    values = cast(dict[str, Any], OmegaConf.to_container(cast(Any, cfg), resolve=True))
    if values["sampling_seed"] is None:
        values["sampling_seed"] = values["seed"]
    for key in NOT_THE_RESULT:
        group, _, leaf = key.rpartition(".")
        del (values[group] if group else values)[leaf]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:8]


def run_folder(cfg: Config) -> Path:
    """results/<name>/<strategy name>-s<seed>-<fingerprint>

    If the same run is recorded there by another fingerprint, because it was made before a key of today's
    existed, the folder that it has.
    """
    own = fingerprint(cfg)
    folder = Path(cfg.paths.results) / cfg.name / f"{cfg.strategy.name}-s{cfg.seed}-{own}"
    if not folder.exists():
        for other in sorted(folder.parent.glob(f"{cfg.strategy.name}-s{cfg.seed}-{'[0-9a-f]' * 8}")):
            if _recorded(other) == own:
                return other
    return folder


def _recorded(folder: Path) -> str | None:
    """Today's fingerprint of a recorded config, keys that it lacks at their defaults; None without one."""
    try:
        return fingerprint(validate(OmegaConf.load(folder / "config.yaml")))
    except (OSError, YAMLError, OmegaConfBaseException, UserError):
        return None


def _check(values: Mapping[str, Any]) -> None:
    """What no single field can know."""
    budget = values["budget"]
    units = [f"budget.{unit}" for unit in UNITS if budget[unit] is not None]
    if not units:
        raise UserError("budget has no unit: set one of budget.flops, budget.tokens, budget.seconds")
    if len(units) > 1:
        raise UserError(f"{' and '.join(units)} are both set: a budget has one unit, set the other to null")
    check_looks(values["looks"]["at"])
    learner = values["learner"]
    if learner["loss_type"] == "cispo" and learner["clip_high"] < 1.0:
        raise UserError(
            f"learner.clip_high={learner['clip_high']} with loss_type=cispo caps the ratio of probabilities "
            "itself, below 1; nearest: 1, and 5 is common"
        )
    if values["resume"] and values["fresh"]:
        raise UserError("resume=true and fresh=true exclude each other: set one")
    if values["seed"] in values["tuning"]["seeds"]:
        raise UserError(
            f"seed={values['seed']} was used for tuning (tuning.seeds={values['tuning']['seeds']}): "
            "a comparison takes others"
        )
    for key, name in (("name", values["name"]), ("strategy.name", values["strategy"]["name"])):
        if not re.fullmatch(r"\w[\w.+-]*", name):
            fixed = re.sub(r"[^\w.+-]+", "-", name).strip(".+-") or "single"
            raise UserError(f"{key}={name} cannot name a folder; did you mean {key}={fixed}?")
    if values["tracking"]["enabled"]:  # before it stands in any file: it might hold a password
        from ablate.tracking.store import resolve_uri

        resolve_uri(values["tracking"]["uri"], Path(values["paths"]["results"]))
    for key in ("task", "model", "engine"):
        construct(values[key], key)
    for axis in ("source", "recovery", "credit"):
        construct(values["strategy"][axis], f"strategy.{axis}")
    samples = values["strategy"]["source"].get("n", 2)
    if samples < 2 and "baseline" in values["strategy"]["credit"]:
        raise UserError(f"strategy.source.n={samples} leaves no baseline: the smallest valid value is 2")
