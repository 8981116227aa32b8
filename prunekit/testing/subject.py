"""A method under check: its declaration, and its runs on tiny models, one of which all rules share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState

from prunekit.errors import PlanError
from prunekit.method import ANY_MODEL
from prunekit.plugins import get_registry
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel
from prunekit.recipe import BudgetSpec, MethodEntry, TrainSpec
from prunekit.testing.outcome import NotApplicable
from prunekit.testing.process import restored, seed_everything
from prunekit.testing.snapshot import Snapshot
from prunekit.testing.tasks import TinyTask, tiny_task
from prunekit.testing.tiny import tiny_model
from prunekit.training.loop import Trainer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from prunekit.adapters.base import Adapter
    from prunekit.method import MethodInfo, PruningMethod

BUDGET = {"sparsity": 0.4}
"""What a plan is asked to remove, where the method's ``check_entry`` does not say."""
TRAIN = {"max_steps": 8, "batch_size": 8, "checkpoint_every": 2, "precision": "fp32"}
"""How a method trains, where its ``check_entry`` does not say."""
_SEED = 5


@dataclass(frozen=True)
class Run:
    """A method's plan of a tiny model, and everything around it.

    Attributes:
        target: the dense model, as the method left it.
        task: the task, which knows what was read.
        budget: what was asked for.
        plan: what came of it; whatever ``plan`` returned.
        before: model and process before planning.
        after: the same afterwards.
        strays: files that were written outside the run folder.
    """

    target: PrunableModel
    task: TinyTask
    budget: BudgetSpec
    plan: PruningPlan
    before: Snapshot
    after: Snapshot
    strays: tuple[str, ...]


class MethodSubject:
    """A method as a whole.

    Args:
        method: the class.
        adapters: the architectures there are, by name.
        device: where models are put.
    """

    model = ""

    def __init__(self, method: type[PruningMethod], adapters: Mapping[str, Adapter], device: str) -> None:
        self.method = method
        self.adapters = adapters
        self.device = device

    @property
    def name(self) -> str:
        """The method's name; that of the class where there is no declaration."""
        return str(getattr(getattr(self.method, "info", None), "name", self.method.__name__))

    @property
    def module(self) -> str:
        """Name of the method's module."""
        return self.method.__module__

    @property
    def exceptions(self) -> Mapping[str, str]:
        """Rules that the method declares not to hold, with the reasons."""
        found = getattr(getattr(self.method, "info", None), "exceptions", {})
        return found if isinstance(found, Mapping) else {}

    @property
    def info(self) -> MethodInfo:
        """The declaration."""
        return self.method.info

    def settings(self, budget: Mapping[str, Any] | None = None) -> tuple[BaseModel, BudgetSpec, TrainSpec]:
        """The method's config, the budget and how to train, as ``check_entry`` says.

        Args:
            budget: keys that go before those of the entry.

        Raises:
            ValidationError: if the entry is not valid.
        """
        entry = MethodEntry.model_validate(dict(self.info.check_entry))
        return (
            self.method.Config.model_validate(entry.options),
            BudgetSpec.model_validate({**BUDGET, **(entry.budget or {}), **(budget or {})}),
            TrainSpec.model_validate({**TRAIN, **(entry.train or {})}),
        )

    def tiny(self, adapter: Adapter) -> PrunableModel:
        """The first of an adapter's tiny models, with frozen embeddings, as those who freeze them have it."""
        model = tiny_model(next(iter(adapter.tiny)), adapter=adapter).to(self.device)
        model.get_input_embeddings().requires_grad_(False)
        return PrunableModel(model, adapter)

    def run(
        self,
        adapter: Adapter,
        folder: Path,
        *,
        budget: Mapping[str, Any] | None = None,
        calibration: bool = True,
        global_seed: int = 0,
        stop_at: int | None = None,
    ) -> Run:
        """Plan once, as the method's ``check_entry`` says.

        Args:
            adapter: the architecture.
            folder: of the run; what is beside it is watched.
            budget: keys that go before those of the entry.
            calibration: whether the task has a split ``calibration``.
            global_seed: of torch's, numpy's and Python's own generators, which a method should not draw from.
            stop_at: the batch at which ``Stopped`` is raised; none: never.
        """
        config, asked, spec = self.settings(budget)
        target = self.tiny(adapter)
        task = tiny_task(target.model, calibration=calibration)
        task.stop_at = stop_at
        folder.mkdir(parents=True, exist_ok=True)
        with restored(), _alone(folder.parent / "elsewhere"), _on(self.device):
            seed_everything(global_seed)
            trainer = Trainer(folder, spec, seed=_SEED)
            method = self.method(config)
            before = Snapshot.of(target.model)
            plan = method.plan(target, task, asked, trainer)
            after = Snapshot.of(target.model)
        strays = [path for path in folder.parent.rglob("*") if path.is_file()]
        outside = [str(p.relative_to(folder.parent)) for p in strays if not p.is_relative_to(folder)]
        return Run(target, task, asked, plan, before, after, tuple(sorted(outside)))


