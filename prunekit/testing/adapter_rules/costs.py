"""Rules about costs: what prunekit says that a plan leaves is what is counted on the pruned model."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import torch

from prunekit.achieved import example
from prunekit.flops import count_macs
from prunekit.pruning import cost
from prunekit.pruning.units import HIDDEN
from prunekit.testing.adapter_rules.compare import Masks, edges, expect, irregular, mixtures, off, pruned
from prunekit.testing.adapter_subject import AdapterSubject

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel
    from prunekit.pruning.units import Sublayer

_SOURCE, _TARGET = 7, 5


def cost_equals_counted_parameters(subject: AdapterSubject) -> None:
    """The parameters that a plan leaves, as computed, are those of the pruned model."""
    for target in subject.each():
        main = type(target.model) is subject.classes[0]
        for what, masks in (_removals(target) if main else mixtures(target)).items():
            assert_counted_as_computed(target, masks, what)


def assert_counted_as_computed(target: PrunableModel, masks: Masks, what: str) -> None:
    """Compare the parameters that cutting to ``masks`` leaves with what the table says of them.

    Raises:
        CheckFailed: if they differ.
    """
    plan, small = pruned(target, masks, what)
    predicted = cost.parameters(target.model, target.adapter, target.structure, plan.keep)
    counted = cost.count_parameters(small.model)
    expect(
        predicted == counted,
        f"without {what}, {type(target.model).__name__} has {counted:,} parameters; computed from the table "
        f"it is {predicted:,}. {_what_to_change(predicted, counted)}",
    )


def _what_to_change(predicted: int, counted: int) -> str:
    if predicted < counted:
        return (
            "Something stays that should go: every module of a sublayer, its norm included, must be "
            "replaced in `dead`."
        )
    return (
        "Something goes that no sublayer names: name it as `inputs`, `output` or `norm`, or take it out of "
        "`dead`."
    )


def _removals(target: PrunableModel) -> dict[str, Masks]:
    found = edges(target)
    for sub in _first_and_last(target):
        found[f"a unit of {sub.units.name}"] = off(target, (sub.units.name, sub.units.size - 1))
    if HIDDEN in target.groups:
        found["two hidden units"] = off(target, (HIDDEN, 0), (HIDDEN, 3))
    return found | mixtures(target)


def _first_and_last(target: PrunableModel) -> list[Sublayer]:
    """The sublayers of each stack's first and last block; those between share their table."""
    stacks = target.structure.stacks
    return [
        sub for sub in target.structure.sublayers.values() if sub.block in (0, stacks[sub.stack].depth - 1)
    ]


def cost_equals_counted_macs(subject: AdapterSubject) -> None:
    """The MACs that a plan saves, as computed, are those that torch counts less."""
    target = subject.target()
    lengths = _lengths(target, subject.inputs(target.model))
    inputs = _example(target, lengths)
    dense = count_macs(target.model, inputs)
    costs = cost.mac_costs(target.model, target.structure, lengths)
    whole = sum(each.prunable for each in costs.values())
    cases = {"half of the heads and neurons": mixtures(target)["half of the heads and neurons"]}
    cases["some of everything"] = irregular(target)
    for sub in _first_and_last(target):
        cases[f"a unit of {sub.units.name}"] = off(target, (sub.units.name, 0))
        cases[f"all units of {sub.units.name}"] = off(target, (sub.units.name, None))
    for what, masks in cases.items():
        plan, small = pruned(target, masks, what)
        counted = dense - count_macs(small.model, inputs)
        computed = whole - cost.kept_cost(costs, target.structure, plan.keep)
        expect(
            counted == computed,
            f"without {what}, a forward pass on {lengths.source} and {lengths.target} tokens takes "
            f"{counted:,} MACs less; computed from the table it is {computed:,.0f} less. Correct `role`, "
            "`inputs` or `sequence_length`.",
        )


def _lengths(target: PrunableModel, inputs: dict[str, Any]) -> cost.Lengths:
    """Tokens to count on: those that the model fixes, or different ones for source and target."""
    fixed = target.adapter.sequence_length(target.model)
    if target.model.main_input_name == "pixel_values":
        found = _tokens_seen(target, inputs)
        expect(
            fixed == found,
            f"sequence_length gives {fixed}, and the blocks run on {found} tokens, special ones included. A "
            "model of images always runs at one length; `sequence_length` must say it.",
        )
    else:
        expect(
            fixed is None or fixed == _tokens_seen(target, inputs),
            f"sequence_length gives {fixed}, but the blocks run on as many tokens as the input has. Leave "
            "it out.",
        )
    source = fixed or _SOURCE
    if "decoder" not in target.structure.stacks:
        return cost.Lengths(source)
    return cost.Lengths(source, _TARGET)


def _tokens_seen(target: PrunableModel, inputs: dict[str, Any]) -> int:
    """Length of what the first block of the first stack is given."""
    seen: list[int] = []
    stack = next(iter(target.structure.stacks.values()))

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).shape[1])

    block = next(target.model.get_submodule(stack.blocks).children())
    handle = block.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with torch.no_grad():
            target.model(**inputs)
    finally:
        handle.remove()
    return seen[0]


def _example(target: PrunableModel, lengths: cost.Lengths) -> dict[str, Any]:
    model = target.model
    if "encoder" not in target.structure.stacks:
        return example(model, cost.Lengths(lengths.target))
    inputs = example(model, lengths)
    if "decoder_input_ids" not in signature(model.forward).parameters:
        inputs.pop("decoder_input_ids", None)
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in inputs.items()
    }
