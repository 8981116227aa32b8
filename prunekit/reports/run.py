"""A run's report for people: what was requested, achieved and measured, side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunekit.reports import milestones
from prunekit.reports.markdown import bullets, escape, fenced, table
from prunekit.reports.milestones import metric_text
from prunekit.reports.pair import call_text, device_text, ms_text, speed_notes, speed_section, speedup_text
from prunekit.reports.published import published_section

Report = Mapping[str, Any]
_Kept = tuple[int, int]  # units kept, units there were

QUALITY_HEADER = ("metric", "dense", "pruned", "change")
_BUDGET_WORDS = {"params": "parameters", "macs": "MACs"}
_VERIFY_WORDS = {
    "masked_vs_pruned_max_abs": "masked against pruned model, largest difference",
    "tolerance": "tolerance",
    "float32_max_abs": "the same in float32",
    "float32_tolerance": "tolerance in float32",
    "reload_max_abs": "saved and loaded again, largest difference",
    "cached_equals_uncached": "cached and uncached generation agree",
    "generation_equals_masked": "masked and pruned model generate the same tokens",
}


def render_markdown(report: Report) -> str:
    """The whole report as Markdown; quality and speed that were not measured are named as such.

    Args:
        report: a run's ``report.json``, with ``structure`` (a list of ``{group, kept, size}``), ``recipe``,
            ``warnings``, ``run`` (the folder as the user gave it) and ``auto_class`` (the transformers class
            that loads the model) beside the figures. Any section may be missing.
    """
    sections = [
        _title(report),
        _headline(report),
        bullets("## Warnings", map(escape, report.get("warnings", []))),
        ["## Quality", *_quality(report)],
        milestones.section(report),
        ["## Speed", *speed_section(report)],
        published_section(report),
        _structure(report),
        bullets("## Verification", verification(report)),
        bullets("## Time taken", _stages(report)),
        _loading(report),
        _pairs("## Environment", report.get("environment", {})),
        _recipe(report),
    ]
    return "\n\n".join(block for section in sections for block in section) + "\n"


def print_summary(report: Report, console: Console) -> None:
    """Print the figures that decide, on one screen; text from the report is never read as markup."""
    figures = Table(title=Text(heading(report)), title_justify="left")
    for name in ("", "requested", "achieved", "measured"):
        figures.add_column(Text(name), overflow="fold")
    for row in headline(report):
        figures.add_row(*map(Text, row))
    console.print(figures)
    for line in summary_lines(report):
        console.print(Text(line), soft_wrap=True)


def summary_lines(report: Report, *, checks: bool = True) -> list[str]:
    """What belongs under the headline: budget, what was kept, checks, warnings, and where the files are."""
    lines = [budget_sentence(report), *_kept_lines(report), *milestones.lines(report)]
    lines += [*(verification(report) if checks else ()), *speed_notes(report)]
    lines += [f"Warning: {warning}" for warning in report.get("warnings", [])]
    if "run" in report:
        lines.append(f"Report: {report['run']}/report.md   Model: {report['run']}/model")
    return lines


def budget_sentence(report: Report, code: str = "") -> str:
    """Requested against achieved share in one sentence; ``code`` encloses the scope's patterns."""
    requested, achieved = report.get("requested") or {}, report.get("achieved") or {}
    said = ["No budget was requested"]
    if "ratio" in requested:
        said = [f"Requested {100 * requested['ratio']:g} % of the dense model's time"]
        if latency := achieved.get("latency"):
            said.append(f"measured when it was planned {_of_the_time(latency)}")
    elif "sparsity" in requested:
        said = [f"Requested {_share(requested)} of {_target(requested, code)} removed"]
    if "sparsity" in achieved:
        removed = "" if "ratio" not in requested else " of the parameters in scope removed"
        said.append(f"achieved {100 * achieved['sparsity']:.1f} %{removed}")
    return "; ".join(said) + "."


def _of_the_time(latency: Mapping[str, Any]) -> str:
    share, low, high = (100 * latency[key] for key in ("measured", "low", "high"))
    return f"{share:.1f} % [{low:.1f}, {high:.1f}]"


