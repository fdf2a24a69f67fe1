"""A run's own files: the truth about a run. Everything else (reports, MLflow) is derived from them.

    results/<experiment>/<run>/
      config.yaml                   the resolved config, written once
      meta.json                     id, name, tags; versions, git revision, machine, command line
      steps.jsonl                   one line per training step
      evaluations.jsonl             one line per milestone, summarising
      evaluations/<step>.parquet    one row per problem and sample
      summary.json, summary.md      exist when the run is finished
      failure.json                  exists when the run ended with an error
      figures/ checkpoints/ policy/

A line is flushed when it is written and synced to disk only for a checkpoint, which stores the streams'
lengths. Whatever was written after the last checkpoint is cut off on resume, so a killed run leaves no trace
of the steps that are done again. Whole files appear by atomic rename.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from ablate import __version__
from ablate.machine import start_facts, system_metrics
from ablate.types import UserError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "COLUMNS",
    "STREAMS",
    "Record",
    "Status",
    "Unrecorded",
    "atomic_write",
    "check_format",
    "load_evaluation",
    "primary",
    "read_json",
    "read_jsonl",
    "read_rows",
    "status",
    "step_means",
    "system_metrics",
    "write_json",
]

STREAMS = ("steps", "evaluations")
FORMAT = 1  # of a run's folder; to be raised when an older reader would misread a newer one
COLUMNS = ("problem", "cluster", "stratum", "sample", "solved", "tokens", "truncated")

Status = Literal["new", "unfinished", "finished", "failed"]


class Record:
    """The writer of one run's folder; one process and one thread at a time.

    Every method raises `UserError` naming the path if the disk refuses (permissions, full disk).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.figures = self.folder / "figures"
        self.checkpoints = self.folder / "checkpoints"
        self.policy = self.folder / "policy"
        self.guard: Callable[[], None] = lambda: None  # raises if the folder is no longer this process's
        self._streams: dict[str, IO[bytes]] = {}
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe.{os.getpid()}.tmp"
            probe.touch()
            probe.unlink()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Store the resolved config (plain containers). A config that is already there stays: it is what the
        run was started with."""
        import yaml

        path = self.folder / "config.yaml"
        if not path.exists():
            atomic_write(path, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())

    def write_meta(self, run_name: str, tags: Mapping[str, str], gpus: Sequence[str] = ()) -> dict[str, Any]:
        """Store what is needed to say later what ran where, and return it.

        The first call gives the run its id, name, tags and start; every later call (a resume) adds its own
        versions, revision, machine and command under `resumed`.
        """
        path = self.folder / "meta.json"
        facts = start_facts(gpus)
        if path.exists():
            meta = read_json(path)
            meta["resumed"] = [*meta.get("resumed", []), facts]
        else:
            meta = {
                "format": FORMAT,
                "id": uuid.uuid4().hex,
                "run_name": run_name,
                "tags": dict(tags),
                **facts,
            }
        write_json(path, meta)
        return meta

    def append(self, stream: str, row: Mapping[str, Any]) -> None:
        """Add one line to a stream. The row needs `step`; `time` (seconds since the epoch) is added if it is
        absent.

        Numbers that JSON cannot hold (NaN, infinities) become null and are named under `nonfinite`; nested
        ones as a path with slashes. Numpy scalars and arrays become plain numbers and lists.
        """
        if stream not in STREAMS or "step" not in row:
            raise ValueError(f"a row with a step for one of {STREAMS} expected, not {stream}: {sorted(row)}")
        self.guard()
        line = _encode({"time": time.time(), **row}) + b"\n"
        with _writing(self.folder):
            handle = self._open(stream)
            handle.write(line)
            handle.flush()

    def write_evaluation(self, step: int, columns: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Store a milestone: `columns` (one entry per problem and sample; `COLUMNS` and any numeric ones) as
        a parquet file, then `row` in evaluations.jsonl, so that a line never lacks its file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if missing := [name for name in COLUMNS if name not in columns]:
            raise ValueError(f"evaluation without {missing}")
        self.guard()
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        path = _evaluation_path(self.folder, step)
        with _writing(path):
            path.parent.mkdir(exist_ok=True)
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        atomic_write(path, buffer.getvalue().to_pybytes())
        self.append("evaluations", {"step": step, **row})

    def positions(self) -> dict[str, int]:
        """Bytes per stream, safely on disk when this returns: what a checkpoint stores."""
        with _writing(self.folder):
            for stream in STREAMS:
                os.fsync(self._open(stream).fileno())
            return {stream: self._path(stream).stat().st_size for stream in STREAMS}

    def truncate_to(self, positions: Mapping[str, int]) -> None:
        """Forget everything after a checkpoint's positions (a stream without one: all of it), and that the
        run has ended.

        Raises `UserError` if a stream is shorter than the checkpoint says or was cut inside a line.
        """
        self.close()
        sizes = {}
        for stream in STREAMS:
            path, end = self._path(stream), positions.get(stream, 0)
            data = path.read_bytes() if path.exists() else b""
            if len(data) < end or (end and data[end - 1 : end] != b"\n"):
                raise UserError(
                    f"{path} does not reach back to its checkpoint (byte {end} of {len(data)}): "
                    "it was changed, so the run cannot be resumed"
                )
            sizes[path] = end
        with _writing(self.folder):
            for name in ("summary.json", "summary.md", "failure.json"):
                (self.folder / name).unlink(missing_ok=True)
            for path, end in sizes.items():
                if path.exists():
                    os.truncate(path, end)
            rows = read_jsonl(self._path("evaluations"))
            kept = {_evaluation_path(self.folder, row["step"]) for row in rows}
            stale = set((self.folder / "evaluations").glob("*.parquet")) - kept
            for path in (*stale, *self.folder.glob("**/.*.tmp")):
                path.unlink(missing_ok=True)

    def finish(self, summary: Mapping[str, Any], text: str) -> None:
        """Store the summary for machines and for people; from now on the run is `finished`."""
        atomic_write(self.folder / "summary.md", text.encode())
        write_json(self.folder / "summary.json", {"finished": True, "ended": time.time(), **summary})

    def fail(self, message: str) -> None:
        """Store why the run ended; it is `failed` until it is resumed."""
        write_json(self.folder / "failure.json", {"message": message, "ended": time.time()})

    def close(self) -> None:
        """Close the streams; appending opens them again."""
        with _writing(self.folder):
            while self._streams:
                self._streams.popitem()[1].close()

    def _path(self, stream: str) -> Path:
        return self.folder / f"{stream}.jsonl"

    def _open(self, stream: str) -> IO[bytes]:
        if stream not in self._streams:
            path = self._path(stream)
            handle = path.open("ab")
            rows = read_rows(path)
            handle.truncate(rows[-1][1] if rows else 0)  # a line that a killed process left half written
            self._streams[stream] = handle
        return self._streams[stream]


class Unrecorded(Record):
    """In place of a record, on the ranks of a run that do not keep it. They only say why they failed."""

    def append(self, stream: str, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Nothing."""

    def write_meta(self, run_name: str, tags: Mapping[str, str], gpus: Sequence[str] = ()) -> dict[str, Any]:
        """Nothing."""
        return {}

    def write_evaluation(self, step: int, columns: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Nothing."""

    def positions(self) -> dict[str, int]:
        """None."""
        return {}

    def truncate_to(self, positions: Mapping[str, int]) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any], text: str) -> None:
        """Nothing."""


def status(folder: Path) -> Status:
    """What became of a run, from its files alone. A run that is still going on is `unfinished`."""
    summary = folder / "summary.json"
    if summary.exists() and read_json(summary).get("finished"):
        return "finished"
    if (folder / "failure.json").exists():
        return "failed"
    started = any((folder / name).exists() for name in ("config.yaml", "meta.json", "steps.jsonl"))
    return "unfinished" if started else "new"


def check_format(folder: Path) -> None:
    """Raises UserError for a run that a version of ablate with other files has recorded."""
    meta = read_json(folder / "meta.json") if (folder / "meta.json").exists() else {}
    found = meta.get("format", 1)
    if found != FORMAT:
        made_by = meta.get("ablate", "of an unknown version")
        raise UserError(
            f"{folder} was recorded by ablate {made_by} in format {found}; "
            f"this is {__version__}, which reads format {FORMAT}: use that version, or another name=..."
        )


def load_evaluation(folder: Path, step: int) -> dict[str, np.ndarray]:
    """The columns of one milestone: one entry per problem and sample. Raises `UserError` if the file is
    missing or broken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _evaluation_path(folder, step)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read the evaluation {path}: {_first_line(error)}") from error
    return {name: table[name].to_numpy() for name in table.column_names}


def primary(figures: Mapping[str, Any]) -> str:
    """Which held-out figure arms are compared by: the task's own score where it has one, else pass@1.
    figures: of an evaluation, by name, with or without "heldout/" before it."""
    return "score" if "score" in figures or "heldout/score" in figures else "pass@1"


def step_means(folder: Path, prefix: str) -> dict[str, float]:
    """The mean over training steps of each figure whose name begins with `prefix`, without it; of the steps
    that have it. Errors as in `read_jsonl`."""
    found: dict[str, list[float]] = {}
    for row in read_jsonl(folder / "steps.jsonl"):
        for key, value in row.items():
            if key.startswith(prefix) and value is not None:
                found.setdefault(key.removeprefix(prefix), []).append(float(value))
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All rows of a stream; none if the file does not exist. The torn last line of a killed run is skipped;
    any other broken line raises `UserError` with its number."""
    return [row for row, _ in read_rows(path)]


def read_rows(path: Path, offset: int = 0) -> list[tuple[dict[str, Any], int]]:
    """The rows from byte `offset` (the start of a line) on, each with the byte where its line ends. Errors as
    in `read_jsonl`."""
    try:
        with path.open("rb") as handle:
            handle.seek(offset)
            lines = handle.readlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    rows = []
    for line in lines:
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            number = path.read_bytes()[:offset].count(b"\n") + 1
            raise UserError(f"{path}, line {number}: not a JSON object")
        offset += len(line)
        rows.append((row, offset))
    return rows


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises `UserError` if it is missing or broken."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"cannot read {path}: not a JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write strict JSON atomically; numbers that JSON cannot hold as in `Record.append`."""
    atomic_write(path, _encode(value, indent=2) + b"\n")


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file in one step: readers and crashes see the old content or the new. Raises `UserError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path):
        try:
            with temporary.open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _evaluation_path(folder: Path, step: int) -> Path:
    return folder / "evaluations" / f"{step:06d}.parquet"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}") from error


def _encode(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    nonfinite: list[str] = []
    plain = _plain(value, "", nonfinite)
    if nonfinite:
        plain["nonfinite"] = nonfinite
    return json.dumps(plain, allow_nan=False, ensure_ascii=False, indent=indent).encode()


def _plain(value: Any, path: str, nonfinite: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        nonfinite.append(path)
        return None
    if isinstance(value, Mapping):
        return {
            key: _plain(item, f"{path}/{key}" if path else str(key), nonfinite) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}/{index}", nonfinite) for index, item in enumerate(value)]
    if hasattr(value, "tolist"):  # numpy and torch
        return _plain(value.tolist(), path, nonfinite)
    return value


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
