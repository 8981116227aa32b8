"""One recipe, straight through: plan, cut, recover, evaluate, measure, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunekit.achieved import achieved, macs, structure_rows
from prunekit.dry_run import dry_run
from prunekit.errors import PrunekitError
from prunekit.files import write_text
from prunekit.finetune import finetune
from prunekit.heads import check_head
from prunekit.latency.measured import MeasuredStopwatch
from prunekit.measure.baselines import with_baselines
from prunekit.measure.environment import environment_record
from prunekit.measure.speed import as_pair, measure_speed, random_inputs
from prunekit.measure.sweep import measure_sweep
from prunekit.models import load_model, load_processor, save_model
from prunekit.progress import Progress
from prunekit.pruning.auto import auto_class_name
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.pruning.verify import reload_difference, verify
from prunekit.recipe import (
    EvaluateSpec,
    MethodEntry,
    Recipe,
    ResolvedMethod,
    SpeedSpec,
    TaskSpec,
    dump_recipe,
    resolve_method,
)
from prunekit.reports.run import render_markdown
from prunekit.runfolder import RunFolder, sha256
from prunekit.tasks.answering import check_split
from prunekit.tasks.base import Task, make_task, settled
from prunekit.teacher import dense_model
from prunekit.training.loop import Trainer
from prunekit.training.recover import recover

if TYPE_CHECKING:
    from prunekit.plugins import Registry

__all__ = ["dry_run", "evaluate", "finetune", "run", "speed"]

FORMAT = 1
TEACHERS = "teachers"
"""Folder beside run folders for the teachers that recipes train."""
# The tensors are equal; kernels may round differently when memory is aligned otherwise.
RELOAD_TOLERANCE = 1e-5


def run(
    recipe: Recipe, label: str | None, out: Path, *, registry: Registry, progress: Progress | None = None
) -> dict[str, Any]:
    """Prune, recover, evaluate and measure; every finished stage is a file in ``out`` and is not done again.

    A teacher that the recipe wants trained first goes into a folder of its own beside ``out``.

    Returns:
        The content of ``report.json``.

    Raises:
        PrunekitError: with one message that says what to change; earlier results in ``out`` stay.
    """
    progress = progress or Progress(quiet=True)
    recipe = recipe.model_copy(update={"task": settled(recipe.task, registry)})
    method = resolve_method(recipe, label, registry)
    dense = dense_model(recipe, out.parent / TEACHERS, registry=registry, progress=progress)
    job = _Job(recipe, method, dense, out, registry, progress)
    planned = job.folder.stage("verify", job.prune)
    recovered = job.folder.stage("recover", job.recover)
    quality = job.folder.stage("quality", job.quality)
    speed = job.folder.stage("speed", job.speed)
    report = job.folder.stage("report", lambda: job.report(planned, recovered, quality, speed))
    write_text(out / "report.md", render_markdown(report))
    return report


class _Job:
    """One method of one recipe in one run folder; each method is a stage."""

    def __init__(
        self,
        recipe: Recipe,
        method: ResolvedMethod,
        name: str,
        out: Path,
        registry: Registry,
        progress: Progress,
    ) -> None:
        self.recipe, self.method, self.out, self.progress = _single(recipe, method), method, out, progress
        self.name = name
        model = load_model(name)
        self.processor = load_processor(name)
        self.task: Task = make_task(recipe.task, self.processor, registry)
        check_head(name, model, self.task)
        for split in ("validation", recipe.evaluate.split):
            check_split(self.task.name, split, self.task.splits)
        self.dense = PrunableModel(model, find_adapter(model, registry.adapters))
        self.distribution = registry.origins["methods"][method.method_class.info.name].distribution
        self.folder = RunFolder(out, dump_recipe(self.recipe))
        self.folder.same("data", self.task.fingerprint(), "data")
        self.trainer = Trainer(out, method.train, seed=recipe.seed, progress=progress)
        self.device = self.trainer.device

    def prune(self) -> dict[str, Any]:
        """Plan, cut, check that the cut model is the masked one, and save it."""
        method = self.method
        started = time.perf_counter()
        target = self.dense.copy()
        target.model.to(self.device)
        if method.budget.metric == "latency":
            target.stopwatch = MeasuredStopwatch(
                self.dense, self._speed_spec(), self.out, device=self.device, progress=self.progress
            )
        chosen = method.method_class(method.config).plan(target, self.task, method.budget, self.trainer)
        pruned = target.pruned(chosen)
        plan = chosen.model_copy(
            update={
                "model_type": self.dense.adapter.model_type,
                "base_model": self.name,
                "base_config_sha256": sha256(self.dense.model.config.to_json_string()),
                "method": method.method_class.info.name,
                "method_version": self.distribution,
                "recipe_sha256": self.folder.recipe_sha256,
                "budget": method.budget.model_dump(),
                "achieved": {
                    **chosen.achieved,
                    **achieved(target, chosen, method.budget, self.task),
                    "macs": macs(target, pruned, chosen, method.budget, self.task),
                },
            }
        )
        plan.save(self.out / "plan.json")
        certificate = verify(target, pruned, plan, self._batch(8))
        save_model(pruned.model, self.processor, self.out / "checkpoints" / "pruned")
        return {**certificate, "plan_s": round(time.perf_counter() - started, 1)}

    def recover(self) -> dict[str, Any]:
        """Train what is left, and save the model that everything after this loads."""
        started = time.perf_counter()
        model = load_model(str(self.out / "checkpoints" / "pruned"))
        result = recover(model, self.dense.model, self.task, self.method.recover, self.trainer)
        final = self.out / "model"
        save_model(model, self.processor, final)
        difference = reload_difference(model, load_model(str(final)), self._batch(8))
        return {
            "steps": result.steps,
            "reload_max_abs": difference,
            "recover_s": round(time.perf_counter() - started, 1),
        }

    def quality(self) -> dict[str, Any]:
        """Score the dense and the saved model on the same examples."""
        started = time.perf_counter()
        spec, task = self.recipe.evaluate, self.task
        found = {
            name: task.evaluate(
                model.to(self.device),
                spec.split,
                batch_size=spec.batch_size,
                limit=spec.limit,
                num_beams=spec.num_beams,
                progress=self.progress,
            )
            for name, model in (("dense", self.dense.model), ("pruned", self._saved()))
        }
        return {
            "primary": task.primary_metric,
            "higher_is_better": task.higher_is_better,
            **found,
            "n": found["dense"]["n"],
            "split": spec.split,
            "evaluate_s": round(time.perf_counter() - started, 1),
        }

    def speed(self) -> dict[str, Any]:
        """Time the dense and the saved model, interleaved, at the recipe's setting."""
        started = time.perf_counter()
        spec = self._speed_spec()
        models = {"dense": self.dense.model.to(self.device), "pruned": self._saved().to(self.device)}
        inputs = random_inputs(models["dense"], spec, spec.seed)
        result = as_pair(measure_speed(models, inputs, spec, progress=self.progress), "dense", "pruned")
        return {**result, "speed_s": round(time.perf_counter() - started, 1)}

    def report(
        self,
        planned: dict[str, Any],
        recovered: dict[str, Any],
        quality: dict[str, Any],
        speed: dict[str, Any],
    ) -> dict[str, Any]:
        """Requested, achieved and measured, from the stages' results."""
        plan = PruningPlan.load(self.out / "plan.json")
        saved = PrunableModel(self._saved(), self.dense.adapter)
        environment = environment_record()
        results = {**planned, **recovered, **quality, **speed}
        stages = {name: results[name] for name in ("plan_s", "recover_s", "evaluate_s", "speed_s")}
        return {
            "format": FORMAT,
            "prunekit_version": environment["prunekit"],
            "run": str(self.out),
            "method": self.method.method_class.info.name,
            "label": self.method.label,
            "model": self.name,
            "task": self.recipe.task.name,
            "data": self.task.fingerprint(),
            "seed": self.recipe.seed,
            "requested": self.method.budget.model_dump(),
            "achieved": {
                **plan.achieved,
                "macs": macs(self.dense, saved, plan, self.method.budget, self.task),
            },
            "structure": structure_rows(self.dense, plan),
            "quality": _without(quality, "evaluate_s"),
            "speed": _without(speed, "speed_s"),
            "verify": {**_without(planned, "plan_s"), "reload_max_abs": recovered["reload_max_abs"]},
            "stages": stages,
            "recovery_steps": recovered["steps"],
            "auto_class": auto_class_name(saved.model),
            "warnings": _warnings(self.method, plan, recovered),
            "recipe": self.recipe.model_dump(mode="json"),
            "environment": environment,
        }

    def _speed_spec(self) -> SpeedSpec:
        spec = self.recipe.speed
        if spec.input_tokens is not None:
            return spec
        lengths = self.task.lengths("validation")
        return spec.model_copy(update={"input_tokens": round(sum(lengths) / len(lengths))})

    def _saved(self) -> Any:
        return load_model(str(self.out / "model"))

    def _batch(self, size: int) -> dict[str, torch.Tensor]:
        return self.task.collate(self.task.examples("validation")[:size])


