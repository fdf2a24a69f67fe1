"""A pretrained causal language model from the Hugging Face hub or a folder, with its own tokenizer.

Weights come from safetensors, and no code of the model's own is run unless the user says so. All that can be
wrong with a model is found by `check`, from its small files, before anything is loaded or trained.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablate.models.flops import PassCost
from ablate.models.format import Format
from ablate.models.hub import fetch, has_weights
from ablate.models.lora import AdaptedPolicy, LoRA
from ablate.models.policy import Policy
from ablate.schema import one_line
from ablate.types import Task, UserError

PROBLEMS = 256  # of each split, whose prompts are measured


@dataclass
class Pretrained:
    """path: a hub id ("Qwen/Qwen2.5-0.5B-Instruct") or a folder in transformers' format. revision: of the
    hub's repository: a branch, a tag or a commit.

    dtype: of the weights. "auto" is float32 for weights that are trained, since in bfloat16 the small updates
    of RL are rounded away, and bfloat16 for those that LoRA leaves frozen; learner.bf16 says what passes are
    computed in. device: "auto" takes a GPU where there is one. ends: tokens that end an answer, besides those
    that the tokenizer and the model's generation_config name. trust_remote_code: run code that comes with
    the model.
    """

    path: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    ends: list[str] = field(default_factory=list)
    trust_remote_code: bool = False
    format: Format = field(default_factory=Format)
    lora: LoRA = field(default_factory=LoRA)

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise UserError("path is empty: it must be a hub id or a folder")

    # -- before anything is loaded --------------------------------------------------------------------------

    def check(self, task: Task, longest: int) -> None:
        """Raises UserError for all that would fail later.

        longest: most tokens that will be decoded after a prompt.
        """
        self.lora.check()
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise UserError("model.device=cuda, and torch finds no GPU here; nearest: model.device=cpu")
        folder = fetch(self.path, self.revision)
        if folder == Path(self.path) and not has_weights(folder):
            raise UserError(f"model.path={self.path} holds no *.safetensors: only such weights are loaded")
        config = self._config(folder)
        self._cost(config)
        tokenizer = self._tokenizer(folder, config)
        self.format.check(tokenizer)
        policy = _Reader(tokenizer, self.format)
        probe = policy.encode(f"1{task.step_boundary}1")
        if not any(task.step_boundary in piece for piece in tokenizer.batch_decode([[t] for t in probe])):
            policy.stop_tokens(task.step_boundary)  # raises if no other token holds it
        self._check_prompts(task, longest, config, policy)

    def cost(self, task: Task) -> PassCost:
        """What a pass will cost, from the model's configuration."""
        return self._cost(self._config(fetch(self.path, self.revision)))

    def _config(self, folder: Path) -> Any:
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(folder, trust_remote_code=self.trust_remote_code)
        except Exception as error:  # errors of many kinds for damaged or foreign files
            raise self._unreadable("config.json", error) from error

    def _cost(self, config: Any) -> PassCost:
        return PassCost.of(self._model(config))

    def _model(self, config: Any) -> Any:
        """The model without memory for its weights, adapters included."""
        import torch
        from transformers import AutoModelForCausalLM

        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, trust_remote_code=self.trust_remote_code)
        except Exception as error:  # of a model that is no causal language model, or needs code of its own
            raise self._unreadable("model", error) from error
        return self.lora.on(model, 0) if self.lora.rank else model

    def _tokenizer(self, folder: Path, config: Any) -> Any:
        """The tokenizer, with an end token, something to pad with, and a text for every row of the embedding:
        a token without text would be sampled and then not be seen by a verifier."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self.trust_remote_code)
        except Exception as error:
            raise self._unreadable("tokenizer", error) from error
        for end in self.ends:
            if tokenizer.encode(end, add_special_tokens=False) != [tokenizer.convert_tokens_to_ids(end)]:
                raise UserError(f"model.ends: {end!r} is not a single token of the tokenizer in {self.path}")
        if tokenizer.eos_token_id is None:
            if not self.ends:
                raise UserError(
                    f"the tokenizer in {self.path} has no end token: name the token that ends an answer, for "
                    'example model.ends=["<|im_end|>"]'
                )
            tokenizer.eos_token = self.ends[0]
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token  # padding is masked: any token will do
        rows = config.get_text_config().vocab_size
        tokenizer.add_tokens([f"<unused{i}>" for i in range(len(tokenizer), rows)])
        return tokenizer

    def _check_prompts(self, task: Task, longest: int, config: Any, policy: Policy) -> None:
        rows = config.get_text_config().vocab_size
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        prompts = [
            policy.prompt(task.problem(0, split, i).prompt)
            for split in ("train", "heldout")
            for i in range(min(PROBLEMS, task.size(split)))
        ]
        if unknown := {token for prompt in prompts for token in prompt if token >= rows}:
            words = ", ".join(map(repr, policy.tokenizer.convert_ids_to_tokens(sorted(unknown)[:3])))
            raise UserError(
                f"model.path={self.path}: its prompts hold {words}, which the model does not know"
            )
        most = max(map(len, prompts))
        if limit is not None and longest > (room := limit - most):
            raise UserError(
                f"answers of {longest} tokens (sampling.cap x evaluate.long_cap_factor) after prompts of up "
                f"to {most} exceed the {limit} positions of {self.path}: "
                + (
                    f"the largest product that works is {room}"
                    if room > 0
                    else "the prompts alone are too long"
                )
            )

    def _unreadable(self, what: str, error: Exception) -> UserError:
        if "trust_remote_code" in str(error) and not self.trust_remote_code:
            return UserError(
                f"model.path={self.path} comes with code of its own: read it, and if you trust it set "
                "model.trust_remote_code=true"
            )
        return UserError(f"model.path={self.path}: its {what} cannot be used: {one_line(error)[:200]}")

    # -- loading --------------------------------------------------------------------------------------------

    def load(
        self, task: Task, seed: int, cache: Path, progress: bool = False
    ) -> tuple[Policy, dict[str, Any]]:
        """The policy, on the CPU, and where it comes from. seed: of the adapters. cache: not used, the hub's
        library has one of its own."""
        import torch
        from transformers import AutoModelForCausalLM

        from ablate.ledger import Account
        from ablate.randomness import hash64

        started = time.monotonic()
        folder = fetch(self.path, self.revision, weights=True)
        if not has_weights(folder):
            raise UserError(f"model.path={self.path} has no *.safetensors: only such weights are loaded")
        tokenizer = self._tokenizer(folder, self._config(folder))
        frozen = "bfloat16" if self.lora.rank else "float32"
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, frozen if self.dtype == "auto" else self.dtype),
                use_safetensors=True,
                trust_remote_code=self.trust_remote_code,
                local_files_only=True,
            )
        except Exception as error:
            raise self._unreadable("weights", error) from error
        revision = folder.name if folder != Path(self.path) else None
        model.config._name_or_path = self.path  # what adapters say they belong to
        named = model.generation_config.eos_token_id
        ends = [*(named if isinstance(named, list) else [named] if named is not None else [])]
        ends += tokenizer.convert_tokens_to_ids(self.ends)
        policy = Policy(model, tokenizer, self.format, ends)
        if self.lora.rank:
            adapted = self.lora.on(model, hash64(seed, "lora") % 2**31, revision)
            policy = AdaptedPolicy(adapted, tokenizer, self.format, ends, policy.cost)
        return policy, {
            "account": Account().to_dict(),
            "path": self.path,
            "revision": revision,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trained": sum(p.numel() for p in policy.model.parameters() if p.requires_grad),
            "seconds": round(time.monotonic() - started, 1),
        }


class _Reader(Policy):
    """A policy's texts and tokens, without its model."""

    def __init__(self, tokenizer: Any, format: Format) -> None:
        super().__init__(None, tokenizer, format, cost=PassCost(0, 0, 0))
