"""The recipe keys of CoFi."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from prunekit.learned.config import LearnedMasksConfig
from prunekit.method import ANY_MODEL, MethodInfo

INFO = MethodInfo(
    name="cofi",
    summary="learned L0 masks of every grain at once, from hidden dimensions to whole sublayers",
    paper="Xia et al., ACL 2022, arXiv:2204.00408",
    kinds=("head", "neuron", "sublayer", "hidden"),
    model_types=(ANY_MODEL,),
    trains=True,
    data="train",
    deterministic=True,
    # Too few steps for the masks to settle; the cut is snapped to the budget all the same.
    check_entry={
        "sparsity_tolerance": 0.9,
        "train": {"max_steps": 16, "batch_size": 8, "mask_learning_rate": 1.0, "eval_every": 4},
    },
)

Grain = Literal["head", "neuron", "sublayer", "hidden"]


class CofiConfig(LearnedMasksConfig):
    """Recipe keys of CoFi."""

    kinds: tuple[Grain, ...] = Field(
        ("head", "neuron", "sublayer", "hidden"), min_length=1, description="the unit kinds that get masks"
    )
    # The paper's weights for BERT are the defaults: they belong to states that a norm has scaled.
    layer_weight: float = Field(
        0.9,
        ge=0,
        description="weight of the layer-wise distillation, 0 for none; as for BERT in the paper, while T5's "
        "states are so large that NASH's authors ran CoFi with 0.001",
    )
    layer_matching: Literal["same-index", "argmin", "top-down", "random", "windows"] = Field(
        "top-down",
        description="which student block a teacher block is compared with: that of the same index, the "
        "closest, or the closest living one, in order (top-down); random, windows: as top-down, for teacher "
        "blocks drawn anew in each step",
    )
    prediction_weight: float = Field(
        0.1,
        ge=0,
        description="weight of KL(teacher || student) between the logits; NASH's authors ran CoFi on T5 "
        "with 0.5",
    )
    temperature: float = Field(2.0, gt=0, description="softens both sides of the KL term")
    # From 0, as in the references, the constraint lags behind a steep target and overshoots afterwards.
    initial_lambda_2: float = Field(
        10_000.0, ge=0, description="where the second multiplier of the sparsity constraint starts"
    )
    label_weight: float = Field(
        0.0, ge=0, description="weight of the model's own loss on the labels, which CoFi leaves out"
    )
    freeze_embeddings: bool = Field(
        False,
        description="leave the embedding matrix as it is while pruning, as CoFi's released code does",
    )

    @field_validator("kinds")
    @classmethod
    def _each_once(cls, kinds: tuple[Grain, ...]) -> tuple[Grain, ...]:
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands there more than once; name each kind once")
        return kinds

    @model_validator(mode="after")
    def _has_a_loss(self) -> CofiConfig:
        if not (self.layer_weight or self.prediction_weight or self.label_weight):
            raise ValueError(
                "layer_weight, prediction_weight and label_weight are all 0, so nothing says what to keep; "
                "give one of them a weight (CoFi: layer_weight 0.9 and prediction_weight 0.1; training on "
                "the labels alone: label_weight 1)"
            )
        return self
