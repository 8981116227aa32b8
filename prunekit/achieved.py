"""What a plan amounts to, in numbers: parameters, sparsities, MACs, and the shape of what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunekit.pruning import cost
from prunekit.pruning.units import in_scope

if TYPE_CHECKING:
    from torch import Tensor

    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task


def achieved(target: PrunableModel, plan: PruningPlan, budget: BudgetSpec) -> dict[str, Any]:
    """Parameters and sparsities of ``plan`` on ``target``, counted from tensors.

    Returns:
        ``params`` (all, embeddings included) and ``prunable_params``, each dense and pruned; ``sparsity`` in
        the budget's scope; ``encoder_sparsity`` and ``decoder_sparsity`` (none where there is no such stack).
        Sparsity is the removed share of prunable parameters; removed blocks count as removed.
    """
    structure, keep = target.structure, plan.keep
    costs = cost.parameter_costs(target.model, structure)
    left = cost.kept_units(structure, keep)
    kept = sum(c.kept(left[name]) for name, c in costs.items())

    def share(scope: list[str]) -> float | None:
        scoped = cost.scoped(costs, structure, scope)
        return cost.sparsity(scoped, structure, keep) if scoped else None

    return {
        "params": {
            "dense": cost.count_parameters(target.model),
            "pruned": cost.parameters(target.model, target.adapter, structure, keep),
        },
        "prunable_params": {
            "dense": int(sum(c.prunable for c in costs.values())),
            "pruned": int(kept),
        },
        "sparsity": share(budget.scope),
        "encoder_sparsity": share(["encoder.*"]),
        "decoder_sparsity": share(["decoder.*"]),
    }


def macs(dense: PrunableModel, pruned: PrunableModel, task: Task) -> dict[str, Any]:
    """MACs of one forward pass of a typical example, whole models, embeddings' look-ups excluded."""
    batch = typical_example(task)
    inputs = {name: t.to(dense.model.device) for name, t in batch.items()}
    before = cost.count_macs(dense.model, inputs)
    after = cost.count_macs(pruned.model, {name: t.to(pruned.model.device) for name, t in batch.items()})
    lengths = {name: list(t.shape) for name, t in batch.items()}
    return {"dense": before, "pruned": after, "ratio": after / before, "inputs": lengths}


def typical_example(task: Task) -> dict[str, Tensor]:
    """A batch of one validation example, of the length nearest to the mean."""
    lengths = task.lengths("validation")
    mean = sum(lengths) / len(lengths)
    index = min(range(len(lengths)), key=lambda i: abs(lengths[i] - mean))
    return task.collate([task.examples("validation")[index]])


def structure_rows(target: PrunableModel, plan: PruningPlan) -> list[dict[str, Any]]:
    """One row per group: its name, how many units are kept, and how many there were."""
    left = cost.kept_units(target.structure, plan.keep)
    kept = {target.structure.sublayers[name].units.name: count for name, count in left.items()}
    rows = []
    for name, group in target.groups.items():
        if group.kind in ("head", "neuron"):
            count = kept[name]
        elif group.kind == "block":
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
