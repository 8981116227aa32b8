"""Resumable training state as safetensors and JSON; nothing is pickled."""

from __future__ import annotations

import hashlib
import json
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

from prunekit import ranks
from prunekit.errors import CheckpointError
from prunekit.files import replacing

FORMAT = 2


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able facts into one safetensors file, whole or not at all, with a hash of both.

    Raises:
        RunFolderError: if the system refused to write; an older file of that name stays.
    """
    ranks.from_first(lambda: _write(path, tensors, json.dumps(facts)))


def _write(path: Path, tensors: Mapping[str, Tensor], facts: str) -> None:
    # Clones: safetensors refuses tensors that share storage (tied embeddings do).
    cpu = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    metadata = {"format": str(FORMAT), "facts": facts, "sha256": _digest(cpu, facts)}
    with replacing(path) as partial:
        save_file(cpu, partial, metadata=metadata)


ANEW = "Delete it to start this stage again."


def load_tensors(path: Path, advice: str = ANEW) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote.

    Args:
        path: the file.
        advice: what to do if it is damaged, as a sentence.

    Raises:
        CheckpointError: if the file is missing, damaged or of another format, or the system refuses it.
    """
    with _opened(path, advice) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if _digest(tensors, metadata["facts"]) != metadata["sha256"]:
            raise ValueError("its content is not what was written")
        return tensors, json.loads(metadata["facts"])


def load_facts(path: Path) -> dict[str, Any]:
    """The facts alone; the tensors are not read, and nothing is held against the hash.

    Raises:
        CheckpointError: as ``load_tensors``.
    """
    with _opened(path, ANEW) as (_, metadata):
        found: dict[str, Any] = json.loads(metadata["facts"])
        return found


@contextmanager
def _opened(path: Path, advice: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """The file and its metadata; what goes wrong inside is told as damage, if it may be the file's fault."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == str(FORMAT):
                yield file, metadata
                return
    except (MemoryError, PermissionError):
        raise
    except Exception as error:
        if "allocate" in str(error):  # memory that ran out, in torch's words
            raise
        raise CheckpointError(f"{path.name} cannot be read ({error}). {advice}") from error
    raise CheckpointError(
        f"{path.name} has format {metadata.get('format')!r}; this prunekit reads {FORMAT}. {advice}"
    )


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    found = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # As bytes, because numpy knows no bfloat16.
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


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


def seed_random(seed: int) -> None:
    """Seed every random number generator that training draws from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # it takes no larger ones
    random.seed(seed)


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of every random number generator that training draws from, as (tensors, facts)."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    name, keys, position, has_gauss, gauss = np.random.get_state()
    tensors["numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    facts = {"numpy": [str(name), int(position), int(has_gauss), float(gauss)], "python": random.getstate()}
    return tensors, facts


def restore_random_state(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Undo ``random_state``."""
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    name, position, has_gauss, gauss = facts["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
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
