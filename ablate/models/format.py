"""How a problem is put to a pretrained model, and what of its text is the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from ablate.types import UserError


@dataclass
class Format:
    """The tokenizer's own chat template, or a prompt in plain text.

    prompt: plain text with {problem} in it, instead of the chat template. system: the system message, where
    the template has one of its own or none; instruction: what follows every problem, on a line of its own.
    options: switches of the chat template, such as enable_thinking. begin: the first characters of every
    answer, written for the model ("<think>\\n"): part of the prompt. end_of_thought: the tag after which the
    answer stands ("</think>"): what comes before its last occurrence is not shown to the verifier, and
    without it there is no answer.
    """

    prompt: str | None = None
    system: str | None = None
    instruction: str = ""
    options: dict[str, bool] = field(default_factory=dict)
    begin: str = ""
    end_of_thought: str = ""

    def __post_init__(self) -> None:
        if self.prompt is None:
            return
        try:
            fields = [name for _, name, _, _ in Formatter().parse(self.prompt) if name is not None]
        except ValueError as error:
            raise UserError(f"prompt cannot be read ({error}); a brace of its own is doubled") from None
        if fields != ["problem"]:
            raise UserError(f"prompt={self.prompt!r} must have the field {{problem}}, once, and no other")
        for name in ("system", "options"):
            if getattr(self, name):
                raise UserError(
                    f"{name} belongs to a chat template, which prompt takes the place of: set one of them"
                )

    def check(self, tokenizer: Any) -> None:
        """Raises UserError if the tokenizer has no chat template that takes these messages."""
        if self.prompt is not None:
            return
        if not tokenizer.chat_template:
            raise UserError(
                "the tokenizer has no chat template: set model.format.prompt to a text with {problem} in it, "
                "or choose the model's instruction-tuned version"
            )
        try:
            text = self.render("1 + 1", tokenizer)
        except Exception as error:  # a template is a program, and fails in its own ways
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"the tokenizer's chat template fails: {reason}") from error
        missing = [part for part in (self.system, "1 + 1") if part and part.strip() not in text]
        if missing:
            raise UserError(
                f"the tokenizer's chat template leaves out {missing[0]!r}: put it into "
                "model.format.instruction, or set model.format.prompt"
            )
        if self.end_of_thought and self.end_of_thought in text[text.rindex("1 + 1") :]:
            raise UserError(
                f"model.format.end_of_thought={self.end_of_thought} stands in the prompt already, as where a "
                "chat template turns thinking off, and no answer would have it; nearest: "
                "model.format.end_of_thought=''"
            )

    def render(self, problem: str, tokenizer: Any) -> str:
        """All that the model reads before it answers."""
        text = f"{problem}\n{self.instruction}" if self.instruction else problem
        if self.prompt is not None:
            return self.prompt.format(problem=text) + self.begin
        messages = [{"role": "user", "content": text}]
        if self.system is not None:
            messages = [{"role": "system", "content": self.system}, *messages]
        return (
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **self.options
            )
            + self.begin
        )

    def answer(self, text: str) -> str:
        """The part of an answer's text that the verifier reads."""
        if not self.end_of_thought:
            return text
        _, tag, answer = text.rpartition(self.end_of_thought)
        return answer if tag else ""