def _without(values: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


def _single(recipe: Recipe, method: ResolvedMethod) -> Recipe:
    """The recipe of this run alone: one method, every override settled."""
    entry = {"method": method.method_class.info.name, **method.config.model_dump(mode="json")}
    settled = {"budget": method.budget, "train": method.train, "recover": method.recover}
    return recipe.model_copy(update={**settled, "methods": {method.label: MethodEntry.model_validate(entry)}})


def _warnings(method: ResolvedMethod, plan: PruningPlan, recovered: dict[str, Any]) -> list[str]:
    found = []
    latency = plan.achieved.get("latency", {"within": True})
    if not latency["within"]:
        found.append(
            f"the plan takes {latency['measured']:.3f} of the dense model's time where {latency['target']:g} "
            "was asked for: no nearer one was found"
        )
    if method.is_default:
        found.append(f"the recipe has no label {method.label}: the method ran with its defaults")
    if recovered["reload_max_abs"] > RELOAD_TOLERANCE:
        found.append(f"the saved model differs from the trained one by {recovered['reload_max_abs']:.3g}")
    return found


def evaluate(
    model: str, task: TaskSpec, spec: EvaluateSpec, *, registry: Registry, progress: Progress | None = None
) -> dict[str, Any]:
    """Metrics of a model on a task, with their standard errors and the number of examples."""
    loaded = load_model(model)
    made = make_task(task, load_processor(model), registry)
    check_head(model, loaded, made)
    found = made.evaluate(
        loaded.to(_device()),
        spec.split,
        batch_size=spec.batch_size,
        limit=spec.limit,
        num_beams=spec.num_beams,
        progress=progress,
    )
    return {"model": model, "task": task.model_dump(), "split": spec.split, **found}


def speed(
    models: Sequence[str],
    spec: SpeedSpec,
    batches: Sequence[int],
    lengths: Sequence[int | None] = (None,),
    *,
    baselines: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Times of models on random batches of every size and length, interleaved; the first is the reference.

    Args:
        models: names as `load_model` takes them.
        spec: how to measure.
        batches: batch sizes.
        lengths: input tokens; ``None`` as `prunekit.measure.sweep.measure_sweep` takes it.
        baselines: time the first model also in bf16, compiled and, if it generates, with a static cache.
        progress: draws a bar.

    Returns:
        What `prunekit.measure.sweep.measure_sweep` returns.

    Raises:
        PrunekitError: if a name is given twice or stands for no model.
    """
    if len(set(models)) < len(models):
        raise PrunekitError(f"speed: a model is named twice in {', '.join(models)}; name each once.")
    first, *others = ((name, load_model(name)) for name in models)
    contestants = dict([first, *(with_baselines(*first, spec).items() if baselines else ()), *others])
    return measure_sweep(contestants, spec, batches, lengths, progress=progress)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
