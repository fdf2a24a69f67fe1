"""Numbers and claims in words: what the page, the Markdown and the command line have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.report.content import Account, Arm, Claim, ControlClaim, Effect, Report, Rung, Worth
from ablate.report.contrasts import ON_ESSAY
from ablate.report.verdict import LONGER

ACCOUNTS = {"flops": "FLOPs", "logical_flops": "logical FLOPs", "updates": "updates"}
UNITS = {"flops": "FLOPs", "tokens": "generated tokens", "seconds": "seconds"}
SCORERS = {
    "oracle": "oracle",
    "verified": "verifier",
    "monte_carlo": "Monte Carlo",
    "learned": "learned",
    "judge": "judge",
}
NOTHING = "–"
MARGIN = 0.02  # where the command line gives none
NO_VERDICT = "No verdict: no suspect ran beside what it is to be added to."
RULE = (
    "Intervals are 95 %, seeds and problems both random, and hold together (simultaneously) for all suspects "
    "that were run on top of the same recipe. The first that holds is the answer: *harmful* if the interval "
    "lies below zero, however little; *not needed* if it lies below the margin; *needed* if it lies above "
    f"the margin and {LONGER} times the budget does not make up for it; *helps* if it lies above zero; else "
    "*inconclusive*."
)


@dataclass(frozen=True)
class Table:
    """key: unique on the page. The first cell of a row names it; notes are said below."""

    key: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def rule(report: Report) -> str:
    """How an interval becomes a word, and what the suspects are added to."""
    recipe = " The essay's recipe is guess + check with learning to correct."
    return RULE + (recipe if any(claim.on == ON_ESSAY for claim in report.claims) else "")


def sentences(report: Report) -> list[str]:
    """One per headline claim."""
    return [sentence(claim, report) for claim in report.claims]


def sentence(claim: Claim, report: Report) -> str:
    """`Search on top of guess + check: not needed. -0.1 points [-1.4, +1.2] at 3e12 FLOPs, ...`"""
    head = f"{claim.title} on top of {claim.on}: {verdict(claim)}."
    return f"{head} {numbers(claim, report)}".rstrip()


def numbers(claim: Claim, report: Report) -> str:
    """The numbers behind a claim's word: `-0.1 points [-1.4, +1.2] at 3e12 FLOPs, margin 2, 12 seeds ...`"""
    if claim.effect is None:
        return ""
    scale = "" if report.metric == "pass@1" else f" in {report.metric}"
    out = (
        f"{with_interval(claim.effect)}{scale} at {amount(report.budget)} {UNITS[report.unit]}, margin "
        f"{100 * report.margin:g}, {count(len(claim.effect.seeds), 'seed')} x "
        f"{claim.effect.estimate.problems:,} problems"
    )
    if len(claim.weights) == 2:
        out += f", {' minus '.join(arm for arm, _ in claim.weights)}"
    if claim.word == "harmful" and claim.effect.interval and claim.effect.interval[0] > -report.margin:
        out += "; by less than the margin"
    if claim.word == "harmful" and claim.slope and claim.slope.interval and claim.slope.interval[0] > 0.0:
        out += f"; catching up, {with_interval(claim.slope)} per doubling of compute{_range(claim)}"
    if claim.word in ("helps", "needed") and claim.worth is not None:
        out += f"; worth {multiple(claim.worth)} the compute"
    if claim.word in ("helps", "needed") and claim.extended is not None:
        out += f"; {with_interval(claim.extended)} against {claim.on} with {LONGER}x the budget"
    if claim.word == "inconclusive" and report.look is None:
        seeds, enough = len(claim.effect.seeds), claim.seeds_to_settle
        out += "; " + (
            f"about {max(enough, seeds + 1)} seeds would settle it, if the effect is what was found (a "
            "second look, which errs more often)"
            if enough
            else "if the effect is what was found, not even 1000 seeds settle it on these problems"
        )
    return out + "."


def _range(claim: Claim) -> str:
    """Of the compute at which a claim's effects were read."""
    return f" from {claim.by_budget[0][0]:.2g}x to {claim.by_budget[-1][0]:.2g}x the budget"


