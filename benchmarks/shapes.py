"""Models of published shapes with random weights, and keep lists that cut them evenly.

Not a benchmark itself. Speed does not depend on what the weights are, so nothing is downloaded. Tiny shapes,
for ``--smoke``, have the same depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from prunekit.plugins import get_registry
from prunekit.pruning import cost
from prunekit.pruning.target import PrunableModel, find_adapter

Keep = dict[str, tuple[int, ...]]


def t5_config(tiny: bool, **changes: Any) -> T5Config:
    """t5-base."""
    size = {"vocab_size": 40, "d_model": 24, "d_kv": 2, "d_ff": 48} if tiny else {}
    base = {"vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072}
    depth = {"num_layers": 12, "num_decoder_layers": 12, "num_heads": 12, "decoder_start_token_id": 0}
    return T5Config(**{**base, **size, **depth, **changes})


def bart_config(tiny: bool, **changes: Any) -> BartConfig:
    """bart-base."""
    size: dict[str, Any] = {"vocab_size": 50265, "d_model": 768, "max_position_embeddings": 1024}
    width = 3072
    if tiny:
        size, width = {"vocab_size": 40, "d_model": 24, "max_position_embeddings": 32}, 48
    both = {
        f"{stack}_{key}": value
        for stack in ("encoder", "decoder")
        for key, value in {"layers": 6, "attention_heads": 12, "ffn_dim": width}.items()
    }
    return BartConfig(**{**size, **both, **changes})


def bert_config(tiny: bool, **changes: Any) -> BertConfig:
    """bert-base-uncased."""
    size = (
        {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 48, "max_position_embeddings": 32}
        if tiny
        else {}
    )
    return BertConfig(**{"num_labels": 3, **size, **changes})


def vit_config(tiny: bool, **changes: Any) -> ViTConfig:
    """ViT-B/16 at 224 pixels."""
    size = {"hidden_size": 24, "intermediate_size": 48, "image_size": 16, "patch_size": 8} if tiny else {}
    return ViTConfig(**{"num_labels": 1000, **size, **changes})


_MODELS: Mapping[str, tuple[type[Any], Callable[..., Any]]] = {
    "t5-base": (T5ForConditionalGeneration, t5_config),
    "bart-base": (BartForConditionalGeneration, bart_config),
    "bert-base": (BertForSequenceClassification, bert_config),
    "vit-b": (ViTForImageClassification, vit_config),
}


def make_target(name: str, *, tiny: bool, seed: int, device: str) -> PrunableModel:
    """The model of that name with random weights, and its adapter."""
    model_class, config = _MODELS[name]
    torch.manual_seed(seed)
    return as_target(model_class(config(tiny)).eval().to(device))


def as_target(model: PreTrainedModel) -> PrunableModel:
    """A model with its adapter."""
    return PrunableModel(model, find_adapter(model, get_registry().adapters))


def spread(size: int, kept: int) -> tuple[int, ...]:
    """``kept`` indices of ``size``, evenly spaced from the first on."""
    return tuple(i * size // kept for i in range(kept))


def parameters(target: PrunableModel, keep: Mapping[str, Sequence[int]]) -> int:
    """All parameters that ``keep`` leaves, embeddings included; tied ones count once."""
    return cost.parameters(target.model, target.adapter, target.structure, keep)


def prunable(target: PrunableModel, stack: str) -> float:
    """Prunable parameters of one stack."""
    costs = target.parameter_costs([f"{stack}.*"])
    return sum(each.prunable for each in costs.values())


def narrowed(target: PrunableModel, keep: Keep, removed: float, stacks: Sequence[str]) -> Keep:
    """``keep`` with every sublayer of ``stacks`` that is left made narrower, all alike.

    Every attention keeps the number of heads nearest to the share that should stay, at least one, and every
    FFN as many neurons as then bring the parameters removed to ``removed``, or just above. Units are evenly
    spaced: which they are does not matter for speed.

    Args:
        target: the model.
        keep: what was removed before: blocks and whole sublayers.
        removed: parameters to remove on top of ``keep``.
        stacks: which stacks to narrow.

    Raises:
        ValueError: if so many cannot be removed by narrowing.
    """
    costs = target.parameter_costs()
    dead = target.structure.dead(keep)
    left = [s for s in target.structure.sublayers.values() if s.stack in stacks and s.name not in dead]
    share = 1 - removed / sum(costs[sub.name].unit * sub.units.size for sub in left)
    if not 0 < share <= 1:
        raise ValueError(f"{removed:,.0f} parameters cannot be removed by narrowing {', '.join(stacks)}.")
    narrow = dict(keep)
    still = removed
    ffns = [sub for sub in left if sub.role == "ffn"]
    for sub in left:
        if sub.role != "ffn":
            heads = max(1, round(share * sub.units.size))
            narrow[sub.units.name] = spread(sub.units.size, heads)
            still -= costs[sub.name].unit * (sub.units.size - heads)
    gone = -(-still // sum(costs[sub.name].unit for sub in ffns))
    for sub in ffns:
        neurons = min(sub.units.size, int(sub.units.size - gone))
        if neurons < 1:
            raise ValueError(f"{removed:,.0f} parameters leave no FFN neuron in {sub.name}.")
        narrow[sub.units.name] = spread(sub.units.size, neurons)
    return narrow
