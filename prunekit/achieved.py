"""What a plan amounts to, in numbers: parameters, sparsities, MACs, and the shape of what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from prunekit.flops import count_macs
from prunekit.pruning import cost
from prunekit.pruning.units import in_scope

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task


def achieved(
    target: PrunableModel, plan: PruningPlan, budget: BudgetSpec, task: Task | None = None
) -> dict[str, Any]:
    """Parameters and sparsities of ``plan`` on ``target``, counted from tensors.

    Args:
        target: the dense model.
        plan: what is kept of it.
        budget: what was asked.
        task: where the lengths of a MAC budget are measured, if it does not state them.

    Returns:
        ``sparsity``, the removed share in the budget's scope and metric (of parameters under a latency
        budget, since time is measured and not counted); ``params`` (all, embeddings included) and
        ``prunable_params``, each dense and pruned; ``encoder_sparsity`` and ``decoder_sparsity``, shares of
        the stack's prunable parameters (none where there is no such stack). Removed blocks count as removed.

    Raises:
        BudgetError: if the budget's scope matches nothing, or lengths are missing.
    """
    structure, keep = target.structure, plan.keep
    costs = target.parameter_costs()
    if budget.metric == "latency":
        counted = target.parameter_costs(budget.scope)
    else:
        counted = target.costs(budget, task)

    def share(stack: str) -> float | None:
        scoped = cost.scoped(costs, structure, [f"{stack}.*"])
        return cost.sparsity(scoped, structure, keep) if scoped else None

    return {
        "sparsity": cost.sparsity(counted, structure, keep),
        "params": {
            "dense": cost.count_parameters(target.model),
            "pruned": cost.parameters(target.model, target.adapter, structure, keep),
        },
        "prunable_params": _shrunk(costs, target, plan),
        "encoder_sparsity": share("encoder"),
        "decoder_sparsity": share("decoder"),
    }


def macs(
    dense: PrunableModel, pruned: PrunableModel, plan: PruningPlan, budget: BudgetSpec, task: Task
) -> dict[str, Any]:
    """MACs of one forward pass of one example, before and after.

    Returns:
        ``dense`` and ``pruned``, of whole models by torch's counter (embeddings' look-ups are no MACs), and
        their ``ratio``; ``length`` and ``target_length`` (none without a decoder), the tokens they are
        counted for; ``prunable``, dense and pruned, of what is in the budget's scope alone; ``inputs``, the
        shapes counted on.
    """
    lengths = dense.lengths(budget.macs, task)
    inputs = example(dense.model, lengths)
    before, after = (count_macs(target.model, _on(target.model, inputs)) for target in (dense, pruned))
    costs = cost.mac_costs(dense.model, dense.structure, lengths)
    scoped = cost.scoped(costs, dense.structure, budget.scope)
    return {
        "dense": before,
        "pruned": after,
        "ratio": after / before,
        "length": lengths.source,
        "target_length": lengths.target or None,
        "prunable": _shrunk(scoped, dense, plan),
        "inputs": {name: list(tensor.shape) for name, tensor in inputs.items()},
    }


def example(model: PreTrainedModel, lengths: cost.Lengths) -> dict[str, Tensor]:
    """One example of ``lengths`` for ``model``, to be counted on: its values mean nothing.

    Returns:
        ``pixel_values`` ``[1, C, H, W]``, or ``input_ids`` and ``attention_mask`` ``[1, S]``, with
        ``decoder_input_ids`` ``[1, T]`` where there is a decoder. On the CPU.
    """
    config = model.config
    if model.main_input_name == "pixel_values":
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(1, config.num_channels, height, width)}
    # Classifiers on encoder-decoders look for an end token.
    token = getattr(config, "eos_token_id", None) or 0
    input_ids = torch.full((1, lengths.source), token)
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    if lengths.target:
        inputs["decoder_input_ids"] = torch.full((1, lengths.target), token)
    return inputs


def _on(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in inputs.items()
    }


def _shrunk(
    costs: Mapping[str, cost.SublayerCost], target: PrunableModel, plan: PruningPlan
) -> dict[str, int]:
    """The prunable cost of ``costs`` before and after."""
    return {
        "dense": int(sum(c.prunable for c in costs.values())),
        "pruned": int(cost.kept_cost(costs, target.structure, plan.keep)),
    }


def structure_rows(target: PrunableModel, plan: PruningPlan) -> list[dict[str, Any]]:
    """One row per group: its name, how many units are kept, and how many there were."""
    left = cost.kept_units(target.structure, plan.keep)
    kept = {target.structure.sublayers[name].units.name: count for name, count in left.items()}
    rows = []
    for name, group in target.groups.items():
        if group.kind in ("head", "neuron"):
            count = kept[name]
        elif group.kind in ("block", "hidden"):
            count = len(plan.keep.get(name, range(group.size)))
        else:
            stack, role = name.split(".")
            count = sum(left[f"{stack}.{i}.{role}"] > 0 for i in range(group.size))
        rows.append({"group": name, "kept": count, "size": group.size})
    return rows


def dense_rows(target: PrunableModel, scope: list[str]) -> list[dict[str, Any]]:
    """One row per unit group: size, parameters per unit, and whether the budget's scope includes it."""
    costs: Mapping[str, cost.SublayerCost] = cost.parameter_costs(target.model, target.structure)
    return [
        {
            "group": sub.units.name,
            "kind": sub.units.kind,
            "units": sub.units.size,
            "parameters_per_unit": int(costs[name].unit),
            "in_scope": in_scope(sub.units.name, scope),
        }
        for name, sub in target.structure.sublayers.items()
    ]
