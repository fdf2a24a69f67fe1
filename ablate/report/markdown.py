"""A report as Markdown: verdicts first, then what they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ablate.report.content import Claim, Effect, Report, Worth
from ablate.text import table

ACCOUNTS = {"flops": "FLOPs", "logical_flops": "logical FLOPs", "updates": "updates"}
UNITS = {"flops": "FLOPs", "tokens": "generated tokens", "seconds": "seconds"}


def to_markdown(report: Report) -> str:
    """The whole page."""
    many = len(report.seeds) > 1
    parts = [
        [f"# {report.experiment}: is it needed?", "", *_verdicts(report)],
        ["## The design", "", *_design(report)],
        ["## Arms at equal spend", "", *_arms(report)],
        ["## Where the compute went", "", *_compute(report)],
    ]
    if many and report.claims:
        parts.append(["## Other budgets and other accounts", "", *_elsewhere(report)])
        parts.append(["## By difficulty", "", *_difficulty(report)])
    if report.factorial:
        parts.append(["## The factorial", "", *_factorial(report)])
    if report.placebos:
        note = "Each arm minus a placebo that spends the same without the idea."
        parts.append(["## Placebos", "", note, "", *_claims(report.placebos, "arm - placebo")])
    if report.replicates:
        note = (
            "Runs that differ in their sampling seed alone: anything but *not needed* or *inconclusive* is a "
            "false verdict."
        )
        parts.append(["## A/A", "", note, "", *_claims(report.replicates, "arm")])
    if report.notes or report.left_out:
        parts.append(["## Notes", "", *_notes(report)])
    parts.append(["## How to reproduce it", "", *_provenance(report)])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def sentences(report: Report) -> list[str]:
    """One per headline claim."""
    return [sentence(claim, report) for claim in report.claims]


def sentence(claim: Claim, report: Report) -> str:
    """`Search on top of guess + check: not needed. -0.1 points [-1.4, +1.2] at 3e+12 FLOPs, ...`"""
    caveats = f" ({'; '.join(claim.caveats)})" if claim.caveats else ""
    head = f"{claim.title} on top of {claim.on}: {claim.word}{caveats}."
    if claim.effect is None:
        return head
    out = (
        f"{head} {with_interval(claim.effect)} at {report.budget:.3g} {UNITS[report.unit]}, margin "
        f"{100 * report.margin:g}, {_count(len(claim.effect.seeds), 'seed')} x "
        f"{claim.effect.estimate.problems:,} problems"
    )
    if claim.word in ("helps", "needed") and claim.worth is not None:
        out += f"; worth {multiple(claim.worth)} the compute"
    if claim.word == "inconclusive":
        out += "; " + (
            f"about {claim.seeds_to_settle} seeds would settle it, if the effect is what was found"
            if claim.seeds_to_settle
            else "if the effect is what was found, not even 1000 seeds settle it on these problems"
        )
    return out + "."


def points(value: float) -> str:
    """A difference of accuracies in points, with its sign."""
    return f"{100 * value:+.1f}".replace("-0.0", "+0.0")


def with_interval(effect: Effect | None) -> str:
    """`-0.1 points [-1.4, +1.2]`"""
    if effect is None:
        return "not known"
    if effect.interval is None:
        return f"{points(effect.estimate.value)} points"
    low, high = effect.interval
    return f"{points(effect.estimate.value)} points [{points(low)}, {points(high)}]"


def multiple(worth: Worth) -> str:
    """`1.7x [1.2x, 2.6x]`; a bound beyond what was run as `<` or `>`."""
    low, high = worth.interval
    if worth.value is not None:
        value = f"{worth.value:.2g}x"
    else:
        value = (
            f"more than {worth.most:.2g}x"
            if low is not None or high is None
            else f"less than {worth.least:.2g}x"
        )
    lower = f"<{worth.least:.2g}x" if low is None else f"{low:.2g}x"
    upper = f">{worth.most:.2g}x" if high is None else f"{high:.2g}x"
    return f"{value} [{lower}, {upper}]"


def _verdicts(report: Report) -> list[str]:
    lines = [f"- **{claim.title}** {rest}" for claim, rest in _told(report)]
    if not lines:
        lines = ["No verdict: no suspect ran beside what it is to be added to."]
    if any(claim.effect and claim.effect.interval for claim in report.claims):
        lines += [
            "",
            "Intervals are 95 %, seeds and problems both random, and hold together for all suspects added to "
            "the same recipe. A suspect is *harmful* if its interval lies below zero, *not needed* if it "
            "lies below the margin, *needed* if it lies above the margin and four times the budget does not "
            "make up for it, and *helps* if it lies above zero.",
        ]
    return lines


def _told(report: Report) -> Iterable[tuple[Claim, str]]:
    for claim in report.claims:
        yield claim, sentence(claim, report).removeprefix(f"{claim.title} ")


def _design(report: Report) -> list[str]:
    task = str(report.task.get("_target_", "")).rpartition(".")[2]
    model = str(report.model.get("_target_", "")).rpartition(".")[2]
    return [
        f"Equal in every run: task ({task}), model ({model}), budget ({report.budget:.3g} "
        f"{UNITS[report.unit]}), cap ({report.cap} tokens), evaluation ({report.problems:,} held-out "
        f"problems in {len(report.cluster_sizes)} clusters x {report.samples} samples, plain decoding). Arms "
        f"with the same seed share warm start and problem stream. Seeds: "
        f"{', '.join(map(str, report.seeds))}. Margin, declared before the runs: {100 * report.margin:g} "
        "points.",
    ]


def _arms(report: Report) -> list[str]:
    alone = any(arm.against_base and arm.against_base.family == 1 for arm in report.arms)
    rows = [
        [
            arm.name,
            arm.role,
            str(len(arm.seeds)),
            f"{percent(arm.before)} -> {percent(arm.after)}",
            _against(arm.against_base),
            f"{arm.length[0]:.0f} -> {arm.length[1]:.0f}",
            f"{percent(arm.truncated[0])} -> {percent(arm.truncated[1])}",
            f"{arm.updates:,.0f}",
            f"{arm.tokens:,.0f}",
            f"{arm.logical:.2f}",
            "-" if arm.seconds is None else f"{arm.seconds / 60:.1f}",
            _numbers(arm.lr),
        ]
        for arm in report.arms
    ]
    head = [
        "arm",
        "role",
        "seeds",
        "pass@1 (%)",
        "vs guess + check (points)",
        "length (tokens)",
        "truncated (%)",
    ]
    head += ["updates", "generated tokens", "logical / cached FLOPs", "minutes", "learning rate"]
    lines = table(head, rows)
    if alone:
        lines += [
            "",
            "Intervals of suspects are those of the verdicts; the others (°) are 95 % each for itself.",
        ]
    if bounds := [arm.name for arm in report.arms if arm.role == "upper bound"]:
        lines += [
            "",
            f"Upper bound, no verdict: {', '.join(bounds)} (a scorer that is free and knows the answers).",
        ]
    if outside := [arm.name for arm in report.arms if arm.role == "outside"]:
        lines += ["", f"Outside the ranking: {', '.join(outside)} (trained for two turns, evaluated by one)."]
    return lines


def _against(effect: Effect | None) -> str:
    if effect is None:
        return "-"
    mark = "°" if effect.family == 1 and effect.interval else ""
    return with_interval(effect).replace(" points", "") + mark


def _compute(report: Report) -> list[str]:
    purposes = list(dict.fromkeys(purpose for arm in report.arms for purpose in arm.shares))
    rows = [
        [arm.name, f"{arm.flops:.3g}", *(f"{100 * arm.shares.get(purpose, 0.0):.1f}" for purpose in purposes)]
        for arm in report.arms
    ]
    return table(["arm", "FLOPs", *(f"{purpose.replace('_', ' ')} (%)" for purpose in purposes)], rows)


def _elsewhere(report: Report) -> list[str]:
    shares = sorted({share for claim in report.claims for share, _ in claim.by_budget if share < 0.999})
    axes = list(dict.fromkeys(effect.axis for claim in report.claims for effect, _ in claim.accounts))
    rows = []
    for claim in report.claims:
        by_share, accounts = dict(claim.by_budget), {found[0].axis: found for found in claim.accounts}
        rows.append(
            [
                f"{claim.title} on {claim.on}",
                *(_cell(by_share.get(share)) for share in shares),
                _cell(claim.effect),
                *(_with_word(accounts.get(axis)) for axis in axes),
                "-" if claim.extended is None else _cell(claim.extended),
                "-" if claim.worth is None else multiple(claim.worth),
            ]
        )
    head = ["suspect", *(f"at {share:.3g} of the budget" for share in shares), "at the budget"]
    head += [*(f"at equal {ACCOUNTS[axis]}" for axis in axes), "against 4x the budget", "worth"]
    return table(head, rows)


def _cell(effect: Effect | None) -> str:
    return "-" if effect is None else with_interval(effect).replace(" points", "")


def _with_word(found: tuple[Effect, str] | None) -> str:
    return "-" if found is None else f"{_cell(found[0])} {found[1]}"


def _difficulty(report: Report) -> list[str]:
    names = list(dict.fromkeys(name for claim in report.claims for name, _ in claim.by_difficulty))
    rows = [
        [
            f"{claim.title} on {claim.on}",
            *(_cell(dict(claim.by_difficulty).get(name)) for name in names),
        ]
        for claim in report.claims
    ]
    return table(["suspect", *names], rows)


def _factorial(report: Report) -> list[str]:
    assert report.factorial is not None
    lines = []
    if report.factorial.missing:
        lines += [f"No main effects: {', '.join(report.factorial.missing)} did not run.", ""]
    else:
        lines += [*_claims(report.factorial.main, "main effect"), ""]
    lines += [
        "Simple effects, which tell whether a main effect speaks for all combinations (tree and process "
        "credit are not independent of each other):",
        "",
        *_claims(report.factorial.simple, "suspect"),
    ]
    if report.factorial.interactions:
        lines += [
            "",
            "Interactions, exploratory:",
            "",
            *_claims(report.factorial.interactions, "interaction"),
        ]
    return lines


def _claims(claims: Sequence[Claim], name: str) -> list[str]:
    rows = [
        [
            claim.title,
            claim.on,
            _cell(claim.effect),
            claim.word + (f" ({'; '.join(claim.caveats)})" if claim.caveats else ""),
            str(len(claim.effect.seeds)) if claim.effect else "0",
        ]
        for claim in claims
    ]
    return table([name, "on", "points", "verdict", "seeds"], rows)


def _notes(report: Report) -> list[str]:
    return [
        *(f"- {note}" for note in report.notes),
        *(f"- left out: {folder}: {why}" for folder, why in report.left_out),
    ]


def _provenance(report: Report) -> list[str]:
    lines = []
    for name, values in report.provenance.items():
        if name != "command":
            lines.append(
                f"- {name}: " + ", ".join(f"{value} ({_count(n, 'run')})" for value, n in values.items())
            )
    return [*lines, "", "```bash", *report.provenance.get("command", {}), "```"]


def percent(value: float | None) -> str:
    """A share in percent, without the sign."""
    return "?" if value is None else f"{100 * value:.1f}"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
