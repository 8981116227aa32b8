"""The recipe keys of OPTIN, and the presets that fill in what a recipe leaves out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from prunekit.method import ANY_MODEL, MethodInfo
from prunekit.scoring.config import OneShotConfig

INFO = MethodInfo(
    name="optin",
    summary="one-shot: how far a unit's removal bends the features behind it and the answers",
    paper="Khaki & Plataniotis, ICLR 2024, arXiv:2403.17921",
    kinds=("head", "neuron"),
    model_types=(ANY_MODEL,),
    trains=False,
    data="calibration",
    deterministic=True,
    check_entry={"examples": 16, "batch_size": 8},
)

# What the released code does beside or against the paper; docs/methods/optin.md explains each line.
_RELEASED: dict[str, Any] = {
    "scoring": "exact",
    "aggregate": "sum",
    "soften": False,
    "adaptive_kl": True,
    "token_draw": "per-comparison",
    "include_padding": True,
    "separate_batches": True,
    "head_mask_leak": True,
    "pre_activation_masks": True,
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "released": {
        **_RELEASED,
        "batch_size": 128,
        "head_envelope": 10.0,
        "neuron_envelope": 100.0,
        "head_decay": 0.5,
        "head_last_decay": 0.5,
        "neuron_last_decay": 0.5,
    },
    "released-vision": {
        **_RELEASED,
        "examples": 32,
        "kl_weight": 0.01,
        "features": "block_norm",
        "last_output": False,
        "neuron_kl_fallback": "one",
        "neuron_last_decay": 1e-4,
    },
}
# A probe scores all units at once, by what they do together near the dense model: it knows no order.
_NEED_EXACT = {
    "adaptive_kl": True,
    "token_draw": "per-comparison",
    "head_mask_leak": True,
    "pre_activation_masks": True,
}


class OptinConfig(OneShotConfig):
    """Recipe keys of OPTIN; a key left out takes the profile's value.

    ``examples / batch_size`` batches are scored one by one and averaged; the paper uses one.
    """

    examples: int = Field(128, ge=1, description="calibration examples; labels are not used")
    batch_size: int = Field(32, ge=1, description="examples that are compared with each other")
    profile: Literal["paper", "released", "released-vision"] = Field(
        "paper",
        description="paper: as published; released, released-vision: what the authors' code does on BERT, "
        "and on ViT",
    )
    scoring: Literal["auto", "exact", "gauss-newton"] = Field(
        "auto",
        description="exact: run the model without each unit; gauss-newton: estimate all at once by random "
        "probes; auto: heads exactly, neurons by probes, and exactly where they are near the cut",
    )
    probes: int = Field(64, ge=2, description="random probes; the relative error is about sqrt(2 / probes)")
    wanted_error: float | None = Field(
        None, gt=0, lt=1, description="add probes until the median relative standard error is this"
    )
    kl_weight: float = Field(0.1, ge=0, description="weight of the answers' divergence; 0 leaves it out")
    temperature: float = Field(4.0, gt=0, description="of the answers' divergence, which is times its square")
    soften: bool = Field(True, description="divide the logits by the temperature")
    tokens: int = Field(
        768, ge=1, description="tokens of a batch that are compared; fewer if there are fewer"
    )
    aggregate: Literal["sum", "mean"] = Field(
        "mean", description="over the entries of a Gram matrix; a sum leaves the answers' divergence no say"
    )
    features: Literal["ffn_output", "block_output", "block_norm"] = Field(
        "ffn_output",
        description="what is compared of each later block: its feed-forward branch before the residual "
        "addition, its output, or its input after the first norm",
    )
    last_output: bool = Field(
        True, description="with block_norm, compare the last block's output too; else its units have KL alone"
    )
    token_draw: Literal["shared", "per-comparison"] = Field(
        "shared", description="draw the compared tokens once, or anew for every unit and tensor"
    )
    include_padding: bool = Field(False, description="compare padding like any token")
    separate_batches: bool = Field(False, description="score heads and neurons on different examples")
    adaptive_kl: bool = Field(
        False,
        description="scale the divergence by the power of ten that brings it to kl_weight times the "
        "distance, or by the mean scale so far where it is the larger one",
    )
    neuron_kl_fallback: Literal["mean", "one"] = Field(
        "mean", description="adaptive scale of a neuron whose divergence is the larger term"
    )
    head_mask_leak: bool = Field(
        False, description="while heads of a block are scored, also remove the last head of all earlier ones"
    )
    blind_heads: bool = Field(
        False, description="score every head 0, as where the attention kernel ignores a head mask"
    )
    pre_activation_masks: bool = Field(
        False, description="set a neuron's input to 0 instead of its output; the same where f(0) = 0"
    )
    double_last_distance: bool = Field(
        False, description="count the distance twice for the last block; released code without KL"
    )
    head_envelope: float = Field(1.0, ge=1, description="factor of head 0, falling to 1 at the last index")
    neuron_envelope: float = Field(
        1.0, ge=1, description="factor of neuron 0, falling to 1 at the last index"
    )
    head_decay: float = Field(1.0, gt=0, description="factor of every head's score")
    neuron_decay: float = Field(1.0, gt=0, description="factor of every neuron's score")
    head_last_decay: float = Field(1.0, gt=0, description="further factor of the last block's heads")
    neuron_last_decay: float = Field(1.0, gt=0, description="further factor of the last block's neurons")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        profile = data.get("profile", "paper")
        return {**PRESETS.get(profile, {}), **data} if isinstance(profile, str) else dict(data)

    @model_validator(mode="after")
    def _check(self) -> OptinConfig:
        ordered = [key for key, value in _NEED_EXACT.items() if getattr(self, key) == value]
        if ordered and self.scoring != "exact":
            raise ValueError(
                f"scoring: {self.scoring} estimates all units at once, but {', '.join(ordered)} (profile "
                f"{self.profile}) depends on scoring them one after another. Write scoring: exact, or turn "
                f"{ordered[0]} off"
            )
        if self.adaptive_kl and self.kl_weight == 0:
            raise ValueError("adaptive_kl scales the divergence to kl_weight, which must then be above 0")
        return self
