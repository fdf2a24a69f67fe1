"""A trie of keys and values: the same numbers as reading everything again, and every position once."""

from random import Random

import pytest
import torch
from tiny import tiny_policy

from ablate.ledger import Ledger
from ablate.models import prefix_cache
from ablate.models.lora import LoRA
from ablate.models.value_models import StepModel
from ablate.types import Problem, Step, Trajectory

EXACT = 1e-7  # values are single precision, whatever the passes are
# alike to begin with, of any length
PROMPTS = [(1, 5, 6, 7), (1, 5, 6), (1, 8, 9, 3, 4), (1, 5, 6, 7, 8, 9, 3)]


def grown(rng, paths, branch=3, longest=6):
    """Next steps of every path; few words, so that siblings often begin alike."""
    steps = [tuple(rng.randrange(3, 6) for _ in range(rng.randint(1, longest))) for _ in range(2 * branch)]
    return [path.then(Step(rng.choice(steps))) for path in paths for _ in range(branch)]


def roots():
    return [Trajectory(Problem(f"p{i}", "", tokens=tokens)) for i, tokens in enumerate(PROMPTS)]


def models(precision=torch.float64, **kwargs):
    """A scorer that reads everything again, and one that keeps what it read, with the same weights."""
    policy = tiny_policy()
    policy.model.to(precision)
    made = [
        StepModel(policy, Ledger(), 0, lr=1e-3, epochs=1, batch=4, keep=keep, **kwargs)
        for keep in (False, True)
    ]
    for model in made:
        model._model.to(precision)
    made[1].load_state_dict(made[0].state_dict())
    return made


class Distinct:
    """Positions of each problem, counted apart from trie and ledger."""

    def __init__(self):
        self.seen = set()

    def add(self, paths):
        for path in paths:
            row = path.problem.tokens + path.completion
            self.seen |= {(path.problem.id, row[: at + 1]) for at in range(len(row))}


@pytest.mark.parametrize("width", [prefix_cache.WIDTH, 4])  # 4: siblings have to wait for one another
def test_values_are_the_uncached_ones_and_every_position_is_read_once(width, monkeypatch):
    monkeypatch.setattr(prefix_cache, "WIDTH", width)
    again, kept = models()
    positions, rng = Distinct(), Random(0)
    passed = []  # what goes through the model, padding included, as the model itself sees it
    kept._model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: passed.append(args[0].shape), with_kwargs=True
    )
    paths, values = roots(), set()
    for _ in range(6):
        paths = grown(rng, paths)
        expected, found = again.predict(paths), kept.predict(paths)
        assert found == pytest.approx(expected, abs=EXACT)
        values |= set(expected)
        positions.add(paths)
        assert kept._cache.computed == len(positions.seen)
        paths = [rng.choice(paths[i::4]) for i in range(4)] + rng.sample(paths, 2)  # old ones, too
    assert len(values) > 50
    assert sum(rows * columns for rows, columns in passed) >= kept._cache.computed
    before = kept._cache.computed
    assert kept.predict(paths) == pytest.approx(again.predict(paths), abs=EXACT)
    assert kept._cache.computed == before  # known, every one
    kept.forget()
    assert kept.predict(paths) == pytest.approx(again.predict(paths), abs=EXACT)
    assert kept._cache.computed > before


def test_single_precision_and_adapters():
    for kwargs in ({}, {"lora": LoRA(rank=4)}):
        again, kept = models(torch.float32, **kwargs)
        rng, paths = Random(1), roots()
        for _ in range(4):
            paths = grown(rng, paths, 2)
            assert kept.predict(paths) == pytest.approx(again.predict(paths), abs=2e-5)
            assert kept._cache.computed > 0


def test_what_does_not_fit_is_forgotten_and_read_again():
    again, kept = models()
    kept._cache._most = 60
    positions, rng, paths = Distinct(), Random(2), roots()
    for _ in range(5):
        paths = grown(rng, paths)
        assert kept.predict(paths) == pytest.approx(again.predict(paths), abs=EXACT)
        assert len(kept._cache._parents) <= 60
        positions.add(paths)
        paths = paths[::3]
    assert kept._cache.computed > len(positions.seen)


def test_new_weights_make_the_cache_void():
    _, kept = models()
    rng = Random(3)
    paths = grown(rng, grown(rng, roots()))
    first = kept.predict(paths)
    kept.fit(paths, [float(rng.random() < 0.5) for _ in paths])
    after = kept.predict(paths)
    other = StepModel(kept._policy, Ledger(), 0, lr=1e-3, epochs=1, batch=4)
    other._model.double()
    other.load_state_dict(kept.state_dict())
    assert after == pytest.approx(other.predict(paths), abs=EXACT) and after != pytest.approx(first, abs=1e-6)


def test_models_that_cannot_be_told_what_to_see_read_everything_again():
    policy = tiny_policy()
    assert prefix_cache.can_share(policy.model)
    policy.model.config._attn_implementation = "eager"
    assert not prefix_cache.can_share(policy.model)
    policy.model.config._attn_implementation = "sdpa"
    policy.model.config.layer_types = ["sliding_attention"] * 2
    assert not prefix_cache.can_share(policy.model)


def test_how_much_is_kept_is_known_from_the_configuration():
    _, kept = models(torch.float32)
    kept.predict(grown(Random(0), roots()))
    size = sum(t[0].numel() * t.element_size() for pair in kept._cache._store for t in pair)
    assert kept._cache._most == prefix_cache.KEPT // size
