"""What is needed to do the runs again: revisions, versions, machines, and the commands."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ablate.naming import conf_dirs
from ablate.report.runs import Run

START = ("-m", "ablate")
# keys that a sweep varies, the innermost first; any strategy/<axis> is one, too
SWEPT = ("seed", "sampling_seed", "learner.kl", "learner.distinct_problems", "strategy")


def provenance(runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """Facts about the runs, each value with the number of runs that have it."""

    def count(values: Iterable[Any]) -> dict[str, int]:
        return dict(Counter(str(value) for value in values if value is not None))

    libraries = sorted({name for run in runs for name in run.meta.get("libraries", {})})
    return {
        "revision": count((run.meta.get("git") or {}).get("revision") for run in runs),
        "ablate": count(run.meta.get("ablate") for run in runs),
        "python": count(run.meta.get("python") for run in runs),
        **{name: count(run.meta.get("libraries", {}).get(name) for run in runs) for name in libraries},
        "cpu": count(run.meta.get("machine", {}).get("cpu") for run in runs),
        "processes": count(n if (n := run.meta.get("processes", 1)) > 1 else None for run in runs),
        "gpu": count(", ".join(run.meta.get("machine", {}).get("gpus", ())) or None for run in runs),
    }


def commands(runs: Sequence[Run], experiment: str) -> tuple[tuple[str, ...], int]:
    """(what started the runs, those that differ in a sweep's keys alone as one; runs that recorded no command
    that could be repeated). Runs that were made under another name are made under the experiment's."""
    words = [_named(_words(str(run.meta.get("command", ""))), run, experiment) for run in runs]
    known = [each for each in words if each is not None]
    return tuple(sweeps(known)), len(words) - len(known)


def _named(words: tuple[str, ...] | None, run: Run, experiment: str) -> tuple[str, ...] | None:
    if words is None or run.config.get("name", experiment) == experiment:
        return words
    name = f"name={experiment}"
    if any(_key(word) == "name" for word in words):
        return tuple(name if _key(word) == "name" else word for word in words)
    return (*words, name)


def design(experiment: str) -> str | None:
    """The command of the sweep whose configuration has the experiment's name, if there is one."""
    there = any((conf / "experiment" / f"{experiment}.yaml").is_file() for conf in conf_dirs())
    return _line(("-m", f"experiment={experiment}")) if there else None


def _words(command: str) -> tuple[str, ...] | None:
    """What follows `python -m ablate`, without what says where this machine keeps things; None for anything
    else, as a worker's own command line in early records is."""
    try:
        words = tuple(shlex.split(command))
    except ValueError:
        return None
    if not words or not words[0].startswith("python") or words[1:3] != START:
        return None
    return tuple(word for word in words[3:] if not word.lstrip("+").startswith("paths."))


def sweeps(commands: Iterable[tuple[str, ...]]) -> list[str]:
    """Command lines, as few as can be: those that differ in the value of one key are one with a list, key by
    key."""
    found = list(dict.fromkeys(commands))
    axes = {key for words in found for key in map(_key, words) if key.startswith("strategy/")}
    for key in (*SWEPT, *sorted(axes)):
        merged: dict[tuple[str, ...], list[str]] = {}
        for words in found:
            values = [_value(word) for word in words if _key(word) == key]
            rest = tuple(f"{key}=" if _key(word) == key else word for word in words)
            # a list of its own is left alone: what it stands in for a single run is no sweep
            merged.setdefault(rest if len(values) == 1 else words, []).extend(values[:1])
        found = [
            tuple(f"{key}={','.join(dict.fromkeys(values))}" if word == f"{key}=" else word for word in words)
            for words, values in merged.items()
        ]
    return [_line(words) for words in found]


def _key(word: str) -> str:
    return word.partition("=")[0] if "=" in word else ""


def _value(word: str) -> str:
    return word.partition("=")[2]


def _line(words: tuple[str, ...]) -> str:
    """A sweep (`-m`) where a key has several values."""
    many = any("," in _value(word) for word in words if _key(word) in SWEPT or "strategy/" in word)
    return shlex.join(["python", *START, *(["-m"] if many and "-m" not in words else []), *words])
