"""T5: relu, gated and v1.1; the encoder alone, with a decoder, with or without a head."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

from prunekit.adapters.base import Adapter, StackTable, SublayerTable, axes, base_prefix
from prunekit.adapters.removed import NoAttentionSublayer
from prunekit.pruning.units import Stream, StreamNorm, TiedHead


class HeadSubsetT5Attention(T5Attention):  # type: ignore[misc]
    """T5 attention that kept some of its heads and takes their columns of the stack's position bias.

    Blocks of a stack share one bias ``[1, H, T_query, T_key]`` at the full head count ``H``. This module
    takes it, selects its own heads, and hands the full one on, so that blocks may keep different heads.
    """

    kept_heads: Tensor
    """Indices of the kept heads among the stack's ``H``, ``[h]``; part of the checkpoint."""

    full_heads: int

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As the stock module's, with the bias at full width going in and out."""
        if position_bias is None:
            position_bias = self._full_bias(hidden_states, mask, key_value_states, past_key_values)
        output, _, weights = super().forward(
            hidden_states,
            mask=mask,
            key_value_states=key_value_states,
            position_bias=position_bias.index_select(1, self.kept_heads),  # [1, h, T_query, T_key]
            past_key_values=past_key_values,
            **kwargs,
        )
        return output, position_bias, weights

    def _full_bias(
        self,
        hidden_states: Tensor,
        mask: Tensor | None,
        key_value_states: Tensor | None,
        past_key_values: Any,
    ) -> Tensor:
        query_length = hidden_states.shape[1]
        seen = 0 if past_key_values is None else past_key_values.get_seq_length(self.layer_idx)
        key_length = query_length + seen if key_value_states is None else key_value_states.shape[1]
        if isinstance(mask, Tensor):
            # A static cache holds more keys than have been seen.
            key_length = mask.shape[-1]
        if self.has_relative_attention_bias:
            seen = seen.clone() if isinstance(seen, Tensor) else seen
            bias: Tensor = self.compute_bias(
                query_length, key_length, device=hidden_states.device, past_seen_tokens=seen
            )
            return bias
        return hidden_states.new_zeros(()).expand(1, self.full_heads, query_length, key_length)


def _set_heads(attention: Any, kept: tuple[int, ...], total: int) -> None:
    device = attention.q.weight.device
    if isinstance(attention, HeadSubsetT5Attention):
        previous = attention.kept_heads
    else:
        attention.full_heads = total
        previous = torch.arange(total, device=device)
    attention.__class__ = HeadSubsetT5Attention
    selected = previous.index_select(0, torch.tensor(kept, device=device, dtype=torch.long))
    attention.register_buffer("kept_heads", selected)
    attention.n_heads = len(kept)
    attention.inner_dim = len(kept) * attention.key_value_proj_dim


class NarrowT5LayerNorm(T5LayerNorm):  # type: ignore[misc]
    """T5's norm at the width that was kept, in float64 where the model is in float64.

    The stock norm rounds to float32 there. Masked and pruned models sum over different numbers of entries, so
    roundings would fall differently, and the two could not be compared to 1e-10.
    """

    def forward(self, hidden_states: Tensor) -> Tensor:
        """As the stock module's in every other precision."""
        result: Tensor = self.weight * _divided_by_rms(self, hidden_states, 1)
        return result


def _divided_by_rms(norm: Any, states: Tensor, gain: Tensor | int) -> Tensor:
    """``states`` over the root of ``gain`` times their mean square."""
    precise = states.to(torch.promote_types(states.dtype, torch.float32))
    variance = precise.pow(2).mean(-1, keepdim=True) * gain
    states = states * torch.rsqrt(variance + norm.variance_epsilon)
    half = norm.weight.dtype in (torch.float16, torch.bfloat16)
    result: Tensor = states.to(norm.weight.dtype) if half else states
    return result


def _kept_norm(norm: Any, states: Tensor, support: Tensor, kept: Tensor, after: Tensor) -> Tensor:
    """T5's norm over the kept dimensions; see ``kept_layer_norm``."""
    after = after.to(norm.weight.dtype)
    result: Tensor = (norm.weight * after) * _divided_by_rms(norm, states, support.numel() / kept)
    if states.dtype == torch.float64:
        # With everything kept it is the stock norm, which rounds to float32.
        stock = type(norm).forward(norm, states) * after
        return torch.where(kept == support.numel(), stock, result)
    return result


def _narrow_norm(norm: Any, width: int) -> None:
    norm.__class__ = NarrowT5LayerNorm


def _stream(model: Any) -> Stream:
    base = base_prefix(model)
    stacks = [f"{base}{name}" for name in _stacks(model.base_model)]
    embeddings = [f"{base}shared", *(f"{stack}.embed_tokens" for stack in stacks)]
    norms = [f"{stack}.final_layer_norm" for stack in stacks]
    head = None
    if hasattr(model, "lm_head"):
        head = TiedHead("lm_head.weight", f"{embeddings[0]}.weight", norms[-1])
    return Stream(
        sources=tuple(embeddings[1:]),
        written=axes(model, *((f"{path}.weight", 1) for path in embeddings)),
        norms=tuple(StreamNorm(path, "nothing", "support") for path in norms),
        read=axes(
            model,
            ("lm_head.weight", 1),
            ("classifier.weight", 1),
            ("qa_outputs.weight", 1),
            ("classification_head.dense.weight", 1),
        ),
        own=("classification_head.out_proj.",),
        head=head,
    )


