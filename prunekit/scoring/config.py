"""Recipe keys that one-shot methods share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class OneShotConfig(BaseModel):
    """Keys of a method that scores, allocates and, if asked, rearranges and tunes.

    A method's own ``Config`` subclasses it, adds its keys, and repeats those whose defaults differ.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    examples: int = Field(512, ge=1, description="calibration examples")
    batch_size: int = Field(32, ge=1, description="examples a batch while scoring and tuning")
    floor: int = Field(0, ge=0, description="units that every sublayer in scope keeps at least")
    rearrange: bool = Field(
        False, description="exchange kept and removed units inside each sublayer by their joint loss"
    )
    tune: bool = Field(
        False, description="scale the kept units to match the dense model's activations by least squares"
    )
