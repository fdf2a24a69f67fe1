"""What `python -m ablate.testtime` left in results/<experiment>/testtime/, read and checked.

    meta.json                {"version": 1, ...}
    points.jsonl             a row per run, method and setting
    <run>.parquet            a row per method, setting and problem
    <run>-natural.parquet    a row per problem and plain sample

A file of another version is refused. What belongs to a run that the report does not read, and what lacks a
column, is left out and named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ablate.experiments import TESTTIME as FOLDER
from ablate.record import read_json, read_jsonl
from ablate.report.runs import Experiment, Run
from ablate.types import UserError

VERSION = 1
SETS = ("heldout", "hard")
NEEDED = ("run", "method", "guide", "setting", "oracle", "set", "accuracy", "tokens", "flops", "fit_flops")
OUTCOMES = ("method", "guide", "setting", "problem", "cluster", "stratum", "solved", "flops")
NATURAL = ("problem", "cluster", "stratum", "sample", "tokens", "ended", "right")


@dataclass(frozen=True)
class Setting:
    """A method at one setting on one run. solved, flops: per problem, in the order of `Answered.problems`.
    followed: where a length was asked for, how well it was kept to (`ablate.testtime.asked`)."""

    method: str
    guide: str | None
    setting: str
    oracle: bool
    tokens: float
    fit_flops: float
    solved: np.ndarray
    flops: np.ndarray
    followed: Mapping[str, float] | None = None

    @property
    def kind(self) -> tuple[str, str | None]:
        """Its curve: settings of a kind differ in how much they spend."""
        return self.method, self.guide


@dataclass(frozen=True)
class Answered:
    """A run at test time on one set of problems."""

    run: Run
    set: str
    problems: np.ndarray
    clusters: np.ndarray
    strata: np.ndarray
    settings: tuple[Setting, ...]

    def among(self, ids: np.ndarray) -> Answered:
        """On some of its problems, ids in order."""
        place = np.searchsorted(self.problems, ids)
        settings = tuple(
            Setting(**{**vars(each), "solved": each.solved[place], "flops": each.flops[place]})
            for each in self.settings
        )
        return Answered(self.run, self.set, ids, self.clusters[place], self.strata[place], settings)


@dataclass
class TestFiles:
    """All that could be read. natural: (run, columns). left_out: (file, reason). without: (run, kind, reason)
    of methods that a run could not have."""

    __test__ = False  # to pytest

    answered: list[Answered] = field(default_factory=list)
    natural: list[tuple[Run, dict[str, np.ndarray]]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    without: list[tuple[Run, tuple[str, str | None], str]] = field(default_factory=list)


def read(experiment: Experiment) -> TestFiles:
    """Raises UserError for files of another version, and for points that cannot be read."""
    folder, found = experiment.folder / FOLDER, TestFiles()
    if not folder.is_dir():
        return found
    _check_version(folder)
    runs = {run.folder.name: run for run in experiment.runs}
    points = _points(folder / "points.jsonl")
    there = {(point["run"], point["method"], point["guide"]) for point in points}
    for name, method, guide, why in read_json(folder / "meta.json").get("left_out", []):
        if name in runs and (name, method, guide) not in there:
            found.without.append((runs[name], (method, guide), why))
    for name in dict.fromkeys(str(point["run"]) for point in points):
        path = folder / f"{name}.parquet"
        if name not in runs:
            found.left_out.append((f"{FOLDER}/{path.name}", "its run is no part of this report"))
            continue
        try:
            own = [point for point in points if point["run"] == name]
            found.answered += _answered(path, runs[name], own)
        except UserError as error:
            found.left_out.append((f"{FOLDER}/{path.name}", str(error)))
    for path in sorted(folder.glob("*-natural.parquet")):
        run = runs.get(path.name.removesuffix("-natural.parquet"))
        try:
            if run is None:
                raise UserError("its run is no part of this report")
            found.natural.append((run, _columns(path, NATURAL)))
        except UserError as error:
            found.left_out.append((f"{FOLDER}/{path.name}", str(error)))
    return found


def _check_version(folder: Path) -> None:
    path = folder / "meta.json"
    version = read_json(path).get("version")
    if version != VERSION:
        raise UserError(
            f"{path} is of version {version}, and this report reads version {VERSION}: move {folder} away "
            f"and run python -m ablate.testtime {folder.parent}"
        )


def _points(path: Path) -> list[dict[str, Any]]:
    points = read_jsonl(path)
    for number, point in enumerate(points, 1):
        for key in NEEDED:
            if key not in point:
                raise UserError(f"{path}, line {number}: no {key!r}")
        if point["set"] not in SETS:
            raise UserError(f"{path}, line {number}: set is {point['set']!r}, not one of {', '.join(SETS)}")
    return points


def _columns(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """Raises UserError, which does not name the file, if it is missing, broken, empty or lacks a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError("is missing") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot be read: {str(error).splitlines()[0]}") from error
    if missing := [name for name in needed if name not in table.column_names]:
        raise UserError(f"has no column {', '.join(missing)}")
    if not table.num_rows:
        raise UserError("has no rows")
    return {name: table[name].to_numpy() for name in table.column_names}


