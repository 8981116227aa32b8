"""Random batches to measure on, and whether a model can take the lengths that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunekit.errors import PrunekitError, UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import SpeedSpec

DEFAULT_INPUT_TOKENS = 64


def random_inputs(model: PreTrainedModel, spec: SpeedSpec, seed: int) -> dict[str, Tensor]:
    """A batch of the model's own form, for measuring without a task.

    Args:
        model: takes token ids or images.
        spec: gives ``batch_size`` and ``input_tokens`` (where it is None: 64, or all positions of a model
            that has fewer).
        seed: decides the batch.

    Returns:
        ``input_ids, attention_mask``, ``[B, T]``, without special tokens and all attended; or
        ``pixel_values``, ``[B, C, H, W]``, standard normal. On the CPU.

    Raises:
        UnsupportedModelError: if the model takes neither.
        PrunekitError: if the model has fewer positions than ``spec.input_tokens``.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    if takes_images(model):
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (spec.batch_size, config.num_channels, height, width)
        return {"pixel_values": torch.randn(shape, generator=generator)}
    if model.main_input_name != "input_ids":
        raise UnsupportedModelError(
            f"{type(model).__name__} takes {model.main_input_name!r}; random inputs exist for 'input_ids' "
            "and 'pixel_values'. Measure it with a task's batch instead."
        )
    length = spec.input_tokens or default_length([model])
    check_positions("speed.input_tokens", length, model)
    vocabulary = torch.arange(_vocabulary(model))
    ordinary = vocabulary[
        ~torch.isin(vocabulary, torch.tensor(sorted(_special_ids(config)), dtype=torch.long))
    ]
    drawn = torch.randint(len(ordinary), (spec.batch_size, length), generator=generator)
    input_ids = ordinary[drawn]  # [B, T]
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def shared_inputs(models: Sequence[PreTrainedModel], spec: SpeedSpec) -> dict[str, Tensor]:
    """`random_inputs` that every one of ``models`` can read: token ids within the smallest vocabulary."""
    smallest = models[0] if takes_images(models[0]) else min(models, key=_vocabulary)
    return random_inputs(smallest, spec, spec.seed)


def takes_images(model: PreTrainedModel) -> bool:
    """Whether an input has a size of the model's own instead of a length."""
    return bool(model.main_input_name == "pixel_values")


def default_length(models: Sequence[PreTrainedModel]) -> int:
    """Input tokens where nobody asked for a number: 64, or all positions where a model has fewer."""
    return min([DEFAULT_INPUT_TOKENS, *(found for model in models if (found := positions(model)))])


def positions(model: PreTrainedModel) -> int | None:
    """How many positions a sequence may have; ``None`` where they are relative."""
    found: int | None = getattr(model.config, "max_position_embeddings", None)
    return found


def check_positions(key: str, asked: int, model: PreTrainedModel) -> None:
    """Refuse a length that the model has no positions for.

    Raises:
        PrunekitError: naming ``key``, the length and the limit.
    """
    limit = positions(model)
    if limit is not None and asked > limit:
        raise PrunekitError(
            f"{key} = {asked}, but {type(model).__name__} has {limit} positions. Ask for {limit} or fewer."
        )


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.get_input_embeddings().num_embeddings)


def _special_ids(config: Any) -> set[int]:
    names = ("pad", "bos", "eos", "unk", "sep", "cls", "mask", "decoder_start")
    found = [getattr(config, f"{name}_token_id", None) for name in names]
    return {i for ids in found if ids is not None for i in (ids if isinstance(ids, list) else [ids])}
