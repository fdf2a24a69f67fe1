"""A report as Markdown: verdicts first, then what they rest on, in the page's order and with its tables."""

from __future__ import annotations

from collections.abc import Iterable

from ablate.report.answers import wording as answers
from ablate.report.content import Claim, Report
from ablate.report.sensitivity import sensitivity
from ablate.report.tables import tables
from ablate.report.wording import (
    NO_VERDICT,
    Table,
    apart,
    count,
    design,
    looked,
    repeat,
    rule,
    sentence,
    unrecorded,
)
from ablate.text import table as lines

WIDE = ("settings",)  # better read on the page, or in the runs' config.yaml


def to_markdown(report: Report) -> str:
    """The whole page."""
    title, question = answers.asked(report)
    said = {
        "Length and accuracy": answers.lengths(report),
        "Test-time compute": [line for each in report.testtime for line in answers.tested(each)],
    }
    parts = [
        [f"# {report.experiment}: {title[0].lower()}{title[1:]}", "", question, "", *_verdicts(report)],
        ["## The design", "", *_bullets(f"{what}: {text}" for what, text in design(report))],
        *([f"## {name}", "", *_bullets(found)] for name, found in said.items()),
        *([f"## {each.title}", "", *_table(each)] for each in tables(report) if each.key not in WIDE),
        ["## Notes", "", *_bullets(_notes(report))],
        ["## How to reproduce it", "", *_reproduce(report)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if len(part) > 2) + "\n"


def _verdicts(report: Report) -> list[str]:
    said = looked(report)
    found = [_verdict(claim, report) for claim in report.claims]
    found = found or _bullets(answers.longer(report)) or [NO_VERDICT]
    found = [*said, *([""] if said else []), *found]
    if any(claim.effect and claim.effect.interval for claim in report.claims):
        found += ["", rule(report)]
    known = sensitivity(report)
    return [*found, *([""] if known else []), *_bullets(known)]


def _verdict(claim: Claim, report: Report) -> str:
    return f"- **{claim.title}**{sentence(claim, report).removeprefix(claim.title)}"


def _bullets(found: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in found]


def _table(table: Table) -> list[str]:
    notes = [part for note in table.notes for part in ("", note)]
    return [*lines(table.head, table.rows), *notes]


def _notes(report: Report) -> list[str]:
    left = [f"left out: {folder}: {why}" for folder, why in report.left_out]
    return [*apart(report), *report.notes, *left]


def _reproduce(report: Report) -> list[str]:
    facts = [
        f"{what}: " + ", ".join(f"{value} ({count(number, 'run')})" for value, number in values.items())
        for what, values in report.provenance.items()
        if values
    ]
    said = unrecorded(report)
    return [*_bullets(facts), *(["", said] if said else []), "", "```bash", *repeat(report), "```"]
