"""Rows of problems: from a file, from a folder, or from the Hugging Face hub."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from ablate.tasks.jsonl import read_jsonl
from ablate.types import UserError

QUICK = 0.8  # seconds that the hub has to be reached in
Row = tuple[str, Mapping[str, Any]]  # where it stands, for messages; its fields


@dataclass
class Source:
    """A data set of the hub. dataset: its id, for example openai/gsm8k. subset: where it has several. split:
    its name there."""

    dataset: str | None = None
    subset: str | None = None
    split: str = "train"

    def rows(self, key: str) -> list[Row]:
        """All rows; from the cache where the hub cannot be reached. key: the setting, for messages. Raises
        UserError."""
        assert self.dataset is not None
        name = f"{key}.dataset={self.dataset}"
        return _load(name, self.split, self.dataset, self.subset)


def local_rows(path: str) -> dict[str, list[Row]]:
    """Rows by split: of a JSONL file ("all"), or of a folder with train.jsonl and test.jsonl; of any other
    folder that the library `datasets` can load. Raises UserError."""
    place = Path(path)
    if place.is_dir():
        files = sorted(place.glob("*.jsonl"))
        if not files:
            return _load_folder(place)
        chosen = [file for file in files if file.stem in ("train", "test")]
        found: dict[str, list[Row]] = {file.stem: list(read_jsonl(file)) for file in chosen}
        if not found:
            names = ", ".join(file.name for file in files)
            raise UserError(f"task.path={path} holds {names}, but neither train.jsonl nor test.jsonl")
        return {split: rows for split, rows in found.items() if rows}
    if not place.exists():
        raise UserError(f"task.path={path} does not exist: name a .jsonl file or a folder")
    if place.suffix not in (".jsonl", ".json"):
        raise UserError(f"task.path={path} is no .jsonl file; its folder may hold any data set's files")
    return {"all": list(read_jsonl(place))}


def field(row: Row, names: tuple[str, ...], key: str) -> Any:
    """The first of these fields that the row has. key: the setting that could name another one. Raises
    UserError, naming the row."""
    where, fields = row
    for name in names:
        if fields.get(name) is not None:
            return fields[name]
    wanted = " or ".join(map(repr, names))
    known = ", ".join(map(repr, fields)) or "no fields"
    raise UserError(f"{where}: no {wanted} among {known}" + (f"; {key}= names another field" if key else ""))


def text_field(row: Row, names: tuple[str, ...], key: str) -> str:
    """As `field`, for a text that is not blank; a number is taken as it is written."""
    value = field(row, names, key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        name = next(name for name in names if row[1].get(name) is not None)
        raise UserError(f"{row[0]}: {name!r} is {value!r}, not a text")
    return value


def _load_folder(place: Path) -> dict[str, list[Row]]:
    loaded = _quietly(f"task.path={place}", "", str(place))
    found = {split: _numbered(f"{place}[{split}]", rows) for split, rows in loaded.items()}
    others = sorted(found.keys() - {"train", "test"})
    if others:
        raise UserError(f"task.path={place} has the splits {', '.join(found)}: call them train and test")
    return found


def _load(name: str, split: str, *arguments: Any) -> list[Row]:
    return _numbered(
        f"{arguments[0]}[{split}]",
        _quietly(name, "; task.path= takes a file or a folder instead", *arguments, split=split),
    )


def _numbered(name: str, rows: Any) -> list[Row]:
    return [(f"{name}:{number}", row) for number, row in enumerate(rows, start=1)]


def _quietly(name: str, advice: str, *arguments: Any, **options: Any) -> Any:
    """`datasets.load_dataset`, without its progress bars and without its half a minute of retries."""
    offline = bool(options) and not reachable(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    import datasets
    import huggingface_hub.constants as hub

    before = hub.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if offline:
        hub.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(*arguments, **options)
    except Exception as error:  # of many kinds: the library's, the hub's, the network's, the file formats'
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if offline:
            reason = "the hub cannot be reached, and it is not in the cache"
        raise UserError(f"{name} cannot be loaded: {reason}{advice}") from error
    finally:
        datasets.enable_progress_bars()
        hub.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def reachable(url: str) -> bool:
    """Does somebody answer at this address within a moment? With a proxy, that is left to the proxy."""
    parts = urlsplit(url)
    if getproxies().get(parts.scheme):
        return True
    answered = threading.Event()

    def connect() -> None:
        try:
            address = (parts.hostname or "", parts.port or 443)
            socket.create_connection(address, timeout=QUICK).close()
        except (OSError, UnicodeError):
            return
        answered.set()

    # in a thread, since looking up a name has no time-out of its own
    threading.Thread(target=connect, daemon=True).start()
    return answered.wait(QUICK)
