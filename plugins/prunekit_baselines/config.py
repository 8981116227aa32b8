"""Declarations and recipe keys of the baselines."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from prunekit.method import ANY_MODEL, MethodInfo
from prunekit.scoring.config import OneShotConfig

MAGNITUDE = MethodInfo(
    name="magnitude",
    summary="removes the heads and neurons whose weights have the smallest squares",
    paper="Han et al., NeurIPS 2015, arXiv:1506.02626, on whole units",
    kinds=("head", "neuron"),
    model_types=(ANY_MODEL,),
    trains=False,
    data="none",
    deterministic=True,
)

RANDOM = MethodInfo(
    name="random",
    summary="removes random heads and neurons",
    paper="none: the floor that any score must beat",
    kinds=("head", "neuron"),
    model_types=(ANY_MODEL,),
    trains=False,
    data="none",
    deterministic=True,
)


def block_info(name: str, which: str) -> MethodInfo:
    """Declaration of a rule that keeps ``which`` blocks."""
    return MethodInfo(
        name=name,
        summary=f"keeps {which} of an encoder or decoder",
        paper="Ko et al., Findings of EMNLP 2023, arXiv:2310.10054, Tables 3 and 4",
        kinds=("block",),
        model_types=(ANY_MODEL,),
        trains=False,
        data="none",
        deterministic=True,
        budget_units=2,  # a block of each of two stacks goes at once
    )


UNIFORM = block_info("uniform", "evenly spaced blocks")
LOW = block_info("low", "the first blocks")
HIGH = block_info("high", "the last blocks")


class BlocksConfig(BaseModel):
    """Recipe keys of ``uniform``, ``low`` and ``high``; without either the budget decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder_layers: int | None = Field(None, ge=1, description="encoder blocks to keep")
    decoder_layers: int | None = Field(None, ge=1, description="decoder blocks to keep")


class UnitsConfig(OneShotConfig):
    """Recipe keys of ``magnitude`` and ``random``; examples are drawn only to tune."""
