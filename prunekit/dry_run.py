"""What a run would work on, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunekit.achieved import dense_rows, example
from prunekit.flops import count_macs
from prunekit.heads import check_head, load_to_train
from prunekit.models import load_model, load_processor
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.recipe import BudgetSpec, Recipe, StageSpec, TeacherSpec, resolve_method
from prunekit.rehearsal import memory_estimate
from prunekit.resources import disk_estimate
from prunekit.tasks.answering import check_split
from prunekit.tasks.base import Task, make_task
from prunekit.training.batches import total_steps

if TYPE_CHECKING:
    from prunekit.plugins import Registry


def dry_run(recipe: Recipe, label: str | None, *, registry: Registry) -> dict[str, Any]:
    """What a run would work on: shapes, parameters, MACs, training steps. Nothing is trained or written."""
    method = resolve_method(recipe, label, registry)
    # A teacher that is still to be trained has the shapes of the model that it starts from.
    name, budget = recipe.teacher if isinstance(recipe.teacher, str) else str(recipe.model), method.budget
    task = make_task(recipe.task, load_processor(name), registry)
    teacher = recipe.teacher.train if isinstance(recipe.teacher, TeacherSpec) else None
    model = load_to_train(name, task, seed=recipe.seed) if teacher else load_model(name)
    check_head(name, model, task)
    check_split(task.name, recipe.evaluate.split, task.splits)
    target = PrunableModel(model, find_adapter(model, registry.adapters))
    method.method_class.info.check_model(target)
    # Before anything else, since data that is loaded already would not be seen.
    memory = memory_estimate(target, task, recipe, method)
    lengths = target.lengths(budget.macs, task)
    counted = {"dense": count_macs(model, example(model, lengths)), "length": lengths.source}
    if lengths.target:
        counted["target_length"] = lengths.target
    by_params, by_macs = (budget.model_copy(update={"metric": metric}) for metric in ("params", "macs"))
    return {
        "model": name,
        "method": method.method_class.info.name,
        "label": method.label,
        "shapes": dense_rows(target, budget.scope),
        "parameters": {"all": model.num_parameters(), **_to_prune(target, by_params, task, budget.metric)},
        "macs": {**counted, **_to_prune(target, by_macs, task, budget.metric)},
        **(
            {"latency": {"ratio": budget.ratio, "measured": "only by the run itself"}} if budget.ratio else {}
        ),
        "steps": {
            **({"teacher": _steps(task, teacher)} if teacher else {}),
            "train": _steps(task, method.train) if method.method_class.info.trains else 0,
            "recover": _steps(task, method.recover),
        },
        "memory_mib": memory,
        "disk_mib": disk_estimate(model.num_parameters(), method),
    }


def _to_prune(target: PrunableModel, budget: BudgetSpec, task: Task, wanted: str) -> dict[str, int]:
    """Prunable cost in the budget's metric, and what is to go of it if that is the metric ``wanted``."""
    everything = budget.model_copy(update={"scope": []})
    total, scoped = (sum(c.prunable for c in target.costs(b, task).values()) for b in (everything, budget))
    figures = {"prunable": int(total), "in_scope": int(scoped)}
    if budget.metric == wanted:
        figures["to_remove"] = round(scoped * budget.share)
    return figures


def _steps(task: Task, spec: StageSpec) -> int:
    # A task whose model is not trained need not have anything to train on.
    return 0 if spec.is_empty else total_steps(len(task.examples("train")), spec)
