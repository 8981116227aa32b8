"""The recipe keys of a method or a task, as rows of a table."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel

COLUMNS = ("key", "type", "default", "meaning")


def key_rows(config: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Return a row of ``COLUMNS`` for each key of a ``Config``; ``required`` stands for a missing default."""
    from pydantic_core import to_jsonable_python

    from prunekit.recipe_faults import show_value

    rows = []
    for key, field in config.model_fields.items():
        default = "required"
        if not field.is_required():
            default = show_value(to_jsonable_python(field.get_default(call_default_factory=True)))
        rows.append((key, _type_name(field.annotation), default, field.description or ""))
    return rows


def _type_name(annotation: Any) -> str:
    from pydantic import BaseModel

    parts = get_args(annotation)
    sections = [
        each for each in (annotation, *parts) if inspect.isclass(each) and issubclass(each, BaseModel)
    ]
    # A plain class prints as <class 'int'>; unions and generics print readably by themselves.
    text = annotation.__name__ if inspect.isclass(annotation) and not parts else str(annotation)
    for section in sections:
        text = text.replace(f"{section.__module__}.", "").replace(section.__qualname__, "mapping")
    return text.replace("typing.", "").replace("NoneType", "None")
