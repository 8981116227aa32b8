"""The recipe keys of NASH, and the two presets that fill in what a recipe leaves out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prunekit.method import MethodInfo

INFO = MethodInfo(
    name="nash",
    summary="L0-narrowed encoder, uniformly shortened decoder, for encoder-decoder models",
    paper="Ko et al., Findings of EMNLP 2023, arXiv:2310.10054",
    kinds=("head", "neuron", "block"),
    model_types=("t5", "bart"),
    trains=True,
    data="train",
    deterministic=True,
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
        "size": "exact",
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
        "size": "weights",
        "sparsity_warmup": 0.5,
        "start_from_current": False,
    },
}


class NashConfig(BaseModel):
    """Recipe keys of NASH; a key left out takes the preset's value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["paper", "released"] = Field(
        "paper", description="paper: as published; released: what the authors' code does"
    )
    decoder_layers: int = Field(
        3, ge=1, description="decoder blocks to keep; also written layers: {decoder: 3}"
    )
    selection: Literal["uniform", "uniform-paper", "uniform-float", "low", "high"] = Field(
        "uniform",
        description="which decoder blocks: evenly spaced in exact integers, by the paper's formula, by the "
        "released code's floating-point formula, the first, or the last",
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
    size: Literal["exact", "weights"] = Field(
        "exact", description="expected size: exact, or the released code's (biases spread over the units)"
    )
    sparsity_warmup: float = Field(
        0.8, ge=0, lt=1, description="share of the training steps in which the sparsity target rises"
    )
    start_from_current: bool = Field(
        True, description="let the target rise from the masks' initial sparsity instead of 0"
    )
    droprate_init: float = Field(0.5, gt=0, lt=1, description="initial drop rate of the neurons' masks")
    prepruning_epochs: float = Field(0.0, ge=0, description="epochs of training before masks start")
    final_mask: Literal["soft", "binary"] = Field(
        "soft", description="scale kept units by their mask, or leave their weights as they are"
    )
    snap_to_budget: bool = Field(
        True, description="cut to the target within one unit; off rounds each group as the released code does"
    )
    sparsity_tolerance: float = Field(
        0.01, gt=0, lt=1, description="how far the learned sparsity may be from its target"
    )
    validation_limit: int = Field(
        500, ge=1, description="validation examples that choose the best checkpoint"
    )

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
