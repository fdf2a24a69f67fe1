"""From an experiment's runs to an answer: `python -m ablate.report results/<experiment> [key=value ...]`

Reads the runs' own files and writes beside them report.html, report.md, verdict.json (schema:
`ablate.report.content`) and figures/ (SVG and PNG).

Exit codes: 0 done; 2 a mistake of the user's, told in one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ablate.command import exit_code
from ablate.record import atomic_write, read_json, write_json
from ablate.schema import unknown_key
from ablate.types import UserError

HELP = """\
Is it needed? Compare the runs of an experiment, and write report.html, report.md, verdict.json and figures/
beside them.

usage: python -m ablate.report results/<experiment> [key=value ...]

  margin=0.02                what an effect must exceed to matter, as a share of problems; declare it before
                             the runs
  seeds=0,1,2                only these (default: all)
  control=results/controls   an experiment, reported before, that shows whether a benefit of search can be
                             seen; without it verdicts on search say that this was not shown
"""
KEYS = ("margin", "seeds", "control")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(_main, argv)


def _main(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    folders = [word for word in argv if "=" not in word]
    if unknown := [word for word in argv if word.startswith("-")]:
        raise UserError(
            f"unknown option {unknown[0]}; keys are written without dashes: {unknown[0].lstrip('-')}"
        )
    if len(folders) != 1:
        raise UserError(f"one folder of an experiment expected, {len(folders)} given: results/<experiment>")
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    for key in given:
        if key not in KEYS:
            raise unknown_key(key, KEYS)
    margin = _margin(given.get("margin", "0.02"))
    seeds = _seeds(given["seeds"]) if "seeds" in given else None
    sensitive = _sees_search(Path(given["control"])) if "control" in given else False

    from ablate.report.assemble import assemble
    from ablate.report.figures import figures
    from ablate.report.loading import load
    from ablate.report.markdown import sentences, to_markdown
    from ablate.report.page import to_html

    folder = Path(folders[0])
    report = assemble(load(folder, seeds), margin, sensitive)
    write_json(folder / "verdict.json", asdict(report))
    atomic_write(folder / "report.md", to_markdown(report).encode())
    page = to_html(report, figures(report, folder / "figures"))
    atomic_write(folder / "report.html", page.encode())
    print(*(sentences(report) or ["No verdict: no suspect ran beside what it is to be added to."]), sep="\n")
    for note in report.notes:
        print(f"note: {note}")
    for name, why in report.left_out:
        print(f"left out: {name}: {why}")
    print(f"\nReport: {folder / 'report.html'}, {folder / 'report.md'}, {folder / 'verdict.json'}")
    return 0


def _margin(text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = float("nan")
    if not 0 < margin < 1:
        hint = f"; did you mean {margin / 100:g}?" if 1 <= margin < 100 else ""
        raise UserError(f"margin={text} is no share of problems between 0 and 1 (0.02 is two points){hint}")
    return margin


def _seeds(text: str) -> frozenset[int]:
    try:
        return frozenset(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"seeds={text} is no list of whole numbers, as in seeds=0,1,2") from None


def _sees_search(folder: Path) -> bool:
    """Did a reported experiment find that search helps? Raises UserError if it has no verdict.json."""
    if not (folder / "verdict.json").exists():
        raise UserError(f"control={folder} has no verdict.json: python -m ablate.report {folder}")
    claims = read_json(folder / "verdict.json").get("claims", [])
    return any(claim["suspect"] == "search" and claim["word"] in ("helps", "needed") for claim in claims)


if __name__ == "__main__":
    sys.exit(main())
