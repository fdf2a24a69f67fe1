"""Who is asked, and with which words: what every judge that is a language model is configured by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Literal

from ablate.models.endpoint import Endpoint, plain
from ablate.types import JudgeModel, UserError


@dataclass
class Asking:
    """who: the policy as it is now, a `local` model, or an `endpoint`. path: folder of the local model, in
    transformers' format with safetensors weights. yes, no: the answer words as they follow the question, with
    any leading space. endpoint: what an endpoint needs.
    """

    who: Literal["policy", "local", "endpoint"] = "policy"
    path: str | None = None
    yes: str = " yes"
    no: str = " no"
    endpoint: Endpoint = field(default_factory=Endpoint)

    def __post_init__(self) -> None:
        yes, no = (word.strip().casefold() for word in (self.yes, self.no))
        if not yes or not no or yes.startswith(no) or no.startswith(yes):
            raise UserError(
                f"judge.yes={self.yes!r} and judge.no={self.no!r} must be two words of which neither begins "
                "with the other"
            )
        if self.who == "local" and not self.path:
            raise UserError("judge.who=local needs judge.path, the folder of a transformers model")
        if self.who == "endpoint":
            self.endpoint.require()
            if not plain(self.yes) or not plain(self.no):
                raise UserError(
                    f"judge.yes={self.yes!r} and judge.no={self.no!r}: one is punctuation alone, which is "
                    "dropped around an endpoint's answer"
                )

    def reach(self) -> None:
        """Raises UserError, within a second, if the local model is not there or nobody answers at the
        endpoint."""
        if self.who == "endpoint":
            self.endpoint.check()
        if self.who == "local":
            folder = Path(self.path or "")
            if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
                raise UserError(
                    f"judge.path={self.path} is not the folder of a transformers model: it must hold "
                    "config.json and *.safetensors"
                )

    def maker(self, example: str) -> Callable[..., JudgeModel]:
        """What `Lab.judge` makes the judge by. example: a question made of answer words."""
        from ablate.models.endpoint import EndpointJudge
        from ablate.models.judges import local_judge, policy_judge

        if self.who == "endpoint":
            return partial(EndpointJudge, endpoint=self.endpoint, yes=self.yes, no=self.no)
        if self.who == "local":
            return partial(local_judge, path=str(self.path), yes=self.yes, no=self.no, example=example)
        return partial(policy_judge, yes=self.yes, no=self.no, example=example)


def check_template(key: str, template: str, fields: tuple[str, ...], needed: str) -> None:
    """Raises UserError unless the template has the field `needed`, and none but `fields`."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{key} cannot be read ({error}); a brace of its own is doubled") from error
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, form, conversion in parts:
        if name is not None and (name not in fields or form or conversion):
            raise UserError(
                f"{key} has the field {{{name}}}; the fields are "
                f"{', '.join(f'{{{known}}}' for known in fields)}, without format or conversion"
            )
    if needed not in names:
        raise UserError(f"{key} has no field {{{needed}}}: nothing to judge would be in the question")
