"""Every test-time method: which guides it can have, and its ladder of settings from cheap to dear."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ablate.schema import nearest
from ablate.scorers.judge import Judge
from ablate.testtime import guides as guiding
from ablate.testtime.asked import PROMPT, SAMPLES, length_prompt
from ablate.testtime.frame import Frame
from ablate.testtime.guides import Guide
from ablate.testtime.sampled import best_of_n, majority, natural
from ablate.testtime.sequential import budget_forcing, revision
from ablate.testtime.stepwise import beam, depth1, dvts, mcts, rebase
from ablate.types import Trajectory, UserError

Run = Callable[[Frame, Guide | None, dict[str, Any]], Iterator[list[Trajectory]]]
BRANCH = 4  # next steps of every path, in beam search, DVTS and MCTS
STEPWISE = ("learned", "value", "oracle", "monte_carlo", "judge")
WHOLE = ("verifier", "learned", "value", "monte_carlo", "judge")


@dataclass(frozen=True)
class Method:
    """run: yields final answers, one per problem; what is yielded several times is averaged. guides: one is
    needed, () for none. sizes: the ladder, in what `unit` says. settings(size, cap): of a size; several where
    one size has several variants."""

    run: Run
    unit: str
    sizes: tuple[int, ...]
    settings: Callable[[int, int], list[dict[str, Any]]]
    guides: tuple[str, ...] = ()


def _branched(size: int, cap: int) -> list[dict[str, Any]]:
    branch = min(size, BRANCH)
    if size % branch:
        low = size // branch * branch
        raise UserError(
            f"budgets={size} cannot be shared out: beam and dvts take {branch} next steps of every path; "
            f"nearest: {low} and {low + branch}"
        )
    return [{"n": size, "m": branch}]


def _forced(size: int, cap: int) -> list[dict[str, Any]]:
    return [{"wait": size}]


# of the cap: what `natural` is cut at and, below 1, where budget forcing stops an answer
FRACTIONS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
ASKED = (0.25, 0.5, 1.0, 2.0)  # of the cap: lengths that are asked for
NATURAL_SAMPLES = 8

METHODS: dict[str, Method] = {
    # its ladder is of caps, see `jobs`
    "natural": Method(natural, "tokens", (), lambda size, cap: [{"cap": size, "samples": NATURAL_SAMPLES}]),
    "majority": Method(majority, "answers", (1, 2, 4, 8, 16), lambda size, cap: [{"n": size}]),
    "best_of_n": Method(best_of_n, "answers", (2, 4, 8, 16), lambda size, cap: [{"n": size}], WHOLE),
    "depth1": Method(depth1, "next steps", (2, 4, 8), lambda size, cap: [{"n": size}], STEPWISE),
    "beam": Method(beam, "next steps", (4, 8), _branched, STEPWISE),
    "dvts": Method(dvts, "next steps", (4, 8), _branched, STEPWISE),
    "rebase": Method(rebase, "answers", (4, 8), lambda size, cap: [{"n": size}], STEPWISE),
    "mcts": Method(
        mcts,
        "simulations",
        (16, 64),
        lambda size, cap: [{"simulations": size, "width": BRANCH, "parallel": 4}],
        STEPWISE,
    ),
    "length_prompt": Method(
        length_prompt, "tokens asked for", (), lambda size, cap: [{"ask": size, "samples": SAMPLES}]
    ),
    "budget_forcing": Method(budget_forcing, "markers", (1, 2, 4), _forced),
    "revision": Method(
        revision,
        "answers",
        (2, 4, 8),
        lambda size, cap: [{"answers": size, "choose": choose} for choose in ("last", "majority")],
    ),
}

# what runs unless told: a few minutes for all of it on the laptop default; the guides that roll out are dear
DEFAULT = (
    *("natural", "majority", "best_of_n:verifier", "best_of_n:learned", "best_of_n:value"),
    *("depth1:learned", "depth1:oracle", "depth1:monte_carlo", "beam:learned", "beam:oracle"),
    *("dvts:learned", "rebase:learned", "mcts:learned", "length_prompt"),
    *("budget_forcing", "revision"),
)


@dataclass(frozen=True)
class Job:
    """One row of results to be: a method with its guide and setting."""

    method: str
    guide: str | None
    setting: dict[str, Any]
    options: str | None = None  # a hash of what else was asked for: a marker, a judge, how guides are fitted

    @property
    def label(self) -> str:
        """For people."""
        name = self.method if self.guide is None else f"{self.method}:{self.guide}"
        return f"{name} {' '.join(f'{key}={value}' for key, value in self.setting.items())}"


def chosen(text: str | None) -> list[tuple[str, str | None]]:
    """Methods and guides from `methods=`: names, each with its guide after a colon or with all that it can
    have. Raises UserError for one that does not exist."""
    found: dict[tuple[str, str | None], None] = {}
    for word in DEFAULT if text is None else text.split(","):
        name, colon, guide = word.strip().partition(":")
        if name not in METHODS:
            raise UserError(f"methods={name} is not a method; {nearest(name, METHODS)}")
        allowed = METHODS[name].guides
        if colon and not allowed:
            raise UserError(f"methods={word}: {name} has no guide; write methods={name}")
        if colon and not guide:
            raise UserError(f"methods={word} names no guide; choices: {', '.join(sorted(allowed))}")
        if colon and guide not in allowed:
            raise UserError(f"methods={word}: {guide} does not guide {name}; {nearest(guide, allowed)}")
        found |= dict.fromkeys([(name, guide)] if colon else [(name, each) for each in allowed or (None,)])
    return list(found)


def budgets(text: str) -> tuple[int, ...]:
    """The ladder from `budgets=`. Raises UserError for what is less than one sample, or no number."""
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise UserError(f"budgets={text} is no list of whole numbers, as in budgets=1,4,16") from None
    if sizes[0] < 1:
        raise UserError(f"budgets={sizes[0]} is below one sample: the smallest valid value is 1")
    return sizes


def jobs(
    pairs: Sequence[tuple[str, str | None]],
    cap: int,
    longest: int,
    rollouts: int,
    sizes: tuple[int, ...] | None,
    request: str = PROMPT,
) -> list[Job]:
    """All settings of the methods, each ladder from cheap to dear. sizes: instead of the methods' own;
    `natural`, whose ladder is of caps, keeps its own. request: what asks for a length.

    Raises UserError for sizes that a method cannot have."""
    out = []
    for name, guide in pairs:
        method = METHODS[name]
        ladder = sizes or method.sizes
        if name == "natural" or (name == "length_prompt" and sizes is None):
            fractions = FRACTIONS if name == "natural" else ASKED
            ladder = tuple(b for f in fractions if 1 <= (b := int(f * cap)) <= longest)
        elif guide == "monte_carlo" and sizes is None:
            ladder = ladder[:1]  # every candidate costs a rollout
        extra: dict[str, Any] = {"rollouts": rollouts} if guide == "monte_carlo" else {}
        if name == "length_prompt":
            extra = {"prompt": request}
            if max(ladder) > longest:
                raise UserError(
                    f"budgets={max(ladder)} asks for more tokens than an answer may have: at most {longest}"
                )
        settings = [setting for size in ladder for setting in method.settings(size, cap)]
        if name == "budget_forcing" and sizes is None:
            settings = [{"stop": max(1, cap // 4)}, {"stop": max(1, cap // 2)}, *settings]
        out += [Job(name, guide, {**setting, **extra}) for setting in settings]
    return out


def options(job: Job, marker: str | None, fitting: guiding.Fitting, judge: Judge | None) -> str | None:
    """What a job was asked for beside its setting, as a hash; None where all of it is the default."""
    asked: list[Any] = []
    if job.method in ("budget_forcing", "revision") and marker is not None:
        asked.append(marker)
    if job.guide in guiding.FITTED and fitting != guiding.Fitting():
        asked.append(fitting)
    if job.guide == "judge" and judge not in (None, Judge()):
        asked.append(judge)
    return sha256(repr(asked).encode()).hexdigest()[:8] if asked else None


def privileged(guide: str | None) -> bool:
    """Does it ask the verifier or the oracle about the problem that is to be solved?"""
    return guide in guiding.PRIVILEGED
