"""Fill in MLflow from run folders: `python -m ablate.sync PATH... [--uri URI]`.

Every run below the given folders is sent to the store that its config names (or to --uri), as far as the
store does not have it yet. One line per run; exit status 1 if any run could not be sent, 2 for a mistake in
the call.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ablate.tracking.mirror import mlflow_hint, push, resolve_uri
from ablate.types import UserError

DEADLINE = 600.0  # seconds for one run
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}  # nobody trains meanwhile


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ablate.sync", description="Fill in MLflow from run folders."
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="run folder, or a folder of runs")
    parser.add_argument("--uri", help="tracking URI (default: the one in each run's config)")
    options = parser.parse_args(arguments)
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        if options.uri:
            resolve_uri(options.uri, Path())
        sent = [_sync(folder, options.uri) for folder in _runs(options.paths)]
    except UserError as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0 if all(sent) else 1


def _runs(paths: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is not a folder: give a run folder or a folder of runs")
        below = list(_below(path))
        if not below:
            raise UserError(f"{path} holds no run (a folder with meta.json and config.yaml)")
        found |= dict.fromkeys(below)
    return list(found)


def _below(folder: Path) -> Iterator[Path]:
    if (folder / "meta.json").is_file() and (folder / "config.yaml").is_file():
        yield folder
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink():
            yield from _below(child)


def _sync(folder: Path, uri: str | None) -> bool:
    try:
        tracking = _tracking(folder)
        # The default store is found from where the results are now: they may have been moved.
        store = resolve_uri(uri or tracking.get("uri"), folder.resolve().parent.parent)
    except UserError as error:
        print(f"{folder}: not sent ({error})")
        return False
    result = push(folder, store, tracking.get("experiment", "ablate"), DEADLINE)
    if result.error:
        print(f"{folder}: not sent ({result.error})")
    else:
        sent = (
            f"{result.points} points and {result.artifacts} files sent"
            if result.points or result.artifacts
            else ""
        )
        print(f"{folder}: {sent or 'nothing to send'}, {mlflow_hint(store, [folder])}")
    return not result.error


def _tracking(folder: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_bytes())
        return dict(config.get("tracking") or {})
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {folder / 'config.yaml'}: {str(error).splitlines()[0]}") from error


if __name__ == "__main__":
    sys.exit(main())
