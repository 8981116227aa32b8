"""BART: post-norm encoder-decoder with learned positions and biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers.models.bart.modeling_bart import BartAttention

from prunekit.adapters.base import Adapter, StackTable, SublayerTable, axes, base_prefix
from prunekit.adapters.removed import NoAttention, NoContribution
from prunekit.pruning.units import Stream, StreamNorm, TiedHead


class NoAttentionCountsTokens(NoAttention):
    """Replaces the first of a decoder's self-attentions where none is left.

    BART takes the position of the next token from the length of the first self-attention's cache, so
    something has to be cached for every token.
    """

    def forward(
        self, hidden_states: Tensor, *args: Any, past_key_values: Any = None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Zeros."""
        if past_key_values is not None:
            cache = getattr(past_key_values, "self_attention_cache", past_key_values)
            batch, tokens, _ = hidden_states.shape
            entry = hidden_states.new_zeros(batch, 1, tokens, 1)  # [B, 1, T, 1]
            cache.update(entry, entry, 0)
        return super().forward(hidden_states)


def _attention(role: Any, path: str) -> SublayerTable:
    norm = f"{path}_layer_norm"
    return SublayerTable(
        role=role,
        inputs=((f"{path}.q_proj", f"{path}.k_proj", f"{path}.v_proj"),),
        output=f"{path}.out_proj",
        norm=norm,
        attention=path,
        dead=((path, NoAttention), (norm, nn.Identity)),
    )


_FFN = SublayerTable(
    role="ffn",
    inputs=(("fc1",),),
    output="fc2",
    norm="final_layer_norm",
    attention=None,
    dead=(("fc1", nn.Identity), ("fc2", NoContribution), ("final_layer_norm", nn.Identity)),
)


def _set_heads(attention: Any, kept: tuple[int, ...], total: int) -> None:
    attention.num_heads = len(kept)


def _finish(base: Any, blocks: Mapping[str, list[Any]], shared: Mapping[str, Any]) -> None:
    # Caches are read by position, so a removed block or attention must not leave a gap.
    for survivors in blocks.values():
        for name in ("self_attn", "encoder_attn"):
            modules = [getattr(block, name, None) for block in survivors]
            alive = [module for module in modules if isinstance(module, BartAttention)]
            for index, attention in enumerate(alive):
                attention.layer_idx = index
    decoder = blocks.get("decoder", [])
    if decoder and all(isinstance(block.self_attn, NoAttention) for block in decoder):
        decoder[0].self_attn = NoAttentionCountsTokens()


def _stream(model: Any) -> Stream:
    base = base_prefix(model)
    stacks = [f"{base}{name}" for name in ("encoder", "decoder") if hasattr(model.base_model, name)]
    embeddings = [
        f"{stack}.{table}.weight" for stack in stacks for table in ("embed_tokens", "embed_positions")
    ]
    norms = [f"{stack}.layernorm_embedding" for stack in stacks]
    head = None
    if hasattr(model, "lm_head"):
        head = TiedHead("lm_head.weight", f"{stacks[-1]}.embed_tokens.weight", norms[-1], "decoder")
    return Stream(
        sources=(),
        written=axes(model, (f"{base}shared.weight", 1), *((name, 1) for name in embeddings)),
        norms=tuple(StreamNorm(path, "mask", "mask") for path in norms),
        read=axes(
            model, ("lm_head.weight", 1), ("qa_outputs.weight", 1), ("classification_head.dense.weight", 1)
        ),
        own=("classification_head.out_proj.",),
        head=head,
    )


_TINY = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "dropout": 0.0,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}

BART = Adapter(
    name="bart",
    model_type="bart",
    summary="BART: post-norm encoder-decoder with learned positions and biases",
    stacks=(
        StackTable(
            "encoder",
            "encoder.layers",
            "encoder_layers",
            "encoder_ffn_dim",
            "encoder_attention_heads",
            (_attention("self_attn", "self_attn"), _FFN),
        ),
        StackTable(
            "decoder",
            "decoder.layers",
            "decoder_layers",
            "decoder_ffn_dim",
            "decoder_attention_heads",
            (_attention("self_attn", "self_attn"), _attention("cross_attn", "encoder_attn"), _FFN),
        ),
    ),
    post_norm=True,
    head_size="head_dim",
    set_heads=_set_heads,
    finish=_finish,
    stream=_stream,
    tiny={"bart": _TINY},
)
