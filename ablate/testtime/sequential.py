"""Methods that control the length of one chain: budget forcing and revision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ablate.testtime.bench import Bench
from ablate.testtime.choose import Candidate, vote
from ablate.testtime.frame import Frame
from ablate.testtime.guides import Guide
from ablate.types import Step, Trajectory


def budget_forcing(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """Longer: where an answer ends, the marker takes the place of the end token, up to `wait` times, and
    the last finished answer counts. Shorter: at `stop` tokens an answer must end (Muennighoff et al. 2025,
    arXiv:2501.19393, section 3.1)."""
    assert guide is None
    bench = frame.bench
    bench.begin_on(frame.problems)
    roots = [Trajectory(problem) for problem in frame.problems]
    if "stop" in setting:
        with bench.room(setting["stop"]):
            begun = _continued(roots, bench)
            cut = [bench.truncated(answer) for answer in begun]
        yield _ended(begun, cut, frame.longest, bench)
        return
    marker = Step(frame.marker)
    with bench.room(frame.longest):
        answers = _continued(roots, bench)
        ended = [i for i, answer in enumerate(answers) if not bench.truncated(answer)]
        for _ in range(setting["wait"]):
            prefixes = {i: bench.unended(answers[i]).then(marker) for i in ended}
            prefixes = {i: prefix for i, prefix in prefixes.items() if not bench.finished(prefix)}
            longer = dict(zip(prefixes, _continued(list(prefixes.values()), bench), strict=True))
            ended = [i for i, answer in longer.items() if not bench.truncated(answer)]
            for i in ended:
                answers[i] = longer[i]
    yield answers


def revision(frame: Frame, guide: Guide | None, setting: dict[str, Any]) -> Iterator[list[Trajectory]]:
    """A chain of `answers`, each written after the one before and the marker, and not seeing those further
    back (Snell et al. 2024, arXiv:2408.03314, section 6, with a context of one). `choose`: the last that was
    finished, or the majority of the chain."""
    assert guide is None
    bench = frame.bench
    bench.begin_on(frame.problems)
    marker = Step(frame.marker)
    chains: list[list[Trajectory]] = [[] for _ in frame.problems]
    context = {i: Trajectory(problem) for i, problem in enumerate(frame.problems)}
    with bench.room(frame.longest):
        for _ in range(setting["answers"]):
            context = {i: prefix for i, prefix in context.items() if not bench.finished(prefix)}
            drawn = dict(zip(context, _continued(list(context.values()), bench), strict=True))
            for i, answer in drawn.items():
                if not chains[i] or not bench.truncated(answer):
                    chains[i].append(answer)
            context = {
                i: bench.unended(Trajectory(answer.problem, answer.steps[-1:])).then(marker)
                for i, answer in drawn.items()
                if not bench.truncated(answer)
            }
        if setting["choose"] == "last":
            yield [chain[-1] for chain in chains]
        else:
            yield [vote([Candidate(answer, 1.0) for answer in chain], bench) for chain in chains]


def _continued(prefixes: list[Trajectory], bench: Bench) -> list[Trajectory]:
    drawn = bench.sample(prefixes, 1)
    return [prefix.then(steps[0]) for prefix, steps in zip(prefixes, drawn, strict=True)]


def _ended(answers: list[Trajectory], cut: list[bool], longest: int, bench: Bench) -> list[Trajectory]:
    """Those that were cut, brought to an end: where the model's thoughts have an end tag, that is written and
    the answer drawn; elsewhere the steps that are complete stand as the answer."""
    form = bench.policy.format
    tag = form.end_of_thought if form is not None else ""
    if not tag:
        end = Step((bench.policy.eos,))
        boundary = bench.policy.stop_tokens(bench.step_boundary)
        return [
            _complete(answer, boundary, bench).then(end) if stopped else answer
            for answer, stopped in zip(answers, cut, strict=True)
        ]
    again = [i for i, stopped in enumerate(cut) if stopped]
    written = Step(bench.encode(tag))
    with bench.room(longest):
        prefixes = [
            answer if tag in bench.text(answer) else answer.then(written)
            for answer in (answers[i] for i in again)
        ]
        drawn = dict(zip(again, _continued(prefixes, bench), strict=True))
    return [drawn.get(i, answer) for i, answer in enumerate(answers)]


def _complete(answer: Trajectory, boundary: frozenset[int], bench: Bench) -> Trajectory:
    """Without a last step that is not complete."""
    steps = bench.split(answer).steps
    kept = steps if steps[-1].tokens[-1] in boundary else steps[:-1]
    return Trajectory(answer.problem, kept)
