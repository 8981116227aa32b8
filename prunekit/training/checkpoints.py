"""Resumable training state as safetensors and JSON; nothing is pickled."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prunekit.errors import CheckpointError

FORMAT = 1


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able facts into one safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # Clones: safetensors refuses tensors that share storage (tied embeddings do).
    cpu = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    save_file(cpu, partial, metadata={"format": str(FORMAT), "facts": json.dumps(facts)})
    os.replace(partial, path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote.

    Raises:
        CheckpointError: if the file is damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:
        raise CheckpointError(
            f"{path.name} cannot be read ({error}). Delete it to start this stage again."
        ) from error
    if metadata.get("format") != str(FORMAT):
        raise CheckpointError(
            f"{path.name} has format {metadata.get('format')!r}; this prunekit reads {FORMAT}. "
            "Delete it to start this stage again."
        )
    return tensors, json.loads(metadata["facts"])


def module_state(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """One flat name -> tensor mapping of several modules' states."""
    return {
        f"{prefix}/{name}": tensor
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def load_module_state(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Undo ``module_state``, strictly."""
    for prefix, module in modules.items():
        start = f"{prefix}/"
        module.load_state_dict(
            {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
        )


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's per-parameter tensors, keyed ``optimizer/<parameter index>/<name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer/{index}/{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo ``optimizer_state``; the parameter groups' settings stay those of ``optimizer``."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of every random number generator that training draws from, as (tensors, facts)."""
    tensors = {"random/torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    name, keys, position, has_gauss, gauss = np.random.get_state()
    tensors["random/numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    facts = {"numpy": [str(name), int(position), int(has_gauss), float(gauss)], "python": random.getstate()}
    return tensors, facts


def restore_random_state(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Undo ``random_state``."""
    torch.set_rng_state(tensors["random/torch"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
    name, position, has_gauss, gauss = facts["numpy"]
    keys = tensors["random/numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, gauss))
    version, values, gauss_next = facts["python"]
    random.setstate((version, tuple(values), gauss_next))


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Whatever is drawn inside, the generators are where they were afterwards; also good as a decorator."""
    tensors, facts = random_state()
    try:
        yield
    finally:
        restore_random_state(tensors, facts)
