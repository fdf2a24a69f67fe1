"""Fixtures for the whole suite. Helpers live in modules beside this file, which pytest puts on the path."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# the same examples in every run: a red test is about the change; `--hypothesis-profile=search` looks for more
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def policy():
    """A fresh random tiny model with its tokenizer; see `tiny.tiny_policy`."""
    import torch
    from tiny import tiny_policy

    torch.set_num_threads(1)
    return tiny_policy()
