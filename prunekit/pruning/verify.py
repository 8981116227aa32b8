"""The certificate of every run: the masked dense model and the pruned model are the same function."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunekit.errors import VerificationError
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import HIDDEN

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.pruning.target import PrunableModel

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
NEW_TOKENS = 12
BEAMS = 3
ONLY_PLAN = "A run saves no such model"
"""Opens what the text of the error says beside the figures."""
# What is compared of a model with a head.
_HEADS = (("logits",), ("start_logits", "end_logits"))


def verify(
    target: PrunableModel, pruned: PrunableModel, plan: PruningPlan, batch: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Compare the dense model under the plan's masks with the pruned model, on the CPU.

    Surgery is repeated in float64, where nothing but rounding at 1e-16 can differ; the model that will be
    saved is compared in float32.

    Args:
        target: the dense model, holding the weights that ``pruned`` was cut from.
        pruned: what surgery made of it.
        plan: the plan.
        batch: inputs of the model, with labels if its task has them.

    Returns:
        ``masked_vs_pruned_max_abs`` over logits (of start and end, where an answer is marked in a text; last
        hidden states, where there is no head) and encoder states and its ``tolerance`` (1e-10 of the largest
        value, at least 1) in float64; ``float32_max_abs`` and ``float32_tolerance`` likewise; for
        encoder-decoders whether cached equals uncached generation and whether beam search gives the same
        tokens, else none.

    Raises:
        VerificationError: if they differ by more than the tolerance, or generate different tokens.
    """
    exact = type(target)(deepcopy(target.model).cpu().double().eval(), target.adapter)
    exact_pruned = exact.pruned(plan)
    single = type(target)(deepcopy(target.model).float().cpu().eval(), target.adapter)
    single_pruned = type(target)(deepcopy(pruned.model).float().cpu().eval(), target.adapter)
    difference, tolerance = _compare(exact, exact_pruned, plan, batch)
    found: dict[str, Any] = {
        "masked_vs_pruned_max_abs": difference,
        "tolerance": tolerance,
        **dict(
            zip(
                ("float32_max_abs", "float32_tolerance"),
                _compare(single, single_pruned, plan, batch),
                strict=True,
            )
        ),
        "cached_equals_uncached": None,
        "generation_equals_masked": None,
    }
    if exact.model.config.is_encoder_decoder and exact.model.can_generate():
        with exact.masked(plan.masks(target.groups)):
            wanted = forced_generation(exact.model, batch, use_cache=True)
        cached = forced_generation(exact_pruned.model, batch, use_cache=True)
        uncached = forced_generation(exact_pruned.model, batch, use_cache=False)
        found["cached_equals_uncached"] = torch.equal(cached, uncached)
        found["generation_equals_masked"] = torch.equal(cached, wanted)
    _refuse_unequal(found, target.adapter.name)
    return found


def _compare(
    dense: PrunableModel, pruned: PrunableModel, plan: PruningPlan, batch: Mapping[str, Tensor]
) -> tuple[float, float]:
    """Largest difference between masked and pruned outputs, and the largest allowed."""
    dtype = dense.model.dtype
    inputs = {name: t.to(dtype) if t.is_floating_point() else t for name, t in batch.items()}
    masks = {name: mask.to(dtype) for name, mask in plan.masks(dense.groups).items()}
    with torch.inference_mode():
        with dense.masked(masks):
            masked = _outputs(dense.model, inputs)
        cut = _outputs(pruned.model, inputs)
    masked = [_narrowed(state, plan, other) for state, other in zip(masked, cut, strict=True)]
    largest = max(1.0, *(float(t.abs().max()) for t in masked))
    difference = max(float((a - b).abs().max()) for a, b in zip(masked, cut, strict=True))
    return difference, TOLERANCE[dtype] * largest


def _narrowed(state: Tensor, plan: PruningPlan, other: Tensor) -> Tensor:
    """The kept hidden units of a state that is as wide as the residual stream; ``other`` was cut to them."""
    if state.shape == other.shape:
        return state
    return state[..., list(plan.keep[HIDDEN])]


def _refuse_unequal(found: Mapping[str, Any], adapter: str) -> None:
    pairs = (("masked_vs_pruned_max_abs", "tolerance"), ("float32_max_abs", "float32_tolerance"))
    # Written so that NaN is refused too.
    faults = [f"{a} is {found[a]:.3g} (allowed {found[b]:.3g})" for a, b in pairs if not found[a] <= found[b]]
    faults += [f"{name} is false" for name, value in found.items() if value is False]
    if faults:
        raise VerificationError(
            f"the pruned model is not the masked model: {'; '.join(faults)}. {ONLY_PLAN}, only its "
            f"plan.json. This is a fault of the {adapter} adapter or of surgery, not of your recipe; please "
            "report it with that plan."
        )


def _outputs(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    output = model(**inputs)
    main = next((names for names in _HEADS if hasattr(output, names[0])), ("last_hidden_state",))
    states = getattr(output, "encoder_last_hidden_state", None)
    return [*(output[name] for name in main), *([] if states is None else [states])]


@torch.inference_mode()
def forced_generation(model: Any, inputs: Mapping[str, Tensor], *, use_cache: bool) -> Tensor:
    """Tokens that beam search gives, ``[B, T]``, at a forced length."""
    # A forced length, so that every step of the search is compared.
    tokens: Tensor = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
        num_beams=BEAMS,
        do_sample=False,
        use_cache=use_cache,
    )
    return tokens


def reload_difference(
    model: PreTrainedModel, reloaded: PreTrainedModel, batch: Mapping[str, Tensor]
) -> float:
    """Largest difference between a model's outputs and those of its reloaded copy; 0 if bit-identical."""
    with torch.inference_mode():
        before = _outputs(model.cpu().eval(), batch)
        after = _outputs(reloaded.cpu().eval(), batch)
    return max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True))
