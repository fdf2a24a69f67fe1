"""Optuna studies of a tuning sweep: one per strategy, in results/<name>/optuna.db.

A trial is a setting of the learner, run once per tuning seed; what is told is the mean accuracy on tuning
problems, and 0 where a run's weights ran away. A run that failed otherwise makes a failed trial, which
counts. The storage says which trial has which setting; the runs' own files say what came of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from ablate.config import of_the_learner
from ablate.schema import flat, nearest, one_line
from ablate.types import UserError

STORAGE = "optuna.db"
PATIENCE = 10.0  # seconds that sqlite waits for another writer
Sampler = Literal["tpe", "random"]


@dataclass(frozen=True)
class Proposal:
    """A trial of one strategy's study. number: from 0; values: by dotted key."""

    arm: str
    number: int
    values: dict[str, Any]


def optuna() -> Any:
    """The library, quiet."""
    import optuna as library

    library.logging.set_verbosity(library.logging.WARNING)
    return library


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Optuna's storage in an sqlite file. Raises UserError if another process holds it, or if it is none."""
    library = optuna()
    import sqlalchemy.exc

    try:
        yield library.storages.RDBStorage(
            f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": PATIENCE}}
        )
    except (sqlalchemy.exc.SQLAlchemyError, library.exceptions.StorageInternalError, RuntimeError) as error:
        causes = [one_line(each) for each in (error, error.__cause__, error.__context__) if each is not None]
        text = " ".join(causes)
        if "database is locked" in text:
            raise UserError(
                f"{path} is locked by another process: wait for it, or take another name="
            ) from error
        if isinstance(error, RuntimeError):
            raise
        raise UserError(f"{path} cannot be used as Optuna's storage: {causes[-1]}") from error


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a storage for one sweep. Raises UserError while another one does."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            yield
    except Timeout:
        raise UserError(f"{path} is locked: another sweep adds trials to it; take another name=") from None


@dataclass
class Studies:
    """The studies of one sweep. space: Optuna's distributions by key; settings: what else makes the runs."""

    storage: Any
    path: Path
    space: Mapping[str, Any]
    seeds: Sequence[int]
    settings: Mapping[str, Any]
    sampler: str = "tpe"
    sampler_seed: int = 0
    startup: int = 5  # random trials before a model guides them

    def study(self, arm: str, trials: int) -> Any:
        """An arm's study, made if it is new. Raises UserError if it is one of another search."""
        library = optuna()
        study = library.create_study(
            storage=self.storage, study_name=arm, direction="maximize", load_if_exists=True
        )
        wanted = self._facts()
        known = study.user_attrs.get("ablate")
        if known is None and study.trials:
            raise UserError(f"{self.path} holds a study {arm} that was not made by this command")
        if known is None:
            study.set_user_attr("ablate", wanted)
            known = wanted
        older = dict(flat({"learner": of_the_learner({})}))  # keys that are newer than the study
        known = {key: value for key, value in older.items() if key in wanted} | (known or {})
        if keys := sorted(k for k in known.keys() | wanted.keys() if known.get(k) != wanted.get(k)):
            key = keys[0]
            raise UserError(
                f"{self.path} holds another study of {arm}: {key} is {known.get(key)} there and "
                f"{wanted.get(key)} here; take another name="
            )
        if len(study.trials) > trials:
            raise UserError(
                f"{self.path} has {len(study.trials)} trials of {arm} already: hydra.sweeper.trials={trials} "
                f"is too small, the smallest valid value is {len(study.trials)}"
            )
        return study

    def _facts(self) -> dict[str, Any]:
        space = {key: described(each) for key, each in self.space.items()}
        sampler = {"seeds": list(self.seeds), "sampler": self.sampler, "sampler_seed": self.sampler_seed}
        return {**self.settings, **space, **sampler, "startup": self.startup}

    def propose(self, study: Any, number: int) -> Proposal | None:
        """A study's trial `number`, asked for if it is new; None: its result is known.

        What is asked is a function of the trials told before and of (sampler_seed, arm, number), so that a
        sweep that was stopped anywhere goes on to the same trials.
        """
        library = optuna()
        text = f"{self.sampler_seed}/{study.study_name}/{number}"
        seed = int.from_bytes(sha256(text.encode()).digest()[:4], "big")
        if self.sampler == "random":
            study.sampler = library.samplers.RandomSampler(seed=seed)
        else:
            study.sampler = library.samplers.TPESampler(seed=seed, n_startup_trials=self.startup)
        known = study.get_trials(deepcopy=False)
        if number < len(known):
            if known[number].state.is_finished():
                return None
            trial = library.trial.Trial(study, known[number]._trial_id)
            for key, each in self.space.items():  # what it has, or what it was killed before asking
                if choices := getattr(each, "choices", None):
                    trial.suggest_categorical(key, choices)
                elif isinstance(each, library.distributions.IntDistribution):
                    trial.suggest_int(key, each.low, each.high, log=each.log)
                else:
                    trial.suggest_float(key, each.low, each.high, log=each.log)
        else:
            trial = study.ask(fixed_distributions=dict(self.space))
        return Proposal(study.study_name, number, dict(trial.params))

    def tell(self, study: Any, number: int, value: float | None, runs: Sequence[str]) -> None:
        """Note a trial's mean accuracy, None if it failed, and the folders of its runs."""
        library = optuna()
        trial = study.get_trials(deepcopy=False)[number]
        library.trial.Trial(study, trial._trial_id).set_user_attr("runs", list(runs))
        state = library.trial.TrialState.FAIL if value is None else library.trial.TrialState.COMPLETE
        study.tell(number, value, state=state)


