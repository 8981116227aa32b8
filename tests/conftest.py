"""Fixtures shared by the tests of the core."""

from __future__ import annotations

import gc

import pytest


def pytest_collection_finish():
    """Spare every later collection of garbage the walk over all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def adapters():
    """The built-in adapters by name."""
    import torch

    from prunekit.plugins import get_registry

    # Tiny models gain nothing from threads, and waiting for each other on a busy machine costs them minutes.
    torch.set_num_threads(1)
    return get_registry().adapters


def _on_one_thread():
    """Torch on one thread meanwhile: the same results anywhere, and tiny models are quicker."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


one_thread = pytest.fixture(_on_one_thread, name="one_thread")
module_on_one_thread = pytest.fixture(_on_one_thread, scope="module", name="module_on_one_thread")


@pytest.fixture
def exact_norm(monkeypatch):
    """T5's norm in the model's own precision.

    The stock one rounds to float32 even in a float64 model, where one rounding that falls the other way would
    show as 1e-8.
    """
    from torch.nn.functional import rms_norm
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    def forward(self, states):
        return rms_norm(states, states.shape[-1:], self.weight, self.variance_epsilon)

    monkeypatch.setattr(T5LayerNorm, "forward", forward)


@pytest.fixture(scope="session")
def prunable(adapters):
    """Turns a model into a ``PrunableModel`` with its adapter."""
    from prunekit.pruning.target import PrunableModel, find_adapter

    return lambda model: PrunableModel(model, find_adapter(model, adapters))
