"""ViT and DeiT: pre-norm image encoders, with or without a classifier.

Their blocks are alike. DeiT puts a distillation token behind the class token, and
``DeiTForImageClassificationWithTeacher`` classifies both; a DeiT that was trained without distillation has no
such token and is a ViT to transformers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from prunekit.adapters.base import Adapter, StackTable, SublayerTable, axes, base_prefix
from prunekit.adapters.removed import NoAttention, NoContribution
from prunekit.pruning.units import Stream, StreamNorm


def _set_heads(attention: Any, kept: tuple[int, ...], total: int) -> None:
    attention.num_attention_heads = len(kept)


def _sequence_length(model: Any) -> int:
    # Patches and special tokens all have a position.
    return int(model.base_model.embeddings.position_embeddings.shape[1])


def _stream(model: Any) -> Stream:
    base = base_prefix(model)
    embeddings = f"{base}embeddings"
    tokens = ("cls_token", "distillation_token", "mask_token", "position_embeddings")
    patches = f"{embeddings}.patch_embeddings.projection"
    heads = ("classifier", "cls_classifier", "distillation_classifier", "decoder.0")
    return Stream(
        sources=(embeddings,),
        written=axes(
            model,
            (f"{patches}.weight", 0),
            (f"{patches}.bias", 0),
            *((f"{embeddings}.{name}", 2) for name in tokens),
        ),
        norms=(StreamNorm(f"{base}layernorm", "nothing", "support"),),
        read=axes(model, (f"{base}pooler.dense.weight", 1), *((f"{head}.weight", 1) for head in heads)),
    )


_TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 3,
}

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
    stream=_stream,
    tiny={"vit": _TINY},
)

DEIT = replace(
    VIT,
    name="deit",
    model_type="deit",
    summary="DeiT: ViT with a distillation token, with or without one or two classifiers",
    tiny={
        "deit": _TINY,
        # Classifies the distillation token too.
        "deit-distilled": {**_TINY, "architectures": ["DeiTForImageClassificationWithTeacher"]},
    },
)
