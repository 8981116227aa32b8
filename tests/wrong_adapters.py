"""Adapters with one fault each, for every rule of the suite: a built-in table with something changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from prunekit.adapters.bart import BART
from prunekit.adapters.base import Adapter, SublayerTable
from prunekit.adapters.bert import BERT
from prunekit.adapters.norms import kept_layer_norm
from prunekit.adapters.removed import NoAttention, NoContribution
from prunekit.adapters.t5 import T5, HeadSubsetT5Attention
from prunekit.adapters.vit import VIT


@dataclass(frozen=True)
class Wrong:
    """An adapter, the rule that it is wrong for, and a part of what that rule must say.

    Args:
        adapter: the wrong one.
        rule: which must catch it.
        text: part of the reason.
        others: rules that cannot but fail with it.
    """

    adapter: Adapter
    rule: str
    text: str
    others: tuple[str, ...] = ()


def one_variant(adapter: Adapter, variant: str = "", **changes: object) -> Adapter:
    """The adapter with one of its tiny models, and fields of that changed."""
    name = variant or next(iter(adapter.tiny))
    return replace(adapter, tiny={name: {**adapter.tiny[name], **changes}})


def with_sublayer(adapter: Adapter, role: str, stack: int = 0, **changes: object) -> Adapter:
    """The adapter with fields of one sublayer's table changed."""

    def changed(table: SublayerTable) -> SublayerTable:
        return replace(table, **changes) if table.role == role else table

    stacks = list(adapter.stacks)
    stacks[stack] = replace(stacks[stack], sublayers=tuple(map(changed, stacks[stack].sublayers)))
    return replace(adapter, stacks=tuple(stacks))


def with_stack(adapter: Adapter, stack: int = 0, **changes: object) -> Adapter:
    """The adapter with fields of one stack's table changed."""
    stacks = list(adapter.stacks)
    stacks[stack] = replace(stacks[stack], **changes)
    return replace(adapter, stacks=tuple(stacks))


def _without_stream(adapter: Adapter) -> Adapter:
    return replace(adapter, stream=None)


def _swapped_norms() -> Adapter:
    swapped = with_sublayer(_without_stream(VIT), "self_attn", norm="layernorm_after")
    return with_sublayer(swapped, "ffn", norm="layernorm_before")


def _norm_that_stays() -> Adapter:
    dead = (("attention", NoAttention),)
    return with_sublayer(_without_stream(VIT), "self_attn", dead=dead)


def _post_norm_taken_for_pre_norm() -> Adapter:
    attention = (("attention.output.dense", NoContribution), ("attention.self", NoAttention))
    ffn = (("output.dense", NoContribution), ("intermediate.dense", nn.Identity))
    wrong = with_sublayer(_without_stream(BERT), "self_attn", dead=attention)
    return replace(with_sublayer(wrong, "ffn", dead=ffn), post_norm=False)


def _norm_of_all_dimensions(norm, states, support, kept, after):
    return nn.functional.layer_norm(states, norm.normalized_shape, norm.weight, norm.bias, norm.eps) * after


def _detached_norm(norm, states, support, kept, after):
    return kept_layer_norm(norm, states.detach(), support, kept, after)


def _untie(base, blocks, shared):
    table = base.embeddings.word_embeddings
    table.weight = nn.Parameter(table.weight.detach().clone())


def _config_without_the_record(self):
    fields = super(type(self), self).to_dict()
    fields.pop("prunekit", None)
    return fields


def _heads_of_the_first_cut(attention, kept, total):
    # Forgets which heads an earlier cut left.
    attention.full_heads = getattr(attention, "full_heads", total)
    attention.__class__ = HeadSubsetT5Attention
    attention.register_buffer("kept_heads", torch.tensor(kept, device=attention.q.weight.device))
    attention.n_heads = len(kept)
    attention.inner_dim = len(kept) * attention.key_value_proj_dim


_STAYS = "cost-equals-counted-parameters"

