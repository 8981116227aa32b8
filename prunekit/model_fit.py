"""Whether a model's weights are those that its config describes, found before memory is spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunekit.errors import CheckpointError, PrunekitError
from prunekit.model_folder import Tensors, check_depth, tensors_in
from prunekit.shown import visible

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 8
TIES, NEW = 4, 10_000_000
"""Parameters that a config may describe: so many times those in the files, for ties; and more, for a head."""


def check_fit(model_class: Any, config: Any, folder: Path, *, strict: bool) -> None:
    """Compare what a config describes with the headers of the folder's weights.

    Args:
        model_class: the class that will be loaded.
        config: of transformers.
        folder: where the weights lie.
        strict: whether tensors of the same name must have the same shape; a new head has others.

    Raises:
        CheckpointError: if the config describes no model or a far larger one, or tensors have other shapes or
            types.
    """
    tensors = tensors_in(folder)
    if not tensors:
        return  # transformers says that there are no weights
    check_depth(folder, config.to_dict(), tensors)
    try:
        with torch.device("meta"):
            # An Auto class, where the config names none, is no model class itself.
            build = getattr(model_class, "from_config", model_class)
            model = build(config)
    except (MemoryError, PrunekitError):
        raise
    except Exception as error:  # whatever a class says of fields that make no sense
        raise CheckpointError(
            f"{folder}/config.json describes no {model_class.__name__}: {type(error).__name__}: "
            f"{visible(str(error), 200)}. Restore the file as it was saved."
        ) from error
    described = sum(parameter.numel() for parameter in model.parameters())
    held = sum(_entries(shape) for _, shape in tensors.values())
    if described > TIES * held + NEW:
        raise CheckpointError(
            f"{folder}/config.json describes {described:,} parameters, but the weights are {held:,}. Restore "
            "the file as it was saved."
        )
    faults = _faults(model, tensors, strict=strict)
    if faults:
        raise CheckpointError(
            f"{folder}: weights and config disagree in {len(faults)} places:\n  {listed(faults)}\n"
            "config.json and the weights must come from the same `save_pretrained`."
        )


def check_finite(model: PreTrainedModel, name: str) -> None:
    """Refuse weights that are no numbers.

    Raises:
        CheckpointError: naming the first tensor, and how many of its entries are NaN or infinite.
    """
    for path, weights in model.named_parameters():
        bad = int((~torch.isfinite(weights)).sum())
        if bad:
            raise CheckpointError(
                f"{name}: {bad:,} of the {weights.numel():,} weights of {path} are NaN or infinite. Give a "
                "checkpoint from before its training went wrong."
            )


def listed(faults: Sequence[str]) -> str:
    """The first faults, a line each."""
    return "\n  ".join([*faults[:SHOWN], *(["…"] if len(faults) > SHOWN else [])])


def _faults(model: PreTrainedModel, tensors: Tensors, *, strict: bool) -> list[str]:
    faults = []
    for name, wanted in model.state_dict().items():
        if name not in tensors:
            continue  # tied, or missing: loading tells
        dtype, shape = tensors[name]
        if dtype.startswith(("F", "BF")) != wanted.is_floating_point():
            faults.append(
                f"{name}: {dtype} in the file, {str(wanted.dtype).removeprefix('torch.')} is needed"
            )
        elif strict and shape != tuple(wanted.shape):
            faults.append(f"{name}: {shape} in the file, {tuple(wanted.shape)} in config.json")
    return faults


def _entries(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
