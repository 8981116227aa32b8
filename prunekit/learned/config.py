"""Recipe keys that methods with learned masks share."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Share = Annotated[float, Field(gt=0, lt=1)]


class LearnedMasksConfig(BaseModel):
    """How masks are learned and cut; a method's own keys and defaults come on top."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: Literal["exact", "weights"] = Field(
        "exact", description="expected size: exact, or the released code's (biases spread over the units)"
    )
    sparsity_warmup: float = Field(
        0.8, ge=0, lt=1, description="share of the training steps in which the sparsity target rises"
    )
    start_from_current: bool = Field(
        True, description="let the target rise from the masks' initial sparsity instead of 0"
    )
    initial_lambda_2: float = Field(
        0.0, ge=0, description="where the second multiplier of the sparsity constraint starts"
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
    save_at: tuple[Share, ...] = Field(
        (), description="milestones: sparsities on the way to the budget's, at each of which a model is saved"
    )

    @field_validator("save_at")
    @classmethod
    def _each_higher(cls, save_at: tuple[float, ...]) -> tuple[float, ...]:
        if any(after <= before for before, after in pairwise(save_at)):
            raise ValueError("each must be higher than the one before it, such as [0.3, 0.5, 0.7]")
        return save_at
