"""The results of `python -m ablate.testtime`, kept row by row as they are done.

    results/<experiment>/testtime/
      meta.json                 {"version": 1, "revision": ..., "command": ...}: of the last call; "left_out":
                                [run, method, guide, why] of what a run could not have, in any call
      points.jsonl              one row per run, method and setting
      <run>.parquet             the same per problem: set, method, guide, setting (JSON), problem, cluster,
                                stratum, solved (mean over repeats), tokens, flops
      <run>-natural.parquet     the plain samples: problem, cluster, stratum, sample, tokens, ended, right,
                                and the task's behaviour counts

Plain samples of the hard set are in `<run>-natural-hard.parquet`. A row of points.jsonl appears after its
columns, so it never lacks them; rows of a policy that is there no more are dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablate.machine import start_facts
from ablate.record import atomic_write, read_json, read_jsonl, write_json
from ablate.types import UserError

VERSION = 1
PLACE = ("set", "method", "guide", "setting")  # columns that tell the rows of a setting from others
KIND = ("run", "set", "method", "guide")
KEY = (*KIND, "setting", "options", "problems", "policy")


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(json.dumps(row.get(name), sort_keys=True) for name in KEY)


class Store:
    """One folder of results; one process at a time."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
        self.folder = folder
        self._points = read_jsonl(folder / "points.jsonl")

    def begin(
        self, current: dict[str, str], without: Sequence[tuple[str, str, str | None, str]] = ()
    ) -> None:
        """Note who writes. current: the hash of every run's policy; rows of an earlier one are dropped.
        without: run, method and guide of what a run cannot have, and why."""
        facts = start_facts(())
        git = facts.get("git") or {}
        command = facts.get("command")
        known = self.folder / "meta.json"
        earlier = read_json(known).get("left_out", []) if known.exists() else []
        left_out = {(run, method, guide): why for run, method, guide, why in (*earlier, *without)}
        write_json(
            known,
            {
                "version": VERSION,
                "revision": git.get("revision"),
                "command": command,
                "left_out": [[*what, why] for what, why in left_out.items()],
            },
        )
        self._points = [
            row for row in self._points if current.get(row["run"], row["policy"]) == row["policy"]
        ]
        self._write()

    def has(self, row: dict[str, Any]) -> bool:
        """Is this setting of a run done, on so many problems, by this policy and with these options?"""
        return _key(row) in {_key(point) for point in self._points}

    def add(self, point: dict[str, Any], columns: dict[str, Any]) -> None:
        """Store a row and its columns, in place of those of other problems or of an earlier policy, and of
        all settings of the method that were measured with other options."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        others = [
            p
            for p in self._points
            if all(p[name] == point[name] for name in KIND) and p.get("options") != point.get("options")
        ]
        n = len(columns["problem"])
        setting = json.dumps(point["setting"], sort_keys=True)
        table = pa.table(
            {
                "set": pa.array([point["set"]] * n, pa.string()),
                "method": pa.array([point["method"]] * n, pa.string()),
                "guide": pa.array([point["guide"]] * n, pa.string()),
                "setting": pa.array([setting] * n, pa.string()),
                **{
                    name: pa.array(list(columns[name]), pa.string())
                    for name in ("problem", "cluster", "stratum")
                },
                "solved": pa.array(columns["solved"], pa.float32()),
                "tokens": pa.array(columns["tokens"].round(), pa.int32()),
                "flops": pa.array(columns["flops"], pa.float64()),
            }
        )
        path = self.folder / f"{point['run']}.parquet"
        if path.exists():
            before = pq.read_table(path)
            same = zip(*(before[name].to_pylist() for name in PLACE), strict=True)
            gone = {setting, *(json.dumps(p["setting"], sort_keys=True) for p in others)}
            own = {(point["set"], point["method"], point["guide"], each) for each in gone}
            table = pa.concat_tables([before.filter(pa.array([row not in own for row in same])), table])
        _write_table(path, table)
        place = _key({**point, "problems": 0, "policy": ""})
        self._points = [
            p for p in self._points if p not in others and _key({**p, "problems": 0, "policy": ""}) != place
        ]
        self._points.append(point)
        self._write()

    def add_natural(self, run: str, which: str, columns: dict[str, Any]) -> None:
        """Store the plain samples."""
        import pyarrow as pa

        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        suffix = "" if which == "heldout" else f"-{which}"
        _write_table(self.folder / f"{run}-natural{suffix}.parquet", table)

    def _write(self) -> None:
        lines = [json.dumps(_plain(row), allow_nan=False, ensure_ascii=False) for row in self._points]
        atomic_write(self.folder / "points.jsonl", "".join(f"{line}\n" for line in lines).encode())


def _plain(value: Any) -> Any:
    """Numbers that JSON cannot hold as null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_table(path: Path, table: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    atomic_write(path, buffer.getvalue().to_pybytes())
