"""Held-out evaluation: plain decoding from the policy, blind to the strategy.

Every held-out problem is answered `samples` times. An answer counts at cap b if it ends within b tokens and
is right, so one long decode gives the accuracy at every shorter cap. Where the task can score answers that
are right in part (`types.Task`), the score of what lies within the cap stands beside each verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ablate import ranks
from ablate.randomness import hash64
from ablate.types import Problem, Task, UserError
from ablate.verdicts import verdicts

if TYPE_CHECKING:
    from ablate.config import EvaluateConfig
    from ablate.models.policy import Policy


Examine: TypeAlias = Callable[[Sequence[Problem], Sequence[str]], tuple[list[bool], dict[str, float]]]

STRATA = ("easy", "medium", "hard")
KL_ANSWERS = 256  # judged against the start at a milestone: a fixed part of the samples


@dataclass(frozen=True)
class Evaluation:
    """One milestone. columns: one entry per problem and sample, problems in order. metrics: the figures."""

    columns: dict[str, Any]
    metrics: dict[str, float]
    problems: int


def heldout_problems(task: Task, config: EvaluateConfig, seed: int) -> list[Problem]:
    """The evaluation set; held-out problems do not depend on the seed. A part of it is spread evenly."""
    size = task.size(config.split)
    count = size if config.problems is None else min(config.problems, size)
    return [task.problem(seed, config.split, i * size // count) for i in range(count)]


def evaluate(
    engine: Any,
    policy: Policy,
    task: Task,
    problems: list[Problem],
    config: EvaluateConfig,
    cap: int,
    longest: int,
    reference: Policy | None = None,
    examine: Examine | None = None,
) -> Evaluation:
    """Decode up to `longest` >= `cap` tokens and judge at `cap`, at half of it, and at `longest`.

    reference: the policy to measure a divergence from, on some of the answers, cut at `cap`. The random
    stream is the same at every milestone, in every arm and for every seed: common random numbers. examine:
    verdicts on finished answers, and figures about them; the task's own by default.
    """
    k = config.samples
    mine = ranks.share(len(problems))
    prompts = [policy.prompt(problem.prompt) for problem in problems[mine]]
    samples = engine.generate(
        prompts,
        k,
        [longest] * len(prompts),
        key=hash64("evaluate", config.split, k),
        purpose="evaluate",
        temperature=config.temperature,
        workers=config.workers,
        first=mine.start * k,
    )
    steps = [step for part in ranks.gathered(samples) for row in part for step in row]
    owners = [problem for problem in problems for _ in range(k)]
    length = np.array([len(step.tokens) for step in steps])
    ends = policy.ends
    ended = np.array([step.tokens[-1] in ends for step in steps])
    texts = policy.answers([step.tokens for step in steps])
    judged = np.flatnonzero(ended)
    asked = [owners[i] for i in judged], [texts[i] for i in judged]
    # one rank asks: a judge is paid once, and its error rates are of all answers
    found, figures = ranks.first(lambda: examine(*asked) if examine else (verdicts(task, *asked), {}))
    right = np.zeros(len(steps), dtype=bool)
    right[judged] = found
    within = policy.decode([step.tokens[:cap] for step in steps])
    counts = [task.behaviours(problem, text) for problem, text in zip(owners, within, strict=True)]
    columns: dict[str, Any] = {
        "problem": [p.id for p in owners],
        "cluster": [p.cluster for p in owners],
        "stratum": [p.stratum for p in owners],
        "sample": np.tile(np.arange(k), len(problems)),
        "solved": right & (length <= cap),
        "tokens": np.minimum(length, cap),
        "truncated": ~ended | (length > cap),
        # for other caps: the answer's own length and verdict, as far as it was decoded
        "decoded": length,
        "ended": ended,
        "right": right,
        **{name: np.array([count[name] for count in counts]) for name in counts[0]},
    }
    answers = [
        task.answer(p, text) if ok else None
        for p, text, ok in zip(owners, texts, ended & (length <= cap), strict=True)
    ]
    metrics = _metrics(columns, answers, k, cap, longest, list(counts[0])) | figures
    if hasattr(task, "score"):
        columns["score"] = scores(task, owners, within)
        metrics |= _score_metrics(columns, k)
        for limit in sorted({cap // 2, longest} - {cap}):
            cut = policy.decode([step.tokens[:limit] for step in steps])
            metrics[f"score_cap{limit}"] = float(scores(task, owners, cut).mean())
    if reference is not None:
        chosen = [i * len(steps) // KL_ANSWERS for i in range(KL_ANSWERS)]
        rows = sorted(set(chosen))  # all of them, where there are fewer
        metrics |= divergence(
            engine,
            reference,
            [policy.prompt(owners[row].prompt) for row in rows],
            [steps[row].tokens[:cap] for row in rows],
            config.temperature,
        )
    return Evaluation(columns, metrics, len(problems))


def scores(task: Any, problems: list[Problem], texts: list[str]) -> np.ndarray:
    """The task's own score of each answer. Raises UserError if one is no share."""
    found = np.array([task.score(p, text) for p, text in zip(problems, texts, strict=True)], dtype=float)
    if wrong := [value for value in found if not 0.0 <= value <= 1.0]:
        raise UserError(f"task={task.name}: its score must lie in [0, 1], and gave {wrong[0]:g}")
    return found


