"""Files of one JSON object a line, with the line number in every complaint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.types import UserError


def read_jsonl(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("file:line", object); blank lines are skipped.

    Raises UserError where the file cannot be read or a line is not a JSON object.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(raw.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError covers broken JSON and broken UTF-8
            raise UserError(f"{where}: not JSON ({error})") from None
        if not isinstance(item, dict):
            raise UserError(f"{where}: expected a JSON object, found {type(item).__name__}")
        yield where, item
