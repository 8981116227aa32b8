"""Tiny random models of every supported architecture, for tests of methods and adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

VOCABULARY = 40


def _t5_config(**changes: Any) -> T5Config:
    settings = {
        "vocab_size": VOCABULARY,
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
    return T5Config(**{**settings, **changes})


def _bart_config(**changes: Any) -> BartConfig:
    settings = {
        "vocab_size": VOCABULARY,
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
    return BartConfig(**{**settings, **changes})


def _bert_config(**changes: Any) -> BertConfig:
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 20,
        "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "num_labels": 3,
    }
    return BertConfig(**{**settings, **changes})


_IMAGE_ENCODER: dict[str, Any] = {
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


_BUILDERS: dict[str, tuple[type[Any], Callable[[], Any]]] = {
    "t5": (T5ForConditionalGeneration, _t5_config),
    "t5-gated": (T5ForConditionalGeneration, lambda: _t5_config(feed_forward_proj="gated-gelu")),
    # As t5-v1.1-small: the heads together are narrower than the model, and nothing is tied.
    "t5-narrow": (
        T5ForConditionalGeneration,
        lambda: _t5_config(num_heads=3, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    ),
    "bart": (BartForConditionalGeneration, _bart_config),
    "bert": (BertForSequenceClassification, _bert_config),
    "vit": (ViTForImageClassification, lambda: ViTConfig(**_IMAGE_ENCODER)),
    "deit": (DeiTForImageClassification, lambda: DeiTConfig(**_IMAGE_ENCODER)),
    # Classifies the distillation token too.
    "deit-distilled": (DeiTForImageClassificationWithTeacher, lambda: DeiTConfig(**_IMAGE_ENCODER)),
}

TINY_MODELS = tuple(_BUILDERS)


def tiny_model(
    name: str, *, seed: int = 0, model_class: type[Any] | None = None, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A random model, weights large enough that removing any unit shows in the output, in eval mode.

    Args:
        name: one of ``TINY_MODELS``.
        seed: of the weights.
        model_class: another class of the same architecture (another head, or none).
        dtype: of the weights.
    """
    default_class, make_config = _BUILDERS[name]
    generator = torch.Generator().manual_seed(seed)
    config = make_config()
    if model_class is not None and model_class.__name__.endswith("ForQuestionAnswering"):
        config.num_labels = 2  # start and end: BERT's head has as many outputs as there are labels
    model: PreTrainedModel = (model_class or default_class)(config)
    if name == "t5-narrow" and hasattr(model, "lm_head"):
        _untie(model)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.4 if parameter.ndim > 1 else 0.2
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            mean = 1.0 if parameter.ndim == 1 and (parameter == 1).all() else 0.0
            parameter.copy_(mean + scale * noise)
    return model.to(dtype).eval()


def _untie(model: Any) -> None:
    """Give T5 v1.1's head its own matrix, as its checkpoints do when transformers loads them."""
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.all_tied_weights_keys.pop("lm_head.weight")


def tiny_inputs(model: PreTrainedModel, *, seed: int = 0, batch: int = 2, length: int = 7) -> dict[str, Any]:
    """A batch that fits ``model``: token ids with one padded row, or images; labels for decoders."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    if model.main_input_name == "pixel_values":
        shape = (batch, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(shape, generator=generator).to(model.dtype)}
    ids = torch.randint(3, VOCABULARY, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if hasattr(model.base_model, "decoder"):
        inputs["decoder_input_ids"] = torch.randint(3, VOCABULARY, (batch, 5), generator=generator)
    return inputs
