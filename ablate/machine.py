"""Facts about the machine and the software that a run depends on, and what the machine is doing now."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "peft",
    "vllm",
    "numpy",
    "pyarrow",
    "hydra-core",
    "mlflow",
)
GIB = 2**30
RUN_GIB = 2.0  # memory for a run of the default (1.2 in use), libraries included


def _command() -> list[str]:
    """What starts this run, alone: of a sweep, the choices of this run."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        return ["python", "-m", "ablate", *HydraConfig.get().overrides.task]
    return [Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]


def start_facts(gpus: Sequence[str]) -> dict[str, Any]:
    """What one start of a run depends on; nothing that names the machine or its user."""
    import psutil

    from ablate import __version__, ranks

    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "started": time.time(),
        "command": shlex.join(_command()),
        "processes": ranks.count(),
        "ablate": __version__,
        "python": platform.python_version(),
        "libraries": libraries,
        "git": _git(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": cpu_model(),
            "cores": cores(),
            "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
            "gpus": list(gpus),
        },
    }


def system_metrics() -> dict[str, float]:
    """The machine now: CPU use since the last call (%), this process's memory (GiB), and, if this process
    already uses CUDA, its current device's memory in use (GiB) and utilisation (%, needs nvidia-ml-py)."""
    import psutil

    metrics = {
        "system/cpu_percent": psutil.cpu_percent(),
        "system/rss_gib": psutil.Process().memory_info().rss / GIB,
    }
    torch = sys.modules.get("torch")
    # Asking an uninitialised device would create a context on it and take its memory.
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        metrics["system/gpu_memory_gib"] = (total - free) / GIB
        try:
            metrics["system/gpu_percent"] = float(torch.cuda.utilization())
        except Exception:  # NVML is missing, or unwilling (containers, MIG): a metric less, not a run less
            return metrics
    return metrics


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(jobs: int = -1) -> int:
    """How many runs of the default's size this machine takes at a time: one a core as far as memory goes,
    RUN_GIB for each. jobs: as joblib counts them, -1 for every core, -2 for all but one."""
    import psutil

    fits = int(psutil.virtual_memory().total / GIB / RUN_GIB)
    return max(1, min(cores() + 1 + jobs, fits))


def cpu_model() -> str:
    """The processor's name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _git() -> dict[str, Any] | None:
    """Revision of the checkout that the code runs from, or else of the working directory, if any."""
    package = Path(__file__).parent

    def git(folder: Path, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], check=True, text=True, timeout=10, capture_output=True
        ).stdout.strip()

    try:
        # An installed package may lie below somebody's checkout without belonging to it.
        folder = package if git(package, "ls-files", Path(__file__).name) else Path.cwd()
    except (OSError, subprocess.SubprocessError):
        folder = Path.cwd()
    try:
        changed = git(folder, "status", "--porcelain", "--untracked-files=no")
        return {"revision": git(folder, "rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None
