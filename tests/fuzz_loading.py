"""Feeds random recipes and plans to prunekit: ``python tests/fuzz_loading.py --count 10000 --seed 0``.

Each must be taken or be refused with an error of prunekit's own. Anything else ends the run and names the
seed that gives the same input again: another exception, an input that takes longer than ``PATIENCE``, a
file opened outside of the given folder, a process or a connection started.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from hostile_texts import random_plan, random_recipe, random_setting

from prunekit.errors import PrunekitError
from prunekit.plugins import get_registry
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel
from prunekit.recipe import dump_recipe, load_recipe
from prunekit.testing.tiny import tiny_model

PATIENCE = 60
"""Seconds after which an input counts as one that hangs: thousands of times what any needs."""
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "shutil.")
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")


class FuzzError(Exception):
    """An input that was neither taken nor refused as it should be."""


class _Watch:
    """Sees every file opened or changed and everything started, by Python's audit events."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._look)  # for good: Python takes no hook back

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event.startswith(_STARTS):
            self.seen.append(f"{event} {arguments[:1]}")
        elif event == "open" or event.startswith(_CHANGES):
            path = arguments[0]
            if isinstance(path, str | bytes) and not self._inside(os.fsdecode(path)):
                self.seen.append(f"{event} {os.fsdecode(path)}")

    def _inside(self, path: str) -> bool:
        # Modules that are imported late are the program's own.
        return os.path.realpath(path).startswith(f"{self.folder}/") or path.endswith((".py", ".pyc", ".so"))


@cache
def _watch() -> _Watch:
    return _Watch()


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Raise for whatever the code inside opens or changes outside of ``folder``, or starts."""
    watch = _watch()
    watch.folder, watch.seen = os.path.realpath(folder), []
    try:
        yield
    finally:
        watch.folder = None
    if watch.seen:
        raise FuzzError(f"outside of the folder: {'; '.join(watch.seen[:3])}")


def fuzz(take: Callable[[Random, Path], None], folder: Path, count: int, seed: int) -> Counter[str]:
    """Try ``count`` inputs; how many were taken, and how many were refused, by the error's name.

    Raises:
        FuzzError: naming the seed of the first input that broke something.
    """
    found: Counter[str] = Counter()
    before = signal.signal(signal.SIGALRM, _too_long)
    try:
        for number in range(seed, seed + count):
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            try:
                with watched(folder):
                    found[_outcome(take, Random(number), folder)] += 1
            except Exception as error:
                raise FuzzError(f"input {number}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return found


def _outcome(take: Callable[[Random, Path], None], random: Random, folder: Path) -> str:
    try:
        take(random, folder)
    except PrunekitError as error:
        return type(error).__name__
    return "taken"


def _too_long(*_: object) -> None:
    raise FuzzError(f"nothing came back within {PATIENCE} s")


def take_recipe(random: Random, folder: Path) -> None:
    """Load a random recipe; one that is taken must be the same after it is written and read again."""
    path = folder / "recipe.yaml"
    path.write_bytes(random_recipe(random))
    settings = [random_setting(random)] if random.random() < 0.2 else []
    recipe = load_recipe(path, settings)
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    if dump_recipe(load_recipe(path)) != dump_recipe(recipe):
        raise FuzzError("the recipe is another one after it was written and read")


def take_plan(random: Random, folder: Path) -> None:
    """Load a random plan and check it; of one that is taken, the masks must give the same plan back."""
    groups = _groups()
    path = folder / "plan.json"
    path.write_bytes(random_plan(random, {name: group.size for name, group in groups.items()}))
    plan = PruningPlan.load(path)
    plan.check(groups)
    str(plan)
    masks = plan.masks(groups)
    again = PruningPlan.from_masks(masks, groups).masks(groups)
    if any(again.get(name, mask * 0 + 1).tolist() != mask.tolist() for name, mask in masks.items()):
        raise FuzzError("the plan is another one after it became masks")


@cache
def _groups() -> Any:
    return PrunableModel(tiny_model("t5")).groups


def warm_up() -> None:
    """Import and read what the program needs of its own, so that only the inputs' doings are watched."""
    get_registry().tasks  # noqa: B018 (a property that loads)
    _groups()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(50):
            for take in (take_recipe, take_plan):
                _outcome(take, Random(-number - 1), Path(folder))


def main() -> None:
    """Fuzz both and print what became of the inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warm_up()
    for name, take in (("recipes", take_recipe), ("plans", take_plan)):
        with tempfile.TemporaryDirectory() as folder:
            found = fuzz(take, Path(folder), given.count, given.seed)
        print(f"{name}: {', '.join(f'{count} {what}' for what, count in found.most_common())}")


if __name__ == "__main__":
    main()
