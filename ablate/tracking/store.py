"""Where MLflow keeps its data, and how to talk to it quietly: stores, their creation, and their addresses."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ablate.types import UserError

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from mlflow import MlflowClient

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the next push is the retry
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
}
# without it, MLflow's page shows the traces of language models instead of runs
TRAINING_VIEW = "workflowType=machine_learning"
CURVES = "compareRunsMode=CHART"  # MLflow's table of compared runs has last values, and no curves
# ... and so does an experiment that does not say that it is about training
TRAINING = {"mlflow.experimentKind": "custom_model_development"}
SERVERS = ("http", "https", "databricks")  # they choose where artifacts go
DATABASES = ("postgresql", "mysql", "mssql")
LOCKED = "locked"
UI = "http://127.0.0.1:5000"


def quieten() -> None:
    """Make MLflow silent, impatient and discreet (no telemetry) in this process and its children.

    Call it before TRL is imported, which imports MLflow. What the user has set in the environment stays.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def resolve_uri(uri: str | None, results: Path) -> str:
    """The absolute tracking URI: by default an sqlite file in the results folder.

    Raises `UserError` for what MLflow cannot use (a folder: its file store is gone; an unknown scheme) and
    for a password that the config would carry into every copy of the results.
    """
    if uri is None:
        return f"sqlite:///{(results / 'mlflow.db').resolve()}"
    if path := sqlite_path(uri):
        return f"sqlite:///{path.resolve()}"
    parts = urlsplit(uri)
    if parts.scheme in SERVERS and parts.password:
        raise UserError(
            f"tracking.uri={redact(uri)}: set user and password in the environment instead "
            "(MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"
        )
    if parts.scheme.partition("+")[0] in (*SERVERS, *DATABASES) or uri == "databricks":
        return uri.rstrip("/")
    raise UserError(
        f"tracking.uri={redact(uri)}: not a store that MLflow supports; give http://host:port or "
        "sqlite:///path/to/mlflow.db, or null for a file in the results folder"
    )


