"""Which GPU a worker of a sweep on this machine gets. Clusters give their jobs GPUs themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.owner import Busy, Lock

if TYPE_CHECKING:
    from ablate.config import Config

VISIBLE = "CUDA_VISIBLE_DEVICES"

_given: str | None = None  # to this process: CUDA, once in use, stays on it


def visible(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a process with this environment may use, by number or UUID; no GPU library is loaded.

    Like CUDA, it takes the list in CUDA_VISIBLE_DEVICES up to the first negative number; without the
    variable, the GPUs that nvidia-smi lists.
    """
    if VISIBLE in environment:
        found = []
        for each in environment[VISIBLE].split(","):
            if not each.strip() or each.strip().startswith("-"):
                break
            found.append(each.strip())
        return found
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return []
    try:
        listed = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):  # a driver that does not answer: torch will say so
        return []
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def places(config: Config) -> list[str]:
    """One entry per run that may be at work at a time on this machine's GPUs; none where a run wants none."""
    if config.model.get("device") == "cpu":
        return []
    return slots(visible(os.environ), config.runs_per_gpu)


def slots(gpus: Sequence[str], runs_per_gpu: int) -> list[str]:
    """One entry per run that may be at work at a time: its GPU. The first ones are on different GPUs."""
    return list(gpus) * runs_per_gpu


def take(folder: Path, places: Sequence[str]) -> str | None:
    """Give this process one of the places, its own as long as it lives, and let CUDA see that GPU alone.

    folder: where the workers of a sweep agree. Returns None if every place is taken by a living process.
    """
    global _given
    if _given is None:
        for slot, gpu in enumerate(places):
            place = folder / f"gpu-{slot}"
            place.mkdir(exist_ok=True)
            with suppress(Busy):
                Lock(place).acquire()  # until this process ends
                _given = gpu
                break
    if _given is not None:
        os.environ[VISIBLE] = _given
    return _given
