"""Fixtures for the whole suite. Helpers live in modules beside this file, which pytest puts on the path."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture
def policy():
    """A fresh random tiny model with its tokenizer; see `tiny.tiny_policy`."""
    import torch
    from tiny import tiny_policy

    torch.set_num_threads(1)
    return tiny_policy()
