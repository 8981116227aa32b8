"""The answers of two models to the same examples: those that runs keep, or made now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.comparison.difference import Side
from prunekit.errors import ComparisonError
from prunekit.json_files import read_json
from prunekit.manifest import check_read
from prunekit.pipeline import evaluated
from prunekit.tasks.records import answer_rows, read_answers

if TYPE_CHECKING:
    from prunekit.plugins import Registry
    from prunekit.progress import Progress
    from prunekit.recipe import EvaluateSpec, TaskSpec

_AGAIN = (
    "Give two models with --task NAME or --recipe FILE to evaluate them now, or repeat the run's "
    "`prunekit prune` command in another folder."
)


@dataclass(frozen=True)
class Answered:
    """Two models' answers, and the metric that they are judged by.

    Attributes:
        base: the model to start from.
        pruned: the model to judge.
        metric: the task's primary metric.
        higher_is_better: its direction.
    """

    base: Side
    pruned: Side
    metric: str
    higher_is_better: bool


def kept_answers(base: Path, pruned: Path | None) -> Answered:
    """What finished runs keep: one run's dense and pruned model, or two runs' pruned models.

    Raises:
        ComparisonError: if a run keeps no answers, or two runs were not scored alike; the text says in what.
        DataError: if a file of answers is damaged.
        RunFolderError: if a file of a run is.
    """
    first = _quality(base)
    if pruned is None:
        return _answered(first, Side("dense", first["dense"], _read(base, "dense")), _pruned(base, first))
    second = _quality(pruned)
    facts = [{"primary metric": each["primary"], **each["evaluated"]} for each in (first, second)]
    if different := [key for key in facts[0] if facts[0][key] != facts[1].get(key)]:
        told = "; ".join(f"{key}: {facts[0][key]} and {facts[1].get(key)}" for key in different)
        raise ComparisonError(
            f"{base} and {pruned} were not scored alike ({told}). Give --task NAME or --recipe FILE to "
            "evaluate both models now."
        )
    return _answered(first, _pruned(base, first), _pruned(pruned, second))


def made_answers(
    base: str, pruned: str, task: TaskSpec, spec: EvaluateSpec, *, registry: Registry, progress: Progress
) -> Answered:
    """Both models evaluated on a task, one after the other.

    Args:
        base: the model to start from, as `prunekit.models.load_model` takes it.
        pruned: the model to judge, likewise.
        task: what to ask.
        spec: how to ask.
        registry: the installed tasks.
        progress: draws bars.

    Raises:
        PrunekitError: if a model or the task cannot be used.
    """
    (made, first), (_, second) = (
        evaluated(name, task, spec, registry=registry, progress=progress) for name in (base, pruned)
    )
    return Answered(
        Side(base, first.metrics, answer_rows(first)),
        Side(pruned, second.metrics, answer_rows(second)),
        made.primary_metric,
        made.higher_is_better,
    )


def _answered(quality: dict[str, Any], base: Side, pruned: Side) -> Answered:
    return Answered(base, pruned, quality["primary"], quality["higher_is_better"])


def _pruned(run: Path, quality: dict[str, Any]) -> Side:
    return Side(str(run), quality["pruned"], _read(run, "pruned"))


def _read(run: Path, which: str) -> list[dict[str, Any]]:
    path = run / f"answers-{which}.jsonl"
    if not path.is_file():
        raise ComparisonError(f"{run} holds no {path.name}, so there are no answers to compare. {_AGAIN}")
    return read_answers(path)


def _quality(run: Path) -> dict[str, Any]:
    path = run / "quality.json"
    if not path.is_file():
        raise ComparisonError(
            f"{run} holds no quality.json, so it is no run that was scored. Give the folder of a finished "
            "run, or two models and --task NAME or --recipe FILE."
        )
    check_read(run, path.name, "answers-dense.jsonl", "answers-pruned.jsonl")
    found = read_json(path, "Delete it and repeat the run's command.")
    if "evaluated" not in found:
        raise ComparisonError(f"{run} is of an older prunekit, which kept no answers. {_AGAIN}")
    return found
