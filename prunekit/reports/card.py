"""A pruned model's card: what was pruned of which model, how good and how fast it is, and how to use it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from prunekit.reports.card_data import BaseCard, Report, card_data, licence, measured, model_name, one_line
from prunekit.reports.markdown import bullets, escape, fenced, table
from prunekit.reports.pair import speed_section
from prunekit.reports.run import budget_sentence, headline

__all__ = ["BaseCard", "model_card"]

_SPLITS = ("train", "validation", "test", "calibration")
_FIND_OUT = "Find out its terms before you pass this model on."
_LIMITS = (
    "The figures hold for this task, these examples and that machine. Nothing else was measured: what the "
    "dense model could do besides may be lost.",
    "A mean hides where answers changed. What is rare in the data may have suffered more than the mean says.",
    "Faults and biases of the dense model are still there, and pruning may have added to them. Its card, if "
    "it has one, says what it is not meant for.",
)


def model_card(report: Report, base: BaseCard, *, pruned_type: bool = True) -> str:
    """The card as the hub takes it: front matter, then Markdown.

    Text of the report and of the base model's card is never read as markup. Folders are named by their last
    part, and rows of data that a recipe holds are left out: a card is made to be passed on.

    Args:
        report: a run's ``report.json``; any section may be missing.
        base: where the dense model comes from.
        pruned_type: whether the model's type is one of prunekit's, rather than a stock one.
    """
    from huggingface_hub import ModelCard

    sections = [
        _title(report, base),
        ["## Licence", _licence_sentence(base)],
        _pruned(report, base),
        ["## Quality", *_quality(report)],
        ["## Speed", *speed_section(report)],
        ["## How to load it", *_loading(report, pruned_type)],
        bullets("## Limits", [*_LIMITS, *_warnings(report)]),
        _again(report),
        _environment(report),
    ]
    text = "\n\n".join(block for section in sections for block in section)
    content = f"---\n{card_data(report, base).to_yaml()}\n---\n\n{text}\n"
    return str(ModelCard(content)).encode(errors="replace").decode()


def _title(report: Report, base: BaseCard) -> list[str]:
    what = f"{escape(base.dense)} for the task {escape(str(report.get('task')))}"
    maker = f"the method {escape(str(report.get('method')))} of prunekit"
    version = escape(str(report.get("prunekit_version", "")))
    return [
        f"# {escape(model_name(report, base))}",
        f"This is {what}, pruned by {maker} {version}. Whole heads, neurons, dimensions or blocks are gone, "
        "so it is a smaller model that needs no special kernels.",
    ]


def _licence_sentence(base: BaseCard) -> str:
    found, origin = licence(base), escape(base.origin)
    if found:
        stated = found["license"]
        said = " and ".join(map(escape, [stated] if isinstance(stated, str) else stated))
        more = [escape(found[key]) for key in ("license_name", "license_link") if key in found]
        said = f"{' '.join([said, *(f'({each})' for each in more)])}, as the card of {origin} says."
    elif base.facts is not None:
        said = f"The card of {origin} states none that could be read. {_FIND_OUT}"
    elif base.from_scratch:
        said = f"None is stated: {origin} was trained from random weights, and has no card."
    else:
        said = f"None is stated: no card of {origin} was found. {_FIND_OUT}"
    return f"{said} The data has terms of its own."


def _pruned(report: Report, base: BaseCard) -> list[str]:
    origin = "" if base.origin == base.dense else f", which comes from {escape(base.origin)}"
    rows = headline(report)
    figures = [table(("", "requested", "achieved", "measured"), rows)] if rows else []
    seed = f" Seed {report['seed']}." if "seed" in report else ""
    said = f"The dense model is {escape(base.dense)}{origin}. {escape(budget_sentence(report))}{seed}"
    return ["## What was pruned", said, *figures, *_structure(report)]


def _structure(report: Report) -> list[str]:
    """A row for each kind of unit: kept of all, and what each layer kept."""
    kinds: dict[str, list[tuple[int, int]]] = {}
    for entry in report.get("structure") or []:
        # Layers of one kind differ in their number alone.
        kind = re.sub(r"\.\d+\.", " ", entry["group"], count=1)
        kinds.setdefault(kind, []).append((entry["kept"], entry["size"]))
    rows = []
    for kind, layers in kinds.items():
        kept, size = (sum(column) for column in zip(*layers, strict=True))
        each = ", ".join(f"{count:,}" for count, _ in layers) if len(layers) > 1 else ""
        rows.append((kind, f"{kept:,} of {size:,}", each))
    return [table(("units", "kept", "by layer of the dense model"), rows)] if rows else []


def _quality(report: Report) -> list[str]:
    quality = report.get("quality") or {}
    dense, pruned = measured(quality, "dense"), measured(quality, "pruned")
    if not pruned:
        return ["Not measured."]
    better = "higher is better" if quality.get("higher_is_better") else "lower is better"
    rows = [
        (
            f"{name} ({better})" if name == quality.get("primary") else name,
            _figure(quality["dense"], name) if name in dense else "",
            _figure(quality["pruned"], name),
        )
        for name in pruned
    ]
    count = f"{quality['n']:,} examples" if "n" in quality else "the examples"
    split = f" of the split {escape(str(quality['split']))}" if "split" in quality else ""
    task = escape(str(report.get("task")))
    note = f"On {count}{split} of {task}, the same for both models. ± is one standard error."
    return [table(("metric", "dense", "this model"), rows), note]


def _figure(values: Mapping[str, Any], name: str) -> str:
    stderr = values.get(f"{name}_stderr")
    return f"{values[name]:.4g}" if stderr is None else f"{values[name]:.4g} ± {stderr:.2g}"


def _loading(report: Report, pruned_type: bool) -> list[str]:
    auto_class = str(report.get("auto_class") or "AutoModel")
    if not auto_class.isidentifier():
        auto_class = "AutoModel"
    if pruned_type:
        says = "Its layers have widths of their own, which `import prunekit` teaches transformers to read."
        lines = ["import prunekit"]
    else:
        says = "It is an ordinary transformers checkpoint: prunekit is not needed to load it."
        lines = []
    classes = {"model": auto_class}
    if "Image" not in auto_class:
        classes["tokenizer"] = "AutoTokenizer"
    lines += [f"from transformers import {', '.join(classes.values())}", ""]
    lines += [f'{name} = {each}.from_pretrained("FOLDER-OR-HUB-ID")' for name, each in classes.items()]
    return [says, "\n".join(["```python", *lines, "```"])]


def _warnings(report: Report) -> list[str]:
    return [f"The run warned: {escape(str(warning))}." for warning in report.get("warnings") or []]


def _again(report: Report) -> list[str]:
    """The recipe, to be run again."""
    if not report.get("recipe"):
        return []
    text = yaml.safe_dump(_public(report["recipe"]), sort_keys=False, allow_unicode=True)
    return [
        "## How to make it again",
        "Save this as `recipe.yaml` and run `prunekit prune recipe.yaml --out RUN`. Folders are given by "
        "their last part and rows of data by their number; put your own there.",
        fenced(text, "yaml"),
    ]


def _public(value: Any, key: str = "") -> Any:
    """The recipe without what is nobody else's business: where folders lie, and rows of data."""
    if isinstance(value, Mapping):
        return {name: _public(each, str(name)) for name, each in value.items()}
    if isinstance(value, list):
        if key in _SPLITS and value and isinstance(value[0], Mapping):
            return f"{len(value)} rows"
        return [_public(each) for each in value]
    if isinstance(value, str) and "\n" not in value:
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.is_absolute() or value.startswith("~/"):
                return path.name
    return value


def _environment(report: Report) -> list[str]:
    known = [
        (key, one_line(str(value)))
        for key, value in (report.get("environment") or {}).items()
        if value is not None
    ]
    return ["## Environment", table(("", ""), known)] if known else []
