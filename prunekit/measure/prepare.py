"""A model as it is measured: eval mode, dtype, attention, plain generation; put back exactly afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

    from prunekit.recipe import SpeedSpec

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_STOPPING = ("max_length", "min_length", "min_new_tokens", "max_time", "stop_strings")
_OUTPUTS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")


def generates(model: PreTrainedModel) -> bool:
    """Whether users wait for ``generate`` (encoder-decoders with a language head) or for ``forward``."""
    return bool(model.config.is_encoder_decoder and model.can_generate())


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """Run the block on ``count`` torch threads; ``None`` leaves them alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def prepared(model: PreTrainedModel, spec: SpeedSpec) -> Iterator[None]:
    """Eval mode, attention, generation settings and dtype of ``spec`` while the block runs."""
    training = [(module, module.training) for module in model.modules()]
    attention = model.config._attn_implementation
    try:
        model.eval()
        model.set_attn_implementation(spec.attention)
        with _plain_generation(model, spec), _cast(model, DTYPES[spec.dtype]):
            yield
    finally:
        model.set_attn_implementation(attention)
        for module, flag in training:
            module.training = flag


@contextmanager
def _cast(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Floating tensors in ``dtype``; afterwards the very same tensors, since a cast back would round them."""
    parameters = [
        (parameter, parameter.data) for parameter in model.parameters() if parameter.is_floating_point()
    ]
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point()
    ]
    try:
        for parameter, data in parameters:
            parameter.data = data.to(dtype)
        for module, name, buffer in buffers:
            setattr(module, name, buffer.to(dtype))
        yield
    finally:
        for parameter, data in parameters:
            parameter.data = data
        for module, name, buffer in buffers:
            setattr(module, name, buffer)


@contextmanager
def _plain_generation(model: PreTrainedModel, spec: SpeedSpec) -> Iterator[None]:
    if not generates(model):
        yield
        return
    own = model.generation_config
    model.generation_config = _plain_generation_config(model, spec)
    try:
        yield
    finally:
        model.generation_config = own


def _plain_generation_config(model: PreTrainedModel, spec: SpeedSpec) -> GenerationConfig:
    """The model's own generation settings as greedy or beam search of ``spec.num_beams``, without lengths.

    It has to take the place of the model's own while measuring: ``generate`` fills every field that a given
    config leaves empty from the model's, which brings lengths back and warnings with them.
    """
    config = copy.deepcopy(model.generation_config)
    for name in (*_SAMPLING, *_STOPPING, *_OUTPUTS, "num_return_sequences"):
        setattr(config, name, None)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        if getattr(config, name) is None:
            setattr(config, name, getattr(model.config, name, None))
    config.do_sample = False
    config.return_dict_in_generate = False
    config.use_cache = True
    config.cache_implementation = None
    config.disable_compile = True  # transformers would compile a static cache's calls by itself on a GPU
    config.num_beams = spec.num_beams
    if spec.num_beams == 1:  # settings of beam search, which transformers would warn about
        config.early_stopping = config.length_penalty = None
    elif spec.length_penalty is not None:
        config.length_penalty = spec.length_penalty
    return config
