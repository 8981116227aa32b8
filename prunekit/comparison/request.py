"""A comparison as people ask for it: of a recipe's methods, of finished runs, or one that is there."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from prunekit.comparison import FILE
from prunekit.errors import RecipeError
from prunekit.json_files import read_json
from prunekit.recipe import Recipe, Settings, Source, load_recipe
from prunekit.runfolder import RUNS, one_writer, recipe_name

if TYPE_CHECKING:
    from prunekit.plugins import Registry
    from prunekit.progress import Progress

Kind = Literal["recipe", "runs", "stored"]
Points = list[tuple[Mapping[str, Any], Recipe]]
"""What is swept, and the recipe there."""

FIXED: Mapping[Kind, tuple[str, ...]] = {
    "recipe": (),
    "runs": ("seeds", "sweep", "only", "settings"),
    "stored": ("seeds", "sweep", "settings", "reference", "out", "deterministic"),
}
"""What of a `Request` cannot be asked for where runs, or their comparison, are finished."""


@dataclass(frozen=True)
class Request:
    """What to compare, and how.

    Attributes:
        targets: one recipe, run folders, or one folder of a comparison.
        seeds: runs of each method, with the recipe's seed and those after it.
        sweep: one recipe key and the values at which each method is run; nothing is swept if empty.
        only: patterns of the labels to run; all by default.
        reference: the row that all are compared with.
        out: the comparison's folder; one under ``runs`` by default.
        settings: what is to differ from the recipe.
        deterministic: whether to use only kernels that repeat bit for bit, on a GPU too.
    """

    targets: Sequence[Source]
    seeds: int = 1
    sweep: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    only: Sequence[str] = ()
    reference: str | None = None
    out: Path | None = None
    settings: Settings = ()
    deterministic: bool = False

    @property
    def kind(self) -> Kind:
        """What the targets are."""
        first = self.targets[0]
        if len(self.targets) > 1 or (isinstance(first, str | Path) and Path(first).is_dir()):
            alone = len(self.targets) == 1
            return "stored" if alone and (self.paths()[0] / FILE).is_file() else "runs"
        return "recipe"

    def refused(self) -> list[str]:
        """Names of what is asked for and cannot be."""
        asked = {"seeds": self.seeds > 1}
        return [name for name in FIXED[self.kind] if asked.get(name, bool(getattr(self, name)))]

    def paths(self) -> list[Path]:
        """The targets, where they are folders."""
        return [Path(target) for target in self.targets if isinstance(target, str | Path)]

    def command(self) -> str:
        """What makes the same comparison again at a prompt, whatever it is then printed as."""
        parts = ["prunekit", "compare"]
        parts += [str(each) if isinstance(each, str | Path) else "RECIPE" for each in self.targets]
        parts += ["--seeds", str(self.seeds)] if self.seeds > 1 else []
        for key, values in self.sweep.items():
            parts += ["--sweep", f"{key}={','.join(map(_yaml, values))}"]
        for pattern in self.only:
            parts += ["--only", pattern]
        parts += ["--reference", self.reference] if self.reference else []
        for text in _texts(self.settings):
            parts += ["--set", text]
        parts += ["--deterministic"] if self.deterministic else []
        return shlex.join(parts)


def compare(request: Request, *, registry: Registry, progress: Progress) -> tuple[dict[str, Any], Path]:
    """Run what is asked for, or read it, if it is there.

    Returns:
        The content of ``comparison.json``, and the folder that it is in.

    Raises:
        PrunekitError: if the recipe is faulty, or its methods or the runs cannot be compared.
    """
    if request.kind == "stored":
        folder = request.paths()[0]
        return read_json(folder / FILE, "Delete it and repeat the command that made it."), folder
    points = _points(request, registry) if request.kind == "recipe" else []
    # Imported only now: this loads torch, and a faulty recipe should be told of at once.
    from prunekit.determinism import deterministic

    with deterministic(request.deterministic):
        if points:
            return _of_recipe(request, points, registry, progress)
        return _of_runs(request, registry, progress)


def _of_runs(request: Request, registry: Registry, progress: Progress) -> tuple[dict[str, Any], Path]:
    from prunekit.comparison.compare import About, compare_runs

    folder = request.out or RUNS / "comparison"
    about = About(folder.name, request.command(), request.reference or "dense")
    with one_writer(folder):
        return compare_runs(request.paths(), about, folder, registry=registry, progress=progress), folder


def _of_recipe(
    request: Request, points: Points, registry: Registry, progress: Progress
) -> tuple[dict[str, Any], Path]:
    from prunekit.comparison.compare import About, compare_recipe

    first = points[0][1]
    name = recipe_name(request.targets[0], first)
    folder = request.out or RUNS / f"compare-{name}"
    with one_writer(folder):
        found = compare_recipe(
            points,
            About(name, request.command(), request.reference or "dense"),
            folder,
            seeds=range(first.seed, first.seed + request.seeds),
            only=request.only,
            registry=registry,
            progress=progress,
        )
    return found, folder


def _points(request: Request, registry: Registry) -> Points:
    """The recipe at each point of the sweep."""
    source, settings = request.targets[0], request.settings
    if not request.sweep:
        return [({}, load_recipe(source, settings, registry=registry))]
    if len(request.sweep) > 1:
        raise RecipeError(
            f"a comparison sweeps one key, and {', '.join(request.sweep)} are given. Compare once for each."
        )
    ((key, values),) = request.sweep.items()
    if not values:
        raise RecipeError(f"the sweep of {key} has no values. Give some, such as [0.5, 0.6].")
    return [
        ({key: value}, load_recipe(source, _with(settings, key, value), registry=registry))
        for value in values
    ]


def _with(settings: Settings, key: str, value: Any) -> Settings:
    if isinstance(settings, Mapping):
        return {**settings, key: value}
    return [*settings, f"{key}={_yaml(value)}"]


def _texts(settings: Settings) -> list[str]:
    if isinstance(settings, Mapping):
        return [f"{key}={_yaml(value)}" for key, value in settings.items()]
    return list(settings)


def _yaml(value: Any) -> str:
    plain = str(value) if isinstance(value, Path) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()
