"""What the learner sets of TRL and of the Trainer, where a default would change the experiment."""

import pytest
import torch
from learning import make_config, make_groups, train
from transformers import TrainingArguments

from ablate.config import SamplingConfig
from ablate.grpo import arguments
from ablate.rows import rows_of
from ablate.runtime import one_gpu


def test_of_several_visible_gpus_a_trainer_takes_one(tmp_path):
    """It would multiply the batch by their number and go on in DataParallel."""
    many = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=32, use_cpu=True)
    _ = many.device  # finds out how many there are
    many._n_gpu = 8
    assert many.train_batch_size == 256 and one_gpu(many).train_batch_size == 32


def test_dropout_is_off_and_gpus_are_one(tmp_path, policy, monkeypatch):
    given = []
    monkeypatch.setattr("ablate.grpo.one_gpu", lambda made: given.append(made) or one_gpu(made))
    made = arguments(policy, make_config(), SamplingConfig(), tmp_path, 0)
    assert made.disable_dropout and made.n_gpu <= 1 and made.seed == 0
    assert given == [made]  # no machine of the tests has several GPUs


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_distance_between_sampler_and_learner_is_recorded_and_said(tmp_path, capsys, shift):
    """A copy of the weights that is out of date gives other log-probabilities than the learner's."""
    config = make_config(micro_batch_tokens=60)

    def sampled(groups):
        """The groups as if sampled from the policy, all log-probabilities off by `shift`."""
        from dataclasses import replace

        from learning import mild_policy

        model = mild_policy().model

        def step_of(trajectory, at):
            begin = len(trajectory.problem.tokens) + sum(len(s.tokens) for s in trajectory.steps[:at])
            ids = torch.tensor([trajectory.problem.tokens + trajectory.completion])
            with torch.no_grad():
                logps = (model(input_ids=ids).logits[0] / 0.8).log_softmax(-1)
            step = trajectory.steps[at]
            own = [float(logps[begin + i - 1, token]) - shift for i, token in enumerate(step.tokens)]
            return step if step.logprobs is None else replace(step, logprobs=tuple(own))

        return [
            [replace(t, steps=tuple(step_of(t, at) for at in range(len(t.steps)))) for t in group]
            for group in groups
        ]

    groups = sampled(make_groups(teach=0.7))
    assert rows_of(groups)
    learner, _ = train(tmp_path, lambda step: groups, config)
    assert learner.report["abs_log_ratio"] == pytest.approx(shift, abs=1e-5)
    told = capsys.readouterr().err
    assert ("nats a token from the learner's" in told) == (shift > 0.1)