def described(distribution: Any) -> str:
    """`1e-4..3e-3, logarithmic` or `a, b, c`"""
    if choices := getattr(distribution, "choices", None):
        return ", ".join(map(str, choices))
    return f"{distribution.low:g}..{distribution.high:g}{', logarithmic' if distribution.log else ''}"


def check(trials: int, sampler: str, startup: int, sampler_seed: int) -> None:
    """Raises UserError for settings of the sweeper that cannot be."""
    for key, value, least in (
        ("trials", trials, 1),
        ("startup", startup, 0),
        ("sampler_seed", sampler_seed, 0),
    ):
        if value < least:
            raise UserError(f"hydra.sweeper.{key}={value} is too small: the smallest valid value is {least}")
    if sampler not in get_args(Sampler):
        raise UserError(
            f"hydra.sweeper.sampler={sampler} is not a choice; {nearest(sampler, get_args(Sampler))}"
        )


def read(path: Path) -> dict[str, list[tuple[dict[str, Any], str, list[str]]]]:
    """{strategy: its trials in order, each as (values, state, its runs' folders)}; state: "complete", "fail"
    or "running". Raises UserError."""
    library = optuna()
    with opened(path) as storage:
        found = {}
        for name in library.get_all_study_names(storage):
            study = library.load_study(study_name=name, storage=storage)
            if "ablate" not in study.user_attrs:
                raise UserError(f"{path} holds a study {name} that was not made by hydra/sweeper=studies")
            found[name] = [
                (dict(each.params), each.state.name.lower(), each.user_attrs.get("runs", []))
                for each in study.trials
            ]
    return found


def draw(path: Path, folder: Path) -> list[Path]:
    """Optuna's history and importance of every study, as SVG and PNG; importance wants two trials that differ
    in accuracy. Returns the SVG files."""
    library = optuna()
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(exist_ok=True)
    written = []
    # Optuna chooses a style for the whole process
    with opened(path) as storage, warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore", library.exceptions.ExperimentalWarning)
        plots = library.visualization.matplotlib
        for name in library.get_all_study_names(storage):
            study = library.load_study(study_name=name, storage=storage)
            values = {each.value for each in study.get_trials() if each.value is not None}
            wanted = [("history", plots.plot_optimization_history)] if values else []
            wanted += [("importance", plots.plot_param_importances)] if len(values) > 1 else []
            for what, plot in wanted:
                axes = plot(study)
                axes.set_title(f"{name}: {'accuracy by trial' if what == 'history' else 'importance'}")
                axes.figure.tight_layout()
                written.append(folder / f"{what}-{name}.svg")
                for file in (written[-1], written[-1].with_suffix(".png")):
                    axes.figure.savefig(
                        file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None
                    )
                pyplot.close(axes.figure)
    return written


def as_json(value: Any) -> str:
    """A value as YAML and Hydra's command line read it."""
    return repr(value) if isinstance(value, float) else json.dumps(value)
