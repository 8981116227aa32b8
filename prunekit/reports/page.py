"""HTML pages that are one file: templates filled with plain data, every text escaped."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Cell:
    """A table's cell that is more than its text.

    Attributes:
        text: what is read.
        key: what to sort by, where it is not the text; the empty text is a value that is not known.
        mark: a class of the pages' style.
        swatch: a CSS variable whose colour stands before the text.
    """

    text: str
    key: str | float | None = None
    mark: str = ""
    swatch: str = ""


def render_page(template: str, **values: Any) -> str:
    """The page that a template makes of plain data.

    Text is escaped; a value that is markup already (a drawing of ours) is a ``markupsafe.Markup``. The page's
    own policy lets a browser run nothing but its one script and load nothing at all.

    Args:
        template: a file of ``reports/templates``; pages extend ``base.html.j2``.
        values: what the template names; a name that is missing raises.
    """
    page = _environment().get_template(template).render(values)
    # A lone surrogate, which JSON can carry, has no UTF-8.
    return page.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("prunekit.reports", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (loader.get_source(environment, name)[0] for name in ("style.css", "sort.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        version=version("prunekit"),
    )
    return environment


def pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values to show, those that are known."""
    return [(name.replace("_", " "), str(value)) for name, value in values.items() if value is not None]


def recipe_text(recipe: Mapping[str, Any] | None) -> str:
    """A recipe as YAML; empty where there is none."""
    import yaml

    return yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True) if recipe else ""


def sections(named: Sequence[tuple[str, str, Any]]) -> list[tuple[str, str]]:
    """Anchor and heading of each section that has something to show."""
    return [(anchor, heading) for anchor, heading, content in named if content]
