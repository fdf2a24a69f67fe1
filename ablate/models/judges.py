"""Judges that are local language models: P(yes) from the log-probabilities of two answer words.

Both implement `types.JudgeModel`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ablate.ledger import PrefixIndex
from ablate.models.policy import Policy
from ablate.models.value_models import batches
from ablate.types import UserError, Verdict

if TYPE_CHECKING:
    from ablate.ledger import Ledger

Tokens = tuple[int, ...]


def policy_judge(policy: Policy, ledger: Ledger, yes: str, no: str, example: str) -> LanguageJudge:
    """The policy itself, as it is whenever it is asked."""
    return LanguageJudge(policy, ledger, yes, no, example, "the policy")


def local_judge(policy: Policy, ledger: Ledger, path: str, yes: str, no: str, example: str) -> LanguageJudge:
    """Another causal language model, from a folder with safetensors weights, on the policy's device; no code
    of the folder's is run. Raises UserError if it cannot be loaded."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, use_safetensors=True, trust_remote_code=False, local_files_only=True, dtype="auto"
        )
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the libraries raise errors of many kinds for damaged or foreign files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"judge.path={path} cannot be loaded as a causal language model: {reason}") from error
    judge = Policy(model.to(policy.device), tokenizer)
    return LanguageJudge(judge, ledger, yes, no, example, f"the model in {path}", shared=False)


class LanguageJudge:
    """P(yes) of a causal language model. A question is read in one pass, or in two if both words have several
    tokens.

    example: a question made of answer words, which the model must be able to read. who: for messages. shared:
    the passes share the policy's cache in the accounts; another model's share what they have in common within
    one `ask`.
    """

    def __init__(
        self, model: Policy, ledger: Ledger, yes: str, no: str, example: str, who: str, shared: bool = True
    ) -> None:
        """Raises UserError if the tokenizer has no tokens for the words or for the question around them."""
        self._model, self._ledger, self._shared = model, ledger, shared
        self._words = (model.encode(yes), model.encode(no))
        unknown = [repr(word.strip()) for word in (yes, no) if not _reads(model, word)]
        if unknown or self._words[0] == self._words[1]:
            problem = f"no word {' and no word '.join(unknown)}" if unknown else "one word for both"
            raise UserError(
                f"judge.yes={yes!r} and judge.no={no!r}: {who} has {problem} in its vocabulary; "
                "choose two words that it has, or judge.who=local or endpoint"
            )
        if not _reads(model, example):
            raise UserError(
                f"judge.template: {who} has no tokens for some of it, and reads "
                f"{_text(model, example)[:60]!r} ...; write it in words of its vocabulary"
            )
        # what must be read after the prompt for the logits of every token of both words
        first, second = sorted((word[:-1] for word in self._words), key=len)
        self._tails = [second] if second[: len(first)] == first else [first, second]
        self._limit = getattr(model.model.config.get_text_config(), "max_position_embeddings", None)

    def ask(self, questions: Sequence[str]) -> list[Verdict]:
        """P(yes) per question; "failed" for one that is longer than the model can read, "malformed" where the
        model gives no number."""
        prompts = [self._model.question(question) for question in questions]
        longest = max(map(len, self._tails))
        fits = [
            bool(prompt) and (self._limit is None or len(prompt) + longest <= self._limit)
            for prompt in prompts
        ]
        # one pass each
        rows = [(i, tail) for i in range(len(prompts)) if fits[i] for tail in self._tails]
        logps = self._read([prompts[i] + tail for i, tail in rows], rows)
        index = None if self._shared else PrefixIndex()
        for i, tail in rows:
            again = tail is not self._tails[0]  # the prompt's tokens were counted with the first tail
            head, rest = (prompts[i], tail) if again else ((), prompts[i] + tail)
            self._ledger.charge_scoring("judge", self._model.cost, head, rest, len(tail) + 1, index)
        return [self._verdict(logps[i]) if fits[i] else "failed" for i in range(len(prompts))]

    def _verdict(self, logps: tuple[float, float]) -> Verdict:
        margin = logps[0] - logps[1]
        if math.isnan(margin):
            return "malformed"
        return 1.0 / (1.0 + math.exp(-margin)) if margin >= -700.0 else 0.0

    def _read(self, tokens: list[Tokens], rows: list[tuple[int, Tokens]]) -> dict[int, tuple[float, float]]:
        """Log-probabilities of both words, by question."""
        import torch

        found: dict[int, dict[Tokens, float]] = {}
        with self._model.reading(), torch.inference_mode():
            for batch in batches(tokens):
                logits = self._forward([tokens[k] for k in batch])
                for k, row in zip(batch, logits, strict=True):
                    i, tail = rows[k]
                    at = row[len(row) - len(tail) - 1 :].float().log_softmax(-1)
                    for word in self._words:
                        if tail[: len(word) - 1] == word[:-1]:
                            found.setdefault(i, {})[word] = sum(
                                at[place, token].item() for place, token in enumerate(word)
                            )
        yes, no = self._words
        return {i: (logps[yes], logps[no]) for i, logps in found.items()}

    def _forward(self, rows: list[Tokens]) -> Any:
        """Logits where the words' tokens are predicted, (rows, positions, vocabulary); padded on the left, so
        that they stand at the end of every row."""
        import torch

        width = max(map(len, rows))
        padding = [width - len(row) for row in rows]
        device = self._model.device
        ids = torch.tensor(
            [[*[0] * pad, *row] for pad, row in zip(padding, rows, strict=True)], device=device
        )
        columns = torch.arange(width, device=device)[None, :] - torch.tensor(padding, device=device)[:, None]
        return self._model.model(
            input_ids=ids,
            attention_mask=(columns >= 0).long(),
            position_ids=columns.clamp(min=0),
            use_cache=False,
            logits_to_keep=max(map(len, self._tails)) + 1,
        ).logits


def _text(model: Policy, text: str) -> str:
    """What is left of a text in the model's tokens."""
    return model.tokenizer.decode(model.encode(text))


def _reads(model: Policy, text: str) -> bool:
    """Does the text survive, but for its spaces and its case?"""
    return "".join(_text(model, text).split()).casefold() == "".join(text.split()).casefold() != ""
