"""Rewrites the generated blocks of README.md and docs/, or with ``--check`` names the files that need it.

A block stands between ``<!-- generate: NAME -->`` and ``<!-- /generate -->``; NAME is a key of ``BLOCKS``.
"""

from __future__ import annotations

import inspect
import re
import runpy
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from prunekit import hookspecs
from prunekit.adapters.base import Adapter, StackTable, SublayerTable
from prunekit.cli import app
from prunekit.method import MethodInfo
from prunekit.plugins import Registry, plugin_sources
from prunekit.recipe_models import MethodEntry, Recipe
from prunekit.tasks.base import Evaluation, Metric, MetricValue, Task
from prunekit.tasks.named import named_files, named_tasks
from prunekit.testing.adapter_rules import ADAPTER_RULES
from prunekit.testing.method_rules import METHOD_RULES
from prunekit.testing.rules import Rule

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- generate: (\S+) -->\n).*?(<!-- /generate -->)", re.DOTALL)
HELP_WIDTH = 96


def own_registry() -> Registry:
    """What this distribution registers, and no plugin that happens to be installed beside it."""
    return Registry([source for source in plugin_sources() if source.distribution.split()[0] == "prunekit"])


# Command line


def commands(command: Any = None, path: str = "prunekit") -> Iterator[tuple[str, Any]]:
    """Every command with its full name, groups before what they hold."""
    command = command or typer.main.get_command(app)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def command_table() -> str:
    """README's table: the commands that do something."""
    rows = [
        (f"`{path}`", command.get_short_help_str(limit=200))
        for path, command in commands()
        if not hasattr(command, "commands")
    ]
    return table(("command", "what it does"), rows)


def help_texts() -> str:
    """The help of every command, as ``--help`` prints it."""
    texts = []
    for path, command in commands():
        context = command.context_class(command, info_name=path, terminal_width=HELP_WIDTH)
        texts.append(f"## {path}\n\n```text\n{command.get_help(context).rstrip()}\n```")
    return "\n\n".join(texts)


# Recipes


def sections(model: type[BaseModel] = Recipe, path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections of a recipe with their key paths; the recipe itself has the path ``""``."""
    yield path, model
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            at = f"{path}.{name}".lstrip(".")
            yield from sections(inner, f"{at}.LABEL" if inner is MethodEntry else at)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def recipe_keys() -> str:
    """A table for each section of a recipe."""
    parts = []
    for path, model in sections():
        title = f"`{path}`" if path else "Top level"
        doc = inspect.getdoc(model) or ""
        sentence = doc.replace("``", "`").partition("\n\n")[0].replace("\n", " ")
        parts.append(f"### {title}\n\n{sentence}\n\n{key_table(model, path)}")
    return "\n\n".join(parts)


def plugin_keys(kind: Literal["methods", "tasks"]) -> str:
    """The recipe keys of each method or task that ships with prunekit, a table for each of its sections."""
    at = {"methods": "methods.LABEL", "tasks": "task"}[kind]
    tables = {
        name: "\n\n".join(key_table(model, path) for path, model in sections(item.Config, at))
        for name, item in getattr(own_registry(), kind).items()
        if not hasattr(item, "about")  # a named task has its family's keys
    }
    return "\n\n".join(f"### `{name}`\n\n{text}" for name, text in tables.items())


def named_task_keys() -> str:
    """The recipe key that named tasks have besides those of their families."""
    field = next(filter(None, (task.Config.model_fields.get("prompt") for task in named_tasks())))
    row = ("`task.prompt`", type_text(field), default_text(field), field.description or "")
    return table(("key", "type", "default", "meaning"), [row])


def named_task_table() -> str:
    """The named tasks: what they are, where their data comes from, how they are scored and worded."""
    rows = []
    for named in named_files():
        data = named.keys["data"]
        source = ", ".join(f"`{data[key]}`" for key in ("hub", "config") if key in data)
        metrics = ", ".join(f"`{metric}`" for metric in named.resolved()["metrics"])
        prompts = ", ".join(f"`{name}`" for name in named.prompts)
        rows.append((f"`{named.name}`", named.summary, f"`{named.family}`", source, metrics, prompts))
    return table(("`task.name`", "what it is", "family", "source", "metrics", "prompts"), rows)


def key_table(model: type[BaseModel], path: str) -> str:
    """Key, type, default and meaning of every field of a section."""
    rows = []
    for name, field in model.model_fields.items():
        key = f"{path}.{name}".lstrip(".")
        rows.append((f"`{key}`", type_text(field), default_text(field), field.description or ""))
    return table(("key", "type", "default", "meaning"), rows)


def type_text(field: FieldInfo) -> str:
    """The values a key takes, in words, with the limits on numbers."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, sign in signs.items()
        if hasattr(limit, name)
    ]
    return ", ".join([in_words(field.annotation), *limits])


def in_words(annotation: Any) -> str:
    """An annotation as a reader of YAML would say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(arguments[0])
    if origin is Literal:
        *others, last = (f"`{value}`" for value in arguments)
        return f"{', '.join(others)} or {last}" if others else last
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(part) for part in arguments if part is not type(None))
    if origin in (list, tuple):
        return f"list of {in_words(arguments[0])}"
    if models_in(annotation) or origin is dict:
        return "mapping"
    names = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}
    return names[annotation]


def default_text(field: FieldInfo) -> str:
    """The default as YAML would show it; sections say "see below", for each key has its own."""
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "none"
    if isinstance(default, BaseModel):
        return "see below"
    if isinstance(default, str):
        return f"`{default}`" if default else "empty"
    return f"`{str(to_jsonable_python(default)).replace('True', 'true').replace('False', 'false')}`"


# Plugins


def hooks() -> list[tuple[str, Callable[..., Any]]]:
    """The hooks in the order of the file that specifies them."""
    return [(name, hook) for name, hook in vars(hookspecs).items() if name.startswith("prunekit_")]


def hook_sections() -> str:
    """Each hook with its signature and its docstring."""
    parts = []
    for name, hook in hooks():
        doc = (inspect.getdoc(hook) or "").replace("``", "`")
        parts.append(f"### {name}\n\n`{signature(name, hook)}`\n\n{doc}")
    return "\n\n".join(parts)


def signature(name: str, function: Callable[..., Any]) -> str:
    """A function's name and arguments, its annotations as they are written."""
    return f"{name}{inspect.signature(function)}".replace("'", "")


