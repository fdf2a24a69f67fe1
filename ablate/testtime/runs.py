"""The runs of an experiment's folder, and what can be asked of each before anything is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ablate.config import Config, EvaluateConfig, build, validate
from ablate.evaluate import heldout_problems
from ablate.experiments import check_experiment, no_runs, run_folders
from ablate.record import read_json, status
from ablate.schema import nearest
from ablate.types import Problem, Task, UserError

if TYPE_CHECKING:
    from ablate.models.policy import Policy
    from ablate.scorers.judge import Judge

# multiples of the cap that an answer may have where its length is the subject: the first that fits
LONG = (4, 2, 1)
HARD = 0.01  # chance of a random attempt, at most, of a problem of the hard set
WAIT = "Wait"  # what makes a model go on whose task has no correction marker
SETS = ("heldout", "hard")


@dataclass
class Run:
    """A finished run with its final policy. policy: a hash of its weights."""

    folder: Path
    config: Config
    task: Task
    model: Any
    policy: str

    @property
    def strategy(self) -> str:
        """The arm."""
        return self.config.strategy.name

    @property
    def seed(self) -> int:
        """Of warm start and problem stream."""
        return self.config.seed

    @property
    def cap(self) -> int:
        """Most tokens of an answer."""
        return self.config.sampling.cap

    def longest(self) -> int:
        """Most tokens of an answer where its length is the subject: as far as the model has positions."""
        check = getattr(self.model, "check", None)
        for times in LONG[:-1]:
            try:
                if check:
                    check(self.task, times * self.cap)
                return times * self.cap
            except UserError:
                continue  # fewer fit
        return LONG[-1] * self.cap

    def marker(self, wanted: str | None) -> str | None:
        """What makes the policy go on after an answer; None if the model has no words for any."""
        given = wanted or getattr(self.task, "correction", "") or WAIT
        tiny: Any = self.task if hasattr(self.model, "untrained") else None
        words = None if tiny is None else tiny.vocabulary()
        unknown = [] if words is None else [w for w in given.split(" ") if w and w not in words]
        if unknown and wanted:
            raise UserError(
                f"marker={wanted!r}: the model of {self.folder.name} has no word {unknown[0]!r}; "
                f"{nearest(unknown[0], [word for word in words or () if word.strip()])}"
            )
        return None if unknown else given

    def lacks(self, method: str, guide: str | None, judge: Judge | None) -> str | None:
        """Why the run cannot have this method, or None."""
        if guide == "oracle" and not hasattr(self.task, "oracle"):
            return f"task={self.task.name} has no step oracle; nearest: {method}:monte_carlo"
        if guide == "judge" and (judge is None or judge.who == "policy") and hasattr(self.model, "untrained"):
            return (
                "model=tiny reads no questions, so the policy cannot be its own judge; set judge.who=local "
                "judge.path=<folder>, or judge.who=endpoint"
            )
        if method == "length_prompt" and hasattr(self.model, "untrained"):
            return (
                "model=tiny knows only the words of its task, so no prompt can ask it for a length; nearest: "
                "budget_forcing"
            )
        if method in ("budget_forcing", "revision") and self.marker(None) is None:
            return f"task={self.task.name} has no correction marker, and its model no word {WAIT!r}"
        return None

    def problems(self, which: str, most: int) -> list[Problem]:
        """At most `most` problems of the run's evaluation split, spread evenly; hard: of those that a random
        attempt hits with a chance of at most HARD. Raises UserError if there are none."""
        split = self.config.evaluate.split
        every = heldout_problems(self.task, EvaluateConfig(split=split), self.seed)  # problems=None: all
        if which == "hard":
            every = [p for p in every if p.difficulty is not None and p.difficulty <= HARD]
            if not every:
                raise UserError(
                    f"set=hard: no held-out problem of {self.folder.name} is that hard (a random attempt "
                    f"hits it with a chance of at most {HARD}): make runs with python -m ablate -m "
                    "experiment=hard"
                )
        distinct = list({problem.prompt: problem for problem in every}.values())
        count = min(most, len(distinct))
        return [distinct[i * len(distinct) // count] for i in range(count)]

    def load(self) -> Policy:
        """The final policy, on its device and in its precision."""
        from ablate import runtime

        if hasattr(self.model, "untrained"):
            policy = self.model.untrained(self.task, self.seed)
        else:
            policy, _ = self.model.load(self.task, self.seed, Path(self.config.paths.cache), False)
        policy.restore(self.folder / "policy")
        policy.model.to(runtime.device(getattr(self.model, "device", "auto")))
        policy.bf16 = self.config.learner.bf16
        return policy


def find(
    folder: Path, seeds: frozenset[int] | None, arms: Sequence[str] | None
) -> tuple[list[Run], list[tuple[str, str]]]:
    """The runs that can be measured, and those that cannot with the reason.

    Raises UserError if the folder has no runs, no run of these seeds and arms, or none with its final policy.
    """
    check_experiment(folder)
    every = [each for each in run_folders(folder) if (each / "config.yaml").is_file()]
    if not every:
        raise no_runs(folder)
    configs: dict[Path, Config] = {}
    skipped: list[tuple[str, str]] = []
    for each in every:
        try:
            configs[each] = validate(OmegaConf.load(each / "config.yaml"))
        except (OSError, YAMLError, OmegaConfBaseException, UserError) as error:
            skipped.append((each.name, f"config.yaml cannot be read: {str(error).splitlines()[0]}"))
    known = sorted({config.strategy.name for config in configs.values()})
    for arm in arms or ():
        if configs and arm not in known:
            raise UserError(f"arms={arm}: {folder} has no such arm; {nearest(arm, known)}")
    wanted = {
        each: config
        for each, config in configs.items()
        if (seeds is None or config.seed in seeds) and (arms is None or config.strategy.name in arms)
    }
    if configs and not wanted:
        there = ", ".join(map(str, sorted({config.seed for config in configs.values()})))
        raise UserError(f"{folder} has no run of these seeds and arms; its seeds: {there}")
    runs, without = [], []
    for each, config in wanted.items():
        if status(each) != "finished":
            skipped.append((each.name, "not finished"))
        elif not (weights := sorted((each / "policy").glob("*.safetensors"))):
            without.append(each)
            skipped.append((each.name, "its final policy is not there (weights are not committed)"))
        else:
            digest = hashlib.sha256(b"".join(path.read_bytes() for path in weights)).hexdigest()[:12]
            runs.append(Run(each, config, build(config.task), build(config.model), digest))
    if not runs:
        if without:
            raise UserError(
                f"{folder}: no run has its final policy (weights are not committed); to make them, run it "
                f"again with fresh=true, as in: {_command(without[0])} resume=false fresh=true"
            )
        raise UserError(
            f"{folder} has no finished run ({'; '.join(f'{n}: {why}' for n, why in skipped[:3])})"
        )
    return runs, skipped


def _command(folder: Path) -> str:
    try:
        command = read_json(folder / "meta.json").get("command")
    except UserError:
        command = None
    words = command if isinstance(command, str) else " ".join(map(str, command or ()))
    # a sweep's worker was not started by a person
    return words if words.startswith("python -m ablate ") else "python -m ablate -m experiment=..."