def _score_metrics(columns: dict[str, Any], k: int) -> dict[str, float]:
    score = columns["score"].reshape(-1, k)  # (problems, samples)
    clusters = np.array(columns["cluster"]).reshape(-1, k)[:, 0]
    strata = np.array(columns["stratum"]).reshape(-1, k)[:, 0]
    metrics = {"score": float(score.mean()), "score_se": clustered_se(score.mean(1), clusters)}
    for name in STRATA:
        if (strata == name).any():
            metrics[f"score_{name}"] = float(score[strata == name].mean())
    return metrics


def divergence(
    engine: Any,
    reference: Policy,
    prompts: list[tuple[int, ...]],
    answers: list[tuple[int, ...]],
    temperature: float,
) -> dict[str, float]:
    """KL(policy || reference) in nats, per token and per answer, from answers that the policy drew.

    The mean over answers, or over all of their tokens, of log p_policy - log p_reference: the plain estimator
    (k1 of Schulman 2020, joschu.net/blog/kl-approx.html). It is unbiased, like k3 = r - 1 - log r with r =
    p_reference / p_policy, and unlike k3 has no heavy tail where the policy has moved far; a small divergence
    may come out below zero.
    """
    mine = ranks.share(len(answers))
    now, start = (
        [
            logprob
            for row in engine.score(
                prompts[mine], answers[mine], purpose="evaluate", temperature=temperature, policy=policy
            )
            for logprob in row
        ]
        for policy in (None, reference)
    )
    ratios = np.concatenate(ranks.gathered(np.subtract(now, start)))
    return {"kl_per_token": float(ratios.mean()), "kl_per_answer": float(ratios.sum()) / len(answers)}


def _metrics(
    columns: dict[str, Any], answers: list[str | None], k: int, cap: int, longest: int, behaviours: list[str]
) -> dict[str, float]:
    solved = columns["solved"].reshape(-1, k)  # (problems, samples)
    clusters = np.array(columns["cluster"]).reshape(-1, k)[:, 0]
    strata = np.array(columns["stratum"]).reshape(-1, k)[:, 0]
    metrics = {"pass@1": float(solved.mean()), "pass@1_se": clustered_se(solved.mean(1), clusters)}
    for n in sorted(({2**i for i in range(16) if 2**i <= k} | {k}) - {1}):
        metrics[f"pass@{n}"] = float(pass_at(solved.sum(1), k, n).mean())
    if k > 1:
        majority = majority_right([answers[i : i + k] for i in range(0, len(answers), k)], solved)
        metrics[f"majority@{k}"] = float(majority.mean())
    for name in STRATA:
        if (strata == name).any():
            metrics[f"pass@1_{name}"] = float(solved[strata == name].mean())
    for limit in sorted({cap // 2, longest} - {cap}):
        metrics[f"pass@1_cap{limit}"] = float((columns["right"] & (columns["decoded"] <= limit)).mean())
    metrics["length"] = float(columns["tokens"].mean())
    metrics["truncated"] = float(columns["truncated"].mean())
    for name in behaviours:
        metrics[f"behaviour/{name}"] = float(columns[name].mean())
    return metrics


def pass_at(correct: np.ndarray, samples: int, k: int) -> np.ndarray:
    """Unbiased chance that one of k samples is right: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021,
    arXiv:2107.03374, eq. 1). correct: right answers per problem, out of `samples` >= k."""
    miss = np.ones(len(correct))
    for i in range(k):
        miss *= np.clip(samples - correct - i, 0, None) / (samples - i)
    return 1.0 - miss


def majority_right(answers: list[list[str | None]], solved: np.ndarray) -> np.ndarray:
    """Is the most frequent answer right, per problem? Ties go to the answer given first; what is unfinished
    or holds no answer has no vote; without any vote the problem is not solved."""
    out = []
    for row, right in zip(answers, solved, strict=True):
        votes = Counter(answer for answer in row if answer)
        best = max(votes, key=lambda answer: votes[answer]) if votes else None
        out.append(best is not None and bool(right[row.index(best)]))
    return np.array(out)


def clustered_se(values: np.ndarray, clusters: np.ndarray) -> float:
    """Standard error of the mean of per-problem values whose clusters are independent.

    The sandwich estimator of an intercept with CR1 correction (Cameron & Miller 2015, eq. 11 f.).
    """
    _, label = np.unique(clusters, return_inverse=True)
    sums = np.bincount(label, weights=values - values.mean())
    groups = len(sums)
    if groups < 2:
        return float("nan")
    return float(np.sqrt((sums**2).sum() * groups / (groups - 1)) / len(values))