def documented_fields(item: type[Any]) -> str:
    """A class's ``Args`` or ``Attributes`` as a table."""
    doc = inspect.getdoc(item) or ""
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    if section is None:
        raise ValueError(f"{item.__name__} documents no fields")
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE)
    rows = [(f"`{name}`", " ".join(text.replace("``", "`").split())) for name, text in entries]
    return table(("field", "meaning"), rows)


def method_table() -> str:
    """The methods that ship with prunekit, with links to their pages."""
    registry = own_registry()
    rows = [
        (f"[{name}]({method_page(name, registry)})", method.info.summary, method.info.paper)
        for name, method in registry.methods.items()
    ]
    return table(("method", "what it does", "source"), rows)


def method_page(name: str, registry: Registry) -> str:
    """Where a method is explained, from docs/: on its own page, or in a section of its plugin's."""
    own = f"methods/{name}.md"
    if (ROOT / "docs" / own).is_file():
        return own
    return f"methods/{registry.origins['methods'][name].plugin}.md#{name}"


def adapter_table() -> str:
    """The adapters that ship with prunekit."""
    rows = [
        (f"`{name}`", adapter.summary, ", ".join(f"`{stack.name}`" for stack in adapter.stacks))
        for name, adapter in own_registry().adapters.items()
    ]
    return table(("adapter", "architecture", "stacks"), rows)


def method_traits() -> str:
    """What each method of prunekit's removes and needs; for methods/index.md."""
    registry = own_registry()
    pages = {name: method_page(name, registry) for name in registry.methods}
    return str(runpy.run_path(str(ROOT / "docs/site_tables.py"))["method_traits"](registry.methods, pages))


def rule_table(rules: Sequence[Rule]) -> str:
    """Rules of the check suite, in the order in which they are tried."""
    rows = [(f"`{rule.name}`", rule.summary, "once" if rule.of == "plugin" else "each") for rule in rules]
    return table(("rule", "what must hold", "models"), rows)


def units(name: str) -> Callable[[], str]:
    """The unit groups of an architecture."""
    tables = runpy.run_path(str(ROOT / "docs/site_tables.py"))
    return lambda: str(tables["unit_table"](own_registry().adapters[name]))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def results(make: str, *names: str) -> Callable[[], str]:
    """A block of docs/results.py."""
    return lambda: str(runpy.run_path(str(ROOT / "docs/results.py"))[make](*names))


def scaling(make: str) -> Callable[[], str]:
    """A block of docs/scaling.py."""
    return lambda: str(runpy.run_path(str(ROOT / "docs/scaling.py"))[make]())


BLOCKS: dict[str, Callable[[], str]] = {
    "adapters": adapter_table,
    "adapter-rules": lambda: rule_table(ADAPTER_RULES),
    "adapter-fields": lambda: documented_fields(Adapter),
    "commands": command_table,
    "help": help_texts,
    "hooks": hook_sections,
    "info-fields": lambda: documented_fields(MethodInfo),
    "method-keys": lambda: plugin_keys("methods"),
    "methods": method_table,
    "method-rules": lambda: rule_table(METHOD_RULES),
    "method-traits": method_traits,
    "metric-fields": lambda: documented_fields(Metric),
    "named-task-keys": named_task_keys,
    "named-tasks": named_task_table,
    "papers": lambda: str(runpy.run_path(str(ROOT / "docs/reproducing.py"))["papers_table"]()),
    "quickstart": lambda: f"```yaml\n{(ROOT / 'recipes/quickstart.yaml').read_text()}```",
    "quickstart-figures": results("quickstart"),
    "recipe-keys": recipe_keys,
    "results-fashion": results("full", "fashion"),
    "results-g2p": results("full", "g2p"),
    "results-gloss": results("full", "gloss"),
    "results-g2p-headline": results("headline", "g2p"),
    **{f"scaling-{make}": scaling(make) for make in ("curves", "processes", "memory", "devices")},
    "stack-fields": lambda: documented_fields(StackTable),
    "sublayer-fields": lambda: documented_fields(SublayerTable),
    "evaluation-fields": lambda: documented_fields(Evaluation),
    "metric-value-fields": lambda: documented_fields(MetricValue),
    "task-fields": lambda: documented_fields(Task),
    "task-keys": lambda: plugin_keys("tasks"),
    **{f"units-{name}": units(name) for name in ("t5", "bart", "bert", "vit", "deit")},
}


def generated(text: str) -> str:
    """A page with every block as it should be."""
    return BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", text)


def main(arguments: list[str]) -> int:
    """Rewrite the pages, or only say which ones differ; the value is the exit code."""
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (wanted := generated(text)) != text:
            stale.append(page.relative_to(ROOT))
            if "--check" not in arguments:
                page.write_text(wanted, encoding="utf-8")
    for page_name in stale:
        print(f"{page_name}: {'out of date' if '--check' in arguments else 'rewritten'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
