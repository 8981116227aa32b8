"""RoBERTa: post-norm encoder, with or without a task head.

Its blocks are BERT's. What differs is around them: positions count from ``pad_token_id + 1`` and are told
from the ids, the classifier is a small network of its own, and the masked-LM head shares its matrix with the
embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from prunekit.adapters.base import Adapter, StackTable, SublayerTable, axes, base_prefix, has_module
from prunekit.adapters.removed import NoAttentionWithResidual, ResidualOnly
from prunekit.pruning.units import Stream, StreamNorm, TiedHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = SublayerTable(
    role="self_attn",
    inputs=(("attention.self.query", "attention.self.key", "attention.self.value"),),
    output="attention.output.dense",
    norm="attention.output.LayerNorm",
    attention="attention.self",
    # The module adds the residual itself, so its stand-in gives back what it is given.
    dead=(("attention", NoAttentionWithResidual),),
)

FFN = SublayerTable(
    role="ffn",
    inputs=(("intermediate.dense",),),
    output="output.dense",
    norm="output.LayerNorm",
    attention=None,
    dead=(("intermediate", nn.Identity), ("output", ResidualOnly)),
)


def set_heads(attention: Any, kept: tuple[int, ...], total: int) -> None:
    """Tell an attention module how many heads it has left."""
    attention.num_attention_heads = len(kept)
    attention.all_head_size = len(kept) * attention.attention_head_size


def refuse(model: PreTrainedModel) -> str | None:
    """Why ``model`` cannot be pruned, if so."""
    if model.config.is_decoder:
        return "config.is_decoder is true, and this adapter prunes encoders. Load it with is_decoder=False."
    if model.config.chunk_size_feed_forward:
        return "chunk_size_feed_forward is set; load the checkpoint with chunk_size_feed_forward=0."
    return None


def stream(model: Any) -> Stream:
    """Where the residual stream is written and read outside the blocks, on any class of RoBERTa."""
    base = base_prefix(model)
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    embeddings = [f"{base}embeddings.{table}.weight" for table in tables]
    norms = [StreamNorm(f"{base}embeddings.LayerNorm", "mask", "mask")]
    read = [
        (f"{base}pooler.dense.weight", 1),
        ("classifier.dense.weight", 1),  # sequences
        ("classifier.weight", 1),  # tokens
        ("qa_outputs.weight", 1),
    ]
    head = None
    if has_module(model, "lm_head"):
        # A dense layer and a norm, as wide as the stream on both sides, stand before the tied matrix.
        norms.append(StreamNorm("lm_head.layer_norm", "support", "support"))
        read += [("lm_head.dense.weight", 1), ("lm_head.dense.weight", 0), ("lm_head.dense.bias", 0)]
        read += [("lm_head.decoder.weight", 1)]
        head = TiedHead("lm_head.decoder.weight", embeddings[0], "lm_head.layer_norm")
    return Stream(
        sources=(),
        written=axes(model, *((name, 1) for name in embeddings)),
        norms=tuple(norms),
        read=axes(model, *read),
        # Reads the classifier's own layer, which is as wide as the stream but no part of it.
        own=("classifier.out_proj.",),
        head=head,
    )


TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 34,  # 32 tokens: positions start behind the padding's
    "type_vocab_size": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 3,
}

ROBERTA = Adapter(
    name="roberta",
    model_type="roberta",
    summary="RoBERTa: post-norm encoder, with or without a task head",
    stacks=(
        StackTable(
            name="encoder",
            blocks="encoder.layer",
            depth_field="num_hidden_layers",
            ffn_field="intermediate_size",
            heads_field="num_attention_heads",
            sublayers=(ATTENTION, FFN),
        ),
    ),
    post_norm=True,
    head_size="attention_head_size",
    set_heads=set_heads,
    stream=stream,
    refuse=refuse,
    # The same sizes twice, so that all rules are tried on the masked-LM head as well.
    tiny={"roberta": TINY, "roberta-mlm": {**TINY, "architectures": ["RobertaForMaskedLM"]}},
)
