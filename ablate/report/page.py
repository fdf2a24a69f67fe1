"""A report as one HTML file: nothing outside it is needed to read it, offline, on paper or on a telephone.

Names, commands and every other text from files go through `escape`; figures come as SVG whose texts
matplotlib has escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from ablate.report.answers import wording as answers
from ablate.report.content import Claim, Report
from ablate.report.drawing import style
from ablate.report.figures import Figure, palette
from ablate.report.sensitivity import sensitivity
from ablate.report.tables import tables
from ablate.report.wording import (
    NO_VERDICT,
    Table,
    amount,
    apart,
    count,
    crossings,
    design,
    interval,
    looked,
    numbers,
    repeat,
    rule,
    unrecorded,
)

TESTED = ("traintest", "cheapest")  # tables with a section of their own, as are those of ...
AT_TEST = ("asked", "without")
PLACED = ("design", "ladder", *TESTED, *AT_TEST)
WORDS, LONG = (
    ' class="words"',
    ' class="words long"',
)  # of a table's cells: left-aligned, and broken over lines


def to_html(report: Report, figures: Sequence[Figure]) -> str:
    """The page. figures: as `figures.figures` drew them of the same report."""
    shown = tables(report)
    parts = [part for part in _sections(report, figures, shown) if part[2].strip()]
    links = " ".join(f'<a href="#{key}">{title}</a>' for key, title, _ in parts)
    body = "\n".join(
        f'<section id="{key}">\n<h2>{title}</h2>\n{content}\n</section>' for key, title, content in parts
    )
    title, question = answers.asked(report)
    css = style() + Path(__file__).with_name("page.css").read_text()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.experiment)}: {title[0].lower()}{title[1:]}</title>
<style>
{css}</style>
</head>
<body>
<header>
<p class="kicker">ablate · {escape(report.experiment)}</p>
<h1>{title}</h1>
<p>{question}</p>
{_text(looked(report))}{_verdicts(report)}
<nav>{links}</nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _sections(
    report: Report, figures: Sequence[Figure], shown: Sequence[Table]
) -> Iterable[tuple[str, str, str]]:
    """(id, title, content) from top to bottom; one without content is left out."""
    there = {table.key for table in shown}

    def drawn(section: str, *numbers: str) -> str:
        links = [f'<a href="#table-{key}">{key}</a>' for key in numbers if key in there]
        found = [_figure(each, links) for each in figures if each.section == section]
        return '<div class="figures">\n' + "\n".join(found) + "\n</div>" if found else ""

    differed = "".join(_table(table) for table in shown if table.key == "design")
    rungs = "".join(_table(table) for table in shown if table.key == "ladder")
    yield "design", "The design", _design(report) + differed
    yield "accuracy", "Accuracy against training compute", drawn("accuracy", "accuracy", "milestones")
    yield "essay", "The essay's two plots", drawn("essay", "milestones", "points")
    yield "effects", "What each suspect adds", drawn("effects", "claims", "certainty")
    yield "budgets", "At other budgets", _text(_slopes(report)) + drawn("budgets", "budgets")
    yield "factorial", "The factorial", drawn("factorial", "factorial")
    checked = _text(sensitivity(report)) + drawn("controls", "controls", "milestones")
    yield "controls", "Controls", checked
    yield "compute", "Where the compute went", drawn("compute", "compute")
    yield "length", "Length and behaviour over training", drawn("length", "conduct", "metrics")
    changed = _text(answers.longer(report)) + drawn("longer", "longer")
    yield "longer", "Longer training", changed
    long = _text(answers.lengths(report)) + drawn("natural", "slopes", "caps", "buckets")
    yield "natural", "Length and accuracy", long
    tested = _text([line for each in report.testtime for line in answers.tested(each)])
    tested += "".join(_table(table) for table in shown if table.key.startswith(AT_TEST))
    yield "testtime", "Test-time compute", tested + drawn("testtime", "points", "points-hard")
    crossed = "".join(_table(table) for table in shown if table.key.startswith(TESTED))
    yield "traintest", "Train x test", drawn("traintest") + crossed
    yield "ladder", "The oracle ladder", drawn("ladder") + rungs
    yield "difficulty", "By difficulty", drawn("difficulty", "difficulty")
    yield "accounts", "By other accounts", drawn("accounts", "accounts")
    yield "apart", "Outside the ranking", _text(apart(report)) + drawn("apart", "accuracy")
    rest = "".join(_table(table) for table in shown if not table.key.startswith(PLACED))
    yield "numbers", "Every number", rest
    yield "notes", "Notes", _notes(report)
    yield "reproduce", "How to reproduce it", _reproduce(report)


def _verdicts(report: Report) -> str:
    if not report.claims:
        return _text(answers.longer(report, brief=True)) or f"<p>{NO_VERDICT}</p>"
    colours = palette(report)
    items = "\n".join(_verdict(claim, report, colours[claim.suspect]) for claim in report.claims)
    decided = any(claim.effect and claim.effect.interval for claim in report.claims)
    words = re.sub(r"\*(.+?)\*", r"<em>\1</em>", escape(rule(report)))
    return f'<ul class="verdicts">\n{items}\n</ul>' + (f'\n<p class="note">{words}</p>' if decided else "")


def _verdict(claim: Claim, report: Report, colour: str) -> str:
    """The sentence, its head larger: suspect, word and effect."""
    head = f"{claim.title} on top of {claim.on}: {claim.word}."
    number, _, where = numbers(claim, report).partition(f" at {amount(report.budget)}")
    details = [f"At {amount(report.budget)}{where}"] if where else []
    details += [f"{claim.caveats[0][0].upper()}{'; '.join(claim.caveats)[1:]}."] if claim.caveats else []
    return (
        f'<li style="border-color:var(--{colour})"><strong>{escape(head)} <b>{escape(number)}</b></strong> '
        f"<span>{escape(' '.join(details))}</span></li>"
    )


def _design(report: Report) -> str:
    listed = "\n".join(f"<dt>{what}</dt><dd>{escape(text)}</dd>" for what, text in design(report))
    return (
        "<p>Equal in every run: task, model, learner, budget, evaluation and cap. Arms with the same seed "
        f"share warm start, problem stream and evaluation set.</p>\n<dl>\n{listed}\n</dl>\n"
    )


def _slopes(report: Report) -> list[str]:
    """Per suspect: how the effect changes with compute, and where the curves cross."""
    out = []
    for claim in report.claims:
        if claim.slope is not None:
            text = f"{claim.title} on {claim.on}: {interval(claim.slope)} points per doubling of compute"
            least, most = claim.by_budget[0][0], claim.by_budget[-1][0]
            apart = f"the curves do not cross between {least:.2g}x and {most:.2g}x the budget"
            where = "; ".join(crossings(claim)) or apart
            out.append(f"{text}; {where}.")
    return out


def _text(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>\n" if lines else ""


def _notes(report: Report) -> str:
    left = [f"left out: {folder}: {why}" for folder, why in report.left_out]
    return _text([*report.notes, *left])


def _reproduce(report: Report) -> str:
    rows = []
    for what, values in report.provenance.items():
        if values:
            text = ", ".join(f"{value} ({count(number, 'run')})" for value, number in values.items())
            rows.append(f"<dt>{escape(what)}</dt><dd>{escape(text)}</dd>")
    said = unrecorded(report)
    folders = (
        "Each run's folder holds all its settings (config.yaml), versions and command (meta.json); this page "
        "comes from the runs' own files alone."
    )
    notes = "".join(f"<p>{escape(note)}</p>\n" for note in (said, folders) if note)
    written = escape("\n".join(repeat(report)))
    return f"<dl>\n{chr(10).join(rows)}\n</dl>\n{notes}<pre>{written}</pre>"


def _figure(figure: Figure, links: Sequence[str]) -> str:
    numbers = f" Numbers: {', '.join(links)}." if links else ""
    return (
        f'<figure id="figure-{escape(figure.name)}" role="group" '
        f'aria-label="{escape(figure.caption)}">\n{figure.svg}\n'
        f"<figcaption>{escape(figure.caption)}{numbers}</figcaption>\n</figure>"
    )


def _table(table: Table) -> str:
    kinds = [_kind([row[i] for row in table.rows]) for i in range(len(table.head))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(cell)}</th>' for cell, kind in zip(table.head, kinds, strict=True)
    )
    rows = "\n".join(_row(row, kinds) for row in table.rows)
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in table.notes)
    return (
        f'<h3 id="table-{table.key}">{escape(table.title)}</h3>\n<div class="wide" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n{notes}"
    )


def _kind(column: Sequence[str]) -> str:
    """A column of words is left-aligned, one of numbers is not."""
    return WORDS if any(re.match(r"[^\W\d]", cell) for cell in column) else ""


def _row(row: Sequence[str], kinds: Sequence[str]) -> str:
    cells = "".join(
        f"<td{LONG if kind and len(cell) > 26 else kind}>{escape(cell)}</td>"
        for cell, kind in zip(row[1:], kinds[1:], strict=True)
    )
    return f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>'