def headline(report: Report) -> list[tuple[str, str, str, str]]:
    """Rows of (what, requested, achieved, measured); a cell that does not apply is empty."""
    requested, achieved = report.get("requested") or {}, report.get("achieved") or {}
    metric = requested.get("metric", "params")
    rows = []
    if latency := achieved.get("latency"):
        predicted = f"{100 * latency['predicted']:.1f} % predicted"
        asked = f"{100 * latency['target']:g} %"
        rows.append(("share of the dense model's time", asked, predicted, _of_the_time(latency)))
    if "sparsity" in achieved:
        what = f"removed from {_target(requested)}"
        rows.append((what, _share(requested), f"{100 * achieved['sparsity']:.1f} %", ""))
    for stack in ("encoder", "decoder"):
        if achieved.get(f"{stack}_sparsity") is not None:
            what = f"removed from the {stack}" + (" (parameters)" if metric == "macs" else "")
            rows.append((what, "", f"{100 * achieved[f'{stack}_sparsity']:.1f} %", ""))
    for key, what in (("params", "parameters"), ("prunable_params", "prunable parameters"), ("macs", "MACs")):
        if achieved.get(key):
            rows.append((what, "", _shrinkage(achieved[key]["dense"], achieved[key]["pruned"]), ""))
    if "prunable" in (macs := achieved.get("macs") or {}):
        dense, pruned = macs["prunable"]["dense"], macs["prunable"]["pruned"]
        lengths = " and ".join(str(macs[key]) for key in ("length", "target_length") if macs.get(key))
        most = f"at most {(1 - requested['sparsity']) * dense:,.0f}" if metric == "macs" else ""
        rows.append((f"prunable MACs in scope at {lengths} tokens", most, _shrinkage(dense, pruned), ""))
    quality, speed = report.get("quality"), report.get("speed")
    if quality:
        dense, pruned = (metric_text(quality[side], quality["primary"]) for side in ("dense", "pruned"))
        rows.append((primary_text(quality), "", "", f"{dense} -> {pruned}"))
    if speed:
        times = f"{ms_text(speed['dense']['median_ms'])} -> {ms_text(speed['pruned']['median_ms'])} ms"
        rows.append((f"{call_text(speed)} ({device_text(speed)})", "", "", f"{times}, {speedup_text(speed)}"))
    return rows


def heading(report: Report) -> str:
    """The run in a few words: label, method, model, task."""
    label, method = report.get("label"), report.get("method")
    name = f"{label} ({method})" if label and label != method else method
    return f"{name} on {report.get('model')}, task {report.get('task')}"


def _title(report: Report) -> list[str]:
    words = {"prunekit_version": "prunekit {}", "seed": "seed {}", "run": "run folder `{}`"}
    facts = [text.format(report[key]) for key, text in words.items() if key in report]
    lines = [", ".join(facts), escape(fingerprint(report))]
    return [f"# {escape(heading(report))}", *filter(None, lines)]


def fingerprint(report: Report) -> str:
    """What the run was made from, in one line; empty for a report of an earlier prunekit."""
    digests, versions = report.get("fingerprint") or {}, report.get("environment") or {}
    if not digests:
        return ""
    words = [f"{name} {str(digests[name])[:12]}" for name in ("model", "recipe") if name in digests]
    words.append(f"data {digests['data'][:12]}" if digests.get("data") else "data shipped with prunekit")
    names = ("prunekit", "torch", "transformers", "python")
    words += [f"{name} {versions[name]}" for name in names if versions.get(name)]
    return f"Fingerprint: {', '.join(words)}."


def _headline(report: Report) -> list[str]:
    rows = headline(report)
    figures = [table(("", "requested", "achieved", "measured"), rows)] if rows else []
    return ["## Requested, achieved, measured", budget_sentence(report, code="`"), *figures]


def _share(requested: Mapping[str, Any]) -> str:
    return f"{100 * requested['sparsity']:g} %" if "sparsity" in requested else ""


def _target(requested: Mapping[str, Any], code: str = "") -> str:
    # Time is met by removing units, whose parameters are counted.
    metric = "params" if "ratio" in requested else requested.get("metric", "params")
    words, scope = _BUDGET_WORDS[metric], requested.get("scope") or []
    if not scope:
        return f"all prunable {words}"
    names = " and ".join(f"{code}{pattern}{code}" for pattern in scope)
    return names if metric == "params" else f"the {words} of {names}"


def _shrinkage(dense: float, pruned: float) -> str:
    return f"{dense:,.0f} -> {pruned:,.0f} ({100 * (pruned - dense) / dense:+.1f} %)"


def primary_text(quality: Mapping[str, Any]) -> str:
    """The metric that decides, and which way is better."""
    return f"{quality['primary']} ({'higher' if quality['higher_is_better'] else 'lower'} is better)"


def _quality(report: Report) -> list[str]:
    if not report.get("quality"):
        return ["Not measured in this run."]
    return [table(QUALITY_HEADER, quality_rows(report["quality"])), quality_note(report["quality"])]


