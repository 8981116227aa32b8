"""Pruned models as classes that transformers can save and load.

``config.json`` of an irregular model carries a *record*: for each stack its surviving blocks, for each block
which heads and how many neurons were kept (``null`` for a removed sublayer), and which hidden units (``null``
for all). The class builds the stock model at the record's depth, cuts it to the record's widths, and then the
weights load, strictly. The stock fields of the config stay those of the full width: T5's logits and BART's
embeddings are scaled by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from prunekit.adapters.base import Adapter, Structure
from prunekit.errors import CheckpointError
from prunekit.pruning.surgery import cut
from prunekit.pruning.units import HIDDEN, Sublayer, block_group
from prunekit.shown import visible

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.pruning.plan import PruningPlan

FORMAT = 1
_MOST_BLOCKS = 100_000
Record = dict[str, Any]


def make_record(structure: Structure, keep: Mapping[str, Sequence[int]], previous: Record | None) -> Record:
    """What is left of each block, in indices of the first dense model.

    Args:
        structure: of the model that ``keep`` speaks of.
        keep: the plan's kept indices.
        previous: that model's own record, if it was pruned before.
    """
    dead = structure.dead(keep)
    stacks: dict[str, list[dict[str, Any]]] = {}
    for name, stack in structure.stacks.items():
        stacks[name] = []
        for index in keep.get(block_group(name), range(stack.depth)):
            old: Record = previous["stacks"][name][index] if previous else {"block": index}
            entry: dict[str, Any] = {"block": old["block"]}
            for role in stack.roles:
                sub = structure.sublayers.get(f"{name}.{index}.{role}")
                kept = None if sub is None or sub.name in dead else keep.get(sub.units.name)
                if sub is None or sub.name in dead:
                    entry[role] = None
                elif role == "ffn":
                    entry[role] = sub.units.size if kept is None else len(kept)
                else:
                    heads = old.get(role) or list(range(sub.units.size))
                    entry[role] = heads if kept is None else [heads[i] for i in kept]
            stacks[name].append(entry)
    hidden = previous["hidden"] if previous else None
    if HIDDEN in keep:
        hidden = list(keep[HIDDEN]) if hidden is None else [hidden[i] for i in keep[HIDDEN]]
    return {"format": FORMAT, "stacks": stacks, "hidden": hidden}


def _cut_to_record(model: PreTrainedModel, adapter: Adapter, record: Record | None) -> None:
    """Cut a full-width model of the record's depth to the record's widths."""
    structure = adapter.structure(model)
    stacks = _recorded_stacks(structure, record)
    keep = {}
    for sub in structure.sublayers.values():
        keep[sub.units.name] = _recorded_units(sub, stacks[sub.stack][sub.block].get(sub.role, "nothing"))
    if record is not None and record.get("hidden") is not None:
        keep[HIDDEN] = _recorded_hidden(structure, record["hidden"])
    cut(model, adapter, keep)


def _recorded_stacks(structure: Structure, record: Any) -> Mapping[str, list[dict[str, Any]]]:
    """The record's blocks by stack, as many as the model has."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(
            f"config.json has no structure of format {FORMAT} under 'prunekit', found "
            f"{visible(str(record), 60)}. Only folders that this version of prunekit saved can be loaded."
        )
    stacks = record.get("stacks")
    if not isinstance(stacks, dict):
        raise CheckpointError(
            f"config.json describes the stacks as {visible(str(stacks), 60)}, which is no mapping. "
            "Restore the file as it was saved."
        )
    for stack in structure.stacks.values():
        blocks = stacks.get(stack.name, [])
        found = len(blocks) if isinstance(blocks, list) else 0
        if found != stack.depth:
            raise CheckpointError(
                f"config.json describes {found} blocks of the {stack.name}, but its depth is {stack.depth}. "
                "Restore the file as it was saved."
            )
        whole = all(isinstance(entry, dict) for entry in blocks)
        origins = [entry.get("block") for entry in blocks] if whole else blocks
        if not _ascending(origins, _MOST_BLOCKS):
            raise CheckpointError(
                f"config.json says that the {stack.name} kept the blocks {visible(str(origins), 60)}; "
                "allowed are sorted indices from 0. Restore the file as it was saved."
            )
    return stacks


