"""The recipe keys of Fisher pruning."""

from __future__ import annotations

from pydantic import Field

from prunekit.method import ANY_MODEL, MethodInfo
from prunekit.scoring.config import OneShotConfig

INFO = MethodInfo(
    name="fisher",
    summary="one-shot: empirical Fisher information of head and neuron masks, rearranged, tuned",
    paper="Kwon et al., NeurIPS 2022, arXiv:2204.09656",
    kinds=("head", "neuron"),
    model_types=(ANY_MODEL,),
    trains=False,
    data="calibration",
    deterministic=True,
    check_entry={"examples": 16, "batch_size": 8},
)


class FisherConfig(OneShotConfig):
    """Recipe keys of Fisher pruning; ``rearrange: false`` and ``tune: false`` leave the mask search alone."""

    examples: int = Field(2048, ge=1, description="labelled calibration examples")
    rearrange: bool = Field(
        True, description="exchange kept and removed units inside each sublayer by their joint loss"
    )
    tune: bool = Field(
        True, description="scale the kept units to match the dense model's activations by least squares"
    )
