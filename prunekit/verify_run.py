"""Checking a finished run again: its files, its models, and whether its report says what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prunekit import manifest, verify_model
from prunekit.achieved import achieved, structure_rows
from prunekit.comparison import FILE as COMPARISON
from prunekit.errors import CheckpointError, DataError, PrunekitError, RunFolderError, VerificationError
from prunekit.heads import check_head
from prunekit.json_files import read_json
from prunekit.models import load_model, load_processor, model_fingerprint
from prunekit.pruning.cost import count_parameters
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.recipe import Recipe, ResolvedMethod, load_recipe, resolve_method
from prunekit.runfolder import sha256
from prunekit.tasks.base import Task, make_task

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunekit.plugins import Registry

Outcome = Literal["ok", "failed", "skipped"]
_EXAMPLES = 8
# What reading a file that somebody changed may raise.
_DAMAGE = (KeyError, TypeError, AttributeError, ValueError, IndexError, OSError, RuntimeError)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of what was compared with what.
        outcome: ``skipped`` where it cannot be told here.
        found: the figure found, or why it failed or was skipped.
    """

    name: str
    outcome: Outcome
    found: str


class _Skip(Exception):
    """A check that cannot be made here; its text says why."""


def verify_runs(folder: Path, *, registry: Registry) -> dict[str, list[Check]]:
    """The checks of a run, or of every run in a comparison's folder, by folder.

    Nothing is written, and nothing is fetched that the run did not name.

    Args:
        folder: a run's, or a comparison's.
        registry: the installed adapters, tasks and methods.

    Raises:
        RunFolderError: if there is no finished run.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder}: no such folder. Give the folder of a finished run.")
    folders = [folder]
    if (folder / COMPARISON).is_file():
        folders = sorted(path.parent for path in folder.glob("*/recipe.yaml"))
        if not folders:
            raise RunFolderError(
                f"{folder} holds a comparison of runs that are elsewhere. Give the folder of each of them."
            )
    return {str(each): list(_checks(each, registry)) for each in folders}


def _checks(folder: Path, registry: Registry) -> Iterator[Check]:
    """Every check of one run, in the order that they are made."""
    _refuse_unfinished(folder)
    run = _Run(folder, registry)
    pruned = run.is_pruned
    checks: list[tuple[str, Callable[[], str]]] = [
        *([("recipe", run.recipe_hash)] if pruned else []),
        ("files against manifest", run.files),
        ("pickles", run.pickles),
        ("model/ reloads", run.reloads),
        ("tied weights", run.tied),
        ("parameters", run.parameters),
        ("cached against uncached", run.cached),
    ]
    if pruned:
        checks += [
            ("data", run.data),
            ("checkpoints/pruned reloads", run.cut_reloads),
            ("checkpoints/pruned against plan", run.cut_again),
            ("masked against pruned", run.masked),
            ("achieved recounted", run.recounted),
            ("report against plan.json", run.report_and_plan),
            *(
                (f"report against {name}.json", lambda name=name: run.report_and_stage(name))
                for name in ("verify", "recover", "quality", "speed")
            ),
        ]
    for name, check in checks:
        yield _made(name, check)


def _made(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", check())
    except _Skip as reason:
        return Check(name, "skipped", str(reason))
    except PrunekitError as error:
        return Check(name, "failed", str(error))
    except _DAMAGE as error:
        return Check(name, "failed", f"cannot be read as runs write it ({type(error).__name__}: {error})")


def _refuse_unfinished(folder: Path) -> None:
    if (folder / "report.json").is_file() or (folder / "finetune.json").is_file():
        return
    advice = (
        "The run has not finished: give its command again, and it goes on where it was."
        if (folder / "recipe.yaml").is_file()
        else "Give the folder of a finished run, such as `prunekit prune` leaves."
    )
    raise RunFolderError(f"{folder} holds no report.json. {advice}")


class _Run:
    """A finished run's folder, read on demand; each method is a check, and returns what it found."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder, self.registry = folder, registry
        self.is_pruned = (folder / "report.json").is_file()

    # What checks work on

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            raise VerificationError(f"{name} is missing")
        return read_json(path, "Delete it and repeat the run's command.")

    @cached_property
    def report(self) -> dict[str, Any]:
        return self._json("report.json")

    @cached_property
    def recipe(self) -> Recipe:
        return load_recipe(self.folder / "recipe.yaml", registry=self.registry)

    @cached_property
    def method(self) -> ResolvedMethod:
        return resolve_method(self.recipe, None, self.registry)

    @cached_property
    def plan(self) -> PruningPlan:
        return PruningPlan.load(self.folder / "plan.json")

    @cached_property
    def model(self) -> PreTrainedModel:
        return verify_model.strictly_loaded(self.folder / "model")

    @cached_property
    def task(self) -> Task:
        processor = load_processor(str(self.folder / "model"))
        try:
            return make_task(self.recipe.task, processor, self.registry)
        except DataError as error:
            raise _Skip(f"the task's data cannot be had here: {error}") from error

    @cached_property
    def batch(self) -> Mapping[str, Tensor]:
        return self.task.collate(self.task.examples("validation")[:_EXAMPLES])

    @cached_property
    def _dense_or_reason(self) -> PrunableModel | str:
        name = self.report["model"]
        try:
            model = load_model(name)
            check_head(name, model, self.task)
        except CheckpointError:
            return f"the dense model {name} cannot be had here"
        stated = (self.report.get("fingerprint") or {}).get("model")
        if stated not in (None, model_fingerprint(name)):
            return f"the dense model {name} here has other weights than the one that was pruned"
        found = sha256(model.config.to_json_string())
        versions = [self.report["environment"]["transformers"], model.config.transformers_version]
        if found != self.plan.base_config_sha256:
            # The hashed text names the version of transformers.
            other = f"of transformers {versions[0]}, here is {versions[1]}"
            return f"the dense model {name} here has another config than the one that was pruned ({other})"
        return PrunableModel(model, find_adapter(model, self.registry.adapters))

    @property
    def dense(self) -> PrunableModel:
        if isinstance(self._dense_or_reason, str):
            raise _Skip(self._dense_or_reason)
        return self._dense_or_reason

    # Files

    def recipe_hash(self) -> str:
        found = sha256((self.folder / "recipe.yaml").read_text(encoding="utf-8"))
        planned = self.plan.recipe_sha256
        if found != planned:
            raise VerificationError(
                f"recipe.yaml has the hash {found[:12]}, and plan.json was made by {planned[:12]}"
            )
        if self.recipe.model_dump(mode="json") != self.report["recipe"]:
            raise VerificationError("report.json holds another recipe than recipe.yaml")
        return f"sha256 {found[:12]}, as in plan.json"

    def files(self) -> str:
        if not (self.folder / manifest.FILE).is_file():
            raise _Skip(f"the run has no {manifest.FILE}: an earlier prunekit made it")
        faults = manifest.check(self.folder)
        if faults:
            raise VerificationError("; ".join(f"{file}: {what}" for file, what in faults))
        return f"{len(manifest.read(self.folder))} files have the hashes that were written"

    def data(self) -> str:
        found, stated = self.task.fingerprint(), self.report["data"]
        if found != stated:
            changed = sorted(key for key in {*found, *stated} if found.get(key) != stated.get(key))
            raise VerificationError(f"the task's data changed since the run: {', '.join(changed)}")
        return f"{len(found)} files as the run read them" if found else "it ships with prunekit"

    def pickles(self) -> str:
        found, count = verify_model.pickles(self.folder)
        if found:
            raise VerificationError(
                f"{', '.join(found)} of {count} files are pickles, which run code when they are loaded. "
                "No run writes any: delete them."
            )
        return f"none among {count} files"

    # Models

    def reloads(self) -> str:
        strange = verify_model.not_finite(self.model)
        if strange:
            raise VerificationError(f"{len(strange)} tensors are not finite: {', '.join(strange[:4])}")
        return f"{len(self.model.state_dict())} tensors of a {type(self.model).__name__}, strictly"

    def tied(self) -> str:
        pairs = verify_model.tied(self.model)
        if not pairs:
            raise _Skip("the model ties no weights")
        return f"{len(pairs)} pairs are one tensor"

    def parameters(self) -> str:
        found = count_parameters(self.model)
        stated = (
            self.report["achieved"]["params"]["pruned"]
            if self.is_pruned
            else self._json("finetune.json")["parameters"]
        )
        if found != stated:
            raise VerificationError(f"model/ has {found} parameters, and the report says {stated}")
        return f"{found} in model/, as reported"

    def cached(self) -> str:
        if not (self.model.config.is_encoder_decoder and self.model.can_generate()):
            raise _Skip(f"{type(self.model).__name__} does not generate")
        count = verify_model.cached_equals_uncached(self.model, self.batch)
        return f"{count} tokens of beam search alike"

    def cut_reloads(self) -> str:
        return verify_model.same_shapes(self._cut(), self.model)

    def cut_again(self) -> str:
        if self.method.method_class.info.trains:
            raise _Skip(f"{self.method.method_class.info.name} trains the weights before they are cut")
        return verify_model.cut_again(self.dense, self._cut(), self.plan)

    def _cut(self) -> PreTrainedModel:
        folder = self.folder / "checkpoints" / "pruned"
        if not folder.is_dir():
            raise _Skip("checkpoints/pruned was deleted; model/ does not need it")
        return verify_model.strictly_loaded(folder)

    def masked(self) -> str:
        found = verify_model.masked_equals(self.dense, self.model, self.plan, self.batch)
        difference, tolerance = found["masked_vs_pruned_max_abs"], found["tolerance"]
        return f"largest difference {difference:.3g} in float64 (allowed {tolerance:.3g})"

    def recounted(self) -> str:
        dense, plan = self.dense, self.plan
        counted = achieved(dense, plan, self.method.budget, self.task)
        wrong = [name for name, value in counted.items() if self.report["achieved"].get(name) != value]
        if structure_rows(dense, plan) != self.report["structure"]:
            wrong.append("structure")
        if wrong:
            raise VerificationError(f"report.json says otherwise of {', '.join(wrong)}")
        return f"sparsity {counted['sparsity']:.4f}, {len(plan.keep)} groups cut"

    # The report against the files

    def report_and_plan(self) -> str:
        plan, report = self.plan, self.report
        pairs = {
            "achieved": plan.achieved,
            "requested": plan.budget,
            "method": plan.method,
            "model": plan.base_model,
            "base_config_sha256": plan.base_config_sha256,
        }
        return _agree(report, pairs, "plan.json")

    def report_and_stage(self, stage: str) -> str:
        if stage == "speed" and not (self.folder / "speed.json").is_file() and not self.report["speed"]:
            raise _Skip("the run's speed was not measured")
        # What is only of the stage itself stands elsewhere in the report: seconds, steps.
        own = (
            *("plan_s", "recover_s", "evaluate_s", "speed_s", "reused_s"),
            *("train_steps", "steps", "warnings", "milestones"),
        )
        stored = self._json(f"{stage}.json")
        kept = {name: value for name, value in stored.items() if name not in own}
        said = self.report["verify" if stage == "recover" else stage]
        return _agree(said, kept, f"{stage}.json")


def _agree(report: Mapping[str, Any], stored: Mapping[str, Any], file: str) -> str:
    """How many figures of a file stand in the report as they are.

    Raises:
        VerificationError: naming those that do not.
    """
    wrong = [name for name, value in stored.items() if name not in report or report[name] != value]
    if wrong:
        raise VerificationError(f"report.json and {file} differ in {', '.join(wrong)}")
    return f"{len(stored)} entries equal"
