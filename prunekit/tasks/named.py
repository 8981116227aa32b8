"""Tasks by name: a family with the data, columns, prompts, lengths and metrics of a known data set.

Each file of the folder ``named`` is one task. Its class is the family's, and so are its recipe keys, which
have the file's values wherever the recipe says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from prunekit.errors import PluginError
from prunekit.suggest import did_you_mean
from prunekit.tasks.base import Task
from prunekit.tasks.own.classification import TextClassification
from prunekit.tasks.own.images import ImageClassification
from prunekit.tasks.own.label_words import Text2TextClassification
from prunekit.tasks.own.question_answering import QuestionAnswering
from prunekit.tasks.own.text2text import Text2Text

FOLDER = Path(__file__).parent / "named"
FAMILIES: dict[str, type[Task]] = {
    family.name: family
    for family in (
        Text2Text,
        Text2TextClassification,
        TextClassification,
        QuestionAnswering,
        ImageClassification,
    )
}
PROMPT = "whose wording of texts and labels; `prunekit tasks show NAME` prints them"


class NamedTask(BaseModel):
    """A file of the folder ``named``.

    Attributes:
        name: what a recipe's ``task.name`` says.
        summary: one line for listings.
        family: the ``task.name`` of the family whose recipe keys it sets.
        version: raised whenever a change of the file changes results.
        citation: who made the data.
        homepage: where it is described.
        licence: terms of the data, as its source states them.
        keys: recipe keys of the family.
        prompts: by name, the recipe keys that differ between ways to word the task.
        default_prompt: the one taken where the recipe names none.
        notes: what a reader of the results should know.
        checked: which parts of this file were compared with which source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    summary: str
    family: str
    version: int = Field(ge=1)
    citation: str
    homepage: str
    licence: str | None = None
    keys: dict[str, Any]
    prompts: dict[str, dict[str, Any]] = {}
    default_prompt: str | None = None
    notes: list[str] = []
    checked: str

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.family not in FAMILIES:
            hint = did_you_mean(self.family, FAMILIES)
            raise ValueError(f"family {self.family!r} is none of {', '.join(FAMILIES)}{hint}")
        if (self.default_prompt or None) not in (self.prompts or {None}):
            raise ValueError(f"default_prompt must be one of prompts ({', '.join(self.prompts) or 'none'})")
        texts = [set(keys) for keys in self.prompts.values()]
        if any(keys != texts[0] for keys in texts) or any(keys & set(self.keys) for keys in texts):
            raise ValueError("each prompt must set the same keys, and none that stands under keys")
        known = FAMILIES[self.family].Config.model_fields
        for key in self.resolved():
            if key not in known:
                raise ValueError(f"{key} is no recipe key of {self.family}{did_you_mean(key, known)}")
        return self

    def resolved(self, prompt: str | None = None) -> dict[str, Any]:
        """Return the recipe keys with those of a prompt, of the default one if none is given."""
        chosen = prompt or self.default_prompt
        return {**self.keys, **(self.prompts[chosen] if chosen else {})}


@cache
def named_tasks() -> tuple[type[Task], ...]:
    """Return a class for each file, in the order of their names; ``about`` holds the file.

    Raises:
        PluginError: if a file is not as it should be; the text names it.
    """
    return tuple(_task_class(named) for named in named_files())


@cache
def named_files() -> tuple[NamedTask, ...]:
    """Return the content of each file, in the order of their names.

    Raises:
        PluginError: if a file is not as it should be; the text names it.
    """
    return tuple(_read(path) for path in sorted(FOLDER.glob("*.yaml"), key=lambda path: path.stem))


def _read(path: Path) -> NamedTask:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # several times as fast, where YAML has it
    try:
        named = NamedTask.model_validate(yaml.load(path.read_text(encoding="utf-8"), loader))
    except yaml.YAMLError as error:
        raise PluginError(f"{path} is not valid YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": Value error, ")
            for fault in error.errors()
        )
        raise PluginError(f"{path} is no named task: {faults}. Correct the file.") from error
    if named.name != path.stem:
        raise PluginError(f"{path} holds the task {named.name!r}. Give file and task one name.")
    return named


def _task_class(named: NamedTask) -> type[Task]:
    family = FAMILIES[named.family]
    members = {
        "__doc__": f"{named.summary}.",
        "__module__": __name__,
        "name": named.name,
        "summary": named.summary,
        "Config": _config_class(named, family.Config),
        "about": named,
    }
    made = type("".join(part.capitalize() for part in named.name.split("-")), (family,), members)
    return cast("type[Task]", made)


def _config_class(named: NamedTask, base: type[BaseModel]) -> type[BaseModel]:
    """The family's recipe keys with the file's values as defaults, and ``prompt``."""
    fields: dict[str, Any] = {}
    for key, value in named.resolved().items():
        field = base.model_fields[key]
        kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        fields[key] = (kind, Field(value, description=field.description))
    if named.prompts:
        fields["prompt"] = (
            Literal[tuple(named.prompts)],
            Field(named.default_prompt, description=PROMPT),
        )
    return create_model(
        f"{''.join(part.capitalize() for part in named.name.split('-'))}Config",
        __base__=base,
        __doc__=f"Recipe keys of the task {named.name}.",
        __module__=__name__,
        __validators__={
            "_with_defaults": cast(
                "Callable[..., Any]", model_validator(mode="before")(_with_defaults(named))
            )
        },
        **fields,
    )


def _with_defaults(named: NamedTask) -> Callable[[type[BaseModel], Any], Any]:
    # Not by the fields' defaults: those are never validated, and depend on the prompt.
    def merged(cls: type[BaseModel], data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        prompt = data.get("prompt")
        known = prompt if isinstance(prompt, str) and prompt in named.prompts else None
        return {**named.resolved(known), **data}

    return merged
