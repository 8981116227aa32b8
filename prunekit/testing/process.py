"""What a plugin could leave changed in the process that calls it: modes and random number generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# Each mode's name, how to read it and how to set it.
_MODES: dict[str, tuple[Any, Any]] = {
    "torch.is_grad_enabled()": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.get_default_dtype()": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.get_num_threads()": (torch.get_num_threads, torch.set_num_threads),
    "torch.get_float32_matmul_precision()": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch.get_deterministic_debug_mode()": (
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
}
_FLAGS = (
    (torch.backends.cudnn, "torch.backends.cudnn", "allow_tf32"),
    (torch.backends.cudnn, "torch.backends.cudnn", "benchmark"),
    (torch.backends.cudnn, "torch.backends.cudnn", "deterministic"),
    (torch.backends.cuda.matmul, "torch.backends.cuda.matmul", "allow_tf32"),
)


def modes() -> dict[str, Any]:
    """Torch's modes of this process, each by the expression that reads it."""
    found = {name: read() for name, (read, _) in _MODES.items()}
    return found | {f"{path}.{name}": getattr(owner, name) for owner, path, name in _FLAGS}


def set_modes(values: dict[str, Any]) -> None:
    """Set the modes as ``modes`` read them; those that are right are left alone."""
    present = modes()
    for name, (_, write) in _MODES.items():
        if values[name] != present[name]:
            write(values[name])
    for owner, path, name in _FLAGS:
        if values[f"{path}.{name}"] != present[f"{path}.{name}"]:
            setattr(owner, name, values[f"{path}.{name}"])


def random_states() -> dict[str, Any]:
    """The states of the generators that any library may draw from, by name."""
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "random": random.getstate(),
    }
    if torch.cuda.is_available():
        states["torch.cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Set the generators as ``random_states`` read them."""
    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])
    random.setstate(states["random"])
    if "torch.cuda" in states:
        torch.cuda.set_rng_state_all(states["torch.cuda"])


def seed_everything(seed: int) -> None:
    """Put every generator into a known state; a method must not depend on which."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def restored() -> Iterator[None]:
    """Whatever is done inside to modes and generators is undone afterwards."""
    before, states = modes(), random_states()
    try:
        yield
    finally:
        set_modes(before)
        set_random_states(states)