def _recorded_hidden(structure: Structure, entry: Any) -> list[int]:
    group = structure.groups.get(HIDDEN)
    if group is None:
        raise CheckpointError(f"config.json lists hidden units, but {structure.no_hidden}.")
    if isinstance(entry, list) and _ascending(entry, group.size):
        return entry
    raise CheckpointError(
        f"config.json says {visible(str(entry), 60)} of the hidden units; allowed are sorted indices from 0 "
        f"to {group.size - 1}, or null if all were kept. Restore the file as it was saved."
    )


def _ascending(entry: list[Any], size: int) -> bool:
    """Whether ``entry`` holds sorted unique indices below ``size``, at least one."""
    whole = all(type(index) is int and 0 <= index < size for index in entry)  # a bool is an int too
    return bool(entry) and whole and entry == sorted(set(entry))


def _recorded_units(sub: Sublayer, entry: Any) -> list[int]:
    size = sub.units.size
    if entry is None:
        return []
    if sub.role == "ffn" and type(entry) is int and 0 < entry <= size:
        return list(range(entry))
    if sub.role != "ffn" and isinstance(entry, list) and _ascending(entry, size):
        return entry
    allowed = f"a width of 1 to {size}" if sub.role == "ffn" else f"sorted heads from 0 to {size - 1}"
    raise CheckpointError(
        f"config.json says {visible(str(entry), 60)} of {sub.name}; allowed are {allowed}, or null if it was "
        "removed. Restore the file as it was saved."
    )


class PrunedModel:
    """Mixed in before a stock model class; see ``pruned_class``."""

    adapter: Adapter

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]  # the stock class's
        _cut_to_record(self, self.adapter, getattr(config, "prunekit", None))

    @classmethod
    def from_pretrained(cls, source: Any, *args: Any, **kwargs: Any) -> Any:
        """Load strictly: every tensor must be there and have the shape that the record says.

        Raises:
            CheckpointError: naming the tensors that are missing, unknown or of another shape.
        """
        if kwargs.pop("ignore_mismatched_sizes", False):
            raise CheckpointError(
                f"{source}: ignore_mismatched_sizes=True would fill pruned layers with random weights. "
                "Load without it."
            )
        kwargs["use_safetensors"] = True  # transformers would also read pickles
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(  # type: ignore[misc]
            source, *args, ignore_mismatched_sizes=True, output_loading_info=True, **kwargs
        )
        faults = [
            f"{row[0]}: {tuple(row[1])} in the file, {tuple(row[2])} in config.json"
            for row in info["mismatched_keys"]
        ]
        faults += [f"{name}: missing in the file" for name in sorted(info["missing_keys"])]
        faults += [f"{name}: not part of the structure" for name in sorted(info["unexpected_keys"])]
        for path, module in model.named_modules():
            kept = getattr(module, "kept_heads", None)
            if kept is not None and kept.tolist() != _recorded_heads(model, path):
                faults.append(f"{path}.kept_heads: {kept.tolist()} in the file, another list in config.json")
        if faults:
            saved_as = model.config.architectures or [cls.__name__]
            shown = "\n  ".join(faults[:8] + (["…"] if len(faults) > 8 else []))
            raise CheckpointError(
                f"{source}: weights and structure disagree in {len(faults)} places:\n  {shown}\n"
                "config.json and model.safetensors must come from the same `save_pretrained`."
                + ("" if cls.__name__ in saved_as else f" They hold a {saved_as[0]}; load it as that class.")
            )
        return (model, info) if wants_info else model


def _recorded_heads(model: Any, path: str) -> list[int] | None:
    for sub in model.adapter.structure(model).sublayers.values():
        if sub.output.startswith(path + "."):
            kept: list[int] = model.config.prunekit["stacks"][sub.stack][sub.block][sub.role]
            return kept
    return None


