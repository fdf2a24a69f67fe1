"""A bench with a random model of Countdown's words, in double precision: draws do not hang on the batch."""

from tiny import SHAPE, tiny_policy

from ablate.engines.hf import HFEngine
from ablate.tasks.countdown import Countdown
from ablate.testtime.bench import Bench
from ablate.testtime.frame import Frame

TASK = Countdown(numbers=2, largest=5, ceiling=10, heldout_percent=30, tuning_percent=10)
CAP = 24


class Spying(HFEngine):
    """Keeps what it drew: (prefix, tokens of each sample) in order."""

    def _sample(self, prefixes, *rest):
        drawn = super()._sample(prefixes, *rest)
        self.seen = getattr(self, "seen", [])
        self.seen += [
            (prefix, [s.tokens for s in steps]) for prefix, steps in zip(prefixes, drawn, strict=True)
        ]
        return drawn


def made(indices=range(4), seed=0, engine=None):
    """A frame over some training problems. The model is made to end lines and answers now and then."""
    import torch

    policy = tiny_policy(seed, TASK.vocabulary(), SHAPE, sharpness=6.0)
    policy.model.double()
    with torch.no_grad():
        weight = policy.model.lm_head.weight
        mean = weight[2:].mean(0)
        for word, share in (("\n", 0.8), ("</s>", 0.9)):  # near the mean of all words: often likely
            token = policy.tokenizer.convert_tokens_to_ids(word)
            weight[token] = share * weight[token] + (1 - share) * mean
    bench = Bench(TASK, policy, engine or HFEngine(), CAP, 1.0, seed)
    problems = [bench.problem(TASK.problem(0, "train", i)) for i in indices]
    return Frame(bench, problems, 2 * CAP, policy.encode(TASK.correction))
