"""Tiny random models of every supported architecture, for checks and tests of methods and adapters."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from prunekit.adapters import prunekit_register_adapters
from prunekit.errors import PluginError, UnsupportedModelError
from prunekit.plugins import get_registry
from prunekit.suggest import did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.adapters.base import Adapter

TINY_MODELS = tuple(variant for adapter in prunekit_register_adapters() for variant in adapter.tiny)
"""Names of the built-in adapters' variants; those of installed adapters can be built too."""

# Of these Auto classes the first that knows a model type gives a variant's main class.
_AUTO_CLASSES = (
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoModelForImageClassification",
    "AutoModelForMaskedLM",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModel",
)


def tiny_model(
    name: str,
    *,
    seed: int = 0,
    model_class: type[Any] | None = None,
    dtype: torch.dtype = torch.float32,
    adapter: Adapter | None = None,
    changes: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """A random model, weights large enough that removing any unit shows in the output, in eval mode.

    Args:
        name: a variant that the adapter declares in ``tiny``.
        seed: of the weights.
        model_class: another class of the same architecture (another head, or none).
        dtype: of the weights.
        adapter: the architecture; left out, that of the built-in and the installed adapters which has the
            variant.
        changes: config fields that differ from the declared ones.

    Raises:
        PluginError: if there is no such variant.
    """
    adapter = adapter or _adapter_of(name)
    found = model_class or tiny_classes(name, adapter)[0]
    fields = {**adapter.tiny[name], **(changes or {})}
    fields.pop("architectures", None)
    config = CONFIG_MAPPING[adapter.model_type](**fields)
    if found.__name__.endswith("ForQuestionAnswering"):
        config.num_labels = 2  # start and end: BERT's head has as many outputs as there are labels
    # Construction draws weights too, which nobody should notice.
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = found(config)
    if fields.get("tie_word_embeddings") is False:
        _untie_head(model)
    fill_weights(model, seed)
    return model.to(dtype).eval()


def tiny_classes(name: str, adapter: Adapter) -> tuple[type[Any], ...]:
    """The classes that transformers has for a variant's model type, the main one first.

    Classes for causal language modelling are among them only where the adapter has no encoder: those of
    encoders compute something else than the model that was trained.

    Raises:
        UnsupportedModelError: if the Auto classes have none, or the variant names one that they do not have.
    """
    config_class = CONFIG_MAPPING[adapter.model_type]
    decoder_only = all(stack.name != "encoder" for stack in adapter.stacks)
    autos = ("AutoModelForCausalLM", *_AUTO_CLASSES) if decoder_only else _AUTO_CLASSES
    found: list[type[Any]] = []
    for auto in autos:
        classes = getattr(modeling_auto, auto)._model_mapping.get(config_class, ())
        found += [each for each in (classes if isinstance(classes, tuple) else (classes,))]
    found = list(dict.fromkeys(found))
    if not found:
        raise UnsupportedModelError(
            f"transformers' Auto classes have no model for the model type {adapter.model_type!r} that "
            f"prunekit could check: none of {', '.join(autos)}."
        )
    for wanted in adapter.tiny[name].get("architectures") or ():
        names = [each.__name__ for each in found]
        if wanted not in names:
            raise UnsupportedModelError(
                f"tiny[{name!r}] of the {adapter.name} adapter names the class {wanted}; the Auto classes "
                f"have {', '.join(names)}{did_you_mean(wanted, names)}"
            )
        found.insert(0, found.pop(names.index(wanted)))
    return tuple(found)


def fill_weights(model: PreTrainedModel, seed: int) -> None:
    """Draw all weights anew, large enough that removing any unit shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.4 if parameter.ndim > 1 else 0.2
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            mean = 1.0 if parameter.ndim == 1 and (parameter == 1).all() else 0.0
            parameter.copy_(mean + scale * noise)


def tiny_inputs(model: PreTrainedModel, *, seed: int = 0, batch: int = 2, length: int = 7) -> dict[str, Any]:
    """A batch that fits ``model``, on the CPU: token ids with one padded row, or images.

    Where the model's classifier looks for an end token, each row has one.

    Raises:
        UnsupportedModelError: if the model reads neither token ids nor images.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    if model.main_input_name == "pixel_values":
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (batch, config.num_channels, height, width)
        return {"pixel_values": torch.randn(shape, generator=generator).to(model.dtype)}
    if model.main_input_name != "input_ids":
        raise UnsupportedModelError(
            f"{type(model).__name__} reads {model.main_input_name!r}; prunekit has tiny inputs for input_ids "
            "and pixel_values only."
        )
    ids = torch.randint(3, config.vocab_size, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    if config.pad_token_id is not None:
        ids[mask == 0] = config.pad_token_id  # some models tell positions from the ids
    inputs = {"input_ids": ids, "attention_mask": mask}
    if _classifies_an_end_token(model):
        ids[ids == config.eos_token_id] = 3
        ids[:, 2] = config.eos_token_id
    elif hasattr(model.base_model, "decoder") and "decoder_input_ids" in signature(model.forward).parameters:
        inputs["decoder_input_ids"] = torch.randint(3, config.vocab_size, (batch, 5), generator=generator)
    return inputs


def _classifies_an_end_token(model: PreTrainedModel) -> bool:
    return bool(model.config.is_encoder_decoder) and type(model).__name__.endswith(
        "ForSequenceClassification"
    )


def _adapter_of(name: str) -> Adapter:
    # The built-in variants are found without loading a plugin.
    known = prunekit_register_adapters() if name in TINY_MODELS else list(get_registry().adapters.values())
    for adapter in known:
        if name in adapter.tiny:
            return adapter
    names = sorted({variant for adapter in known for variant in adapter.tiny})
    raise PluginError(f"no tiny model {name!r}{did_you_mean(name, names)} (there are: {', '.join(names)})")


def _untie_head(model: Any) -> None:
    """Give the output head its own matrix, as such checkpoints do when transformers loads them."""
    head = model.get_output_embeddings()
    for name in list(model.all_tied_weights_keys):
        module, _, parameter = name.rpartition(".")
        if model.get_submodule(module) is head:
            setattr(head, parameter, torch.nn.Parameter(getattr(head, parameter).detach().clone()))
            model.all_tied_weights_keys.pop(name)
