"""Checkpoints that exist whole or not at all, and say so."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablate.manifest import damage, seal
from ablate.types import UserError

STATE = "ablate.json"  # the laboratory's part, beside the Trainer's files
NEARLY_FULL = 1 << 20  # bytes free; torch does not say what the disk said
# how the writers of tensors say that a disk refuses: safetensors, torch, quotas
DISK = (
    "No space left",
    "os error 28",
    "PytorchStreamWriter failed",
    "unexpected pos",
    "Disk quota exceeded",
    "os error 122",
    "File too large",
    "os error 27",
)
TENSORS = ".auxiliary.safetensors"  # ending of the files with auxiliary models' states


@contextmanager
def appear(folder: str | Path, step: int, state: dict[str, Any], writer: bool) -> Iterator[str]:
    """Yields a hidden folder for the Trainer to save into; on success its checkpoint appears by rename.

    state: JSON-serialisable. writer: is this the process that writes (others only take part)? Raises
    UserError if the disk refuses.
    """
    folder = Path(folder)
    partial = folder / ".partial"
    with disk(partial):
        if writer:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        yield str(partial)
        if writer:
            _complete(partial, folder, step, state)


@contextmanager
def disk(partial: Path) -> Iterator[None]:
    """While a folder is being filled: a full disk is a UserError whichever library meets it first, and what
    was written so far is removed."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, OSError) or any(sign in text for sign in DISK):
            full = partial.exists() and shutil.disk_usage(partial).free < NEARLY_FULL
            shutil.rmtree(partial, ignore_errors=True)
            why = error.strerror if isinstance(error, OSError) else os.strerror(errno.ENOSPC) if full else ""
            raise UserError(f"cannot write to {partial.parent}: {why or text[:200]}") from error
        raise


def _complete(partial: Path, folder: Path, step: int, state: dict[str, Any]) -> None:
    made, final = partial / f"checkpoint-{step}", folder / f"checkpoint-{step}"
    (made / "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody needs
    (made / STATE).write_text(json.dumps(state))
    seal(made)
    shutil.rmtree(final, ignore_errors=True)  # left by a run that was resumed from an earlier one
    os.replace(made, final)


def save_tensors(made: str | Path, tensors: dict[str, dict[str, Any]]) -> None:
    """The states of auxiliary models, a file each, into a checkpoint's folder."""
    from safetensors.torch import save_file

    for name, state in tensors.items():
        kept = {key: value.detach().contiguous().clone() for key, value in state.items()}
        save_file(kept, Path(made) / f"{name}{TENSORS}")


def load_tensors(path: Path) -> dict[str, dict[str, Any]]:
    """What `save_tensors` wrote."""
    from safetensors.torch import load_file

    return {found.name.removesuffix(TENSORS): load_file(found) for found in path.glob(f"*{TENSORS}")}


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first; folders with other names are the user's own."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep`."""
    for path in checkpoints(folder)[:-keep]:
        shutil.rmtree(path)


def latest(folder: Path) -> Path | None:
    """The newest undamaged checkpoint; damaged ones are named and passed over.

    Raises UserError if there are checkpoints and every one is damaged.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        wrong = damage(path)
        if wrong is None:
            return path
        print(f"checkpoint {path} is damaged ({wrong}): trying the one before", file=sys.stderr)
    if found:
        raise UserError(
            f"every checkpoint in {folder} is damaged; fresh=true starts again and keeps the old record"
        )
    return None


def load_state(path: Path) -> dict[str, Any]:
    """The laboratory's part of a checkpoint."""
    return json.loads((path / STATE).read_text())
