"""Accuracy against test-time compute: `python -m ablate.testtime results/<experiment> [key=value ...]`

Every finished run's final policy under every test-time method, all compute charged; the files that it
writes are described in `ablate.testtime.store`.

Exit codes: 0 done; 2 a mistake of the user's, told in one line; 130 interrupted: what was done is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablate import ranks
from ablate.command import exit_code, refuse_options
from ablate.schema import construct, nearest, read, unknown_key
from ablate.types import UserError

HELP = """\
What is test-time compute worth? Every finished run's final policy under every test-time method, all compute
of scorers charged; rows to results/<experiment>/testtime/. Started again, it does what is missing.

usage: python -m ablate.testtime results/<experiment> [key=value ...]

  methods=natural,beam:learned,...   a method, or a method with its guide (default: a choice of them all)
       natural                       plain samples, cut at an eighth to four times the cap
       majority, budget_forcing, revision
       length_prompt                 plain samples of models that read, asked for a length
       best_of_n                     :verifier (pass@n) :learned :value :monte_carlo :judge
       depth1, beam, dvts, rebase, mcts
                                     :learned :value :oracle :monte_carlo :judge
  budgets=1,4,16       sizes instead of each method's own ladder: answers, next steps, simulations, markers,
                       tokens that are asked for
  problems=200         of the run's evaluation split, spread evenly
  set=hard             those that a random attempt hits with a chance of at most .01 (see experiment=hard)
  seeds=0,1  arms=guess_check,mcts   only these runs
  rollouts=1           of monte_carlo, from every path
  marker="no \\n "      what makes the policy go on (default: the task's correction, else Wait)
  length_prompt="Think for at most {tokens} tokens."   what asks, after the problem
  learned.problems=256 learned.samples=8 ...   what the fitted guides learn from: ablate/testtime/guides.py
  judge.who=local judge.path=<folder> ...      who judges: ablate/scorers/asking.py
  out=<folder>         instead of results/<experiment>/testtime
  threads=1

Guides: learned and value are fitted at the start on the policy's answers to training problems, on an account
of their own (fit_flops). oracle, monte_carlo and verifier ask the task about the very problem that is to be
solved: what they find is an upper bound, and marked.
"""
KEYS = (
    *("methods", "budgets", "problems", "set", "seeds", "arms", "rollouts", "marker", "out", "threads"),
    *("length_prompt", "learned", "judge"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(_main, argv)


def _main(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    folders = [word for word in argv if "=" not in word]
    refuse_options(argv)
    if ranks.count() > 1:
        raise UserError("test time is one process: run it without accelerate launch or torchrun")
    if len(folders) != 1:
        raise UserError(f"one folder of an experiment expected, {len(folders)} given: results/<experiment>")
    given, nested = _given([word for word in argv if "=" in word])

    from ablate.testtime.asked import PROMPT, check_prompt
    from ablate.testtime.guides import Fitting
    from ablate.testtime.methods import budgets, chosen, jobs, options
    from ablate.testtime.runs import SETS, find

    pairs = chosen(given.get("methods"))
    sizes = budgets(given["budgets"]) if "budgets" in given else None
    request = check_prompt(given.get("length_prompt", PROMPT))
    if "length_prompt" in given and ("length_prompt", None) not in pairs:
        raise UserError(
            "length_prompt= is a setting of methods=length_prompt, which is not asked for: add it"
        )
    if sizes is not None and all(name == "natural" for name, _ in pairs):
        raise UserError("budgets= is no setting of natural, whose ladder is of caps: leave it out")
    most, rollouts = _count(given, "problems", 200), _count(given, "rollouts", 1)
    which = given.get("set", "heldout")
    if which not in SETS:
        raise UserError(f"set={which} is not a choice; {nearest(which, SETS)}")
    fitting = construct(read(Fitting, nested["learned"], "learned"), "learned", Fitting)
    judge: Any = None
    if nested["judge"]:
        from ablate.scorers.judge import Judge

        judge = construct(read(Judge, nested["judge"], "judge"), "judge", Judge)
    if any(guide == "judge" for _, guide in pairs) and judge is not None:
        judge.reach()
    folder = Path(folders[0])
    runs, skipped = find(
        folder, _seeds(given.get("seeds")), given["arms"].split(",") if "arms" in given else None
    )
    plans, without = [], []
    for run in runs:
        run.marker(given.get("marker"))
        lacking = {pair: why for pair in pairs if (why := run.lacks(*pair, judge))}
        if "methods" in given and lacking:
            (name, guide), why = next(iter(lacking.items()))
            asked = given["methods"].split(",")
            if guide is None or f"{name}:{guide}" in asked or len(lacking) == len(pairs):
                raise UserError(f"{name}{f':{guide}' if guide else ''}: {why}")
        without += [(run.folder.name, *pair, why) for pair, why in lacking.items()]
        own = [pair for pair in pairs if pair not in lacking]
        count = len(run.problems(which, most))
        found = jobs(own, run.cap, run.longest(), rollouts, sizes, request)
        told = [replace(job, options=options(job, given.get("marker"), fitting, judge)) for job in found]
        plans.append((run, count, told))
    skipped += [(run, f"{name}{f':{guide}' if guide else ''}: {why}") for run, name, guide, why in without]
    for name, why in skipped:
        print(f"left out: {name}: {why}", file=sys.stderr)
    out = Path(given.get("out", folder / "testtime"))
    marker, threads = given.get("marker"), _count(given, "threads", 1)
    return _measure(plans, without, out, which, most, fitting, judge, marker, threads)


def _measure(
    plans: list[Any],
    without: list[tuple[str, str, str | None, str]],
    out: Path,
    which: str,
    most: int,
    fitting: Any,
    judge: Any,
    marker: str | None,
    threads: int,
) -> int:
    from filelock import FileLock, Timeout

    from ablate import runtime
    from ablate.progress import Bar
    from ablate.testtime.measure import Measurement, measure_missing
    from ablate.testtime.store import Store

    store = Store(out)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is at work on {out}") from None
    with lock:
        runtime.quiet_libraries()
        runtime.set_threads(threads)
        runtime.keep_memory()
        store.begin({run.folder.name: run.policy for run, *_ in plans}, without)
        total = sum(len(todo) for *_, todo in plans)
        bar, count, kept = Bar("testtime", total), 0, 0
        for run, problems, todo in plans:

            def done(job: Any, point: dict[str, Any] | None, run: Any = run) -> None:
                nonlocal count, kept
                count += 1
                kept += point is None
                figures = {} if point is None else {"accuracy": f"{point['accuracy']:.3f}"}
                bar.update(count, job.label, run=f"{run.strategy}/s{run.seed}", **figures)

            def make(run: Any = run) -> Measurement:
                return Measurement(run, which, most, fitting, judge, marker)

            measure_missing(make, run, which, problems, todo, store, done)
        bar.close()
    print(f"{total - kept} of {total} settings measured now, {kept} were there: {out / 'points.jsonl'}")
    return 0


def _given(words: list[str]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Plain keys, and those with dots as nested mappings. Raises UserError for unknown or repeated ones."""
    given: dict[str, str] = {}
    nested: dict[str, dict[str, Any]] = {"learned": {}, "judge": {}}
    for key, _, value in (word.partition("=") for word in words):
        group, dot, rest = key.partition(".")
        if group not in KEYS or (group in nested) != bool(dot):
            raise unknown_key(key, KEYS)
        if not dot:
            if key in given:
                raise UserError(f"{key} is given twice: {key}={given[key]} and {key}={value}")
            given[key] = value
            continue
        at = nested[group]
        *inner, last = rest.split(".")
        for name in inner:
            at = at.setdefault(name, {})
        at[last] = value
    return given, nested


def _count(given: dict[str, str], key: str, default: int) -> int:
    text = given.get(key, str(default))
    try:
        value = int(text)
    except ValueError:
        raise UserError(f"{key}={text} is not a whole number") from None
    if value < 1:
        raise UserError(f"{key}={value} is too small: the smallest valid value is 1")
    return value


def _seeds(text: str | None) -> frozenset[int] | None:
    if text is None:
        return None
    try:
        return frozenset(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"seeds={text} is no list of whole numbers, as in seeds=0,1,2") from None


if __name__ == "__main__":
    sys.exit(main())
