"""BERT: post-norm encoder, with or without a task head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from prunekit.adapters.base import Adapter, StackTable, SublayerTable
from prunekit.adapters.removed import NoAttentionWithResidual, ResidualOnly

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _set_heads(attention: Any, kept: tuple[int, ...], total: int) -> None:
    attention.num_attention_heads = len(kept)
    attention.all_head_size = len(kept) * attention.attention_head_size


def _refuse(model: PreTrainedModel) -> str | None:
    if model.config.is_decoder:
        return (
            "config.is_decoder is true; prunekit prunes BERT as an encoder. Use the T5 or BART adapter for "
            "encoder-decoder models, or load the checkpoint with is_decoder=False."
        )
    if model.config.chunk_size_feed_forward:
        return "chunk_size_feed_forward is set; load the checkpoint with chunk_size_feed_forward=0."
    return None


BERT = Adapter(
    name="bert",
    model_type="bert",
    summary="BERT: post-norm encoder, with or without a task head",
    stacks=(
        StackTable(
            "encoder",
            "encoder.layer",
            "num_hidden_layers",
            "intermediate_size",
            "num_attention_heads",
            (
                SublayerTable(
                    role="self_attn",
                    inputs=(("attention.self.query", "attention.self.key", "attention.self.value"),),
                    output="attention.output.dense",
                    norm="attention.output.LayerNorm",
                    attention="attention.self",
                    dead=(("attention", NoAttentionWithResidual),),
                ),
                SublayerTable(
                    role="ffn",
                    inputs=(("intermediate.dense",),),
                    output="output.dense",
                    norm="output.LayerNorm",
                    attention=None,
                    dead=(("intermediate", nn.Identity), ("output", ResidualOnly)),
                ),
            ),
        ),
    ),
    post_norm=True,
    head_size="attention_head_size",
    set_heads=_set_heads,
    refuse=_refuse,
)
