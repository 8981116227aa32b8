"""The front matter of a pruned model's card: what the hub reads, from report and base model's card."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

Report = Mapping[str, Any]

# The hub's names for what a model with such a head does; the base card's own word is taken if it is one.
_PIPELINES = {
    "AutoModelForSequenceClassification": ("text-classification",),
    "AutoModelForImageClassification": ("image-classification",),
    "AutoModelForQuestionAnswering": ("question-answering",),
    "AutoModelForSeq2SeqLM": ("text2text-generation", "summarization", "translation", "text-generation"),
}
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,95}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class BaseCard:
    """Where the dense model comes from, and what the nearest card on the way there says.

    Attributes:
        dense: what the text calls the model that was pruned.
        origin: what it calls the model whose card this is; without a card, the first one known.
        hub: ids of the hub's models that it is or derives from.
        facts: the front matter as it was parsed, of any form; ``None`` where no card was found.
        from_scratch: whether training began from random weights.
    """

    dense: str
    origin: str
    hub: tuple[str, ...] = ()
    facts: Mapping[Any, Any] | None = None
    from_scratch: bool = False


def card_data(report: Report, base: BaseCard) -> ModelCardData:
    """The card's metadata; what is not known is left out.

    Args:
        report: a run's ``report.json``.
        base: the licence, the language and perhaps the pipeline tag are carried over from it.
    """
    from huggingface_hub import ModelCardData

    facts = base.facts or {}
    tag = pipeline_tag(report, facts)
    results = list(_results(report, tag))
    ids = [task["data"]["hub"] for task in _tasks(report).values() if task["data"].get("hub")]
    return ModelCardData(
        base_model=_one_or_all(base.hub),
        library_name="prunekit",
        **licence(base),
        language=_one_or_all(_languages(facts.get("language"))),
        datasets=list(dict.fromkeys(map(one_line, ids))) or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        pipeline_tag=tag,
        tags=["pruned", "structured-pruning", one_line(str(report.get("method", "")))],
        model_name=model_name(report, base),
        eval_results=results or None,
    )


def model_name(report: Report, base: BaseCard) -> str:
    """Last part of the dense model's name, and the label."""
    short = re.split(r"[/:\\]", base.dense)[-1]
    return one_line(f"{short}-{report.get('label') or report.get('method')}")


def licence(base: BaseCard) -> dict[str, Any]:
    """``license``, ``license_name`` and ``license_link`` as the base model's card has them; or nothing.

    Only identifiers are taken, and links that lead somewhere from here too: a file's name is read as a file
    of the base model's repository, and left out where that is unknown.
    """
    facts = base.facts or {}
    stated = facts.get("license")
    given = stated if isinstance(stated, list) else [stated]
    known = [each for each in given if isinstance(each, str) and _IDENTIFIER.fullmatch(each)]
    if not known or len(known) < len(given):
        return {}
    found: dict[str, Any] = {"license": _one_or_all(known)}
    name, link = facts.get("license_name"), facts.get("license_link")
    if isinstance(name, str) and _IDENTIFIER.fullmatch(name):
        found["license_name"] = name
    if isinstance(link, str) and re.fullmatch(r"https?://[^\s<>\"`]+", link):
        found["license_link"] = link
    elif isinstance(link, str) and _IDENTIFIER.fullmatch(link) and base.hub == (base.origin,):
        found["license_link"] = f"https://huggingface.co/{base.origin}/blob/main/{link}"
    return found


def repositories(value: object) -> tuple[str, ...]:
    """Those of one or several ids that may be the hub's."""
    return tuple(each for each in _listed(value) if isinstance(each, str) and _REPOSITORY.fullmatch(each))


def pipeline_tag(report: Report, facts: Mapping[Any, Any]) -> str | None:
    """The hub's name for what the model does; none where neither its class nor the base's card tells."""
    own = facts.get("pipeline_tag")
    known = _PIPELINES.get(str(report.get("auto_class")))
    if known is None:
        return own if isinstance(own, str) and _IDENTIFIER.fullmatch(own) else None
    return own if own in known else known[0]


def measured(quality: Mapping[str, Any], side: str) -> dict[str, float]:
    """The finite metrics of ``dense`` or ``pruned``, the leading one first; no counts, no standard errors."""
    names = [
        name
        for name, value in (quality.get(side) or {}).items()
        if not re.search(r"(^|/)n$|_stderr$", name)
        and isinstance(value, int | float)
        and math.isfinite(value)
    ]
    ordered = sorted(names, key=lambda name: name != quality.get("primary"))
    return {name: quality[side][name] for name in ordered}


def one_line(text: str) -> str:
    """The text with no line breaks, and with a mark for what UTF-8 cannot say."""
    return " ".join(text.split()).encode(errors="replace").decode()


def _results(report: Report, tag: str | None) -> Iterator[EvalResult]:
    """Each metric of the pruned model, under the data set that it was measured on."""
    from huggingface_hub import EvalResult

    quality, tasks = report.get("quality") or {}, _tasks(report)
    overall = {"name": str(report.get("task")), "data": {}}
    for name, value in measured(quality, "pruned").items():
        label, _, metric = name.rpartition("/")
        task = tasks.get(label, overall)
        data, split = task["data"], quality.get("split")
        count = quality["pruned"].get(f"{label}/n" if label else "n")
        yield EvalResult(
            task_type=tag or "other",
            task_name=one_line(task["name"]),
            dataset_type=one_line(data.get("hub") or task["name"]),
            dataset_name=one_line(task["name"]),
            dataset_config=data.get("config"),
            dataset_revision=data.get("revision"),
            dataset_split=(data.get("splits") or {}).get(split, split),
            dataset_args=None if count is None else {"examples": count},
            metric_type=one_line(metric),
            metric_name=one_line(name),
            metric_value=float(f"{value:.6g}"),
        )


def _tasks(report: Report) -> dict[str, dict[str, Any]]:
    """Name and data of the task, or of each task of a mixture, by the prefix of its metrics."""
    task = (report.get("recipe") or {}).get("task") or {"name": report.get("task")}
    several = task.get("tasks")
    entries = several if isinstance(several, Mapping) else {"": task}
    found = {}
    for label, entry in entries.items():
        data = entry.get("data")
        named = str(entry.get("name") or label)
        found[label] = {"name": named, "data": data if isinstance(data, Mapping) else {}}
    return found


def _languages(value: object) -> list[str]:
    # YAML reads the code of Norwegian as a truth value, unless it is quoted.
    codes = ["no" if each is False else each for each in _listed(value)]
    return [code for code in codes if isinstance(code, str) and re.fullmatch(r"[A-Za-z-]{2,20}", code)]


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _one_or_all(values: tuple[str, ...] | list[str]) -> Any:
    """One value by itself, several as a list, nothing as ``None``."""
    return values[0] if len(values) == 1 else list(values) or None
