"""ViT and DeiT: pre-norm image encoders, with or without a classifier.

Their blocks are alike. DeiT puts a distillation token behind the class token, and
``DeiTForImageClassificationWithTeacher`` classifies both; a DeiT that was trained without distillation has no
such token and is a ViT to transformers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from prunekit.adapters.base import Adapter, StackTable, SublayerTable
from prunekit.adapters.removed import NoAttention, NoContribution


def _set_heads(attention: Any, kept: tuple[int, ...], total: int) -> None:
    attention.num_attention_heads = len(kept)


def _sequence_length(model: Any) -> int:
    # Patches and special tokens all have a position.
    return int(model.base_model.embeddings.position_embeddings.shape[1])


VIT = Adapter(
    name="vit",
    model_type="vit",
    summary="ViT: pre-norm image encoder, with or without a classifier",
    stacks=(
        StackTable(
            "encoder",
            "layers",
            "num_hidden_layers",
            "intermediate_size",
            "num_attention_heads",
            (
                SublayerTable(
                    role="self_attn",
                    inputs=(("attention.q_proj", "attention.k_proj", "attention.v_proj"),),
                    output="attention.o_proj",
                    norm="layernorm_before",
                    attention="attention",
                    dead=(("attention", NoAttention), ("layernorm_before", nn.Identity)),
                ),
                SublayerTable(
                    role="ffn",
                    inputs=(("mlp.fc1",),),
                    output="mlp.fc2",
                    norm="layernorm_after",
                    attention=None,
                    dead=(("mlp", NoContribution), ("layernorm_after", nn.Identity)),
                ),
            ),
        ),
    ),
    post_norm=False,
    head_size="head_dim",
    set_heads=_set_heads,
    sequence_length=_sequence_length,
)

DEIT = replace(
    VIT,
    name="deit",
    model_type="deit",
    summary="DeiT: ViT with a distillation token, with or without one or two classifiers",
)
