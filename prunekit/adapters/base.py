"""What prunekit needs to know of an architecture, as a table, and how a table is resolved on a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

from prunekit.adapters.norms import kept_layer_norm, narrow_layer_norm
from prunekit.errors import AdapterMismatchError, UnsupportedModelError
from prunekit.pruning.units import (
    HIDDEN,
    Role,
    Slice,
    Stack,
    Stream,
    Sublayer,
    UnitGroup,
    block_group,
    sublayer_group,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class SublayerTable:
    """Where one kind of sublayer lives, as paths relative to its block.

    Args:
        role: what it computes.
        inputs: alternatives for the projections into the units; the first whose paths all exist holds
            (T5 has ``wi``, or ``wi_0`` and ``wi_1``).
        output: projection back to the residual stream.
        norm: its normalisation.
        attention: the module that reshapes into heads; none for a feed-forward sublayer.
        dead: what replaces which module once the sublayer is removed.
    """

    role: Role
    inputs: tuple[tuple[str, ...], ...]
    output: str
    norm: str
    attention: str | None
    dead: tuple[tuple[str, type[nn.Module]], ...]

    def is_removed(self, block: nn.Module) -> bool:
        """Whether this sublayer of ``block`` was removed by earlier surgery."""
        path, replacement = self.dead[0]
        return has_module(block, path) and isinstance(block.get_submodule(path), replacement)


@dataclass(frozen=True)
class StackTable:
    """Where a stack's blocks live, relative to the base model.

    Args:
        name: ``encoder`` or ``decoder``.
        blocks: path of the ModuleList.
        depth_field: the stock config field that holds the number of blocks.
        ffn_field: the stock config field that holds the FFN width; may serve several stacks.
        heads_field: the stock config field that holds the number of heads; may serve several stacks.
        sublayers: the block's sublayers, in order.
    """

    name: str
    blocks: str
    depth_field: str
    ffn_field: str
    heads_field: str
    sublayers: tuple[SublayerTable, ...]


@dataclass(frozen=True)
class Structure:
    """A model's stacks, sublayers and unit groups, found by resolving an adapter's tables.

    ``stream`` is the residual stream outside the blocks; none, and ``no_hidden`` says why, where hidden units
    cannot be removed.
    """

    stacks: Mapping[str, Stack]
    sublayers: Mapping[str, Sublayer]
    groups: Mapping[str, UnitGroup]
    stream: Stream | None = None
    no_hidden: str = ""

    def dead(self, keep: Mapping[str, Sequence[int]]) -> set[str]:
        """Names of sublayers of which nothing is left: without a unit, removed whole, or in a removed block.

        Args:
            keep: for each group the indices that stay; absent groups stay whole.
        """
        names = set()
        for sub in self.sublayers.values():
            whole = keep.get(sublayer_group(sub.stack, sub.role))
            blocks = keep.get(block_group(sub.stack))
            if (
                len(keep.get(sub.units.name, (0,))) == 0
                or (whole is not None and sub.block not in whole)
                or (blocks is not None and sub.block not in blocks)
            ):
                names.add(sub.name)
        return names


@dataclass(frozen=True)
class Adapter:
    """One architecture.

    Args:
        name: as users write it; also names the pruned model type, ``prunekit-<name>``.
        model_type: transformers' ``config.model_type``.
        summary: one line for listings.
        stacks: the tables.
        post_norm: whether norms come after the residual addition.
        head_size: attribute of the attention module that holds the size of a head.
        set_heads: writes a new head count (and which heads of how many were kept) into an attention module.
        shared: collects, before anything is cut, what belongs to a stack but lives in one of its blocks.
        finish: puts right what spans blocks, given each stack's surviving blocks and what ``shared`` gave.
        is_stock: whether transformers itself can run a regular result with these config fields.
        config_members: methods that the pruned config class overrides.
        stream: where the residual stream is read and written outside the blocks; none if hidden units cannot
            be removed.
        kept_norm: normalises over the kept dimensions only, as ``kept_layer_norm`` does.
        narrow_norm: makes a norm whose parameters were cut work at their width.
        refuse: says why a model of this type cannot be pruned, if so.
        sequence_length: the number of the encoder's tokens where the model fixes it, special tokens included;
            none where the input decides.
        tiny: for each variant of the architecture the config fields of a model that checks and tests build:
            three blocks a stack, a few units wide. ``architectures`` in it names the class that a variant is
            first of all about, where that is not the first that the Auto classes have. Names are unique among
            adapters.
    """

    name: str
    model_type: str
    summary: str
    stacks: tuple[StackTable, ...]
    post_norm: bool
    head_size: str
    set_heads: Callable[[Any, tuple[int, ...], int], None]
    shared: Callable[[Any], Mapping[str, Any]] = lambda base: {}
    finish: Callable[[Any, Mapping[str, list[Any]], Mapping[str, Any]], None] = lambda base, blocks, shared: (
        None
    )
    is_stock: Callable[[Mapping[str, int]], bool] = lambda fields: True
    config_members: tuple[tuple[str, Callable[..., Any]], ...] = ()
    stream: Callable[[PreTrainedModel], Stream] | None = None
    kept_norm: Callable[[Any, Tensor, Tensor, Tensor, Tensor], Tensor] = kept_layer_norm
    narrow_norm: Callable[[Any, int], None] = narrow_layer_norm
    refuse: Callable[[PreTrainedModel], str | None] = lambda model: None
    sequence_length: Callable[[PreTrainedModel], int | None] = lambda model: None
    # Not compared: tables that differ in their examples alone are one architecture, and dicts have no hash.
    tiny: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)

    @property
    def pruned_type(self) -> str:
        """``config.model_type`` of irregular checkpoints."""
        return f"prunekit-{self.name}"

    def structure(self, model: PreTrainedModel) -> Structure:
        """Resolve the tables on ``model``; all sizes are read from its tensors.

        Raises:
            AdapterMismatchError: if a path does not exist.
            UnsupportedModelError: if this variant cannot be pruned.
        """
        if reason := self.refuse(model):
            raise UnsupportedModelError(f"{type(model).__name__} cannot be pruned: {reason}")
        prefix = base_prefix(model)
        stacks: dict[str, Stack] = {}
        sublayers: dict[str, Sublayer] = {}
        for table in self.stacks:
            # Encoder-only or decoder-only variants lack the other stack altogether.
            if not hasattr(model.base_model, table.blocks.partition(".")[0]):
                continue
            path = prefix + table.blocks
            blocks = find_module(model, path, self)
            roles = tuple(s.role for s in table.sublayers)
            stacks[table.name] = Stack(table.name, path, len(blocks), roles)
            for index in range(len(blocks)):
                for sub in table.sublayers:
                    if not sub.is_removed(blocks[index]):
                        found = self._sublayer(model, table.name, path, index, sub)
                        sublayers[found.name] = found
        if not stacks:
            find_module(model, prefix + self.stacks[0].blocks, self)
        groups = _groups(stacks, sublayers)
        if self.stream is None:
            return Structure(stacks, sublayers, groups, None, f"the {self.name} adapter names no stream")
        stream = self.stream(model)
        hidden = hidden_group(model, stacks, sublayers.values(), stream)
        if isinstance(hidden, str):
            return Structure(stacks, sublayers, groups, None, hidden)
        return Structure(stacks, sublayers, {**groups, HIDDEN: hidden}, stream)

    def _sublayer(
        self, model: PreTrainedModel, stack: str, blocks: str, index: int, table: SublayerTable
    ) -> Sublayer:
        block = f"{blocks}.{index}."
        inputs = next(
            (names for names in table.inputs if all(has_module(model, block + n) for n in names)),
            table.inputs[0],
        )
        paths = tuple(block + n for n in inputs)
        name = f"{stack}.{index}.{table.role}"
        for path in (*paths, block + table.output, block + table.norm):
            find_module(model, path, self)
        width = 1
        if table.attention is not None:
            width = int(find_module(model, f"{block}{table.attention}.{self.head_size}", self))
        entries = find_module(model, paths[0], self).weight.shape[0]
        slices = [Slice(f"{p}.weight", 0) for p in paths]
        slices += [Slice(f"{p}.bias", 0) for p in paths if find_module(model, p, self).bias is not None]
        slices.append(Slice(f"{block}{table.output}.weight", 1))
        label = "neurons" if table.attention is None else "heads"
        units = UnitGroup(
            f"{name}.{label}",
            "neuron" if table.attention is None else "head",
            entries // width,
            width,
            tuple(slices),
        )
        output, norm = block + table.output, block + table.norm
        return Sublayer(name, stack, index, table.role, units, paths, output, norm, self.post_norm)

    def describe(self) -> list[dict[str, str]]:
        """Rows of the unit table, for ``prunekit adapters show``."""
        rows = []
        for stack in self.stacks:
            for sub in stack.sublayers:
                kind, label = ("neuron", "neurons") if sub.attention is None else ("head", "heads")
                shrinks = " or ".join(" · ".join(names) for names in sub.inputs)
                rows.append(
                    {
                        "group": f"{stack.name}.N.{sub.role}.{label}",
                        "kind": kind,
                        "modules": f"{stack.blocks}.N: {shrinks} (outputs) · {sub.output} (inputs)",
                    }
                )
                rows.append(
                    {
                        "group": sublayer_group(stack.name, sub.role),
                        "kind": "sublayer",
                        "modules": f"{sub.role} of every block, with {sub.norm}",
                    }
                )
            rows.append({"group": block_group(stack.name), "kind": "block", "modules": stack.blocks})
        if self.stream is not None:
            modules = "every axis as wide as the model: embeddings, norms, projections, heads"
            rows.append({"group": HIDDEN, "kind": "hidden", "modules": modules})
        return rows


def _groups(stacks: Mapping[str, Stack], sublayers: Mapping[str, Sublayer]) -> dict[str, UnitGroup]:
    groups = {sub.units.name: sub.units for sub in sublayers.values()}
    for stack in stacks.values():
        for role in stack.roles:
            name = sublayer_group(stack.name, role)
            groups[name] = UnitGroup(name, "sublayer", stack.depth)
        name = block_group(stack.name)
        groups[name] = UnitGroup(name, "block", stack.depth)
    return groups


def hidden_group(
    model: PreTrainedModel,
    stacks: Mapping[str, Stack],
    sublayers: Iterable[Sublayer],
    stream: Stream,
) -> UnitGroup | str:
    """The group of hidden units, or why there is none.

    There is none where a parameter outside the blocks is as wide as the model and the table does not say
    whether it belongs to the residual stream: a head of a class that the adapter does not know.
    """
    slices = [*stream.written, *stream.read]
    slices += [Slice(name, 0) for norm in stream.norms for name in parameters_of(model, norm.path)]
    size = model.get_parameter(slices[0].parameter).shape[slices[0].axis]
    known = {part.parameter.rpartition(".")[0] for part in slices}
    inside = tuple(f"{stack.blocks}." for stack in stacks.values())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        named = name.rpartition(".")[0] in known or name.startswith((*inside, *stream.own))
        if size in parameter.shape and not named:
            return (
                f"{name} of {type(model).__name__} is {size} wide, and the adapter does not know whether it "
                "reads the residual stream"
            )
    for sub in sublayers:
        slices += [Slice(f"{path}.weight", 1) for path in sub.inputs]
        slices += [Slice(name, 0) for name in parameters_of(model, sub.output)]
        slices += [Slice(name, 0) for name in parameters_of(model, sub.norm)]
    once = {(id(model.get_parameter(part.parameter)), part.axis): part for part in reversed(slices)}
    return UnitGroup(HIDDEN, "hidden", size, 1, tuple(reversed(once.values())))


def parameters_of(model: nn.Module, path: str) -> list[str]:
    """Names of the parameters directly in the module at ``path``."""
    return [f"{path}.{name}" for name, _ in model.get_submodule(path).named_parameters(recurse=False)]


def axes(model: nn.Module, *wanted: tuple[str, int]) -> tuple[Slice, ...]:
    """A slice for each (parameter, axis) that ``model`` has; heads and variants differ in what they have."""
    found = dict(model.named_parameters(remove_duplicate=False))
    return tuple(Slice(name, axis) for name, axis in wanted if name in found)


def base_prefix(model: PreTrainedModel) -> str:
    """Path of the base model inside ``model`` with a trailing dot; empty if ``model`` is its own base."""
    base = model.base_model
    if base is model:
        return ""
    return next(f"{name}." for name, module in model.named_modules() if module is base)


def has_module(model: nn.Module, path: str) -> bool:
    """Whether ``path`` leads to a module."""
    try:
        reduce(getattr, path.split("."), model)
    except AttributeError:
        return False
    return True


def find_module(model: nn.Module, path: str, adapter: Adapter) -> Any:
    """The module at ``path``.

    Raises:
        AdapterMismatchError: with the path, the model class and the transformers version.
    """
    if has_module(model, path):
        return reduce(getattr, path.split("."), model)
    import transformers

    raise AdapterMismatchError(
        f"{adapter.name}: no module {path!r} in {type(model).__name__} "
        f"(transformers {transformers.__version__}).\n"
        f"  This adapter was checked on transformers 5.23. Install that version, or correct the table in "
        f"{adapter.set_heads.__module__}."
    )