def quality_rows(quality: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Name, dense, pruned and change of each metric, the primary one first."""
    dense, pruned = quality["dense"], quality["pruned"]
    names = [name for name in dense if name in pruned and not re.search(r"(^|/)n$|_stderr$", name)]
    return [
        (
            primary_text(quality) if name == quality["primary"] else name,
            metric_text(dense, name),
            metric_text(pruned, name),
            f"{pruned[name] - dense[name]:+.4g}",
        )
        for name in sorted(names, key=lambda name: name != quality["primary"])
    ]


def quality_note(quality: Mapping[str, Any]) -> str:
    """What ± means, and of how many examples."""
    return "± is one standard error" + (f", {quality['n']:,} examples." if "n" in quality else ".")


def _layers(report: Report) -> tuple[dict[str, dict[str, dict[int, _Kept]]], dict[str, _Kept]]:
    """Kept and all units by stack, kind and layer; and those of the groups that span layers, by name."""
    stacks: dict[str, dict[str, dict[int, _Kept]]] = {}
    spanning = {}
    for entry in report.get("structure", []):
        kept = (entry["kept"], entry["size"])
        if place := re.fullmatch(r"(.+?)\.(\d+)\.(.+)", entry["group"]):
            stacks.setdefault(place[1], {}).setdefault(place[3], {})[int(place[2])] = kept
        else:
            spanning[entry["group"]] = kept
    return stacks, spanning


def _structure(report: Report) -> list[str]:
    """One table a stack (layers down, kinds of unit across), then the groups that span layers."""
    stacks, spanning = _layers(report)
    blocks = []
    for stack, kinds in stacks.items():
        layers = sorted({layer for column in kinds.values() for layer in column})
        rows = [(str(layer), *(_kept(column.get(layer)) for column in kinds.values())) for layer in layers]
        rows.append(("all", *(_kept(_sum(column)) for column in kinds.values())))
        blocks.append(table((f"{stack} layer", *kinds), rows))
    blocks += bullets("", (f"`{group}`: {_kept(kept)}" for group, kept in spanning.items()))
    return ["## Structure", "Kept of all units, by layer of the dense model.", *blocks] if blocks else []


def _kept_lines(report: Report) -> list[str]:
    stacks, spanning = _layers(report)
    totals = {
        f"{stack} {kind}": _sum(column) for stack, kinds in stacks.items() for kind, column in kinds.items()
    }
    kept = ", ".join(f"{name} {_kept(count)}" for name, count in (totals | spanning).items())
    return [f"Kept: {kept}."] if kept else []


def _sum(column: Mapping[int, _Kept]) -> _Kept:
    return sum(kept for kept, _ in column.values()), sum(size for _, size in column.values())


def _kept(kept: _Kept | None) -> str:
    return f"{kept[0]:,} of {kept[1]:,}" if kept else ""


def verification(report: Report) -> list[str]:
    """What was checked of the pruned model, a line each."""
    verify = report.get("verify") or {}
    return [f"{_VERIFY_WORDS.get(key, key)}: {_answer(value)}" for key, value in verify.items()]


def _answer(value: float | bool | None) -> str:
    if value is None:
        return "does not apply"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}"


def _stages(report: Report) -> list[str]:
    stages, steps = report.get("stages") or {}, report.get("recovery_steps")
    words = {"reused_s": "not in this, scores that another run had computed"}
    lines = [
        f"{words.get(name, name.removesuffix('_s'))}: {duration(seconds)}" for name, seconds in stages.items()
    ]
    return lines if steps is None else [*lines, f"steps of recovery: {steps:,}"]


def duration(seconds: float) -> str:
    """A time for people."""
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _loading(report: Report) -> list[str]:
    code = loading_code(report)
    return ["## Load it with", f"```python\n{code}\n```"] if code else []


def loading_code(report: Report) -> str:
    """Python that loads the pruned model; empty where the report names no run folder."""
    if "run" not in report:
        return ""
    if auto_class := report.get("auto_class"):
        lines = [
            "import prunekit  # makes transformers know pruned architectures; stock ones do without",
            f"from transformers import {auto_class}",
            "",
            f"model = {auto_class}.from_pretrained({report['run'] + '/model'!r})",
        ]
    else:
        lines = ["from prunekit.models import load_model", "", f"model = load_model({report['run']!r})"]
    return "\n".join(lines)


def _recipe(report: Report) -> list[str]:
    if not report.get("recipe"):
        return []
    text = yaml.safe_dump(dict(report["recipe"]), sort_keys=False, allow_unicode=True)
    return ["## Recipe", fenced(text, "yaml")]


def _pairs(title: str, values: Mapping[str, Any]) -> list[str]:
    known = [(key, str(value)) for key, value in values.items() if value is not None]
    return [title, table(("", ""), known)] if known else []
