"""Constraints: write something and keep several instructions that a rule can check, as in IFEval (Zhou et al.
2023, arXiv:2311.07911).

The answer is all that follows the thoughts. It is right if every rule holds; whether it is about the subject,
or any good, no rule can say: put a judge around the task for that (task=judge).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ablate.tasks.compliance import FORMS, SUBJECTS, comply, draw
from ablate.tasks.generated import Generated
from ablate.tasks.prose import check_range
from ablate.tasks.reading import after_thoughts
from ablate.tasks.streams import pick
from ablate.types import Problem


@dataclass
class Constraints(Generated):
    """fewest, most: rules of a problem."""

    fewest: int = 2
    most: int = 4

    # without an annotation, this is no field of the configuration
    name = "constraints"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("fewest", self.fewest, 1, 8)
        check_range("most", self.most, self.fewest, 8)

    def verify(self, problem: Problem, completion: str) -> bool:
        """Does every rule hold? Never raises on any text."""
        return all(self.held(problem, completion))

    def held(self, problem: Problem, completion: str) -> list[bool]:
        """Which rules hold."""
        text = self.answer(problem, completion)
        return [rule.holds(text) for rule in problem.answer["rules"]]

    def answer(self, problem: Problem, completion: str) -> str:
        """What majority votes are counted over, and what is judged: all that follows the thoughts."""
        return after_thoughts(completion, self.think_tags).strip()

    def behaviours(self, problem: Problem, completion: str) -> dict[str, float]:
        """As `Prose.behaviours`; and the share of rules that hold."""
        held = self.held(problem, completion)
        return {**super().behaviours(problem, completion), "rules_held": sum(held) / len(held)}

    def solutions(self, problem: Problem, most: int | None = None) -> list[str]:
        """A text that keeps the rules, and no more."""
        return [comply(problem.answer["rules"])][:most]

    def _recipe(self) -> str:
        return f"constraints {self.fewest} {self.most}"

    def _made(self, key: int) -> Problem:
        rng = Random(key)
        rules = draw(rng, self.fewest, self.most)
        wanted = f"Write {pick(rng, FORMS)} about {pick(rng, SUBJECTS)}."
        prompt = "\n".join([wanted, *(f"- {rule.text()}" for rule in rules)])
        return Problem(
            id=prompt,
            prompt=prompt,
            answer={"rules": rules},
            difficulty=float(len(rules)),
            stratum="easy" if len(rules) < 3 else "medium" if len(rules) < 4 else "hard",
        )
