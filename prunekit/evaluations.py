"""Scores of dense models, kept beside run folders, so that runs on one model and task score it once."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit import ranks
from prunekit.errors import RunFolderError
from prunekit.files import write_text
from prunekit.json_files import read_json
from prunekit.manifest import sha256_of
from prunekit.models import model_fingerprint, short_name
from prunekit.resources import release_memory
from prunekit.runfolder import sha256
from prunekit.tasks.records import write_answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.progress import Progress
    from prunekit.recipe import EvaluateSpec, TaskSpec
    from prunekit.tasks.base import Evaluation, Task

FOLDER = "evaluations"
"""Name of the folder that holds them, beside run folders."""

_log = logging.getLogger(__name__)


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
    found = task.evaluate(
        model,
        spec.split,
        batch_size=spec.batch_size,
        limit=spec.limit,
        num_beams=spec.num_beams,
        progress=progress,
    )
    release_memory()  # the next model's batches fit no gaps that this one's left
    return found


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

    Scores or answers that are damaged are named in a log line and replaced.

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
    stored = ranks.from_first(lambda: _stored(kept))
    if stored is None:
        found = score(model, task, spec, progress)
        stored = ranks.from_first(lambda: _kept(kept, facts, found))
    return Scores(stored["metrics"], stored["examples"], kept / "answers.jsonl")


def _kept(kept: Path, facts: Mapping[str, Any], found: Evaluation) -> dict[str, Any]:
    write_answers(kept / "answers.jsonl", found)
    stored = {
        "facts": facts,
        "metrics": found.metrics,
        "examples": found.fingerprint,
        "answers_sha256": sha256_of(kept / "answers.jsonl"),
    }
    stored["sha256"] = _digest(stored)
    write_text(kept / "scores.json", json.dumps(stored, indent=1) + "\n")
    return stored


def _stored(kept: Path) -> dict[str, Any] | None:
    """The scores in a folder with the answers that they were computed from; none where either is damaged."""
    path, answers = kept / "scores.json", kept / "answers.jsonl"
    if not path.is_file():
        return None
    try:
        found = read_json(path, "The model is evaluated again.")
    except RunFolderError as error:
        _log.warning("%s", error)
        return None
    if found.get("sha256") != _digest(found):
        changed = path
    elif not answers.is_file() or found["answers_sha256"] != sha256_of(answers):
        changed = answers
    else:
        return found
    _log.warning("%s is not there as it was written. The model is evaluated again.", changed)
    return None


def _digest(stored: Mapping[str, Any]) -> str:
    """Hash of all that is stored beside the hash."""
    return sha256(json.dumps({key: stored[key] for key in stored if key != "sha256"}, sort_keys=True))