def looked(report: Report) -> list[str]:
    """Of a sequential experiment: which look this is, what it spent, and whether to stop."""
    look = report.look
    if look is None or not report.claims:
        return []
    at = f"{', '.join(map(str, look.at[:-1]))} and {look.at[-1]}" if len(look.at) > 1 else f"{look.at[0]}"
    planned = f"{count(len(look.at), 'look')} at {at} seeds, spending {spaced(look.spending)}"
    if look.number is None or look.spent is None:
        earlier = [seeds for seeds in look.at if seeds < look.seeds]
        back = f" That of {earlier[-1]} can be read again with seeds=." if earlier else ""
        known = count(look.seeds, "seed")
        return [
            f"No look, so no verdict: {known} in every headline comparison; declared are {planned}.{back}"
        ]
    said = (
        f"Look {look.number} of {planned}: up to here {100 * look.spent:.2g} % of false verdicts are "
        "allowed, 5 % by the last look; intervals hold together over all looks."
    )
    if look.stop and look.saved_runs:
        share = look.saved_flops / (look.saved_flops + look.flops)
        after = (
            f"Stop: every headline verdict is reached. The fixed design of {look.at[-1]} seeds would have "
            f"taken {count(look.saved_runs, 'run')} and {amount(look.saved_flops)} FLOPs more: "
            f"{100 * share:.0f} % of its compute is saved."
        )
    elif look.stop:
        after = "Every headline verdict is reached, at the last look: nothing is saved."
    elif look.number < len(look.at):
        after = (
            f"Go on: not every headline verdict is reached; the next look is at {look.at[look.number]} seeds."
        )
    else:
        after = "This was the last look: what is inconclusive stays so in this design."
    if not look.declared:
        after += (
            " The runs do not declare these looks: that they were chosen beforehand is the author's word."
        )
    return [said, after]


def points(value: float) -> str:
    """A difference of accuracies in points, with its sign; so exact that it keeps it."""
    text = f"{100 * value:+.1f}"
    if float(text):
        return text
    return f"{100 * value:+.1g}" if abs(value) > 1e-5 else "+0.0"


def bounds(pair: tuple[float, float]) -> str:
    """`[-1.4, +1.2]`, in points."""
    return f"[{points(pair[0])}, {points(pair[1])}]"


def with_interval(effect: Effect | None) -> str:
    """`-0.1 points [-1.4, +1.2]`"""
    if effect is None:
        return "not known"
    value = f"{points(effect.estimate.value)} points"
    return value if effect.interval is None else f"{value} {bounds(effect.interval)}"


def interval(effect: Effect | None) -> str:
    """`-0.1 [-1.4, +1.2]`, in points."""
    return NOTHING if effect is None else with_interval(effect).replace(" points", "")


def multiple(worth: Worth) -> str:
    """`1.7x [1.2x, 2.6x]`; what lies beyond the runs as `less than` and `<`, or `more than` and `>`."""
    low, high = worth.interval
    if worth.value == 0.0:
        return "0x (no better than before training)"
    if worth.value is not None:
        value = f"{worth.value:.2g}x"
    else:
        value = f"less than {worth.least:.2g}x" if worth.beyond == "less" else f"more than {worth.most:.2g}x"
        # the two differ at all multiples that were run: the interval says no more
        if (low, high) in ((None, worth.least), (worth.most, None)):
            return value
    lower = f"<{worth.least:.2g}x" if low is None else f"{low:.2g}x"
    upper = f">{worth.most:.2g}x" if high is None else f"{high:.2g}x"
    return f"{value} [{lower}, {upper}]"


def crossings(claim: Claim) -> list[str]:
    """`falls behind at 0.51x the budget [<0.5x, >1x]`: where the curves cross, and where they may."""
    out = []
    shares = [share for share, _ in claim.by_budget]
    for each in claim.crossings:
        low, high = each.interval
        lower = f"<{shares[0]:.2g}x" if low is None else f"{low:.2g}x"
        upper = f">{shares[-1]:.2g}x" if high is None else f"{high:.2g}x"
        verb = "gets ahead" if each.gains else "falls behind"
        out.append(f"{verb} at {each.share:.2g}x the budget [{lower}, {upper}]")
    return out


def name(claim: Claim) -> str:
    """`Search on guess + check`"""
    return f"{claim.title} on {claim.on}"


def verdict(claim: Claim | ControlClaim | Account | Rung) -> str:
    """The word with what must be said with it."""
    return claim.word + (f" ({'; '.join(claim.caveats)})" if claim.caveats else "")


def percent(value: float | None) -> str:
    """A share in percent, without the sign."""
    return "?" if value is None else f"{100 * value:.1f}"


def amount(value: float) -> str:
    """`3e12`, `1.25e12`, `400`"""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def count(number: int, what: str) -> str:
    """`1 seed`, `3 seeds`"""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def spaced(word: str) -> str:
    """`auxiliary_update` as two words."""
    return word.replace("_", " ")