def initialise_store(uri: str) -> None:
    """Create an sqlite store if there is none, once, however many processes ask at the same time.

    Immediate if the store exists; other kinds of store are left to their servers. The file appears complete
    or not at all. Raises `UserError` if it cannot be created, or if the file is something else.
    """
    path = sqlite_path(uri)
    if path is None or _revision(path):
        return
    with _lock(path):
        if _revision(path):
            return
        quieten()
        import sqlalchemy
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        def unsynced(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA synchronous=OFF")  # a half-made file is thrown away anyhow

        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        new.unlink(missing_ok=True)
        sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", unsynced)
        try:
            SqlAlchemyStore(f"sqlite:///{new}", artifact_root(path)).engine.dispose()
        finally:
            sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", unsynced)
        with new.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(new, path)


def connect(uri: str) -> MlflowClient:
    """A client of a store that is ready for use; cheap after the first call.

    An sqlite store of an older MLflow is migrated. Raises `UserError` and whatever MLflow and its database
    drivers raise.
    """
    quieten()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    path = sqlite_path(uri)
    if path is None:
        return MlflowClient(tracking_uri=uri)
    initialise_store(uri)
    with _lock(path):  # opening a store may migrate it, and two migrations at a time break it
        try:
            return MlflowClient(tracking_uri=uri)
        except MlflowException as error:
            if "out-of-date" not in str(error):
                raise
        _migrate(path)
        return MlflowClient(tracking_uri=uri)


@contextmanager
def without_gc() -> Iterator[None]:
    """No garbage collection inside: beside TRL's 650,000 objects, collections double the time of importing
    the sqlite store (0.9 s against 0.45 s)."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def sqlite_path(uri: str) -> Path | None:
    """The file of an sqlite store, or None for other stores."""
    return Path(uri.removeprefix("sqlite:///")) if re.match("sqlite:///.", uri) else None


def artifact_root(database: Path) -> str:
    """Where the artifacts of a store without a server go: a folder beside its file, as a URI."""
    return (database.resolve().parent / "mlflow-artifacts").as_uri()


def find_experiment(client: MlflowClient, uri: str, name: str, beside: Path) -> str:
    """The id of an experiment, made if need be. beside: the file or folder that artifacts go next to where no
    server chooses their place. Raises `UserError` if it was deleted, and whatever MLflow raises."""
    from mlflow.exceptions import MlflowException

    location = None
    if not uri.startswith(SERVERS):  # MLflow would write into the working directory
        location = f"{artifact_root(beside)}/{re.sub('[^a-zA-Z0-9_.-]', '_', name)}"
    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(client.create_experiment(name, location, TRAINING))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was first
                raise
        known = client.get_experiment_by_name(name)
    if known is None or known.lifecycle_stage != "active":
        raise UserError(
            f"tracking.experiment={name} was deleted in MLflow: restore it there, or choose another name"
        )
    return str(known.experiment_id)


def redact(uri: str) -> str:
    """A URI without user name and password, fit for files and screens."""
    return re.sub(r"//[^/@\s]+@", "//", uri)


def address(uri: str, runs: Sequence[tuple[str, str]], tag: str | None = None) -> str:
    """The page for (experiment id, run id) pairs in MLflow's user interface: the run; the curves of all runs
    with this tag `experiment`, or without a tag the table that compares just these; or the start page."""
    base = redact(uri) if uri.startswith("http") else UI
    if len(runs) == 1:
        return f"{base}/#/experiments/{runs[0][0]}/runs/{runs[0][1]}?{TRAINING_VIEW}"
    if not runs:
        return base
    if tag is not None:
        search = quote(f"tags.experiment = '{tag}'")
        return f"{base}/#/experiments/{runs[0][0]}/runs?searchFilter={search}&{CURVES}&{TRAINING_VIEW}"
    run_ids = quote(json.dumps([run for _, run in runs]))
    experiments = quote(json.dumps(list(dict.fromkeys(experiment for experiment, _ in runs))))
    return f"{base}/#/compare-runs?runs={run_ids}&experiments={experiments}&{TRAINING_VIEW}"


def where_to_look(uri: str, runs: Sequence[tuple[str, str]], tag: str | None = None) -> str:
    """The page for runs as `address` has it, and for a store without a server the command that starts one on
    this machine."""
    page = address(uri, runs, tag)
    if uri.startswith(SERVERS):
        return page
    # several workers are killed by their supervisor where runs keep the machine busy, again and again
    serve = f"mlflow ui --workers 1 --host 127.0.0.1 --port 5000 --backend-store-uri {redact(uri)}"
    return f"`{serve}`, then {page}"


def _revision(path: Path) -> str | None:
    """The schema version of an MLflow database; None if there is no file or an empty one, LOCKED if another
    process holds it: what was to be sent waits, and no run does."""
    try:
        if not path.exists() or not path.stat().st_size:
            return None
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except (OSError, sqlite3.Error, TypeError) as error:
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LOCKED
        raise UserError(
            f"{path} is not a readable MLflow database ({error}): move it away or choose another tracking.uri"
        ) from error
    return str(revision)


@contextmanager
def _lock(path: Path) -> Iterator[BaseFileLock]:
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock", timeout=120)
        lock.acquire()
    except OSError as error:  # a TimeoutError is one, too
        raise UserError(f"cannot write to {path.parent}: {error.strerror or error}") from error
    try:
        yield lock
    finally:
        lock.release()


def _migrate(path: Path) -> None:
    """Bring a store to the installed MLflow's schema, in place, because others may have the file open."""
    backup = path.with_name(f"{path.name}.{_revision(path)}.bak")
    if not backup.exists():
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
            source.backup(target)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{path} was made by another version of MLflow and cannot be migrated: {reason}")
