"""``prunekit recipes``: the recipes that ship, and checking your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prunekit.cli.output import AsJson, print_json, print_table
from prunekit.errors import RecipeError

app = typer.Typer(name="recipes", help="List, copy and check recipes.", no_args_is_help=True)


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that ship with prunekit."""
    from prunekit.shipped import shipped_recipes

    recipes = [_head(name, file) for name, file in shipped_recipes().items()]
    if as_json:
        print_json({"recipes": recipes})
        return
    rows = [(head["name"], ", ".join(head["methods"]), head["description"]) for head in recipes]
    print_table(("name", "methods", "description"), rows)


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
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Recipe files.")],
) -> None:
    """Check recipes without running them; tells every fault of every file."""
    from prunekit.plugins import get_registry
    from prunekit.recipe import load_recipe

    registry = get_registry()
    complaints = []
    for file in files:
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
