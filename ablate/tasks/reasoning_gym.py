"""Reasoning Gym: any of its generators by name (Stojanovski et al. 2025, arXiv:2505.24760).

The generators' own scorers judge, and a problem is solved at full marks alone: partial credit is none. The
library seeds its items with `seed + index`, so that neighbouring seeds share almost all problems; here every
(seed, split, index) is hashed. It runs in processes of its own, which are killed when they overrun, and in
which texts hash alike: some generators walk through sets of words.

Some scorers evaluate what they are given as Python or sympy; the workers let them evaluate arithmetic alone
(`gym_worker`). The generator codeio runs programs that a language model wrote, and needs the sandbox.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ablate.tasks import reading, sandbox
from ablate.tasks.child import Child, Crew, Stopped, worker, worker_environment
from ablate.tasks.generated import Generated
from ablate.tasks.prose import check_range, check_template
from ablate.types import Problem, UserError

TEMPLATE = "{problem}\n\nReason step by step, and put your final answer between <answer> and </answer>."
WORKER = "ablate.tasks.gym_worker"
RUNS_PROGRAMS = "codeio"


@dataclass
class ReasoningGym(Generated):
    """generator: its name. settings: of the generator, for example {min_terms: 2, max_terms: 3}. read: places
    of the answer, in order (`reading`). template: the prompt, with the field {problem}. seconds: to make a
    problem, or to score an answer. unsafe: let codeio run its programs without a sandbox.
    """

    generator: str = "chain_sum"
    settings: dict[str, Any] = field(default_factory=dict)
    read: list[str] = field(default_factory=lambda: ["tag"])
    template: str = TEMPLATE
    seconds: int = 20
    unsafe: bool = False

    # without an annotation, this is no field of the configuration
    name = "reasoning_gym"

    def __post_init__(self) -> None:
        super().__post_init__()
        reading.check_order("task.read", self.read)
        check_template(self.template, ("problem",), "problem")
        check_range("seconds", self.seconds, 1, 600)

    def check(self) -> None:
        """Raises UserError if the library or the generator is not there, or it does not take the settings."""
        if not (known := generators()):
            install = "pip install 'ablate[reasoning-gym]'"
            raise UserError(f"task=reasoning_gym needs reasoning-gym, which is not installed: {install}")
        if self.generator not in known or self.generator == "composite":
            close = difflib.get_close_matches(self.generator, known, n=1)
            advice = f"did you mean {close[0]}?; " if close else ""
            raise UserError(f"unknown task.generator={self.generator}; {advice}choices: {', '.join(known)}")
        if self.generator == RUNS_PROGRAMS:
            sandbox.check(self.unsafe, f"{self.name} task.generator={RUNS_PROGRAMS}")
        if problem := self._ask({"do": "check"}):
            raise UserError(f"task.settings={self._settings}: {problem}")

    def size(self, split: str) -> int:
        """As `Generated.size`. Raises UserError like `check`."""
        self._crew  # noqa: B018  (a misspelt generator is found here)
        return super().size(split)

    def verify(self, problem: Problem, completion: str) -> bool:
        """Does the generator's scorer give full marks? Never raises on any text."""
        return self.verify_all([problem], [completion])[0]

    def verify_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[bool]:
        """`verify` for many answers at once."""
        given = [reading.read(completion, self.read, self.think_tags) for completion in completions]
        asked = [i for i, answer in enumerate(given) if answer is not None]
        jobs = [
            self._job({"do": "score", "seed": problems[i].answer["seed"], "given": given[i]}) for i in asked
        ]
        verdicts = [False] * len(given)
        for i, score in zip(asked, self._crew.map(jobs, self.seconds) if jobs else [], strict=True):
            verdicts[i] = isinstance(score, int | float) and score >= 1.0
        return verdicts

    def answer(self, problem: Problem, completion: str) -> str:
        """What majority votes are counted over: the answer, white space aside."""
        return " ".join((reading.read(completion, self.read, self.think_tags) or "").split())

    def solutions(self, problem: Problem, most: int | None = None) -> list[str]:
        """The generator's own answer. Some have none and score whatever solves the problem; some integrals
        are answered by themselves, which is no answer."""
        gold = problem.answer["answer"]
        if gold is None or "Integral(" in gold:
            return []
        written = {"boxed": f"\\boxed{{{gold}}}", "hash": f"#### {gold}", "tag": f"<answer>{gold}</answer>"}
        return [written.get(self.read[0], gold)][:most]

    def _recipe(self) -> str:
        return f"task.generator={self.generator} task.settings={self._settings}"

    def _made(self, key: int) -> Problem:
        seed = key % 2**31  # of which some generators make numpy's
        try:
            item = self._ask({"do": "make", "seed": seed})
        except Stopped as stop:
            raise UserError(
                f"{self._recipe()}: a problem was not made ({stop}) in {self.seconds} s"
            ) from None
        if "error" in item:
            raise UserError(f"{self._recipe()}: a problem was not made: {item['error']}")
        return Problem(
            id=item["question"],
            prompt=self.template.format(problem=item["question"].strip()),
            answer={"seed": seed, "answer": item["answer"]},
        )

    @property
    def _settings(self) -> str:
        return json.dumps(self.settings, sort_keys=True, default=str)

    def _job(self, what: dict[str, Any]) -> dict[str, Any]:
        return {**what, "generator": self.generator, "settings": self.settings, "seconds": self.seconds}

    def _ask(self, what: dict[str, Any]) -> Any:
        return self._crew.ask(self._job(what), self.seconds)

    @cached_property
    def _crew(self) -> Crew:
        if self.generator == RUNS_PROGRAMS and not self.unsafe:
            folders = [path for path in map(Path, sys.path) if path.is_dir()]
            packages = ("site-packages", "dist-packages")
            libraries = [str(f) for f in folders if f.name in packages or (f / "reasoning_gym").is_dir()]
            return Crew(lambda: sandbox.start(WORKER, libraries=libraries), self._crew_size())
        command, environment = worker(WORKER), worker_environment()
        return Crew(lambda: Child(command, environment), self._crew_size())


@lru_cache(maxsize=1)
def generators() -> list[str]:
    """The generators' names, read from the library's files: importing it takes seconds. Empty without it."""
    found = importlib.util.find_spec("reasoning_gym")
    if found is None or not found.submodule_search_locations:
        return []
    names = set()
    for folder in found.submodule_search_locations:
        for path in Path(folder).rglob("*.py"):
            names.update(re.findall(r'^DATASET_NAME\s*=\s*"(\w+)"', path.read_text("utf-8", "replace"), re.M))
    return sorted(names)
