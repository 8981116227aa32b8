"""MACs of a call, counted by torch while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def count_macs(model: PreTrainedModel, inputs: Mapping[str, Any]) -> int:
    """MACs of one forward pass, by torch's counter. One MAC is one multiply-add; FLOPs are twice that."""
    return call_macs(model, lambda: model(**inputs))


def call_macs(model: PreTrainedModel, call: Callable[[], object]) -> int:
    """MACs of whatever ``call`` does with ``model``, such as one ``generate``.

    Run once, in eval mode and with eager attention: the counter does not see the fused attention kernel of
    CPUs. Embeddings' look-ups, norms and activations are no MACs.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    kernel = model.config._attn_implementation
    was_training = model.training
    model.eval()
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
    finally:
        model.set_attn_implementation(kernel)
        model.train(was_training)
    return int(counter.get_total_flops()) // 2
