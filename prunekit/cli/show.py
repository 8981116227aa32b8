"""``prunekit show``: which heads, neurons, sublayers and blocks a run kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.output import AsJson, make_console, print_json
from prunekit.errors import RunFolderError
from prunekit.json_files import read_json
from prunekit.manifest import check_read

if TYPE_CHECKING:
    from prunekit.reports.kept import KeptMap


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(show)


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="Run folder to lay beside it.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run kept, layer by layer, alone or beside another run."""
    from prunekit.reports.kept import overlap
    from prunekit.reports.show import map_record, print_map, print_maps

    folders = [run] if against is None else [run, against]
    reports = [read_report(folder) for folder in folders]
    maps = [_map(folder, report) for folder, report in zip(folders, reports, strict=True)]
    if as_json:
        records = [
            {"run": str(folder), **_facts(report), **map_record(found)}
            for folder, report, found in zip(folders, reports, maps, strict=True)
        ]
        if against is not None:
            records[0]["against"] = records[1]
            records[0]["overlap"] = [vars(row) for row in overlap(*maps)]
        print_json(records[0])
        return
    titles = [_title(folder, report) for folder, report in zip(folders, reports, strict=True)]
    if against is None:
        print_map(titles[0], maps[0], make_console())
    else:
        print_maps(titles, maps, make_console())


def read_report(folder: Path) -> dict[str, Any]:
    """A run's ``report.json``.

    Raises:
        RunFolderError: if the folder holds no finished run; the text says what is missing.
    """
    return _read(folder, "report.json")


def _map(folder: Path, report: Mapping[str, Any]) -> KeptMap:
    from prunekit.errors import PlanError
    from prunekit.reports.kept import kept_map

    plan = _read(folder, "plan.json")
    try:
        return kept_map(plan["keep"], report["structure"])
    except PlanError as error:
        raise PlanError(f"{folder}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{folder}: plan.json has no `keep`, or report.json no `structure`, as runs write them "
            f"({type(error).__name__}: {error}). Make the run anew in another folder."
        ) from error


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        if not folder.is_dir():
            raise RunFolderError(f"{folder}: no such folder. Give the folder of a finished run.")
        unfinished = (folder / "recipe.yaml").is_file()
        advice = (
            "The run has not finished: give its `prunekit prune` command again, and it goes on where it was."
            if unfinished
            else "Give the folder of a finished run, such as `prunekit prune` leaves."
        )
        raise RunFolderError(f"{folder} holds no {name}. {advice}")
    check_read(folder, name)
    return read_json(path, "Delete it and repeat the run's command.")


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report.get(key) for key in ("method", "label", "model", "task", "seed")}


def _title(folder: Path, report: Mapping[str, Any]) -> str:
    label, method = report.get("label"), report.get("method")
    name = f"{label} ({method})" if label != method else f"{method}"
    removed = (report.get("achieved") or {}).get("sparsity")
    share = "" if removed is None else f", {100 * removed:.1f} % removed"
    return f"{folder}: {name} on {report.get('model')}{share}"
