"""Reads a shown shell line as its reader would type it, and says what is wrong with it.

``prunekit`` goes through the real command line up to the command's own code: its path, options, their values
and its arguments. Recipes that ship are loaded, with the ``--set`` that is shown, and their labels looked up.
Other programs are few, and each has its rule below; a line that begins with anything else is not understood.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer
from fences import ROOT

from prunekit.cli import app
from prunekit.errors import PrunekitError
from prunekit.plugins import get_registry
from prunekit.recipe import load_recipe, resolve_method

# Commands that only look something up: they are run, too.
READ_ONLY = {
    "adapters list",
    "adapters show",
    "methods list",
    "methods show",
    "recipes copy",
    "recipes list",
    "recipes schema",
    "recipes validate",
    "tasks list",
    "tasks show",
}


class NotUnderstoodError(Exception):
    """Nothing here says what this line means, so nothing says that it works."""


def commands_of(text: str) -> list[list[str]]:
    """The commands of a block of shell lines, comments gone, ``&&`` taken apart."""
    joined = text.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if word in ("&&", ";"):
                if words:
                    found.append(words)
                words = []
            else:
                words.append(word)
    return found


def faults(words: list[str], *, complete: bool = True) -> list[str]:
    """What is wrong with a command; empty if nothing is.

    Args:
        words: the command.
        complete: false where a sentence mentions a command, which need not have its arguments.

    Raises:
        NotUnderstoodError: if this is no command that there is a rule for.
    """
    words = list(words)
    while words and re.fullmatch(r"PRUNEKIT_\w+=.*|HF_\w+=.*|OMP_\w+=.*", words[0]):
        words.pop(0)
    if not words:
        return []
    program = words[0].rpartition("/")[2]
    rule = _RULES.get(program)
    if rule is None:
        raise NotUnderstoodError(f"no rule for {shlex.join(words)}")
    if program == "prunekit":
        return prunekit_faults(words[1:], complete=complete)
    return rule(words[1:])


def parsed(arguments: list[str]) -> Any:
    """The context in which the command would run: parsed and checked by its own declaration, not run.

    Raises:
        UsageError: as the command line would, from typer's own copy of click.
    """
    command, name = typer.main.get_command(app), "prunekit"
    context = command.make_context(name, list(arguments), resilient_parsing=not arguments)
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return context


def prunekit_faults(arguments: list[str], *, complete: bool = True) -> list[str]:
    """What the command line, and the recipe that is given to it, have against it."""
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    if {"--help", "--version"} & set(arguments):
        arguments = [one for one in arguments if one not in ("--help", "--version")]
        complete = False
    try:
        context = parsed(arguments)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        text = error.format_message()
        left_out = type(error).__name__ == "MissingParameter" or text.endswith("requires an argument.")
        return [] if left_out and not complete else [text]
    return recipe_faults(context.params) if complete else []


def recipe_faults(params: dict[str, object]) -> list[str]:
    """Faults of the shipped recipe that a command is given, or of what it is asked to run of it."""
    given = params.get("recipe_file") or params.get("targets") or params.get("paths") or ()
    found = []
    for path in given if isinstance(given, tuple | list) else (given,):
        if not Path(str(path)).as_posix().startswith("recipes/"):
            continue
        file = ROOT / str(path)
        if not file.exists():
            found.append(f"{path} does not ship")
        elif file.is_file():
            try:
                registry = get_registry()
                recipe = load_recipe(file, params.get("overrides") or (), registry=registry)
                if "method" in params and recipe.methods:
                    resolve_method(recipe, params["method"], registry)
            except PrunekitError as error:
                found.append(str(error))
    return found


def read_only(words: list[str]) -> bool:
    """Whether a command looks something up and writes nothing, so that it can be run."""
    return words[0] == "prunekit" and " ".join(words[1:3]) in READ_ONLY


def _files_exist(words: list[str]) -> list[str]:
    names = [word for word in words if not word.startswith("-") and re.search(r"\.(py|txt)$", word)]
    return [f"{name} does not exist" for name in names if not (ROOT / name).is_file()]


def _pip(words: list[str]) -> list[str]:
    if words[:1] != ["install"]:
        return [f"pip {' '.join(words)}: only pip install is shown"]
    extras = [extra for word in words for extra in re.findall(r"\[([\w,-]+)\]", word)]
    text = (ROOT / "pyproject.toml").read_text()
    wrong = [f"no extra {one}" for e in extras for one in e.split(",") if f"\n{one} = [" not in text]
    folders = [word for word in words[1:] if word.startswith(("docs/", "plugins/", "./docs/"))]
    return (
        wrong
        + _files_exist(words)
        + [f"{one} does not exist" for one in folders if not (ROOT / one).exists()]
    )


def _python(words: list[str]) -> list[str]:
    if words[:1] == ["-c"]:
        compile(words[1], "shown", "exec")
        return []
    if words[:1] == ["-m"]:
        known = ("pytest", "venv", "pip", "nltk.downloader", "http.server")
        return (
            _files_exist(words[2:]) if words[1] in known else [f"python -m {words[1]}: not one that is known"]
        )
    script = ROOT / words[0]
    if not script.is_file():
        return [f"{words[0]} does not exist"]
    flags = [word for word in words[1:] if word.startswith("--")]
    return [f"{words[0]} has no {flag}" for flag in flags if flag not in script.read_text()]


def _export(words: list[str]) -> list[str]:
    names = [word.partition("=")[0] for word in words]
    sources = [*(ROOT / "prunekit").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    text = "".join(source.read_text() for source in sources)
    return [
        f"nothing reads {name}" for name in names if not (name in text or name.startswith(("HF_", "OMP_")))
    ]


def _tool(words: list[str]) -> list[str]:
    return []


_RULES = {
    "prunekit": _tool,
    "pip": _pip,
    "python": _python,
    "export": _export,
    "pytest": _files_exist,
    # Tools of the trade with nothing of ours in their arguments.
    **dict.fromkeys(
        ("cd", "mkdir", ".", "ruff", "mypy", "lint-imports", "pre-commit", "mkdocs", "cat", "ls"), _tool
    ),
}
