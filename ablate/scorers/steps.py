"""Values of every step of every answer, by any scorer, each distinct prefix judged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ablate.types import Lab, Scorer, Trajectory


def step_values(
    trajectories: Sequence[Trajectory], scorer: Scorer, lab: Lab, sampled: bool = False
) -> list[list[float]]:
    """V_0 .. V_T for each verified trajectory of T steps: `result[i][t]` is the value after step t, `[0]` the
    prompt's.

    The value after the last step of a finished answer is its outcome, unless the scorer has `ends`. Equal
    prefixes, of one answer or of several, are judged once. sampled: nothing before the policy's first own
    step is judged, as no credit for it is used: it has the value that this step begins with.
    """
    ends = getattr(scorer, "ends", None)
    final = ends(trajectories, lab) if ends else [whole.outcome for whole in trajectories]
    places: dict[tuple[str, tuple[int, ...]], list[tuple[int, int]]] = {}
    prefixes: list[Trajectory] = []
    values: list[list[float]] = []
    for i, whole in enumerate(trajectories):
        values.append([final[i]] * (len(whole.steps) + 1))
        for t in range(_first_sampled(whole) if sampled else 0, len(whole.steps) + 1):
            prefix = replace(whole, steps=whole.steps[:t], solved=None, reward=None, advantages=())
            if t and lab.finished(prefix):
                continue
            key = (whole.problem.id, prefix.completion)
            if key not in places:
                places[key] = []
                prefixes.append(prefix)
            places[key].append((i, t))
    for where, value in zip(places.values(), scorer.values(prefixes, lab), strict=True):
        for i, t in where:
            values[i][t] = value
    if sampled:
        for own, whole in zip(values, trajectories, strict=True):
            first = _first_sampled(whole)
            own[:first] = [own[first]] * first
    lab.log("scorer/prefixes", len(prefixes))
    lab.log("scorer/deduplicated", 1.0 - len(prefixes) / max(1, sum(map(len, places.values()))))
    return values


def _first_sampled(trajectory: Trajectory) -> int:
    """Index of the first step that the policy wrote; 0 where it wrote none."""
    return next((t for t, step in enumerate(trajectory.steps) if step.logprobs is not None), 0)
