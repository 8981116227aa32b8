"""Rules about the model that planning leaves behind, and what surgery makes of it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from prunekit.errors import VerificationError
from prunekit.models import quiet_loading
from prunekit.pruning.verify import reload_difference, verify
from prunekit.testing.outcome import CheckFailed
from prunekit.testing.rules import Rule
from prunekit.testing.snapshot import changed
from prunekit.testing.subject import ModelSubject, Run
from prunekit.testing.tasks import tiny_task

RELOAD_TOLERANCE = 1e-5


def shapes_stay(subject: ModelSubject) -> None:
    """The dense model is still the dense model."""
    run = subject.plain
    found = changed(run.before.layout, run.after.layout)
    if found:
        name = found[0]
        raise CheckFailed(
            f"planning changed {len(found)} tensors or modules of the model that it was given, such as "
            f"{name}: {run.before.layout.get(name, 'absent')} became {run.after.layout.get(name, 'absent')}. "
            "Cut a copy (target.copy(), target.pruned(plan)); the plan is what prunekit cuts by."
        )


def trains_as_declared(subject: ModelSubject) -> None:
    """Weights change if the method says that it trains, and only then."""
    run = subject.plain
    found = changed(run.before.weights, run.after.weights)
    if found and not subject.info.trains:
        raise CheckFailed(
            f"planning changed {len(found)} weights of the model, such as {found[0]}, but info.trains is "
            "False. Work on target.copy(), put the weights back, or declare trains=True."
        )
    if subject.info.trains and not found:
        raise CheckFailed(
            "info.trains is True, but planning left every weight as it was. Leave what was trained in target "
            "(target.take_weights for a shortened copy), or declare trains=False."
        )


def masked_equals_pruned(subject: ModelSubject) -> None:
    """The model that is saved computes what the dense one computes under the plan's masks."""
    run, pruned = subject.valid, subject.pruned
    try:
        verify(run.target, pruned, run.plan, _batch(run))
    except VerificationError as error:
        raise CheckFailed(
            f"{error} Or the method left something in the model that surgery does not take along, such as a "
            "changed config or attribute, or weights or scales that are not finite."
        ) from error


def pruned_equals_reloaded(subject: ModelSubject) -> None:
    """A checkpoint holds all that the method did to the model."""
    run, model = subject.valid, subject.pruned.model
    with TemporaryDirectory() as folder, quiet_loading():
        model.save_pretrained(Path(folder) / "model")
        again = type(model).from_pretrained(Path(folder) / "model", use_safetensors=True)
    difference = reload_difference(model, again, _batch(run))
    if not difference <= RELOAD_TOLERANCE:
        raise CheckFailed(
            f"saved and loaded again, the pruned model answers differently: by up to {difference:.3g} "
            f"(allowed {RELOAD_TOLERANCE:g}). The method changed something in the model that no checkpoint "
            "holds: a buffer that is not saved, an attribute, or tensors that were tied and are no longer."
        )


def _batch(run: Run) -> dict[str, Tensor]:
    # Of a task of its own, so that what the method read stays told apart.
    task = tiny_task(run.target.model)
    return task.collate(task.examples("validation")[:4])


RULES = (
    Rule(
        "shapes-stay",
        "The given model keeps its modules and the shape and dtype of every tensor.",
        shapes_stay,
    ),
    Rule("trains-as-declared", "Weights change if `info.trains` says so, and only then.", trains_as_declared),
    Rule(
        "masked-equals-pruned",
        "The pruned model computes what the dense one does under the plan's masks.",
        masked_equals_pruned,
    ),
    Rule(
        "pruned-equals-reloaded",
        "The pruned model is the same after it was saved and loaded.",
        pruned_equals_reloaded,
    ),
)
