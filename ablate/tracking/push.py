"""What a run's files hold and MLflow does not have yet is sent, and noted in the run's folder.

The note (`mlflow.json`) holds, per store and experiment, the MLflow run's id and how far each stream went.
Sent twice by accident (killed between sending and noting), a point is stored once: MLflow's key is run, name,
step, value and timestamp, and all of them come from the file. If the record was cut back behind the note (a
resumed run), the MLflow run shows steps that no longer count, and MLflow cannot forget them: it is replaced
by a new one, and the old one goes to MLflow's trash.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.record import STREAMS, read_json, read_rows, status, write_json
from ablate.tracking.store import address, connect, find_experiment, redact, sqlite_path
from ablate.types import UserError

if TYPE_CHECKING:
    from mlflow.entities import Metric

NOTE = "mlflow.json"
ARTIFACTS = ("config.yaml", "evaluations.jsonl", "summary.json", "summary.md")
METRICS_PER_CALL, PARAMS_PER_CALL, PARAM_LENGTH, NAME_LENGTH = 1000, 100, 500, 250  # the server's limits
TAIL = 256  # bytes before the noted position that tell whether the file is still the one that was sent
CUT = -1


@dataclass(frozen=True)
class PushResult:
    """What one push did. `error` is None if MLflow now has everything that the files held."""

    run_id: str | None
    url: str | None  # of the run, for http(s) stores
    points: int = 0  # metric values sent
    artifacts: int = 0  # files sent
    error: str | None = None  # one line


def push(
    folder: Path,
    uri: str,
    experiment: str,
    deadline_seconds: float,
    *,
    idle_status: str | None = None,
    verify: bool = True,
) -> PushResult:
    """Bring MLflow up to date with a run's files; sends nothing that was sent before.

    `idle_status` is what MLflow shows for a run that has neither finished nor failed (None: leave it). With
    `verify` it is first made sure that MLflow still has the run; one that vanished with its database is sent
    anew. Never raises for anything that MLflow, the network or the files do: see `PushResult.error`.
    """
    sender = _Sender(Path(folder), uri, experiment, time.monotonic() + deadline_seconds)
    try:
        from filelock import FileLock

        with FileLock(sender.folder / ".mlflow.lock", timeout=max(0.0, min(deadline_seconds, 10.0))):
            sender.run(idle_status, verify)
    except Exception as error:  # SQL drivers, HTTP and cloud storage each raise their own
        return sender.result(reason(error))
    return sender.result(None)


class _Stop(Exception):
    """The deadline has passed; what was sent is noted."""


class _Sender:
    """One push."""

    def __init__(self, folder: Path, uri: str, experiment: str, deadline: float) -> None:
        self.folder, self.uri, self.experiment, self.deadline = folder, uri, experiment, deadline
        self.notes: list[dict[str, Any]] = []
        self.entry: dict[str, Any] = {}
        self.points = self.artifacts = 0

    def result(self, error: str | None) -> PushResult:
        run_id, url = self.entry.get("run_id"), None
        if run_id and self.uri.startswith("http"):
            url = address(self.uri, [(self.entry["experiment_id"], run_id)])
        return PushResult(run_id, url, self.points, self.artifacts, error)

    def run(self, idle_status: str | None, verify: bool) -> None:
        self.notes = notes(self.folder)
        key = {"uri": redact(self.uri), "experiment": self.experiment}
        known = [entry for entry in self.notes if all(entry.get(name) == key[name] for name in key)]
        self.entry = known[0] if known else {**key, "trash": []}
        if not known:
            self.notes.append(self.entry)
        self.client = connect(self.uri)
        try:
            self._send(idle_status, verify)
        except Exception as error:
            if not _vanished(error) or "run_id" not in self.entry:
                raise
            self._forget()  # the run went away with its database
            self._send(idle_status, verify=False)

    def _send(self, idle_status: str | None, verify: bool) -> None:
        if "run_id" in self.entry and not all(self._same(stream) for stream in STREAMS):
            self.entry["trash"].append(self.entry["run_id"])
            self._forget()
        if "run_id" not in self.entry:
            self._create()
        elif verify and not self._active(self.entry["run_id"]):
            raise UserError(
                f"the run was deleted in MLflow: restore it there, or remove "
                f"{self.folder / NOTE} to send it again"
            )
        self._params()
        for stream in STREAMS:
            self._stream(stream)
        self._status(idle_status)
        self._files()
        self._empty_trash()

    def _empty_trash(self) -> None:
        from mlflow.exceptions import MlflowException

        while self.entry["trash"]:
            run_id, *rest = self.entry["trash"]
            try:
                if self._active(run_id):
                    self.client.delete_run(run_id)
            except MlflowException as error:
                if not _vanished(error):
                    raise
            self._note(trash=rest)

    def _active(self, run_id: str) -> bool:
        self._check_time()
        return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise _Stop("not everything could be sent in time")

    def _note(self, **changes: Any) -> None:
        self.entry.update(changes)
        write_json(self.folder / NOTE, {"mirrors": self.notes})

    def _forget(self) -> None:
        for key in set(self.entry) - {"uri", "experiment", "trash"}:
            del self.entry[key]
        self._note()

    def _same(self, stream: str) -> bool:
        offset, tail = self.entry.get("streams", {}).get(stream, (0, 0))
        return tail != CUT and tail == _tail(self.folder / f"{stream}.jsonl", offset)

    def _create(self) -> None:
        """Find the run by its id (an earlier push may have died before it could note it), or create it."""
        meta = read_json(self.folder / "meta.json")
        self._check_time()
        beside = sqlite_path(self.uri) or self.folder.parent
        experiment_id = find_experiment(self.client, self.uri, self.experiment, beside)
        runs = self.client.search_runs([experiment_id], f"tags.`ablate.id` = '{meta['id']}'")
        run_ids = [run.info.run_id for run in runs if run.info.run_id not in self.entry["trash"]]
        if not run_ids:
            tags = {**meta["tags"], "ablate.folder": str(self.folder.resolve()), "ablate.id": meta["id"]}
            run = self.client.create_run(
                experiment_id,
                start_time=_milliseconds(meta["started"]),
                tags={key: str(value) for key, value in tags.items()},
                run_name=meta["run_name"],
            )
            run_ids = [run.info.run_id]
        self._note(run_id=run_ids[0], experiment_id=experiment_id)

    def _params(self) -> None:
        import yaml
        from mlflow.entities import Param

        path = self.folder / "config.yaml"
        if self.entry.get("params") or not path.exists():
            return
        leaves = _leaves(yaml.safe_load(path.read_bytes()), ".")
        texts = {
            mlflow_name(key): value if isinstance(value, str) else json.dumps(value) for key, value in leaves
        }
        params = [Param(key, redact(text)[:PARAM_LENGTH]) for key, text in texts.items()]
        for batch in _batches(params, PARAMS_PER_CALL):
            self._check_time()
            self.client.log_batch(self.entry["run_id"], params=batch, synchronous=True)
        self._note(params=True)

    def _stream(self, stream: str) -> None:
        from mlflow.entities import Metric

        path = self.folder / f"{stream}.jsonl"
        streams = self.entry.get("streams", {})
        start, _ = streams.get(stream, (0, 0))
        batch: list[Metric] = []
        rows = read_rows(path, start)
        for index, (row, end) in enumerate(rows):
            batch += [
                Metric(mlflow_name(name), value, _milliseconds(row["time"]), row["step"])
                for name, value in _numbers(row)
            ]
            if index + 1 < len(rows) and len(batch) < METRICS_PER_CALL:
                continue
            for part in _batches(batch, METRICS_PER_CALL):
                self._check_time()
                # Asynchronous logging would report success for data that never arrives.
                self.client.log_batch(self.entry["run_id"], metrics=part, synchronous=True)
                self.points += len(part)
            batch = []
            streams[stream] = (end, _tail(path, end))
            self._note(streams=streams)

    def _status(self, idle_status: str | None) -> None:
        state = status(self.folder)
        ended = {"finished": ("FINISHED", "summary.json"), "failed": ("FAILED", "failure.json")}.get(state)
        wanted = ended[0] if ended else idle_status
        if wanted is None or wanted == self.entry.get("status", "RUNNING"):
            return
        self._check_time()
        if wanted == "RUNNING":
            self.client.update_run(self.entry["run_id"], status=wanted)
        else:
            when = read_json(self.folder / ended[1])["ended"] if ended else time.time()
            self.client.set_terminated(self.entry["run_id"], wanted, end_time=_milliseconds(when))
        self._note(status=wanted)

    def _files(self) -> None:
        files = [self.folder / name for name in ARTIFACTS] + sorted(self.folder.glob("figures/[!.]*"))
        for path in files:
            if not path.is_file():
                continue
            name, facts = str(path.relative_to(self.folder)), path.stat()
            version = f"{facts.st_size}-{facts.st_mtime_ns}"
            sent = self.entry.get("artifacts", {})
            if sent.get(name) == version:
                continue
            self._check_time()
            self.client.log_artifact(
                self.entry["run_id"], str(path), None if path.parent == self.folder else path.parent.name
            )
            self.artifacts += 1
            self._note(artifacts={**sent, name: version})


def notes(folder: Path) -> list[dict[str, Any]]:
    """What was sent where; nothing if the note is missing or broken (it is found again by the run's id)."""
    try:
        return list(read_json(folder / NOTE)["mirrors"])
    except (UserError, KeyError, TypeError):
        return []


def _tail(path: Path, offset: int) -> int:
    """A checksum of the bytes just before `offset`; CUT if the file does not reach that far."""
    if not offset:
        return 0
    start = max(0, offset - TAIL)
    try:
        with path.open("rb") as handle:
            handle.seek(start)
            data = handle.read(offset - start)
    except FileNotFoundError:
        return CUT
    return zlib.crc32(data) if len(data) == offset - start else CUT


def _numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The metrics of a row; nested ones named with slashes, nonfinite ones as NaN."""
    nonfinite = row.get("nonfinite", ())
    for name, value in _leaves({key: row[key] for key in row.keys() - {"step", "time", "nonfinite"}}, "/"):
        if isinstance(value, int | float):
            yield name, float(value)
        elif name in nonfinite:
            yield name, math.nan


def _leaves(value: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _leaves(item, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", item


def mlflow_name(name: str) -> str:
    """A name that MLflow accepts: word characters, spaces and `-.:/`, and no path that could be shortened or
    leave its folder (it refuses any name that begins with two dots)."""
    plain = re.sub(r"[^\w\-.: /]", "_", name.replace("@", "_at_"))
    path = "/".join(part for part in plain.split("/") if part.strip("."))
    return path.lstrip(".")[:NAME_LENGTH].rstrip("/")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _vanished(error: BaseException) -> bool:
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def reason(error: BaseException) -> str:
    """Why a push failed, in a few words: HTTP libraries bury it in nested messages."""
    text = str(error)
    if type(error).__module__.startswith("filelock"):
        return "another process is sending this run"
    if "Connection refused" in text:
        return "connection refused"
    if "timed out" in text:
        return f"no answer within {os.environ.get('MLFLOW_HTTP_REQUEST_TIMEOUT')} s"
    return redact((text or type(error).__name__).splitlines()[0])[:200]
