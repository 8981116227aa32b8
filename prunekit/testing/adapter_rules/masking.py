"""Rules about masks: the masked model is the pruned model, and what is masked away is away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunekit.pruning.units import HIDDEN, block_group, sublayer_group
from prunekit.testing.adapter_rules.compare import (
    TOLERANCE,
    VISIBLE,
    Masks,
    difference,
    edges,
    exact,
    exact_with_gradients,
    expect,
    mixtures,
    narrowed,
    off,
    outputs,
    pruned,
    random_masks,
)
from prunekit.testing.adapter_subject import AdapterSubject

if TYPE_CHECKING:
    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.pruning.units import Stack

KERNELS = ("sdpa", "eager")
_STEP = 1e-6


def masked_equals_pruned(subject: AdapterSubject) -> None:
    """Masking units and cutting them out give the same function, in float64, eager and sdpa."""
    for target in subject.each():
        main = type(target.model) is subject.classes[0]
        expect(
            not main or subject.adapter.stream is None or HIDDEN in target.groups,
            f"the adapter has a `stream`, but hidden units of {type(target.model).__name__} cannot be "
            f"removed: {target.structure.no_hidden}.",
        )
        inputs = subject.inputs(target.model)
        if not main:
            for what, masks in mixtures(target).items():
                assert_masked_is_pruned(target, masks, inputs, what, visible=False)
            continue
        for name, group in target.groups.items():
            masks = random_masks([group], seed=7, soft=True)
            assert_masked_is_pruned(target, masks, inputs, f"units of {name}")
        kernels = _kernels(target)
        for what, masks in (edges(target) | mixtures(target)).items():
            assert_masked_is_pruned(target, masks, inputs, what, kernels=kernels)


def _kernels(target: PrunableModel) -> list[str]:
    """Attention kernels that the model has."""
    usable = []
    before = target.model.config._attn_implementation
    for kernel in KERNELS:
        try:
            target.model.set_attn_implementation(kernel)
        except (ValueError, ImportError):
            continue
        usable.append(kernel)
    target.model.set_attn_implementation(before)
    return usable


def assert_masked_is_pruned(
    target: PrunableModel,
    masks: Masks,
    inputs: Mapping[str, Any],
    what: str,
    *,
    kernels: Sequence[str] = (),
    visible: bool = True,
) -> None:
    """Compare the outputs of the target under masks with those of the target cut to them.

    Args:
        target: the model; left with the kernel that it has.
        masks: for each group, on the CPU.
        inputs: a batch.
        what: the masks remove, in words.
        kernels: attention kernels to try, one after the other; none: the one that the model has.
        visible: whether removing it must change the output.

    Raises:
        CheckFailed: if they differ, or nothing changes that must.
    """
    own = target.model.config._attn_implementation
    plan, small = pruned(target, masks, what)
    for kernel in kernels or (own,):
        target.model.set_attn_implementation(kernel)
        small.model.set_attn_implementation(kernel)
        try:
            _compare(target, small, plan, masks, inputs, what, visible=visible)
        finally:
            target.model.set_attn_implementation(own)


def _compare(
    target: PrunableModel,
    small: PrunableModel,
    plan: PruningPlan,
    masks: Masks,
    inputs: Mapping[str, Any],
    what: str,
    *,
    visible: bool,
) -> None:
    model = target.model
    where = f"{type(model).__name__}, {model.config._attn_implementation} attention"
    with exact():
        dense = outputs(model, inputs)
        with target.masked(on_device(masks, model.device)):
            masked = outputs(model, inputs)
        cut = outputs(small.model, inputs)
    found = difference(narrowed(masked, cut, plan), cut)
    expect(
        found <= TOLERANCE,
        f"without {what}, masked and pruned model differ by {found:.1e} of the largest output (allowed "
        f"{TOLERANCE:.0e}; {where}). Look at `set_heads`, `finish`, `dead`, `post_norm` and, for hidden "
        "units, `stream`.",
    )
    changed = difference(dense, masked)
    expect(
        not visible or changed > VISIBLE,
        f"without {what} the model computes the same as with it, to {changed:.0e} ({where}): what the table "
        "names is not what the model uses.",
    )


def on_device(masks: Masks, device: torch.device) -> Masks:
    """The masks on ``device``."""
    return {name: mask.to(device) for name, mask in masks.items()}


def zero_mask_means_identity(subject: AdapterSubject) -> None:
    """A block without sublayers gives back its input, masked or pruned; so does a block masked away."""
    target = subject.target()
    inputs = subject.inputs(target.model)
    for stack in target.structure.stacks.values():
        closed = off(target, *((sublayer_group(stack.name, role), 1) for role in stack.roles))
        what = f"every sublayer of block 1 of the {stack.name}"
        _, small = pruned(target, closed, what)
        away = off(target, (block_group(stack.name), 1))
        _assert_identity(target, stack, inputs, closed, f"{what} masked")
        _assert_identity(small, stack, inputs, {}, f"{what} cut out")
        _assert_identity(target, stack, inputs, away, f"block 1 of the {stack.name} masked")
    for sub in target.structure.sublayers.values():
        units = off(target, (sub.units.name, None))
        whole = off(target, (sublayer_group(sub.stack, sub.role), sub.block))
        with exact():
            with target.masked(on_device(units, target.model.device)):
                without_units = outputs(target.model, inputs)
            with target.masked(on_device(whole, target.model.device)):
                without_sublayer = outputs(target.model, inputs)
        found = difference(without_units, without_sublayer)
        expect(
            found <= TOLERANCE,
            f"{sub.name} without all its units differs from the model without the sublayer by {found:.1e}; "
            "correct `output` or `post_norm`.",
        )


def _assert_identity(
    target: PrunableModel, stack: Stack, inputs: Mapping[str, Any], masks: Masks, what: str
) -> None:
    """Compare what block 1 of the stack is given with what it gives back."""
    seen: list[tuple[Tensor, Tensor]] = []

    def look(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        seen.append((given, output[0] if isinstance(output, tuple) else output))

    block = list(target.model.get_submodule(stack.blocks).children())[1]
    # Masks of blocks are hooks too; whatever they do comes first.
    with exact(), target.masked(on_device(masks, target.model.device)):
        handle = block.register_forward_hook(look, with_kwargs=True)
        try:
            target.model(**inputs)
        finally:
            handle.remove()
    found = max(float((given - back).abs().max()) for given, back in seen)
    expect(
        found <= TOLERANCE * max(1.0, *(float(given.abs().max()) for given, _ in seen)),
        f"{what}: the block should give back its input, and changes it by up to {found:.1e}. Look at `dead` "
        "and `post_norm`.",
    )


def gradients_reach_masks(subject: AdapterSubject) -> None:
    """Every mask gets a gradient, and it is the slope of the output."""
    target = subject.target()
    target.model.requires_grad_(False)
    inputs = subject.inputs(target.model)
    for name, group in target.groups.items():
        generator = torch.Generator().manual_seed(11)
        point = 0.5 + 0.4 * torch.rand(group.size, generator=generator, dtype=torch.float64)
        direction = torch.randn(group.size, generator=generator, dtype=torch.float64)
        mask = point.to(target.model.device).requires_grad_()
        with exact_with_gradients():
            value = _value(target, name, mask, inputs)
        expect(
            value.requires_grad,
            f"the output does not depend on the mask of {name} with gradients; something detaches it. Look "
            "at `kept_norm` and at the functions that change modules.",
        )
        (gradient,) = torch.autograd.grad(value, mask)
        expect(bool(gradient.isfinite().all()), f"the gradient of the mask of {name} is NaN or infinite.")
        expect(bool(gradient.any()), f"the gradient of the mask of {name} is zero everywhere.")
        with exact():
            ahead, behind = (
                float(_value(target, name, (point + sign * _STEP * direction).to(mask.device), inputs))
                for sign in (1, -1)
            )
        slope, claimed = (ahead - behind) / (2 * _STEP), float(gradient.cpu() @ direction)
        expect(
            abs(slope - claimed) <= 1e-3 * max(abs(slope), 1e-3 * abs(value.item())),
            f"along one direction the mask of {name} has the slope {slope:.6g}, and the gradient says "
            f"{claimed:.6g}; a part of the way is detached. Look at `kept_norm`.",
        )


def _value(target: PrunableModel, name: str, mask: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    with target.masked({name: mask}):
        found = outputs(target.model, inputs)
    # Weights tell the entries apart: after a norm the plain sum or square sum is a constant.
    total = torch.zeros((), dtype=torch.float64, device=mask.device)
    for tensor in found.values():
        weights = torch.linspace(-1, 1, tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        total = total + (tensor.flatten() * weights.sin()).sum()
    return total
