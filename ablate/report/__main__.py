"""From an experiment's runs to an answer: `python -m ablate.report results/<experiment> [key=value ...]`

Reads the runs' own files, writes beside them report.html, report.md, verdict.json (schema:
`ablate.report.content`) and figures/ (SVG and PNG), and logs these to MLflow where the runs are.

Exit codes: 0 done; 2 a mistake of the user's, told in one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ablate.command import exit_code, refuse_options
from ablate.record import atomic_write, write_json
from ablate.schema import unknown_key
from ablate.types import UserError

HELP = """\
Is it needed? Compare the runs of an experiment, write report.html, report.md, verdict.json and figures/
beside them, and log these to MLflow.

usage: python -m ablate.report results/<experiment> [key=value ...]

  margin=0.02                what an effect must exceed to matter, as a share of problems; declare it before
                             the runs
  seeds=0,1,2                only these (default: all)
  looks=4,8,12               the numbers of seeds at which an experiment is looked at while it goes on, where
                             the runs' own config does not declare them (python -m ablate.sequential --help)
  spending=obrien_fleming    or pocock: how its 5 % of false verdicts are spread over the looks
  control=results/chain,...  experiments, reported before, that show what can be seen: in which search or
                             process rewards help; without one, verdicts on search say that this was not shown
  tracking=none              do not log to MLflow; a tracking URI: there instead of where the runs are
"""
KEYS = ("margin", "seeds", "looks", "spending", "control", "tracking")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(_main, argv)


def _main(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    folders = [word for word in argv if "=" not in word]
    refuse_options(argv)
    if len(folders) != 1:
        raise UserError(f"one folder of an experiment expected, {len(folders)} given: results/<experiment>")
    given: dict[str, str] = {}
    for key, _, value in (word.partition("=") for word in argv if "=" in word):
        if key not in KEYS:
            raise unknown_key(key, KEYS)
        if key in given and key != "control":
            raise UserError(f"{key} is given twice: {key}={given[key]} and {key}={value}")
        given[key] = f"{given[key]},{value}" if key in given else value
    margin = margin_of(given.get("margin", "0.02"))
    seeds = _seeds(given["seeds"]) if "seeds" in given else None

    from ablate.report.answers.wording import longer
    from ablate.report.assemble import assemble
    from ablate.report.controls import control
    from ablate.report.figures import figures
    from ablate.report.loading import load
    from ablate.report.looking import chosen
    from ablate.report.markdown import to_markdown
    from ablate.report.mirror import send, target
    from ablate.report.page import to_html
    from ablate.report.sensitivity import sensitivity
    from ablate.report.wording import NO_VERDICT, looked, sentences

    folder = Path(folders[0])
    controls = [control(Path(each)) for each in dict.fromkeys(given.get("control", "").split(",")) if each]
    experiment = load(folder, seeds)
    mirror = target(experiment, given.get("tracking"))
    looks = chosen(experiment, given.get("looks"), given.get("spending"))
    report = assemble(experiment, margin, controls, looks)
    write_json(folder / "verdict.json", asdict(report))
    atomic_write(folder / "report.md", to_markdown(report).encode())
    page = to_html(report, figures(report, folder / "figures"))
    atomic_write(folder / "report.html", page.encode())
    verdicts = sentences(report) or longer(report) or [NO_VERDICT]
    print(*looked(report), *verdicts, *sensitivity(report), sep="\n")
    for note in report.notes:
        print(f"note: {note}")
    for name, why in report.left_out:
        print(f"left out: {name}: {why}")
    print(f"\nReport: {folder / 'report.html'}, {folder / 'report.md'}, {folder / 'verdict.json'}")
    if mirror is not None:
        print(send(report, folder, *mirror))
    return 0


def margin_of(text: str) -> float:
    """A margin as people give it. Raises UserError."""
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


if __name__ == "__main__":
    sys.exit(main())
