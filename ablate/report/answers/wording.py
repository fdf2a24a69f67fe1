"""Test time, length and long training in sentences. What lengths go with is never said to be what they do."""

from __future__ import annotations

from collections.abc import Iterable

from ablate.report.answers.content import ArmAtTest, LengthCurves, LongArm, Overtake, Reading, SetAtTest
from ablate.report.answers.readings import PROBLEMS
from ablate.report.content import Report
from ablate.report.wording import NOTHING, amount, bounds, percent, points

NEITHER = (
    "None of this says what a longer answer would do: hard problems have long answers, and a chain that "
    "succeeds stops."
)
QUESTION = (
    "What does each suspect add to reinforcement learning on verified answers (guess + check) when all "
    "are given the same compute? One model, one verifier, one learner, one budget; only the strategy changes."
)
AGAIN = (
    "What becomes of reinforcement learning on verified answers when training goes on far past the plateau? "
    "Does it get worse, and do a penalty on the divergence from the start and the number of problems decide?"
)
ONE_SEED = "One seed: intervals are over problems only; nothing tells how far another seed would be off."
SETS = {"heldout": "the held-out problems", "hard": "the hard set"}


def asked(report: Report) -> tuple[str, str]:
    """(the page's title, what was asked)."""
    if report.longer is not None and not report.claims:
        return "Does it just run longer?", AGAIN
    return "Is it needed?", QUESTION


def arm_name(arm: str, times: float) -> str:
    """With the budget, where that is not the declared one."""
    return arm if times == 1 else f"{arm} ({times:g}x budget)"


def read(found: Reading | None, scale: float = 100.0) -> str:
    """`+1.2 [-0.3, +2.7]`: by default a share, in points."""
    if found is None:
        return NOTHING
    if scale == 100.0:
        return points(found.value) + ("" if found.interval is None else f" {bounds(found.interval)}")
    value = f"{scale * found.value:+.3g}"
    if found.interval is None:
        return value
    return f"{value} [{scale * found.interval[0]:+.3g}, {scale * found.interval[1]:+.3g}]"


def lengths(report: Report) -> list[str]:
    """What the three curves say of the base; where it has none, of each arm. The table has the others."""
    base = {arm.name for arm in report.arms if arm.role == "base"}
    said = [each for each in report.length if each.arm in base] or list(report.length)
    lines = [line for curves in said for line in _length(curves)]
    if not lines:
        return []
    if any(curves.pooled_slope is not None for curves in report.length):
        lines.append(NEITHER)
    if any(curves.beyond is not None and curves.beyond.over == PROBLEMS for curves in report.length):
        lines.append(ONE_SEED)
    return lines


def _length(curves: LengthCurves) -> Iterable[str]:
    name = arm_name(curves.arm, curves.times)
    pooled, within = curves.pooled_slope, curves.within_slope
    if pooled is not None:
        text = f"{name}: over all problems, answers twice as long are right {_more(pooled)}"
        if within is None:
            text += "; too few answers per problem to say the same within one"
        else:
            text += f"; among answers to the same problem, {_more(within)}"
            text += _simpson(pooled, within)
        yield text + "."
    if curves.beyond is not None:
        gain = curves.beyond
        yield (
            f"{name}: every doubling of the cap beyond the training cap of {curves.cap} tokens, up to "
            f"{curves.longest}, goes with {read(gain)} points{_clear(gain)}."
        )


def _more(slope: Reading) -> str:
    word = "more" if slope.value >= 0 else "less"
    size = f"{100 * abs(slope.value):.1f} points {word} often"
    return size if slope.interval is None else f"{size} {bounds(slope.interval)}"


def _clear(found: Reading) -> str:
    if found.interval is None:
        return ""
    low, high = found.interval
    return ": a rise" if low > 0 else ": a fall" if high < 0 else ": no rise and no fall is shown"


def _simpson(pooled: Reading, within: Reading) -> str:
    if pooled.interval is None or within.interval is None:
        return ""
    seen = pooled.interval[0] > 0 or pooled.interval[1] < 0
    if seen and within.interval[0] <= 0 <= within.interval[1]:
        return " (which problems have long answers may be all that the first of the two shows)"
    return ""


def tested(found: SetAtTest) -> list[str]:
    """Per arm: the best method with the most compute, and where curves cross."""
    lines = [line for arm in found.arms for line in _tested(arm)]
    return [*lines, ONE_SEED] if lines and found.over == PROBLEMS else lines


def _tested(arm: ArmAtTest) -> Iterable[str]:
    name = arm_name(arm.arm, arm.times)
    overall = [each for each in arm.best if each.stratum == "all"]
    if overall:
        last = overall[-1]
        text = (
            f"{name}: with {last.multiple:g}x the FLOPs of one plain sample, {last.label} is ahead "
            f"({percent(last.accuracy)} %)"
        )
        if last.equal:
            text += f"; not shown to be worse: {', '.join(last.equal)}"
        yield text + "."
    for each in arm.overtakes:
        if shown(each):
            yield f"{name}: {crossing(each)}."


def shown(found: Overtake) -> bool:
    """Are the two told apart on both sides? Curves that lie close cross many times by chance."""
    return None not in found.interval


def crossing(found: Overtake) -> str:
    """`beam search, learned gets ahead of the majority vote at 3e8 FLOPs per problem [2e8, 6e8]`"""
    low, high = (NOTHING if bound is None else amount(bound) for bound in found.interval)
    verb = "gets ahead of" if found.gains else "falls behind"
    text = f"{found.label} {verb} the majority vote at {amount(found.level)} FLOPs per problem"
    return f"{text} [{low}, {high}]"


def longer(report: Report, brief: bool = False) -> list[str]:
    """What became of each setting, no stronger than its interval. brief: of its accuracy alone."""
    if report.longer is None:
        return []
    lines = [_longer(arm, brief) for arm in report.longer.arms]
    lines += [f"Change in accuracy {what}: {read(found)} points." for what, found in report.longer.effects]
    if any(arm.accuracy.difference.over == PROBLEMS for arm in report.longer.arms):
        lines.append(ONE_SEED)
    return lines


def _longer(arm: LongArm, brief: bool) -> str:
    change = arm.accuracy.difference
    if change.interval is None:
        verdict = "one value, no interval: no statement"
    elif arm.word == "worse":
        verdict = "it gets worse"
    elif arm.word == "still better":
        verdict = "it still gets better"
    elif change.interval[0] <= -arm.accuracy.at_best:
        verdict = "no change is shown, and the interval is too wide to exclude any"
    else:
        verdict = (
            "no change is shown, and the interval excludes a fall of more than "
            f"{-100 * change.interval[0]:.1f} points"
        )
    moved = [
        f"{each.name} {read(each.difference, 1.0)}"
        for each in arm.changes
        if not brief
        and each.difference.interval is not None
        and (each.difference.interval[0] > 0 or each.difference.interval[1] < 0)
    ]
    text = f"{arm.arm}: {verdict}: {read(change)} points from the best evaluation before the end to the last"
    return text + (f"; with it changed: {', '.join(moved)}." if moved else ".")
