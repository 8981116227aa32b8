"""Gives the site of ``mkdocs build`` what stands outside docs/: the change log, contributing, recipes.

mkdocs knows docs/ alone. On a code host, and in a clone, links such as ``../recipes/quickstart.yaml`` work as
they are; here they are led to copies.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
OUTSIDE = re.compile(r"\]\((?:\.\./)+(recipes/[^)]+|CHANGELOG\.md|CONTRIBUTING\.md|README\.md)([)#])")
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and the recipes."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=from_root((ROOT / source).read_text("utf-8"))))
    for recipe in sorted((ROOT / "recipes").rglob("*.yaml")):
        name = recipe.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(recipe)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page with its links to files outside docs/ led to their copies."""
    up = "../" * page.file.src_uri.count("/")
    return OUTSIDE.sub(lambda found: f"]({up}{copy_of(found[1])}{found[2]}", markdown)


def from_root(text: str) -> str:
    """A page of the root as it has to be in docs/."""
    return LINK.sub(lambda found: f"]({copy_of(found[1])}{found[2] or ''})", text)


def copy_of(path: str) -> str:
    """Where a file of the root is on the site."""
    names = {source: name for name, source in PAGES.items()} | {"README.md": "index.md"}
    return names.get(path, path.removeprefix("docs/"))