def _stacks(base: Any) -> dict[str, Any]:
    return {name: getattr(base, name) for name in ("encoder", "decoder") if hasattr(base, name)}


def _bias_tables(base: Any) -> dict[str, nn.Embedding]:
    """Each stack's relative position table, wherever it lives now."""
    tables = {}
    for name, stack in _stacks(base).items():
        for module in stack.modules():
            if isinstance(module, T5Attention) and module.has_relative_attention_bias:
                tables[name] = module.relative_attention_bias
    return tables


def _finish(base: Any, blocks: Mapping[str, list[Any]], tables: Mapping[str, Any]) -> None:
    # The table belongs to the stack: the first block that still has self-attention computes the bias for all.
    for name, survivors in blocks.items():
        alive = [b.layer[0].SelfAttention for b in survivors if hasattr(b.layer[0], "SelfAttention")]
        for index, attention in enumerate(alive):
            # Caches are read by position, so a removed self-attention must not leave a gap.
            attention.layer_idx = index
            attention.has_relative_attention_bias = index == 0
            if index == 0:
                attention.relative_attention_bias = tables[name]
            elif hasattr(attention, "relative_attention_bias"):
                del attention.relative_attention_bias
        cross = [b.layer[1].EncDecAttention for b in survivors if hasattr(b.layer[1], "EncDecAttention")]
        for index, attention in enumerate(cross):
            attention.layer_idx = index


def _get_text_config(self: Any, decoder: bool | None = None, encoder: bool | None = None) -> Any:
    found = T5Config.get_text_config(self, decoder=decoder, encoder=encoder)
    if decoder and not encoder and found.is_encoder_decoder:
        # transformers sizes the decoder's cache by num_layers, which is the encoder's depth.
        found = copy(found)
        found.num_layers = found.num_decoder_layers
    return found


def _is_stock(fields: Mapping[str, int]) -> bool:
    # For the same reason a stock T5 cannot generate where its decoder is the deeper stack.
    return fields["num_layers"] >= fields.get("num_decoder_layers", 0)


def _self_attention() -> SublayerTable:
    path = "layer.0.SelfAttention"
    return SublayerTable(
        role="self_attn",
        inputs=((f"{path}.q", f"{path}.k", f"{path}.v"),),
        output=f"{path}.o",
        norm="layer.0.layer_norm",
        attention=path,
        dead=(("layer.0", NoAttentionSublayer),),
    )


def _cross_attention() -> SublayerTable:
    path = "layer.1.EncDecAttention"
    return SublayerTable(
        role="cross_attn",
        inputs=((f"{path}.q", f"{path}.k", f"{path}.v"),),
        output=f"{path}.o",
        norm="layer.1.layer_norm",
        attention=path,
        dead=(("layer.1", NoAttentionSublayer),),
    )


def _ffn(layer: int) -> SublayerTable:
    path = f"layer.{layer}.DenseReluDense"
    return SublayerTable(
        role="ffn",
        inputs=((f"{path}.wi",), (f"{path}.wi_0", f"{path}.wi_1")),
        output=f"{path}.wo",
        norm=f"layer.{layer}.layer_norm",
        attention=None,
        dead=((f"layer.{layer}", nn.Identity),),
    )


_TINY = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 20,
    "num_heads": 4,
    "num_layers": 3,
    "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
_TINY_GATED = {**_TINY, "feed_forward_proj": "gated-gelu"}

T5 = Adapter(
    name="t5",
    model_type="t5",
    summary="T5, T5 v1.1 and Flan-T5: pre-norm encoder-decoder with shared relative position bias",
    stacks=(
        StackTable(
            "encoder", "encoder.block", "num_layers", "d_ff", "num_heads", (_self_attention(), _ffn(1))
        ),
        StackTable(
            "decoder",
            "decoder.block",
            "num_decoder_layers",
            "d_ff",
            "num_heads",
            (_self_attention(), _cross_attention(), _ffn(2)),
        ),
    ),
    post_norm=False,
    head_size="key_value_proj_dim",
    set_heads=_set_heads,
    shared=_bias_tables,
    finish=_finish,
    is_stock=_is_stock,
    config_members=(("get_text_config", _get_text_config),),
    stream=_stream,
    kept_norm=_kept_norm,
    narrow_norm=_narrow_norm,
    tiny={
        "t5": _TINY,
        "t5-gated": _TINY_GATED,
        # As t5-v1.1-small: the heads together are narrower than the model, and nothing is tied.
        "t5-narrow": {**_TINY_GATED, "num_heads": 3, "tie_word_embeddings": False},
    },
)
