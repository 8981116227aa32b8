"""``prunekit recipes``: the recipes that ship, and checking your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prunekit.cli.output import AsJson, print_json, print_table
from prunekit.errors import RecipeError

PAPERS = "papers/"

app = typer.Typer(name="recipes", help="List, copy and check recipes.", no_args_is_help=True)


@app.command("list")
def list_recipes(
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="FOLDER", help="Such as papers/nash. [default: all but papers]", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the recipes that ship with prunekit."""
    from prunekit.shipped import shipped_recipes

    shipped = shipped_recipes()
    chosen = {name: file for name, file in shipped.items() if _is_in(name, folder)}
    if not chosen:
        folders = sorted({name.rpartition("/")[0] for name in shipped} - {""})
        raise RecipeError(
            f"no recipe ships in a folder {folder!r} (folders: {', '.join(folders) or 'none'})."
        )
    recipes = [_head(name, file) for name, file in chosen.items()]
    if as_json:
        print_json({"recipes": recipes})
        return
    rows = [(head["name"], ", ".join(head["methods"]), head["description"]) for head in recipes]
    print_table(("name", "methods", "description"), rows)
    papers = sum(name.startswith(PAPERS) for name in shipped) if folder is None else 0
    if papers:
        typer.echo(f"{papers} more of published results: prunekit recipes list papers")


@app.command("copy")
def copy_recipe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name as `prunekit recipes list` shows it.")],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="File or folder to copy to.", show_default=False)
    ] = Path("."),
) -> None:
    """Copy a shipped recipe, to change it and run it."""
    from prunekit.shipped import shipped_recipes
    from prunekit.suggest import did_you_mean

    shipped = shipped_recipes()
    if name not in shipped:
        hint = did_you_mean(name, shipped)
        listed = ", ".join(shipped) or "none"
        raise RecipeError(f"no recipe {name!r} ships with prunekit{hint} (there are: {listed}).")
    target = destination / shipped[name].name if destination.is_dir() else destination
    if target.exists():
        raise RecipeError(f"{target} is there already and was left alone. Give another place to copy to.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(shipped[name].read_bytes())
    typer.echo(f"Copied to {target}")


@app.command("validate")
def validate_recipes(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Recipe files, or folders that hold them.")
    ],
) -> None:
    """Check recipes without running them; tells every fault of every file."""
    from prunekit.plugins import get_registry
    from prunekit.recipe import load_recipe

    registry = get_registry()
    complaints = []
    for file in (file for path in paths for file in _files_at(path)):
        try:
            load_recipe(file, registry=registry)
            typer.echo(f"{file}: valid")
        except RecipeError as error:
            complaints.append(str(error))
    if complaints:
        raise RecipeError("\n".join(complaints))


@app.command("schema")
def print_schema() -> None:
    """Print the recipe format as JSON Schema, for editors."""
    from prunekit.plugins import get_registry
    from prunekit.recipe import json_schema

    print_json(json_schema(get_registry()))


def _is_in(name: str, folder: str | None) -> bool:
    return not name.startswith(PAPERS) if folder is None else name.startswith(folder.rstrip("/") + "/")


def _files_at(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if found := sorted(path.rglob("*.yaml")):
        return found
    raise RecipeError(f"{path} holds no .yaml file, in no folder below it either. Name a recipe.")


def _head(name: str, file: Path) -> dict[str, Any]:
    import yaml

    # Not load_recipe: a listing must not fail because a recipe's method is not installed.
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {
        "name": name,
        "description": data.get("description", ""),
        "model": data["model"],
        "task": data["task"]["name"],
        "methods": list(data.get("methods", {})),
    }