class ModelSubject(MethodSubject):
    """A method on one architecture.

    Args:
        method: the class.
        adapters: the architectures there are, by name.
        device: where models are put.
        adapter: the architecture.
    """

    def __init__(
        self, method: type[PruningMethod], adapters: Mapping[str, Adapter], device: str, adapter: Adapter
    ) -> None:
        super().__init__(method, adapters, device)
        self.adapter = adapter

    @property
    def model(self) -> str:  # type: ignore[override]
        """The architecture's name."""
        return self.adapter.name

    def again(self, **options: Any) -> Run:
        """Plan once more in a folder of its own; ``options`` are those of ``run``."""
        with TemporaryDirectory() as folder:
            return self.run(self.adapter, Path(folder) / "run", **options)

    @cached_property
    def attempt(self) -> Run | Exception:
        """The run that all rules share, or what planning raised."""
        try:
            return self.again()
        except Exception as error:
            return error

    @property
    def plain(self) -> Run:
        """The run that all rules share.

        Raises:
            NotApplicable: if there is none, which is another rule's failure.
        """
        if isinstance(self.attempt, Exception):
            raise NotApplicable("planning failed: see plan-runs")
        return self.attempt

    @property
    def valid(self) -> Run:
        """The shared run, with a plan that fits its model.

        Raises:
            NotApplicable: if it does not fit, which is another rule's failure.
        """
        run = self.plain
        try:
            run.plan.check(run.target.groups)
        except (PlanError, AttributeError, TypeError) as error:
            raise NotApplicable("the plan does not fit the model: see plan-names-and-indices") from error
        return run

    @cached_property
    def pruned(self) -> PrunableModel:
        """What surgery makes of the shared run's model.

        Raises:
            NotApplicable: if the plan does not fit.
        """
        return self.valid.target.pruned(self.valid.plan)


def method_subjects(
    method: type[PruningMethod], *, adapters: Mapping[str, Adapter] | None, device: str
) -> list[MethodSubject]:
    """The method as a whole, then on each architecture that it declares and that has a tiny model.

    Args:
        method: the class.
        adapters: the architectures there are; none: those installed.
        device: where models are put.
    """
    known = get_registry().adapters if adapters is None else adapters
    types = getattr(getattr(method, "info", None), "model_types", ())
    found: list[MethodSubject] = [MethodSubject(method, known, device)]
    for name, adapter in known.items():
        if adapter.tiny and isinstance(types, tuple) and (name in types or ANY_MODEL in types):
            found.append(ModelSubject(method, known, device, adapter))
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Run in an empty working directory, so that files written by a relative name are found."""
    folder.mkdir(exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _on(device: str) -> Iterator[None]:
    """Keep accelerate, which takes a GPU where there is one, on the CPU if models are to be there."""
    if device != "cpu" or not torch.cuda.is_available():
        yield
        return
    with patch.dict(os.environ, {"ACCELERATE_USE_CPU": "true"}):
        AcceleratorState._reset_state(reset_partial_state=True)
        yield
    AcceleratorState._reset_state(reset_partial_state=True)
