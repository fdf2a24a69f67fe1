"""TRL's arguments of the learner, and what else of TRL it sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ablate.runtime import one_gpu

if TYPE_CHECKING:
    from pathlib import Path

    from ablate.config import LearnerConfig, SamplingConfig
    from ablate.models.policy import Policy

HEAD_TILE = "_CHUNKED_LOGPROB_CHUNK_SIZE"  # in trl.trainer.utils
WIDEST_TILE = 32768  # TRL's own


def arguments(
    policy: Policy, config: LearnerConfig, sampling: SamplingConfig, folder: Path, seed: int
) -> Any:
    """Its GRPOConfig; batch sizes are placeholders, the learner cuts batches itself."""
    from trl import GRPOConfig

    return one_gpu(
        GRPOConfig(
            output_dir=str(folder),
            max_steps=config.max_steps,
            learning_rate=config.lr,
            adam_beta1=config.beta1,
            adam_beta2=config.beta2,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            optim="adamw_torch",
            loss_type=config.loss_type,
            importance_sampling_level=config.importance,
            epsilon=config.clip_low,
            epsilon_high=config.clip_high,
            beta=0.0,
            temperature=sampling.temperature,
            max_completion_length=sampling.cap,
            num_iterations=config.iterations,
            per_device_train_batch_size=2,
            num_generations=2,
            gradient_accumulation_steps=1,
            steps_per_generation=1,
            gradient_checkpointing=config.gradient_checkpointing,
            ddp_find_unused_parameters=False,
            bf16=policy.bf16,
            use_cpu=policy.device.type == "cpu",
            logging_strategy="no",
            save_strategy="no",
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            report_to=[],
            ignore_data_skip=True,
            seed=seed,
            disable_dropout=True,  # the sampler has none: ratios of probabilities would be noise
        )
    )


def narrow_head(policy: Policy) -> None:
    """TRL's output head takes tiles of a fixed width out of fresh memory; for a small vocabulary, reaching
    across the unused part costs time in every pass on a CPU."""
    import trl.trainer.utils

    assert hasattr(trl.trainer.utils, HEAD_TILE), "the width of TRL's tiles has moved"
    vocabulary = policy.model.get_output_embeddings().weight.shape[0]
    setattr(trl.trainer.utils, HEAD_TILE, min(WIDEST_TILE, vocabulary))
