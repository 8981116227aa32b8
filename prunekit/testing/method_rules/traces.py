"""Rules about what planning must not leave behind: in the model, in the process, on disk."""

from __future__ import annotations

from prunekit.testing.outcome import CheckFailed
from prunekit.testing.rules import Rule
from prunekit.testing.snapshot import changed
from prunekit.testing.subject import ModelSubject


def no_hooks(subject: ModelSubject) -> None:
    """No hook and no replaced method stays."""
    run = subject.plain
    found = changed(run.before.hooks, run.after.hooks)
    if found:
        raise CheckFailed(
            f"planning left {len(found)} hooks or replaced methods behind, such as {found[0]}. Everything "
            "after it would run through them: remove them in a `finally`, or use target.masked, which does."
        )


def modes_as_before(subject: ModelSubject) -> None:
    """Modes are as they were, of the model and of torch."""
    run = subject.plain
    for what, before, after in (
        ("training mode of", run.before.training, run.after.training),
        ("requires_grad of", run.before.learning, run.after.learning),
        ("the process's", run.before.modes, run.after.modes),
    ):
        found = changed(before, after)
        if found:
            name = found[0]
            raise CheckFailed(
                f"planning changed {what} {name} from {before.get(name)} to {after.get(name)}"
                f"{f' (and {len(found) - 1} more)' if len(found) > 1 else ''}. Put it back in a `finally`; "
                "prunekit.scoring.frozen.frozen(model) does so for scoring."
            )


def random_states_as_before(subject: ModelSubject) -> None:
    """The generators that everybody shares are where they were."""
    run = subject.plain
    found = changed(run.before.random, run.after.random)
    if found:
        raise CheckFailed(
            f"planning drew from, or seeded, the global random numbers of {', '.join(found)}, which changes "
            "what everything after it draws. Use a generator of its own: "
            "torch.Generator().manual_seed(trainer.seed)."
        )


def no_gradients(subject: ModelSubject) -> None:
    """No parameter holds a gradient that it did not hold before."""
    run = subject.plain
    found = sorted(run.after.gradients - run.before.gradients)
    if found:
        raise CheckFailed(
            f"planning left gradients in {len(found)} parameters, such as {found[0]}: they take as much "
            "memory as the model, and the first training step after it would add to them. Use "
            "torch.autograd.grad, or model.zero_grad(set_to_none=True) at the end."
        )


def nothing_outside_the_folder(subject: ModelSubject) -> None:
    """Files go into the run folder."""
    strays = subject.plain.strays
    if strays:
        raise CheckFailed(
            f"planning wrote {', '.join(strays[:3])}, outside the run folder. Write below trainer.folder, "
            "where a run that goes on finds it."
        )


RULES = (
    Rule("leaves-no-hooks", "No hook or replaced method stays in the model or in torch.", no_hooks),
    Rule(
        "leaves-modes",
        "Training modes, `requires_grad`, grad mode, threads, precision, determinism and default dtype stay.",
        modes_as_before,
    ),
    Rule("leaves-rng", "Torch's, numpy's and Python's global random numbers stay.", random_states_as_before),
    Rule("leaves-no-gradients", "No parameter is left with a gradient.", no_gradients),
    Rule(
        "writes-in-its-folder",
        "Nothing is written into the working directory or beside the run folder.",
        nothing_outside_the_folder,
    ),
)
