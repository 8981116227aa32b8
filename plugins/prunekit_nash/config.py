"""The recipe keys of NASH, and the two presets that fill in what a recipe leaves out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from prunekit.learned.config import LearnedMasksConfig
from prunekit.method import MethodInfo

INFO = MethodInfo(
    name="nash",
    summary="L0-narrowed encoder, uniformly shortened decoder, for encoder-decoder models",
    paper="Ko et al., Findings of EMNLP 2023, arXiv:2310.10054",
    kinds=("head", "neuron", "sublayer", "block"),
    model_types=("t5", "bart"),
    trains=True,
    data="train",
    deterministic=True,
    # Too few steps for the masks to settle; the cut is snapped to the budget all the same.
    check_entry={
        "decoder_layers": 2,
        "sparsity_tolerance": 0.9,
        "budget": {"sparsity": 0.3, "scope": ["encoder.*"]},
        "train": {"max_steps": 16, "batch_size": 8, "mask_learning_rate": 1.0, "eval_every": 4},
    },
    exceptions={"scope-respected": "the decoder is shortened by decoder_layers, whatever the scope"},
)

# What the paper writes, and what its released code does; docs/methods/nash.md explains each line.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "prediction_weight": 1.0,
        "kl_direction": "reverse",
        "temperature": 1.0,
        "encoder_hidden_weight": 0.001,
        "decoder_hidden_weight": 0.001,
        "label_weight": 0.0,
        "count_padding": False,
        "freeze_embeddings": False,
        "count": "exact",
        "sparsity_warmup": 0.8,
        # The paper is silent; starting at 0 first pushes every mask open, which short runs never undo.
        "start_from_current": True,
    },
    "released": {
        "prediction_weight": 0.0,
        "kl_direction": "forward",
        "temperature": 2.0,
        "encoder_hidden_weight": 0.0,
        "decoder_hidden_weight": 0.0,
        "label_weight": 1.0,
        "count_padding": True,
        "freeze_embeddings": True,
        "count": "weights",
        "sparsity_warmup": 0.5,
        "start_from_current": False,
    },
}

DECODER_LAYERS = 3
"""Decoder blocks that stay where neither the recipe nor a latency budget says how many."""

Selection = Literal["uniform", "uniform-paper", "uniform-float", "low", "high", "auto", "auto-blocks"]


class NashConfig(LearnedMasksConfig):
    """Recipe keys of NASH; a key left out takes the preset's value."""

    preset: Literal["paper", "released"] = Field(
        "paper", description="paper: as published; released: what the authors' code does"
    )
    decoder_layers: int | None = Field(
        None,
        ge=1,
        description="decoder blocks to keep, also written layers: {decoder: 3}; by default 3, and under a "
        "latency budget as many as it allows",
    )
    max_encoder_sparsity: float = Field(
        0.3, ge=0, le=0.95, description="most of the encoder that a latency budget may remove"
    )
    selection: Selection = Field(
        "uniform",
        description="which decoder blocks: evenly spaced in exact integers, by the paper's formula, by the "
        "released code's floating-point formula, the first, or the last; auto learns which sublayers go, "
        "auto-blocks which blocks",
    )
    prediction_weight: float = Field(1.0, ge=0, description="weight of the KL term between the logits")
    kl_direction: Literal["forward", "reverse"] = Field(
        "reverse", description="forward is KL(teacher || student), reverse KL(student || teacher)"
    )
    temperature: float = Field(1.0, gt=0, description="softens both sides of the KL term")
    encoder_hidden_weight: float = Field(0.001, ge=0, description="weight of the encoder's hidden-state MSE")
    decoder_hidden_weight: float = Field(0.001, ge=0, description="weight of the decoder's hidden-state MSE")
    label_weight: float = Field(0.0, ge=0, description="weight of the label cross-entropy")
    count_padding: bool = Field(False, description="let padding tokens count in the label cross-entropy")
    freeze_embeddings: bool = Field(False, description="leave the embedding matrix as it is while pruning")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        layers = data.pop("layers", None)
        if layers is not None:
            if not isinstance(layers, dict) or set(layers) != {"decoder"} or "decoder_layers" in data:
                raise ValueError("write `layers: {decoder: N}` with that key alone, or `decoder_layers: N`")
            data["decoder_layers"] = layers["decoder"]
        preset = data.get("preset", "paper")
        return {**PRESETS.get(preset, {}), **data} if isinstance(preset, str) else data
