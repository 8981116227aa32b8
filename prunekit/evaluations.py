"""Scores of dense models, kept beside run folders, so that runs on one model and task score it once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunekit.files import write_text
from prunekit.models import model_fingerprint, short_name
from prunekit.runfolder import sha256
from prunekit.tasks.records import write_answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.progress import Progress
    from prunekit.recipe import EvaluateSpec, TaskSpec
    from prunekit.tasks.base import Evaluation, Task

FOLDER = "evaluations"
"""Name of the folder that holds them, beside run folders."""


@dataclass(frozen=True)
class Scores:
    """What stays of an evaluation.

    Attributes:
        metrics: as `prunekit.tasks.base.Evaluation` has them.
        examples: its fingerprint, equal where the same examples were asked.
        answers: file of the answers, as `prunekit.tasks.records` writes them.
    """

    metrics: dict[str, float]
    examples: str
    answers: Path


def score(
    model: PreTrainedModel, task: Task, spec: EvaluateSpec, progress: Progress | None = None
) -> Evaluation:
    """Evaluate a model as a recipe's ``evaluate`` section says."""
    return task.evaluate(
        model,
        spec.split,
        batch_size=spec.batch_size,
        limit=spec.limit,
        num_beams=spec.num_beams,
        progress=progress,
    )


def score_once(
    name: str,
    model: PreTrainedModel,
    task: Task,
    *,
    task_spec: TaskSpec,
    spec: EvaluateSpec,
    folder: Path,
    progress: Progress,
) -> Scores:
    """Evaluate a model, unless ``folder`` has its scores already; they are kept there.

    Args:
        name: the model's name, for a digest of its weights.
        model: that model, on the device that it is scored on.
        task: what to score on.
        task_spec: the task's keys, all of them.
        spec: how to score.
        folder: where scores are kept, each in a folder whose name tells the model and the task, and by a
            digest all that scores depend on: weights, task, data, settings, the metrics' definitions, and the
            kind of device.
        progress: draws a bar.
    """
    facts = {
        "weights": model_fingerprint(name),
        "task": task_spec.model_dump(mode="json"),
        "data": task.fingerprint(),
        "evaluate": spec.model_dump(mode="json"),
        "metrics": task.metric_versions(),
        "device": model.device.type,
    }
    digest = sha256(json.dumps(facts, sort_keys=True))[:12]
    kept = folder / f"{short_name(name)}-{task_spec.name}-{digest}"
    if not (kept / "scores.json").is_file():
        found = score(model, task, spec, progress)
        write_answers(kept / "answers.jsonl", found)
        scores = {"facts": facts, "metrics": found.metrics, "examples": found.fingerprint}
        write_text(kept / "scores.json", json.dumps(scores, indent=1) + "\n")
    stored = json.loads((kept / "scores.json").read_text())
    return Scores(stored["metrics"], stored["examples"], kept / "answers.jsonl")
