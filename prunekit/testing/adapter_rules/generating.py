"""Rules about generation: with and without a cache, pruned and masked, the same tokens come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunekit.pruning.units import block_group, sublayer_group
from prunekit.testing.adapter_rules.compare import TOLERANCE, Masks, exact, expect, irregular, off, pruned
from prunekit.testing.adapter_subject import AdapterSubject
from prunekit.testing.outcome import NotApplicable

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel

_NEW_TOKENS = 5


def cached_equals_uncached_generation(subject: AdapterSubject) -> None:
    """A pruned decoder writes the same with a cache and without one, and the same as the masked model."""
    tried = 0
    for target in subject.each():
        model = target.model
        if "decoder" not in target.structure.stacks or not model.can_generate():
            continue
        tried += 1
        inputs = subject.inputs(model)
        if not same_text(generate(model, inputs, cache=True), generate(model, inputs, cache=False)):
            raise NotApplicable(f"{type(model).__name__} itself writes something else with a cache")
        for what, masks in _removals(target).items():
            assert_same_text(target, masks, inputs, what)
    if not tried:
        raise NotApplicable("no class of this architecture generates")


def assert_same_text(target: PrunableModel, masks: Masks, inputs: Mapping[str, Any], what: str) -> None:
    """Compare what the pruned model generates with a cache, without one, and masked.

    Raises:
        CheckFailed: if any two differ in tokens, or in logits by more than rounding.
    """
    name = type(target.model).__name__
    _, small = pruned(target, masks, what)
    with target.masked({group: mask.to(target.model.device) for group, mask in masks.items()}):
        wanted = generate(target.model, inputs, cache=False)
    uncached = generate(small.model, inputs, cache=False)
    expect(
        same_text(uncached, wanted),
        f"without {what}, {name} generates other tokens or logits pruned than masked, both without a cache. "
        "See masked-equals-pruned.",
    )
    try:
        cached = generate(small.model, inputs, cache=True)
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        cached, reason = None, f" ({type(error).__name__}: {error})"
    else:
        reason = ""
    expect(
        cached is not None and same_text(cached, uncached),
        f"without {what}, pruned {name} generates something else with a cache than without{reason}. Caches "
        "are read by position: `finish` must number the surviving attentions without a gap (`layer_idx`), "
        "and the length seen so far must not come from an attention that is gone.",
    )


def _removals(target: PrunableModel) -> dict[str, Masks]:
    """What moves or removes entries of the cache."""
    stack = target.structure.stacks["decoder"]
    blocks, last = block_group("decoder"), stack.depth - 1
    attention = [role for role in stack.roles if role != "ffn"]
    found = {
        "block 0 of the decoder": off(target, (blocks, 0)),
        "all but the last block of the decoder": off(target, *((blocks, block) for block in range(last))),
        "units, a sublayer and a block of every stack": irregular(target),
    }
    for role in attention:
        first, group = f"decoder.0.{role}.heads", sublayer_group("decoder", role)
        found[f"decoder.0.{role}"] = off(target, (group, 0))
        found[f"heads of {role} in the decoder"] = off(
            target, (first, 0), (f"decoder.{last}.{role}.heads", target.groups[first].size - 1)
        )
        found[f"every {role} of the decoder"] = off(target, (group, None))
    if "encoder" in target.structure.stacks:
        found["block 0 of the encoder"] = off(target, (block_group("encoder"), 0))
    return found


def generate(model: Any, inputs: Mapping[str, Any], *, cache: bool) -> tuple[Tensor, Tensor]:
    """Tokens ``[B, T]`` of a forced length, and the logits of each step ``[T, B, V]``."""
    given = {name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values") if name in inputs}
    if not model.config.is_encoder_decoder:
        # Prompts of decoders are padded on the left; here they are not padded at all.
        given = {"input_ids": given["input_ids"][-1:], "attention_mask": given["attention_mask"][-1:]}
    with exact():
        found = model.generate(
            **given,
            min_new_tokens=_NEW_TOKENS,
            max_new_tokens=_NEW_TOKENS,
            do_sample=False,
            num_beams=1,
            use_cache=cache,
            return_dict_in_generate=True,
            output_logits=True,
        )
    return found.sequences, torch.stack(found.logits)


def same_text(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    """Whether two generations have the same tokens, and logits that differ by rounding alone."""
    if first[0].shape != second[0].shape or not torch.equal(first[0], second[0]):
        return False
    largest = max(1.0, float(first[1].abs().max()))
    return float((first[1] - second[1]).abs().max()) <= TOLERANCE * largest