def last_name(component: Mapping[str, Any]) -> str:
    """The class that a component's configuration names."""
    return str(component.get("_target_", "")).rpartition(".")[2]


def described(component: Mapping[str, Any]) -> str:
    """`Countdown: numbers 3, largest 20`; groups below the first level stay with the runs' config.yaml."""
    plain = [
        f"{spaced(key)} {value}"
        for key, value in component.items()
        if key != "_target_" and value is not None and not isinstance(value, dict)
    ]
    return f"{last_name(component)}: {', '.join(plain)}" if plain else last_name(component)


def design(report: Report) -> list[tuple[str, str]]:
    """What was equal and what it cost, as (what, how much)."""
    apart = {
        purpose: sum(arm.separate.get(purpose, 0.0) for arm in report.arms) / len(report.arms)
        for purpose in dict.fromkeys(purpose for arm in report.arms for purpose in arm.separate)
    }
    runs = sum(len(curve.run) for arm in report.arms for curve in arm.curves)
    outcome = (
        "pass@1, the share of answers that are right"
        if report.metric == "pass@1"
        else f"{report.metric}, the task's own score of an answer, because few are right as a whole"
    )
    facts = [
        ("task", described(report.task)),
        ("model", described(report.model)),
        ("budget", f"{amount(report.budget)} {UNITS[report.unit]} of training per run, a hard stop"),
        ("outcome", outcome),
        (
            "evaluation",
            f"{report.problems:,} held-out problems in {len(report.cluster_sizes):,} clusters × "
            f"{report.samples} samples, plain decoding from the final policy, at most {report.cap} tokens",
        ),
        ("seeds", ", ".join(map(str, report.seeds))),
        ("looks", " ".join(looked(report))),
        ("margin", _margin(report.margin)),
        ("learning rate", _rates(report.arms)),
        ("tuning", _tuning(report.arms)),
        ("cost", f"{count(runs, 'run')}, {report.hours:.1f} hours of run time"),
        (
            "not charged",
            ", ".join(f"{spaced(p)} {amount(value)} FLOPs per run" for p, value in apart.items()),
        ),
    ]
    return [(what, text) for what, text in facts if text]


def _margin(margin: float) -> str:
    chosen = "the default" if margin == MARGIN else "that it was chosen before the runs is the author's word"
    return f"{100 * margin:g} points ({chosen})"


def _tuning(arms: Iterable[Arm]) -> str:
    """FLOPs of each arm's trials, as its runs recorded them."""
    if not any(any(arm.tuning) for arm in arms):
        return ""
    told = ", ".join(f"{arm.name} {tuned(arm)}" for arm in arms)
    return f"FLOPs of trials, spent once for an arm and not charged: {told}"


def tuned(arm: Arm) -> str:
    """`6.05e12`, or `1.5e12 or 6.02e12` where its runs recorded one or the other."""
    return " or ".join(amount(flops) if flops else "none" for flops in arm.tuning)


def _rates(arms: Iterable[Arm]) -> str:
    rates = sorted({rate for arm in arms for rate in arm.lr})
    text = ", ".join(f"{rate:g}" for rate in rates)
    return f"{text} in every arm" if len(rates) == 1 else f"{text}, by arm (in the tables)"


def apart(report: Report) -> list[str]:
    """Which arms are no part of the ranking, and why."""

    def names(role: str) -> str:
        return ", ".join(arm.name for arm in report.arms if arm.role == role)

    lines = []
    if bound := names("upper bound"):
        lines.append(f"Upper bound, no verdict: {bound} (a scorer that is free and knows the answers).")
    if outside := names("outside"):
        lines.append(f"Outside the ranking: {outside} (trained for two turns, evaluated by one).")
    return lines


def repeat(report: Report) -> list[str]:
    """The commands that give the runs, as far as they are known, and this report."""
    told = f" margin={report.margin:g}" if report.margin != MARGIN else ""
    if report.look is not None and not report.look.declared:
        told += f" looks={','.join(map(str, report.look.at))} spending={report.look.spending}"
    controls = [f"results/{each.experiment}" for each in report.controls]
    if controls:
        told += f" control={','.join(controls)}"
    designed = [report.design] if report.design else []
    return [*report.commands, *designed, f"python -m ablate.report results/{report.experiment}{told}"]


def unrecorded(report: Report) -> str:
    """What to say of runs whose command is not known."""
    if not report.unrecorded:
        return ""
    return (
        f"{count(report.unrecorded, 'run')} recorded no command that can be repeated; config.yaml in each "
        "run's folder holds all of its settings"
        + (", and there is a design of the experiment's name." if report.design else ".")
    )
