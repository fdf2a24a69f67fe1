"""A report as one HTML file: nothing outside it is needed to read it, offline, on paper or on a telephone.

Names, commands and every other text from files go through `escape`; figures come as SVG whose texts
matplotlib has escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ablate.report.content import Claim, Report
from ablate.report.drawing import style
from ablate.report.figures import APART, Figure, palette
from ablate.report.markdown import UNITS, sentence
from ablate.report.tables import Table, crossings, interval, spaced, tables

RULE = (
    "Intervals are 95 %, seeds and problems both random, and hold together for all suspects added to the "
    "same recipe. A suspect is <em>harmful</em> if its interval lies below zero, <em>not needed</em> if it "
    "lies below the margin, <em>needed</em> if it lies above the margin and four times the budget does not "
    "make up for it, and <em>helps</em> if it lies above zero; else the answer is <em>inconclusive</em>."
)
QUESTION = (
    "What does each suspect add to reinforcement learning on verified answers (guess + check) when all "
    "are given the same compute? One model, one verifier, one learner, one budget; only the strategy changes."
)


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
    css = style() + Path(__file__).with_name("page.css").read_text()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.experiment)}: is it needed?</title>
<style>
{css}</style>
</head>
<body>
<header>
<p class="kicker">ablate · {escape(report.experiment)}</p>
<h1>Is it needed?</h1>
<p>{QUESTION}</p>
{_verdicts(report)}
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
    yield "design", "The design", _design(report) + differed
    yield "accuracy", "Accuracy against training compute", drawn("accuracy", "accuracy", "milestones")
    yield "effects", "What each suspect adds", drawn("effects", "claims")
    yield "budgets", "At other budgets", _text(_slopes(report)) + drawn("budgets", "budgets")
    yield "factorial", "The factorial", drawn("factorial", "factorial")
    yield "controls", "Controls", drawn("controls", "controls", "milestones")
    yield "compute", "Where the compute went", drawn("compute", "compute")
    yield "length", "Length and truncation over training", drawn("length", "conduct", "metrics")
    yield "difficulty", "By difficulty", drawn("difficulty", "difficulty")
    yield "accounts", "By other accounts", drawn("accounts", "accounts")
    yield "apart", "Outside the ranking", _apart(report) + drawn("apart", "accuracy")
    rest = "".join(_table(table) for table in shown if table.key != "design")
    yield "numbers", "Every number", rest
    yield "notes", "Notes", _notes(report)
    yield "reproduce", "How to reproduce it", _reproduce(report)


def _verdicts(report: Report) -> str:
    if not report.claims:
        return "<p>No verdict: no suspect ran beside what it is to be added to.</p>"
    colours = palette(report)
    items = "\n".join(_verdict(claim, report, colours[claim.suspect]) for claim in report.claims)
    decided = any(claim.effect and claim.effect.interval for claim in report.claims)
    return f'<ul class="verdicts">\n{items}\n</ul>' + (f'\n<p class="note">{RULE}</p>' if decided else "")


def _verdict(claim: Claim, report: Report, colour: str) -> str:
    """The sentence, its head larger: suspect, word and effect."""
    head = f"{claim.title} on top of {claim.on}: {claim.word}."
    caveats = f" ({'; '.join(claim.caveats)})" if claim.caveats else ""
    rest = sentence(claim, report).removeprefix(head.removesuffix(".") + caveats + ".").strip()
    number, _, where = rest.partition(" at ")
    details = [f"At {where}"] if where else []
    details += [f"{claim.caveats[0][0].upper()}{'; '.join(claim.caveats)[1:]}."] if claim.caveats else []
    return (
        f'<li style="border-color:var(--{colour})"><strong>{escape(head)} <b>{escape(number)}</b></strong> '
        f"<span>{escape(' '.join(details))}</span></li>"
    )


def _design(report: Report) -> str:
    purposes = dict.fromkeys(purpose for arm in report.arms for purpose in arm.separate)
    apart = {p: sum(arm.separate.get(p, 0.0) for arm in report.arms) / len(report.arms) for p in purposes}
    seconds = sum((arm.seconds or 0.0) * len(arm.seeds) for arm in report.arms)
    runs = sum(len(curve.run) for arm in report.arms for curve in arm.curves)
    facts = [
        ("task", _settings(report.task)),
        ("model", _settings(report.model)),
        ("budget", f"{report.budget:.3g} {UNITS[report.unit]} of training per run, a hard stop"),
        (
            "evaluation",
            f"{report.problems:,} held-out problems in {len(report.cluster_sizes):,} clusters × "
            f"{report.samples} samples, plain decoding from the final policy, at most {report.cap} tokens",
        ),
        ("seeds", ", ".join(map(str, report.seeds))),
        ("margin", f"{100 * report.margin:g} points, declared before the runs"),
        ("cost", f"{runs} runs" + (f", about {seconds / 3600:.1f} hours of run time" if seconds else "")),
        (
            "not charged",
            ", ".join(f"{spaced(p)} {value:.2g} FLOPs per run" for p, value in apart.items()),
        ),
    ]
    listed = "\n".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts if text)
    return (
        "<p>Equal in every run: task, model, learner, budget, evaluation and cap. Arms with the same seed "
        f"share warm start, problem stream and evaluation set.</p>\n<dl>\n{listed}\n</dl>\n"
    )


def _settings(values: dict[str, Any]) -> str:
    """`Countdown: numbers 3, largest 20`; groups below the first level stay with the runs' config.yaml."""
    name = str(values.get("_target_", "")).rpartition(".")[2]
    plain = [
        f"{key.replace('_', ' ')} {value}"
        for key, value in values.items()
        if key != "_target_" and value is not None and not isinstance(value, dict)
    ]
    return f"{name}: {', '.join(plain)}" if plain else name


def _slopes(report: Report) -> list[str]:
    """Per suspect: how the effect changes with compute, and where it changes its sign."""
    out = []
    for claim in report.claims:
        if claim.slope is not None:
            text = f"{claim.title} on {claim.on}: {interval(claim.slope)} points per doubling of compute"
            where = ", ".join(f"{share:.2g}x the budget" for share in crossings(claim))
            out.append(text + (f"; its sign changes at {where}." if where else "."))
    return out


def _text(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>\n" if lines else ""


def _apart(report: Report) -> str:
    def names(role: str) -> list[str]:
        return [arm.name for arm in report.arms if arm.role == role]

    lines = []
    if bounds := names(APART[0]):
        lines.append(
            f"Upper bound, no verdict: {', '.join(bounds)} (a scorer that is free and knows the answers)."
        )
    if outside := names(APART[1]):
        lines.append(f"Outside the ranking: {', '.join(outside)} (trained for two turns, evaluated by one).")
    return _text(lines)


def _notes(report: Report) -> str:
    left = [f"left out: {folder}: {why}" for folder, why in report.left_out]
    return _text([*report.notes, *left])


def _reproduce(report: Report) -> str:
    rows = []
    for name, values in report.provenance.items():
        if name != "command" and values:
            text = ", ".join(f"{value} ({count} run{'s'[: count != 1]})" for value, count in values.items())
            rows.append(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>")
    commands = list(report.provenance.get("command", {}))
    written = f"<pre>{escape(chr(10).join(commands))}</pre>\n" if commands else ""
    return (
        f"<dl>\n{chr(10).join(rows)}\n</dl>\n{written}"
        "<p>Each run's folder holds all its settings (config.yaml), versions and commands (meta.json). "
        "This page and the figures beside it, from the runs' own files:</p>\n"
        f"<pre>python -m ablate.report results/{escape(report.experiment)} margin={report.margin:g}</pre>"
    )


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
