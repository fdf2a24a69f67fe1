"""The tables of test time, length and long training."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ablate.report.answers.content import Best, Change, Gain, SetAtTest
from ablate.report.answers.wording import arm_name, read
from ablate.report.content import Report
from ablate.report.wording import NOTHING, Table, amount, percent

TITLES = {"heldout": "", "hard": " (hard set)"}
MOST_NAMED = 2  # methods that tie, by name


def tables(report: Report) -> Iterable[Table]:
    """In the order of the page."""
    yield _longer(report)
    yield _slopes(report)
    yield _caps(report)
    yield _buckets(report)
    for each in report.testtime:
        yield _crossed(each)
        yield _cheapest(each)
        yield _asked(each)
        yield _without(each)
        yield _points(each)


def _key(name: str, found: SetAtTest) -> str:
    return name if found.set == "heldout" else f"{name}-{found.set}"


def _crossed(found: SetAtTest) -> Table:
    """Trained arms under every method."""
    rows = []
    labels = dict.fromkeys(gain.label for arm in found.arms for gain in arm.gains)
    for label in labels:
        gains = [next(gain for gain in arm.gains if gain.label == label) for arm in found.arms]
        level = next((gain.level for gain in gains if gain.level is not None), None)
        star = "*" if any(gain.oracle for gain in gains) else ""
        cells = [_gain(gain) for gain in gains]
        rows.append((label + star, NOTHING if level is None else amount(level), *cells))
    head = ("method", "FLOPs per problem", *(arm_name(arm.arm, arm.times) for arm in found.arms))
    notes = [
        "Accuracy (%) at the largest budget that all arms reach with the method and with a majority vote "
        "(an arm's: the geometric mean of where its runs end; one that ends sooner is read there), and in "
        "brackets the difference in points to the same policy's majority vote at the same FLOPs: paired by "
        "problem, 95 % each for itself."
    ]
    if any(gain.oracle for arm in found.arms for gain in arm.gains):
        notes.append("* an oracle: it is told which answers or steps are right; an upper bound.")
    title = f"Train x test{TITLES[found.set]}"
    return Table(_key("traintest", found), title, head, tuple(rows), tuple(notes))


def _gain(gain: Gain) -> str:
    if gain.accuracy is None:
        return gain.reason or NOTHING
    return percent(gain.accuracy) + ("" if gain.gain is None else f" ({read(gain.gain)})")


def _cheapest(found: SetAtTest) -> Table:
    """The best method at each budget."""
    multiples = sorted({each.multiple for arm in found.arms for each in arm.best})
    rows = []
    for arm in found.arms:
        for stratum in ("all", *found.strata):
            own = {each.multiple: each for each in arm.best if each.stratum == stratum}
            if own:
                name = f"{arm_name(arm.arm, arm.times)}, {stratum}"
                rows.append((name, *(_winner(own.get(multiple)) for multiple in multiples)))
    head = ("arm, problems", *(f"{multiple:g}x" for multiple in multiples))
    notes = (
        "The most accurate method, oracles apart, where a problem may cost so many times the FLOPs of one "
        "plain sample, with its accuracy (%). = : not shown to be worse (simultaneous 95 % intervals of the "
        "difference).",
    )
    title = f"The cheapest method at each budget{TITLES[found.set]}"
    return Table(_key("cheapest", found), title, head, tuple(rows), notes)


def _winner(best: Best | None) -> str:
    if best is None:
        return NOTHING
    text = f"{best.label} {percent(best.accuracy)}"
    if not best.equal:
        return text
    many = len(best.equal) > MOST_NAMED
    return f"{text} (= {f'{len(best.equal)} others' if many else ' = '.join(best.equal)})"


def _asked(found: SetAtTest) -> Table:
    """Lengths that were asked for in the prompt."""
    rows = []
    for arm in found.arms:
        for curve in arm.curves:
            for each, accuracy in zip(curve.followed, curve.accuracy, strict=False):
                if each is not None:
                    rows.append(
                        (
                            arm_name(arm.arm, arm.times),
                            curve.label,
                            str(each.asked),
                            f"{each.tokens:,.0f} ({each.ratio:.2f}x)",
                            percent(each.within),
                            percent(each.ended),
                            percent(accuracy),
                        )
                    )
    head = ("arm", "prompt", "tokens asked for", "tokens spent", "within (%)", "ended (%)", "accuracy (%)")
    notes = (
        "Answers to problems with a request for a length behind them, which nothing enforces. Tokens of an "
        "answer, or of its thoughts where a tag ends them. Within: answers that ended by what was asked for.",
    )
    title = f"Asked for a length{TITLES[found.set]}"
    return Table(_key("asked", found), title, head, tuple(rows), notes)


def _without(found: SetAtTest) -> Table:
    """What was left out."""
    rows = tuple(
        (each.label, each.arm, ", ".join(map(str, each.seeds)), each.reason) for each in found.without
    )
    title = f"Test-time methods left out{TITLES[found.set]}"
    return Table(_key("without", found), title, ("method", "arm", "seeds", "why"), rows)


def _points(found: SetAtTest) -> Table:
    """Every setting."""
    rows = []
    for arm in found.arms:
        for curve in arm.curves:
            for i, setting in enumerate(curve.settings):
                error = curve.accuracy_se[i]
                rows.append(
                    (
                        arm_name(arm.arm, arm.times),
                        curve.label + ("*" if curve.oracle else ""),
                        ", ".join(f"{key} {value}" for key, value in json.loads(setting).items()) or NOTHING,
                        amount(curve.flops[i]),
                        f"{curve.tokens[i]:,.0f}",
                        percent(curve.accuracy[i]) + ("" if error is None else f" ± {100 * error:.1f}"),
                        amount(curve.fit_flops) if curve.fit_flops else NOTHING,
                    )
                )
    head = ("arm", "method", "setting", "FLOPs per problem", "tokens per problem", "accuracy (%)")
    notes = (
        "± one standard error over " + ("seeds" if found.over != "problems" else "problems") + ". Fitting: "
        "spent once on the method's scorer, beside the FLOPs per problem.",
    )
    title = f"Every test-time setting{TITLES[found.set]}"
    return Table(_key("points", found), title, (*head, "fitting (FLOPs)"), tuple(rows), notes)


def _slopes(report: Report) -> Table:
    rows = tuple(
        (
            arm_name(each.arm, each.times),
            each.source,
            str(len(each.seeds)),
            f"{each.samples:,}",
            percent(each.truncated),
            read(each.pooled_slope),
            read(each.within_slope),
            percent(each.left_out) if each.pooled_slope is not None else NOTHING,
            read(each.beyond),
        )
        for each in report.length
    )
    head: tuple[str, ...] = ("arm", "answers from", "seeds", "answers", "cut off (%)", "pooled")
    notes = (
        "Points per doubling of the length (pooled, within problems) or of the cap, with 95 % intervals. Cut "
        "off answers are in no slope. Left out: problems with too few answers of a seed for a slope within "
        "them.",
    )
    head = (*head, "within problems", "left out (%)", "cap, beyond training's")
    return Table("slopes", "Length and accuracy: slopes", head, rows, notes)


def _caps(report: Report) -> Table:
    """Accuracy within multiples of the training cap, and before training."""
    powers = [2.0**i for i in range(-3, 5)]
    rows = []
    for each in report.length:
        for name, points in ((arm_name(each.arm, each.times), each.caps), ("", each.start)):
            by_cap = {point.tokens: point.accuracy for point in points}
            cells = [by_cap.get(round(each.cap * power)) for power in powers]
            if points:
                name = name or f"{arm_name(each.arm, each.times)}, before training"
                rows.append((name, *(_level(cell) for cell in cells)))
    kept = [i for i in range(len(powers)) if any(row[1 + i] != NOTHING for row in rows)]
    cap = report.cap
    head = ("arm", *(f"{cap * powers[i]:g} tokens" + (" (cap)" if powers[i] == 1 else "") for i in kept))
    shown = tuple((row[0], *(row[1 + i] for i in kept)) for row in rows)
    return Table("caps", "Solved within so many tokens (%)", head, shown)


def _level(found: object) -> str:
    from ablate.report.answers.content import Reading

    if not isinstance(found, Reading):
        return NOTHING
    if found.interval is None:
        return percent(found.value)
    return f"{percent(found.value)} [{percent(found.interval[0])}, {percent(found.interval[1])}]"


def _buckets(report: Report) -> Table:
    rows = []
    for each in report.length:
        for bucket in each.pooled:
            text = f"{bucket.low:.0f} to {bucket.high:.0f} tokens"
            rows.append(
                (arm_name(each.arm, each.times), text, f"{bucket.samples:,}", _level(bucket.accuracy))
            )
        for bucket in each.within:
            text = f"{bucket.low:.2g}x to {bucket.high:.2g}x the problem's"
            rows.append((arm_name(each.arm, each.times), text, f"{bucket.samples:,}", read(bucket.accuracy)))
    notes = (
        "Buckets by length: accuracy (%). Buckets by length relative to the mean over the problem's answers "
        "(of a seed): points above or below that problem's accuracy. Neighbours with too few answers are "
        "merged; – : still too few.",
    )
    return Table(
        "buckets", "Accuracy by length", ("arm", "length", "answers", "accuracy"), tuple(rows), notes
    )


def _longer(report: Report) -> Table:
    if report.longer is None:
        return Table("longer", "", (), ())
    rows = []
    for arm in report.longer.arms:
        for change in (arm.accuracy, *arm.changes):
            rows.append((arm.arm, *_change(change, change is arm.accuracy)))
    head = ("setting", "figure", "at the best evaluation", "at the last", "change", "interval over")
    notes = (
        "The best evaluation before the last one is chosen for each seed by the other seeds (with one seed: "
        "for each half of the problems by the other half). Intervals of accuracies hold together for all "
        "settings; the others are 95 % each for itself. Entropy: of training batches, over the last tenth of "
        "the steps before the evaluation.",
    )
    return Table("longer", "The last evaluation against the best before it", head, tuple(rows), notes)


def _change(change: Change, share: bool) -> tuple[str, ...]:
    over = change.difference.over if change.difference.interval is not None else NOTHING
    if share:
        return (
            "accuracy (%)",
            percent(change.at_best),
            percent(change.at_last),
            read(change.difference),
            over,
        )
    numbers = f"{change.at_best:.3g}", f"{change.at_last:.3g}", read(change.difference, 1.0)
    return change.name, *numbers, over
