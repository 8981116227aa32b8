"""One method of one recipe in one run folder: every stage takes values, returns a value, and is one file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from prunekit import ranks
from prunekit.achieved import achieved, macs, structure_rows
from prunekit.card import write_card
from prunekit.evaluations import FOLDER as EVALUATIONS
from prunekit.evaluations import score, score_once
from prunekit.files import write_text
from prunekit.heads import check_head
from prunekit.latency.measured import MeasuredStopwatch
from prunekit.measure.environment import environment_record
from prunekit.measure.speed import as_pair, measure_speed, random_inputs
from prunekit.milestones import export
from prunekit.models import load_model, load_processor, model_fingerprint, save_model
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.pruning.verify import reload_difference, verify
from prunekit.recipe import BudgetSpec, MethodEntry, Recipe, ResolvedMethod, SpeedSpec, dump_recipe
from prunekit.reports.run import render_markdown
from prunekit.reports.run_page import render_run_page
from prunekit.resources import check_disk, disk_estimate, lower_if_out_of_memory
from prunekit.runfolder import RunFolder, sha256, training_log
from prunekit.tasks.answering import check_split
from prunekit.tasks.base import Task, make_task
from prunekit.tasks.records import write_answers
from prunekit.training.loop import Trainer
from prunekit.training.recover import recover

if TYPE_CHECKING:
    from prunekit.plugins import Registry
    from prunekit.progress import Progress

FORMAT = 1
# The tensors are equal; kernels may round differently when memory is aligned otherwise.
RELOAD_TOLERANCE = 1e-5


class Results(NamedTuple):
    """What the stages before the speed returned."""

    planned: dict[str, Any]
    recovered: dict[str, Any]
    quality: dict[str, Any]
    milestones: dict[str, Any]


class Job:
    """One method of one recipe in one run folder.

    Args:
        recipe: what to run, every key of the task written out.
        method: which of its methods.
        name: the dense model.
        out: the run folder; scores of the dense model are kept in a folder beside it.
        registry: the installed adapters, tasks and methods.
        progress: where to draw bars.

    Raises:
        PrunekitError: if the model or the task cannot be used, or ``out`` holds another run.
    """

    def __init__(
        self,
        recipe: Recipe,
        method: ResolvedMethod,
        name: str,
        out: Path,
        registry: Registry,
        progress: Progress,
    ) -> None:
        self.recipe, self.method, self.out, self.progress = single(recipe, method), method, out, progress
        self.name = name
        model = load_model(name)
        self.processor = load_processor(name)
        self.task: Task = make_task(recipe.task, self.processor, registry)
        check_head(name, model, self.task)
        for split in ("validation", recipe.evaluate.split):
            check_split(self.task.name, split, self.task.splits)
        self.dense = PrunableModel(model, find_adapter(model, registry.adapters))
        method.method_class.info.check_model(self.dense)
        self.distribution = registry.origins["methods"][method.method_class.info.name].distribution
        ranks.from_first(lambda: check_disk(out, disk_estimate(model.num_parameters(), method)["peak"]))
        self.folder = RunFolder(out, dump_recipe(self.recipe))
        self.folder.same("data", self.task.fingerprint(), "data")
        self.trainer = Trainer(out, method.train, seed=recipe.seed, progress=progress)
        self.device = self.trainer.device

    def results(self) -> Results:
        """Plan, cut, recover and score; a stage whose file is there is not done again."""
        planned = self.folder.stage("verify", self.prune)
        recovered = self.folder.stage("recover", self.recover)
        quality = self.folder.stage("quality", self.quality)
        fared = planned.get("milestones", [])
        milestones = self.folder.stage("milestones", lambda: export(self, fared)) if fared else {}
        return Results(planned, recovered, quality, milestones)

    def finish(self, results: Results, speed: Mapping[str, Any] | None) -> dict[str, Any]:
        """Write the report, as data and as pages, and the model's card.

        Args:
            results: of the stages.
            speed: as `prunekit.measure.speed.as_pair` returns it, or none.
        """
        plan = PruningPlan.load(self.out / "plan.json")
        report = self.folder.stage("report", lambda: self._report(plan, results, speed))
        ranks.from_first(lambda: self._write_pages(report, plan))
        return report

    def _write_pages(self, report: dict[str, Any], plan: PruningPlan) -> None:
        write_text(self.out / "report.md", render_markdown(report))
        write_text(self.out / "report.html", render_run_page(report, plan.keep, training_log(self.out)))
        write_card(self.out)

    @lower_if_out_of_memory("planning")
    def prune(self) -> dict[str, Any]:
        """Plan, cut, check that the cut model is the masked one, and save it."""
        method = self.method
        started = time.perf_counter()
        target = self.dense.copy()
        target.model.to(self.device)
        if method.budget.metric == "latency":
            target.stopwatch = MeasuredStopwatch(
                self.dense,
                timing_settings(self.recipe.speed, self.task),
                self.out,
                device=self.device,
                progress=self.progress,
            )
        chosen = method.method_class(method.config).plan(target, self.task, method.budget, self.trainer)
        plan, pruned = self.cut(target, chosen, method.budget)
        plan.save(self.out / "plan.json")
        certificate = verify(target, pruned, plan, self.batch(8))
        save_model(pruned.model, self.processor, self.out / "checkpoints" / "pruned")
        return {
            **certificate,
            "train_steps": self.trainer.steps,
            "reused_s": round(self.trainer.reused_s, 1),
            "warnings": list(self.trainer.warnings),
            **({"milestones": self.trainer.milestones} if self.trainer.milestones else {}),
            "plan_s": self._seconds_since(started),
        }

    def cut(
        self, target: PrunableModel, chosen: PruningPlan, budget: BudgetSpec
    ) -> tuple[PruningPlan, PrunableModel]:
        """The model that a method's plan leaves, and that plan with all that it is to tell.

        Args:
            target: the model with the weights to cut.
            chosen: what the method has planned.
            budget: what that was for.
        """
        pruned = target.pruned(chosen)
        plan = chosen.model_copy(
            update={
                "model_type": self.dense.adapter.model_type,
                "base_model": self.name,
                "base_config_sha256": sha256(self.dense.model.config.to_json_string()),
                "method": self.method.method_class.info.name,
                "method_version": self.distribution,
                "recipe_sha256": self.folder.recipe_sha256,
                "budget": budget.model_dump(),
                "achieved": {
                    **chosen.achieved,
                    **achieved(target, chosen, budget, self.task),
                    "macs": macs(target, pruned, chosen, budget, self.task),
                },
            }
        )
        return plan, pruned

    @lower_if_out_of_memory("recovering")
    def recover(self) -> dict[str, Any]:
        """Train what is left, and save the model that everything after this loads."""
        started = time.perf_counter()
        model = load_model(str(self.out / "checkpoints" / "pruned"))
        result = recover(model, self.dense.model, self.task, self.method.recover, self.trainer)
        final = self.out / "model"
        save_model(model, self.processor, final)
        difference = reload_difference(model, load_model(str(final)), self.batch(8))
        return {
            "steps": result.steps,
            "reload_max_abs": difference,
            "recover_s": self._seconds_since(started),
        }

    @lower_if_out_of_memory("evaluating")
    def quality(self) -> dict[str, Any]:
        """Score the dense and the saved model on the same examples, and keep what each answered."""
        started = time.perf_counter()
        spec, task = self.recipe.evaluate, self.task
        dense = score_once(
            self.name,
            self.dense.model.to(self.device),
            task,
            task_spec=self.recipe.task,
            spec=spec,
            folder=self.out.parent / EVALUATIONS,
            progress=self.progress,
        )
        pruned = score(self._saved().to(self.device), task, spec, self.progress)
        write_text(self.out / "answers-dense.jsonl", dense.answers.read_text())
        write_answers(self.out / "answers-pruned.jsonl", pruned)
        return {
            "primary": task.primary_metric,
            "higher_is_better": task.higher_is_better,
            "dense": dense.metrics,
            "pruned": pruned.metrics,
            "n": pruned.metrics["n"],
            "split": spec.split,
            "evaluated": {
                "examples": dense.examples,
                "split": spec.split,
                "limit": spec.limit,
                "num_beams": spec.num_beams,
                "metrics": task.metric_versions(),
            },
            "evaluate_s": round(time.perf_counter() - started, 1),
        }

    @lower_if_out_of_memory("timing")
    def speed(self) -> dict[str, Any]:
        """Time the dense and the saved model, interleaved, at the recipe's setting; one process does."""
        return ranks.from_first(self._timed)

    def _timed(self) -> dict[str, Any]:
        started = time.perf_counter()
        spec = timing_settings(self.recipe.speed, self.task)
        models = {"dense": self.dense.model.to(self.device), "pruned": self._saved().to(self.device)}
        inputs = random_inputs(models["dense"], spec, spec.seed)
        result = as_pair(measure_speed(models, inputs, spec, progress=self.progress), "dense", "pruned")
        return {**result, "speed_s": round(time.perf_counter() - started, 1)}

    def _report(self, plan: PruningPlan, results: Results, speed: Mapping[str, Any] | None) -> dict[str, Any]:
        """Requested, achieved and measured, from the stages' results."""
        planned, recovered, quality, milestones = results
        environment = environment_record()
        taken = {**planned, **recovered, **quality, **milestones, **(speed or {})}
        names = ("plan_s", "recover_s", "evaluate_s", "milestones_s", "speed_s")
        stages: dict[str, float] = {name: taken[name] for name in names if name in taken}
        if planned["reused_s"]:
            stages["reused_s"] = planned["reused_s"]
        return {
            "format": FORMAT,
            "prunekit_version": environment["prunekit"],
            "run": str(self.out),
            "method": self.method.method_class.info.name,
            "label": self.method.label,
            "model": self.name,
            "base_config_sha256": plan.base_config_sha256,
            "task": self.recipe.task.name,
            "data": self.task.fingerprint(),
            "fingerprint": self._fingerprint(plan),
            "seed": self.recipe.seed,
            "requested": self.method.budget.model_dump(),
            "achieved": plan.achieved,
            "structure": structure_rows(self.dense, plan),
            "quality": _without(quality, "evaluate_s"),
            "speed": _without(speed, "speed_s") if speed else None,
            **({"milestones": milestones["rows"]} if milestones else {}),
            "verify": {
                **_without(planned, "plan_s", "reused_s", "train_steps", "warnings", "milestones"),
                "reload_max_abs": recovered["reload_max_abs"],
            },
            "stages": stages,
            "recovery_steps": recovered["steps"],
            "train_steps": planned["train_steps"] + recovered["steps"],
            "auto_class": self.task.auto_class,
            "warnings": [*planned["warnings"], *_warnings(self.method, plan, recovered)],
            "recipe": self.recipe.model_dump(mode="json"),
            "environment": environment,
        }

    def _fingerprint(self, plan: PruningPlan) -> dict[str, str | None]:
        data = self.task.fingerprint()
        return {
            "model": model_fingerprint(self.name),
            "recipe": plan.recipe_sha256,
            "data": sha256(json.dumps(data, sort_keys=True)) if data else None,
        }

    def _seconds_since(self, started: float) -> float:
        """Wall seconds of a stage, those before an interruption included."""
        earlier, self.trainer.earlier_s = self.trainer.earlier_s, 0.0
        return round(time.perf_counter() - started + earlier, 1)

    def _saved(self) -> Any:
        return load_model(str(self.out / "model"))

    def batch(self, size: int) -> dict[str, torch.Tensor]:
        """The first validation examples, as the model takes them."""
        return self.task.collate(self.task.examples("validation")[:size])


def timing_settings(spec: SpeedSpec, task: Task) -> SpeedSpec:
    """The recipe's ``speed`` with an input length: if it has none, the task's mean."""
    if spec.input_tokens is not None:
        return spec
    lengths = task.lengths("validation")
    return spec.model_copy(update={"input_tokens": round(sum(lengths) / len(lengths))})


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in keys}


def single(recipe: Recipe, method: ResolvedMethod) -> Recipe:
    """Return the recipe of one run alone: one method, every override settled, its own published figures."""
    entry = {"method": method.method_class.info.name, **method.config.model_dump(mode="json")}
    own: dict[str, Any] = {"budget": method.budget, "train": method.train, "recover": method.recover}
    if recipe.published is not None:
        figures = {label: row for label, row in recipe.published.methods.items() if label == method.label}
        own["published"] = recipe.published.model_copy(update={"methods": figures})
    return recipe.model_copy(update={**own, "methods": {method.label: MethodEntry.model_validate(entry)}})


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
