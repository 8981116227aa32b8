"""A run's milestones: asked for in its recipe, and made of the states that training kept for them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit import ranks
from prunekit.errors import RecipeError
from prunekit.evaluations import score
from prunekit.files import sweep
from prunekit.learned.milestones import label
from prunekit.models import load_model, save_model
from prunekit.pruning.verify import reload_difference, verify
from prunekit.recipe import Recipe, ResolvedMethod, load_recipe
from prunekit.resources import lower_if_out_of_memory
from prunekit.training.loop import Trainer

if TYPE_CHECKING:
    from prunekit.job import Job
    from prunekit.plugins import Registry

FOLDER = "milestones"
"""Where a run keeps them, each in a folder named by its sparsity."""
KEY = "save_at"
"""The key of methods that have milestones."""


def with_milestones(
    recipe: Recipe, method: ResolvedMethod, sparsities: Sequence[float], *, registry: Registry
) -> Recipe:
    """The recipe with the milestones of one of its methods set, as ``prunekit prune --save-at`` does.

    Args:
        recipe: a recipe that ``load_recipe`` accepted.
        method: the method; where the recipe has no label for it, it is given one.
        sparsities: what goes into the method's ``save_at``.
        registry: the installed plugins.

    Raises:
        RecipeError: if the method has no milestones, or these are none.
    """
    if KEY not in method.method_class.Config.model_fields:
        able = [name for name, each in registry.methods.items() if KEY in each.Config.model_fields]
        name = method.method_class.info.name
        shown = method.label if method.label == name else f"{method.label} ({name})"
        values = ",".join(f"{sparsity:g}" for sparsity in sparsities)
        raise RecipeError(
            f"--save-at: {shown} passes no other sparsity on the way to its own, so there is nothing to "
            "save. Run it once for each, with `prunekit compare RECIPE "
            f"--only {method.label} --sweep budget.sparsity={values}`. Methods with milestones: "
            f"{', '.join(able) or 'none'}."
        )
    entries = recipe.model_dump(mode="json")["methods"]
    changed = {**entries.get(method.label, {}), KEY: list(sparsities)}
    return load_recipe(recipe, {"methods": {**entries, method.label: changed}}, registry=registry)


def export(job: Job, fared: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cut, check, save and score every milestone that was met.

    Args:
        job: whose run it is.
        fared: how each milestone fared, as ``prunekit.learned.milestones.Milestone`` has it.

    Returns:
        ``rows``, for each milestone these facts, and of those that were met ``folder`` (in the run's),
        ``achieved``, ``verify`` and ``metrics``; and ``milestones_s``, the seconds taken.

    Raises:
        CheckpointError: if a state is missing or damaged.
        VerificationError: if a cut model is not the masked one.
    """
    started = time.perf_counter()
    rows = [{**each, **(_made(job, each["sparsity"]) if each["met"] else {})} for each in fared]
    return {"rows": rows, "milestones_s": round(time.perf_counter() - started, 1)}


def _made(job: Job, sparsity: float) -> dict[str, Any]:
    name = f"{FOLDER}/{label(sparsity)}"
    saved = _cut(job, sparsity, job.out / name)
    return {"folder": name, **saved, "metrics": _scored(job, job.out / name / "model")}


@lower_if_out_of_memory("planning")
def _cut(job: Job, sparsity: float, folder: Path) -> dict[str, Any]:
    """Make ``plan.json`` and ``model/``, which is not recovered."""
    method = job.method
    if ranks.is_first():
        sweep(folder)
    trainer = Trainer(job.out, method.train, seed=job.recipe.seed, progress=job.progress)
    trainer.milestone = sparsity
    target = job.dense.copy()
    target.model.to(job.device)
    chosen = method.method_class(method.config).plan(target, job.task, method.budget, trainer)
    plan, pruned = job.cut(target, chosen, method.budget.model_copy(update={"sparsity": sparsity}))
    plan.save(folder / "plan.json")
    batch = job.batch(8)
    certificate = verify(target, pruned, plan, batch)
    save_model(pruned.model, job.processor, folder / "model")
    reloaded = reload_difference(pruned.model, load_model(str(folder / "model")), batch)
    return {"achieved": plan.achieved, "verify": {**certificate, "reload_max_abs": reloaded}}


@lower_if_out_of_memory("evaluating")
def _scored(job: Job, model: Path) -> dict[str, float]:
    found = score(load_model(str(model)).to(job.device), job.task, job.recipe.evaluate, job.progress)
    return found.metrics
