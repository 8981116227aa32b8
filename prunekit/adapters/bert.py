"""BERT: post-norm encoder, with or without a task head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from prunekit.adapters.base import Adapter, StackTable, SublayerTable, axes, base_prefix, has_module
from prunekit.adapters.removed import NoAttentionWithResidual, ResidualOnly
from prunekit.pruning.units import Stream, StreamNorm, TiedHead

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


def _stream(model: Any) -> Stream:
    base = base_prefix(model)
    embeddings = [
        f"{base}embeddings.{name}.weight"
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")
    ]
    norms = [StreamNorm(f"{base}embeddings.LayerNorm", "mask", "mask")]
    pooled = model.base_model.pooler is not None
    # Classifiers read the pooler where there is one, else the stream; the pooler's output is its own.
    read = [(f"{base}pooler.dense.weight", 1)] if pooled else []
    own = ("cls.seq_relationship.", *(("classifier.",) if pooled else ()))
    head = None
    transform = "cls.predictions.transform"
    if has_module(model, transform):
        # Its output is as wide as the embedding, which may be its head.
        norms.append(StreamNorm(f"{transform}.LayerNorm", "support", "support"))
        read += [(f"{transform}.dense.weight", 1), (f"{transform}.dense.weight", 0)]
        read += [(f"{transform}.dense.bias", 0), ("cls.predictions.decoder.weight", 1)]
        head = TiedHead("cls.predictions.decoder.weight", embeddings[0], f"{transform}.LayerNorm")
    if not pooled:
        read += [("classifier.weight", 1), ("qa_outputs.weight", 1)]
    return Stream(
        sources=(),
        written=axes(model, *((name, 1) for name in embeddings)),
        norms=tuple(norms),
        read=axes(model, *read),
        own=own,
        head=head,
    )


_TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 3,
}

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
    stream=_stream,
    refuse=_refuse,
    tiny={"bert": _TINY},
)
