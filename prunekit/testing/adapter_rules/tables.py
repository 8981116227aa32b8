"""Rules about tables: what is cut has the right length, and nothing that could be cut is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from prunekit.pruning.units import HIDDEN, Sublayer
from prunekit.testing.adapter_rules.compare import exact, expect, listed
from prunekit.testing.adapter_subject import AdapterSubject

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel


def slices_have_the_right_length(subject: AdapterSubject) -> None:
    """Each slice of a group has one entry for each of its units, times their width, and no other group's."""
    for target in subject.each(sound=False):
        owner: dict[tuple[int, int], str] = {}
        for group in target.groups.values():
            for part in group.slices:
                parameter = target.model.get_parameter(part.parameter)
                length = parameter.shape[part.axis]
                expect(
                    length == group.size * group.width,
                    f"{group.name}: axis {part.axis} of {part.parameter} has {length} entries; {group.size} "
                    f"units of width {group.width} own {group.size * group.width}. Correct `inputs`, "
                    "`output` or `head_size`.",
                )
                first = owner.setdefault((id(parameter), part.axis), group.name)
                expect(
                    first == group.name or HIDDEN in (first, group.name),
                    f"axis {part.axis} of {part.parameter} is sliced by {first} and by {group.name}; each "
                    "axis belongs to one group.",
                )
        for sub in target.structure.sublayers.values():
            expect(
                len(set(sub.inputs)) == len(sub.inputs) and sub.output not in sub.inputs,
                f"{sub.name} names a projection twice: {listed([*sub.inputs, sub.output])}.",
            )


def no_prunable_axis_missed(subject: AdapterSubject) -> None:
    """Whatever in a block has parameters belongs to a sublayer, and what follows a width is cut with it."""
    for target in subject.each(sound=False):
        _no_list_of_blocks_is_left_out(target)
        claimed = _claimed(target)
        unclaimed = [name for name in _inside_blocks(target) if name not in claimed]
        expect(
            not unclaimed,
            (
                f"parameters inside the blocks of {type(target.model).__name__} belong to no sublayer of the "
                f"table: {listed(unclaimed)}. Name their modules as `inputs`, `output` or `norm` of a "
                "sublayer, or, if the whole stack shares them, give them in `shared`."
            ),
        )
    config = subject.build().config
    for stack in subject.adapter.stacks:
        width = getattr(config, stack.ffn_field, None)
        heads = getattr(config, stack.heads_field, None)
        if isinstance(width, int):
            _what_follows_is_cut(subject, stack.ffn_field, width + 4, "neuron")
        if isinstance(heads, int) and heads > 1:
            _what_follows_is_cut(subject, stack.heads_field, heads // 2, "head")


def _no_list_of_blocks_is_left_out(target: PrunableModel) -> None:
    known = {stack.blocks for stack in target.structure.stacks.values()}
    depths = {stack.depth for stack in target.structure.stacks.values()}
    for path, module in target.model.named_modules():
        inside = any(path.startswith(f"{blocks}.") for blocks in known)
        if isinstance(module, nn.ModuleList) and len(module) in depths and not inside:
            blocks = [any(isinstance(part, nn.Linear) for part in each.modules()) for each in module]
            expect(
                path in known or not all(blocks),
                f"{path} of {type(target.model).__name__} is a list of {len(module)} "
                f"{type(module[0]).__name__}, and no stack of the table names it.",
            )


def _inside_blocks(target: PrunableModel) -> Iterator[str]:
    blocks = tuple(f"{stack.blocks}." for stack in target.structure.stacks.values())
    for name, _ in target.model.named_parameters(remove_duplicate=False):
        if name.startswith(blocks):
            yield name


def _claimed(target: PrunableModel) -> set[str]:
    """Names of the parameters in blocks that are a sublayer's, or what a whole stack shares."""
    modules = {path for sub in target.structure.sublayers.values() for path in sub.modules}
    shared = _shared(target)
    return {
        name
        for name, parameter in target.model.named_parameters(remove_duplicate=False)
        if name.rpartition(".")[0] in modules or id(parameter) in shared
    }


def _shared(target: PrunableModel) -> set[int]:
    """Ids of the parameters that belong to a whole stack."""
    return {
        id(parameter)
        for module in target.adapter.shared(target.model.base_model).values()
        for parameter in module.parameters()
    }


def _what_follows_is_cut(subject: AdapterSubject, field: str, value: int, kind: str) -> None:
    """Compare the shapes of two models that differ in one config field with what the groups slice."""
    target = subject.resolved()
    try:
        other = subject.build(None, **{field: value})
    except Exception:
        return  # not every size makes a model
    shapes = {name: parameter.shape for name, parameter in other.named_parameters(remove_duplicate=False)}
    shared = _shared(target)
    sliced = {
        (part.parameter, part.axis)
        for group in target.groups.values()
        if group.kind == kind
        for part in group.slices
    }
    for name, parameter in target.model.named_parameters(remove_duplicate=False):
        if name not in shapes or id(parameter) in shared:
            continue
        changed = [
            axis for axis, (a, b) in enumerate(zip(parameter.shape, shapes[name], strict=True)) if a != b
        ]
        for axis in changed:
            expect(
                (name, axis) in sliced,
                f"axis {axis} of {name} follows {field} (it is {parameter.shape[axis]} wide, and "
                f"{shapes[name][axis]} with {field} = {value}), but no group of {kind}s slices it.",
            )


def norms_stand_where_declared(subject: AdapterSubject) -> None:
    """A sublayer's norm runs right before its inputs, or right after its output if ``post_norm``."""
    target = subject.target()
    calls = _calls(target, subject.inputs(target.model))
    norms = {sub.norm for sub in target.structure.sublayers.values()}
    when = "after its output" if subject.adapter.post_norm else "before its inputs"
    for sub in target.structure.sublayers.values():
        used = (*sub.inputs, sub.output)
        idle = [path for path in used if path not in calls]
        expect(not idle, f"{sub.name}: {listed(idle)} does not run when the model does.")
        found = _nearest_norm(calls, sub, norms)
        expect(
            found == sub.norm,
            f"{sub.name}: the norm that runs right {when} is {found or 'none'}, the table says {sub.norm} "
            f"and post_norm={sub.post_norm}. Correct `norm` or `post_norm`.",
        )


def _nearest_norm(calls: list[str], sub: Sublayer, norms: set[str]) -> str | None:
    if sub.post_norm:
        following = calls[calls.index(sub.output) + 1 :]
        return next((path for path in following if path in norms), None)
    leading = calls[: min(calls.index(path) for path in sub.inputs)]
    return next((path for path in reversed(leading) if path in norms), None)


def _calls(target: PrunableModel, inputs: dict[str, Any]) -> list[str]:
    """Paths of the sublayers' modules in the order in which they run."""
    calls: list[str] = []
    handles = []
    for path in {path for sub in target.structure.sublayers.values() for path in sub.modules}:

        def record(module: nn.Module, args: Any, path: str = path) -> None:
            calls.append(path)

        handles.append(target.model.get_submodule(path).register_forward_pre_hook(record))
    try:
        with exact():
            target.model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls
