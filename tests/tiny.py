"""A random model for tests: small, seeded, with logits that are far from uniform, and no warm start."""

from ablate.models.policy import Policy
from ablate.models.tiny import TinyModel, build_model, build_tokenizer

NUMBERS = 10  # the words "0" .. "9" come first in the vocabulary, after the special tokens
WORDS = [*map(str, range(NUMBERS)), "\n", "=", ",", "+", "-", "*", ":", "no", "ok"]
SHAPE = TinyModel(hidden=32, layers=2, heads=2, feedforward=48, positions=256)


def tiny_policy(seed=0, vocabulary=WORDS, shape=SHAPE, sharpness=10.0):
    """A `Policy` with random weights.

    vocabulary: the words after `<pad> <s> </s>`. sharpness: factor on the matrices; at 1 (transformers' own
    initialisation) every token is almost equally likely, which hides mistakes.
    """
    tokenizer = build_tokenizer(list(vocabulary))
    numbers = {tokenizer.convert_tokens_to_ids(word): int(word) for word in vocabulary if word.isdigit()}
    model = build_model(shape, tokenizer, numbers, seed)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data *= sharpness
    return Policy(model.eval(), tokenizer)
