"""Tuning by Optuna as a Hydra sweeper: `python -m ablate -m experiment=tune_optuna` (hydra/sweeper=studies)

Every strategy has a study of its own and gets the same number of trials; a trial is one setting of the
learner, run with every tuning seed. All strategies' trials of one number are started together, so that the
launcher, whichever it is, has work, while each study still learns from every trial before.

Hydra's own plugin, hydra-optuna-sweeper 1.4.0rc3, runs with these versions of Hydra and Optuna, and does
something else: one study per sweep, in which the strategy would be a value to optimise, so that good arms get
more trials than others; a run is a trial, whatever its seed; a storage that is continued gets as many trials
again, those of a killed process stay open for ever, and a seeded sampler repeats its first draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from ablate.config import Config, run_folder, validate_composed, validate_job
from ablate.record import status
from ablate.tuning.studies import STORAGE, Proposal, Studies, alone, as_json, check, opened, optuna
from ablate.tuning.trials import outcome, plain_settings
from ablate.types import UserError

GRID = ("strategy", "seed")  # every value of these, whatever is searched
TUNED = "learner."  # what conf/tuned/ can hold by strategy


@dataclass
class StudiesConf:
    """hydra.sweeper.*; limits: `studies.check`."""

    _target_: str = "ablate.tuning.sweeper.StudySweeper"
    trials: int = 12  # of every strategy
    sampler: str = "tpe"  # or random
    sampler_seed: int = 0
    startup: int = 5  # random trials before tpe's model guides them
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="studies", node=StudiesConf, provider="ablate")


class StudySweeper(Sweeper):
    """One Optuna study per strategy, a round of trials at a time."""

    def __init__(
        self,
        trials: int,
        sampler: str,
        sampler_seed: int,
        startup: int,
        params: Mapping[str, str] | None = None,
    ) -> None:
        check(trials, sampler, startup, sampler_seed)
        self.trials, self.sampler, self.sampler_seed, self.startup = trials, sampler, sampler_seed, startup
        self.params = params or {}

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """As Hydra asks for."""
        self.config, self.loader = config, hydra_context.config_loader
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """All trials that are missing. Raises UserError."""
        lines = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(lines)
        last = {each.key_or_group: each for each in parsed}
        space = {
            key: distribution(each)
            for key, each in last.items()
            if each.is_sweep_override() and key not in GRID
        }
        if not space:
            raise UserError("nothing is searched: learner.lr='tag(log, interval(1e-4, 3e-3))'")
        self.fixed = [str(e.input_line) for k, e in last.items() if k not in space and k not in GRID]
        arms, seeds = (list(values(last[key])) if key in last else [None] for key in GRID)
        self.arms = {}
        inside = {
            key: each.choices[0] if hasattr(each, "choices") else each.low for key, each in space.items()
        }
        for arm in arms:
            config = self._config(self._lines(arm, seeds[0], inside))
            if config.evaluate.split != "tuning":
                raise UserError(
                    f"evaluate.split={config.evaluate.split}: settings are chosen on tuning problems, "
                    "evaluate.split=tuning"
                )
            self.arms[config.strategy.name] = arm
            path = run_folder(config).parent / STORAGE
            settings = plain_settings(config, ("strategy", "seed", "sampling_seed", *space))
        self.seeds = seeds
        with alone(path), opened(path) as storage:
            studies = Studies(
                storage,
                path,
                space,
                [0 if seed is None else int(seed) for seed in seeds],
                settings,
                self.sampler,
                self.sampler_seed,
                self.startup,
            )
            known = {name: studies.study(name, self.trials) for name in self.arms}
            self._rounds(studies, known)

    def _rounds(self, studies: Studies, known: Mapping[str, Any]) -> None:
        """Trial by trial, all strategies' of one number at a time."""
        index = 0
        for number in range(self.trials):
            asked = [p for study in known.values() if (p := studies.propose(study, number)) is not None]
            jobs = [
                (each, self._lines(self.arms[each.arm], seed, each.values))
                for each, seed in product(asked, self.seeds)
            ]
            if not jobs:
                continue
            returned = self.launcher.launch([lines for _, lines in jobs], initial_job_idx=index)
            index += len(jobs)
            ends: dict[str, list[Path]] = {}
            for (each, _), end in zip(jobs, returned, strict=True):
                ends.setdefault(each.arm, []).append(
                    run_folder(validate_job(end.cfg, end.hydra_cfg.hydra.runtime.choices))
                )
            told = [self._tell(studies, known[each.arm], each, ends[each.arm]) for each in asked]
            if not all(told):  # stopped: the next trials would not know of these
                return

    def _tell(self, studies: Studies, study: Any, proposal: Proposal, runs: list[Path]) -> bool:
        """Tell a trial's result, from the runs' own files; False: it has none yet."""
        if any(status(each) not in ("finished", "failed") for each in runs):
            return False
        ends = [outcome(each) for each in runs]
        if any(each.why and not each.diverged for each in ends):
            value = None
        elif any(each.diverged for each in ends):
            value = 0.0
        else:
            value = fmean(float(each.accuracy) for each in ends if each.accuracy is not None)
        studies.tell(study, proposal.number, value, [each.name for each in runs])
        return True

    def _lines(self, arm: str | None, seed: str | None, chosen: Mapping[str, Any]) -> list[str]:
        grid = [f"{key}={value}" for key, value in zip(GRID, (arm, seed), strict=True) if value is not None]
        return [*self.fixed, *grid, *(f"{key}={as_json(value)}" for key, value in chosen.items())]

    def _config(self, lines: list[str]) -> Config:
        return validate_composed(self.loader.load_sweep_config(self.config, lines))


def values(override: Override) -> Iterable[str]:
    """What an override of one or several values lists."""
    if override.is_sweep_override():
        if isinstance(override.value(), IntervalSweep):
            raise UserError(f"{override.input_line} lists no values; every one of them is run")
        return [str(each) for each in override.sweep_string_iterator()]
    return [str(override.get_value_element_as_str())]


def distribution(override: Override) -> Any:
    """Optuna's distribution of a swept key. Raises UserError."""
    key, line, kinds = override.key_or_group, override.input_line, optuna().distributions
    if not key.startswith(TUNED):
        raise UserError(
            f"{line} cannot be tuned: what is found is kept by strategy for {TUNED}* alone, "
            f"for example {TUNED}lr"
        )
    value = override.value()
    if not isinstance(value, IntervalSweep):
        return kinds.CategoricalDistribution(list(override.sweep_iterator()))
    low, high, log = value.start, value.end, "log" in value.tags
    if low is None or high is None:
        raise UserError(f"{line} needs two ends: interval(1e-4, 1e-2)")
    if unknown := set(value.tags) - {"log"}:
        raise UserError(f"{line}: unknown tag {sorted(unknown)[0]}; choices: log")
    whole = isinstance(low, int) and isinstance(high, int)
    try:
        if whole:
            return kinds.IntDistribution(int(low), int(high), log=log)
        return kinds.FloatDistribution(float(low), float(high), log=log)
    except ValueError as error:
        raise UserError(f"{line}: {error}") from error