@cache
def pruned_config_class(adapter: Adapter) -> type[Any]:
    """Subclass of the stock config with the adapter's pruned model type and the field ``prunekit``."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    stock = CONFIG_MAPPING[adapter.model_type]
    name = f"Prunekit{stock.__name__}"
    members = {"model_type": adapter.pruned_type, "__module__": __name__, **dict(adapter.config_members)}
    return type(name, (stock,), members)


@cache
def pruned_class(stock: type[Any], adapter: Adapter) -> type[Any]:
    """Subclass of a stock model class that builds itself from its config's record."""
    config_class = pruned_config_class(adapter)
    members = {"adapter": adapter, "config_class": config_class, "__module__": __name__}
    return type(f"Prunekit{stock.__name__}", (PrunedModel, stock), members)


def stock_class(model: PreTrainedModel) -> type[Any]:
    """The transformers class that ``model`` is, or was before pruning."""
    return next(c for c in type(model).__mro__ if c.__module__.startswith("transformers."))


def stock_fields(adapter: Adapter, record: Record, config: Any) -> dict[str, int] | None:
    """The stock config fields that say all of ``record``, or none if it is irregular.

    Depth and one FFN width per config field can be said; a different head count changes the head size in most
    architectures, so all heads are required. So does a different hidden width, which also changes scales.
    """
    if record["hidden"] is not None:
        return None
    fields: dict[str, int] = {}
    for table in adapter.stacks:
        if table.name not in record["stacks"]:
            continue
        blocks = record["stacks"][table.name]
        fields[table.depth_field] = len(blocks)
        for entry in blocks:
            for sub in table.sublayers:
                kept = entry[sub.role]
                if kept is None:
                    return None
                if sub.role == "ffn":
                    if fields.setdefault(table.ffn_field, kept) != kept:
                        return None
                elif len(kept) != getattr(config, table.heads_field):
                    return None
    return fields if adapter.is_stock(fields) else None


def build_pruned(model: PreTrainedModel, adapter: Adapter, plan: PruningPlan) -> PreTrainedModel:
    """A pruned copy of ``model`` of a class that saves and loads; ``model`` is left as it is.

    The class is the stock one where stock config fields can describe the result.
    """
    structure = adapter.structure(model)
    record = make_record(structure, plan.keep, getattr(model.config, "prunekit", None))
    small = deepcopy(model)
    cut(small, adapter, plan.keep, plan.scale)
    stock: Any = stock_class(model)
    fields = stock_fields(adapter, record, model.config)
    depths = {
        t.depth_field: len(record["stacks"][t.name]) for t in adapter.stacks if t.name in record["stacks"]
    }
    settings = {k: v for k, v in model.config.to_dict().items() if k not in ("model_type", "prunekit")}
    if fields is not None:
        config = stock.config_class.from_dict({**settings, **fields})
        model_class = stock
    else:
        config = pruned_config_class(adapter).from_dict({**settings, **depths, "prunekit": record})
        model_class = pruned_class(stock, adapter)
    with torch.device("meta"):
        result = model_class(config)
    _graft(result, small)
    result.set_attn_implementation(model.config._attn_implementation)
    result.config.architectures = [model_class.__name__]
    if getattr(model, "generation_config", None) is not None:
        result.generation_config = deepcopy(model.generation_config)
    result.train(model.training)
    return result


def _graft(result: PreTrainedModel, source: PreTrainedModel) -> None:
    """Give ``result`` the tensors of ``source``, ties and gradient flags included."""
    modules = dict(source.named_modules())
    for path, module in result.named_modules():
        module._parameters.update(modules[path]._parameters)
        module._buffers.update(modules[path]._buffers)
    left = set(result.state_dict()) ^ set(source.state_dict())
    if left:
        raise CheckpointError(f"surgery and record disagree about {', '.join(sorted(left))}.")
    # A checkpoint whose head was not tied to its embedding must stay so when saved.
    result.all_tied_weights_keys = dict(source.all_tied_weights_keys)
