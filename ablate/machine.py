"""Facts about the machine and the software that a run depends on, and what the machine is doing now."""

from __future__ import annotations

import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

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
CGROUPS, MEMBER = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
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
    """Cores that this process may use; what a container may use of them, rounded up."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(seen, *(max(1, math.ceil(share)) for share in _limits("cpu")), seen)


def memory() -> int:
    """Bytes of memory that there are, or that a container may use."""
    import psutil

    return int(min(psutil.virtual_memory().total, *_limits("memory"), math.inf))


def _limits(what: Literal["cpu", "memory"]) -> list[float]:
    """Cores or bytes that the control groups of this process allow; of both versions, those above it
    included."""
    root, found = CGROUPS, []
    try:
        lines = MEMBER.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and what not in controllers.split(","):
            continue
        top = root / what if controllers else root
        own = top / path.lstrip("/")
        for folder in {own, *own.parents, top}:
            if folder == top or top in folder.parents:
                found += _limit(folder, what)
    return found


def _limit(folder: Path, what: str) -> list[float]:
    """Of one control group."""

    def numbers(name: str) -> list[float]:
        try:
            words = (folder / name).read_text().split()
            return [float(word) for word in words] if "max" not in words else []
        except (OSError, ValueError):
            return []

    if what == "memory":
        return numbers("memory.max") + numbers("memory.limit_in_bytes")
    quota, period = numbers("cpu.cfs_quota_us"), numbers("cpu.cfs_period_us")
    pairs = [numbers("cpu.max"), [*quota, *period]]
    return [pair[0] / pair[1] for pair in pairs if len(pair) == 2 and pair[0] > 0 and pair[1] > 0]


def side_by_side(jobs: int = -1) -> int:
    """How many runs of the default's size this machine takes at a time: one a core as far as memory goes,
    RUN_GIB for each. jobs: as joblib counts them, -1 for every core, -2 for all but one."""
    fits = int(memory() / GIB / RUN_GIB)
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