def _answered(path: Path, run: Run, points: list[dict[str, Any]]) -> Iterator[Answered]:
    """Per set of problems. Raises UserError."""
    columns = _columns(path, OUTCOMES)
    sets = list(dict.fromkeys(str(point["set"]) for point in points))
    if len(sets) > 1 and "set" not in columns:
        raise UserError(
            f"has no column set, and {path.parent.name}/points.jsonl speaks of {' and '.join(sets)}"
        )
    names = {key: columns[key].astype(str) for key in ("method", "setting", "problem", "cluster", "stratum")}
    guides = np.array([guide if isinstance(guide, str) else "" for guide in columns["guide"]])
    written, place = np.unique(names["setting"], return_inverse=True)
    names["setting"] = np.array([_text(each) for each in written])[place]
    where = columns["set"].astype(str) if "set" in columns else np.full(len(guides), sets[0])
    for each in sets:
        of_set = where == each
        parts = []
        for point in (point for point in points if point["set"] == each):
            setting = _text(point["setting"])
            rows = of_set & (names["method"] == point["method"]) & (guides == (point["guide"] or ""))
            rows &= names["setting"] == setting
            if not rows.any():
                raise UserError(f"has no rows of {point['method']} {setting}, which points.jsonl has")
            parts.append((point, setting, np.flatnonzero(rows)))
        ids = sorted(set.intersection(*(set(names["problem"][rows]) for _, _, rows in parts)))
        if not ids:
            raise UserError("has no problem that all of its methods answered")
        common = np.array(ids)
        settings = []
        for point, setting, rows in parts:
            order, first = np.unique(names["problem"][rows], return_index=True)
            place = rows[first[np.searchsorted(order, common)]]
            settings.append(
                Setting(
                    method=_variant(point),
                    guide=point["guide"],
                    setting=setting,
                    oracle=bool(point["oracle"]),
                    tokens=float(point["tokens"]),
                    fit_flops=float(point["fit_flops"]),
                    solved=columns["solved"][place].astype(float),
                    flops=columns["flops"][place].astype(float),
                    followed=point.get("followed"),
                )
            )
        clusters = names["cluster"][place]
        yield Answered(
            run,
            each,
            common,
            np.where(clusters == "", common, clusters),
            names["stratum"][place],
            tuple(settings),
        )


def _text(setting: Any) -> str:
    """A setting in one form, however it was written. Raises UserError if it is no JSON."""
    if isinstance(setting, str):
        try:
            setting = json.loads(setting)
        except ValueError:
            raise UserError(f"has a setting that is no JSON: {setting[:40]!r}") from None
    return json.dumps(setting, sort_keys=True)


def _variant(point: Mapping[str, Any]) -> str:
    """The method, and which of its forms: those that differ in more than how much they spend."""
    method, setting = str(point["method"]), point["setting"]
    if method == "length_prompt":
        return f"{method}:{setting['prompt']}"
    if method == "budget_forcing":
        return f"{method}:{next(iter(setting))}"
    return f"{method}:{setting['choose']}" if "choose" in setting else method
