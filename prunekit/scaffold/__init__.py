"""What ``prunekit methods new`` writes: a method that works, as a distribution of its own."""

from __future__ import annotations

import keyword
import os
import re
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from prunekit.errors import PluginError

if TYPE_CHECKING:
    from prunekit.plugins import Registry

TEMPLATES = Path(__file__).parent / "method"
IMPORTED = (
    "BaseModel",
    "BudgetSpec",
    "ClassVar",
    "Field",
    "MethodInfo",
    "OneShotConfig",
    "PrunableModel",
    "PruningMethod",
    "PruningPlan",
    "Scores",
    "Task",
    "Tensor",
    "Trainer",
    "UnitGroup",
)
"""Names that the module has already: a class called so would hide them."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write_method(name: str, folder: Path | None = None, *, registry: Registry) -> Path:
    """Write a method to start from, with its package, test, recipe and README.

    Args:
        name: of the method, as recipes will say it.
        folder: to write; it must not be there yet. None: ``prunekit-NAME`` in the current folder.
        registry: what is installed, so that no name is given twice.

    Returns:
        The folder.

    Raises:
        PluginError: if the name cannot be a method's or is taken, or the folder is there. Nothing is written
            then.
    """
    check_name(name, registry)
    folder = folder or Path(f"prunekit-{name}")
    if os.path.lexists(folder):
        raise PluginError(
            f"{folder} is there already and was left alone. Choose another folder with --out, or remove it."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and then renamed: a crash leaves no half of a distribution.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".prunekit-new-") as beside:
        whole = Path(beside) / "whole"
        for path, text in rendered(name).items():
            file = whole / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        whole.rename(folder)
    return folder


def check_name(name: str, registry: Registry) -> None:
    """Refuse what cannot be the name of a new method.

    Raises:
        PluginError: if so; the text says why, and what would do.
    """
    if not _NAME.fullmatch(name):
        near = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
        near = re.sub(r"[^a-z0-9]+", "-", near).strip("-")
        hint = f"; did you mean {near}?" if _NAME.fullmatch(near) else "."
        raise PluginError(
            f"{name!r} cannot be a method's name{hint} Write words of lower-case letters and digits, joined "
            "by single hyphens, such as unit-norm."
        )
    if name.startswith("prunekit-"):
        raise PluginError(
            f"{name!r}: a method's name is what recipes say, without prunekit- before it. Write "
            f"{name.removeprefix('prunekit-')}; its distribution gets the prefix."
        )
    names = _names(name)
    for called in (names["class_name"], f"{names['class_name']}Config"):
        if keyword.iskeyword(called) or called in IMPORTED:
            raise PluginError(
                f"{name!r}: a class of its module would be called {called}, which is something else there. "
                f"Choose another name, such as {name}-score."
            )
    if name in registry.methods:
        origin = registry.origins["methods"][name]
        raise PluginError(
            f"a method {name!r} is installed already, by {origin.distribution}. Choose another name."
        )
    if find_spec(names["module"]) is not None:
        raise PluginError(
            f"{name!r}: its module would be called {names['module']}, and one is installed already. "
            "Choose another name."
        )


def rendered(name: str) -> dict[str, str]:
    """The text of every file by its path in the folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    names = _names(name)
    loader = FileSystemLoader(TEMPLATES)
    # Python, TOML, YAML and Markdown, into which only a checked name is written: nothing to escape.
    templates = Environment(
        loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    files = {
        ".gitignore": "gitignore",
        "README.md": "README.md",
        "pyproject.toml": "pyproject.toml",
        "recipe.yaml": "recipe.yaml",
        f"{names['module']}.py": "module.py",
        f"tests/test_{names['module'].removeprefix('prunekit_')}.py": "test.py",
    }
    return {
        path: templates.get_template(f"{template}.jinja").render(names) for path, template in files.items()
    }


def _names(name: str) -> Mapping[str, str]:
    return {
        "name": name,
        "distribution": f"prunekit-{name}",
        "module": f"prunekit_{name.replace('-', '_')}",
        "class_name": "".join(word[0].upper() + word[1:] for word in name.split("-")),
        "prunekit_version": version("prunekit"),
    }
