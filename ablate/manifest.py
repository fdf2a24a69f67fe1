"""A folder's manifest: the checksum of every file in it, so that damage is found before anything is read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Write the manifest of every file below `folder`, and all of it through to the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {str(path.relative_to(folder)): _sha256(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(sums, indent=1))
    for path in [*files, folder / MANIFEST]:
        with path.open("rb") as handle:
            os.fsync(handle.fileno())


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, or None."""
    try:
        for name, digest in json.loads((folder / MANIFEST).read_text()).items():
            if _sha256(folder / name) != digest:
                return f"{name} has changed"
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