WRONG: dict[str, Callable[[], Wrong]] = {
    "no summary": lambda: Wrong(replace(BERT, summary=""), "declaration-complete", "the summary is ''"),
    "no tiny model": lambda: Wrong(replace(BERT, tiny={}), "tiny-declared", "bert.tiny is empty"),
    "a misspelt field": lambda: Wrong(
        one_variant(BERT, hiden_size=8),
        "tiny-declared",
        "fields that BertConfig does not know, so they change nothing: hiden_size; did you mean hidden_size?",
    ),
    "two blocks": lambda: Wrong(
        one_variant(VIT, num_hidden_layers=2), "tiny-declared", "num_hidden_layers = 2 for the encoder; use 3"
    ),
    "a path that leads nowhere": lambda: Wrong(
        with_sublayer(BERT, "ffn", norm="output.layer_norm"),
        "every-path-resolves",
        "bert: no module 'bert.encoder.layer.0.output.layer_norm' in BertForSequenceClassification",
    ),
    "the wrong heads field": lambda: Wrong(
        with_stack(BART, 1, heads_field="encoder_attention_heads"),
        "sizes-follow-the-config",
        "with encoder_attention_heads = 2 in the config, decoder.0.self_attn has 4 heads",
    ),
    "the head count taken for the head size": lambda: Wrong(
        replace(VIT, head_size="num_attention_heads"),
        "sizes-follow-the-config",
        "Is `head_size` the attribute that holds the size of one head?",
        ("prunes-again",),
    ),
    "an output of another width": lambda: Wrong(
        with_sublayer(VIT, "ffn", output="attention.o_proj"),
        "slices-have-the-right-length",
        "axis 1 of vit.layers.0.attention.o_proj.weight has 16 entries; 20 units of width 1 own 20.",
        ("no-prunable-axis-missed",),
    ),
    "half of a gated FFN": lambda: Wrong(
        with_sublayer(one_variant(T5, "t5-gated"), "ffn", inputs=(("layer.1.DenseReluDense.wi_0",),)),
        "no-prunable-axis-missed",
        "layer.1.DenseReluDense.wi_1.weight",
        (
            _STAYS,
            "cost-equals-counted-macs",
            "masked-equals-pruned",
            "cached-equals-uncached-generation",
            "strict-reload",
            "stock-when-regular",
            "prunes-again",
        ),
    ),
    "an encoder-decoder's encoder alone": lambda: Wrong(
        replace(_without_stream(BART), stacks=BART.stacks[:1]),
        "no-prunable-axis-missed",
        "model.decoder.layers of BartForConditionalGeneration is a list of 3 BartDecoderLayer, and no stack",
    ),
    "norms of each other": lambda: Wrong(
        _swapped_norms(),
        "norms-stand-where-declared",
        "the norm that runs right before its inputs is vit.layers.0.layernorm_before, the table says",
    ),
    "a norm that stays": lambda: Wrong(
        _norm_that_stays(),
        _STAYS,
        "every module of a sublayer, its norm included, must be replaced in `dead`",
    ),
    "patches without the class token": lambda: Wrong(
        replace(VIT, sequence_length=lambda model: 4),
        "cost-equals-counted-macs",
        "sequence_length gives 4, and the blocks run on 5 tokens",
    ),
    "statistics over removed dimensions": lambda: Wrong(
        replace(BERT, kept_norm=_norm_of_all_dimensions),
        "masked-equals-pruned",
        "without units of hidden, masked and pruned model differ by",
        ("prunes-again",),
    ),
    "a post-norm that runs on": lambda: Wrong(
        _post_norm_taken_for_pre_norm(),
        "zero-mask-means-identity",
        "every sublayer of block 1 of the encoder masked: the block should give back its input",
        ("norms-stand-where-declared", _STAYS),
    ),
    "a norm that stops gradients": lambda: Wrong(
        replace(BERT, kept_norm=_detached_norm), "gradients-reach-masks", "the mask of hidden"
    ),
    "caches with a gap": lambda: Wrong(
        replace(BART, finish=lambda base, blocks, shared: None),
        "cached-equals-uncached-generation",
        "`finish` must number the surviving attentions without a gap (`layer_idx`)",
    ),
    "an embedding that leaves its head": lambda: Wrong(
        replace(one_variant(BERT, architectures=["BertForMaskedLM"]), finish=_untie),
        "tied-weights-stay-tied",
        "after pruning, PrunekitBertForMaskedLM has other ties than the dense model",
        (_STAYS,),
    ),
    "a record that is not saved": lambda: Wrong(
        replace(BERT, config_members=(("to_dict", _config_without_the_record),)),
        "strict-reload",
        "cannot be saved and loaded again: CheckpointError: config.json has no structure",
        ("tied-weights-stay-tied", "prunes-again"),
    ),
    "stock where transformers fails": lambda: Wrong(
        replace(one_variant(T5, "t5"), is_stock=lambda fields: True),
        "stock-when-regular",
        "the stock T5ForConditionalGeneration that transformers loads generates something else with a cache",
        ("cached-equals-uncached-generation",),
    ),
    "heads counted from the last cut": lambda: Wrong(
        replace(one_variant(T5, "t5"), set_heads=_heads_of_the_first_cut),
        "prunes-again",
        "without units of a model that was pruned before, masked and pruned model differ by",
    ),
    "cross-attention that is not refused": lambda: Wrong(
        replace(BERT, refuse=lambda model: None),
        "variants-work-or-are-refused",
        "with is_decoder=True, add_cross_attention=True (or refuse it in `refuse`), BertLMHeadModel has",
    ),
    "a refusal without a reason": lambda: Wrong(
        replace(BERT, refuse=lambda model: "no decoders" if model.config.is_decoder else None),
        "variants-work-or-are-refused",
        "with is_decoder=True the model is refused, but the reason is 'no decoders'. Say in `refuse` what",
    ),
    "a config that is changed": lambda: Wrong(
        replace(VIT, refuse=lambda model: setattr(model.config, "image_size", [8, 8])),
        "dense-model-untouched",
        "pruning changed the dense model's config",
    ),
}
