"""Rules about data and repetition: what is read, and what a second or an interrupted run gives."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from prunekit.testing.outcome import CheckFailed, explain
from prunekit.testing.rules import Rule
from prunekit.testing.snapshot import changed
from prunekit.testing.subject import ModelSubject, Run
from prunekit.testing.tasks import Stopped

_READS = {
    "none": frozenset[str](),
    "calibration": frozenset({"calibration"}),
    "train": frozenset({"train", "validation", "calibration"}),
}


def never_test(subject: ModelSubject) -> None:
    """The test split stays unseen."""
    if "test" in subject.plain.task.splits_read:
        raise CheckFailed(
            "planning read the test split, which scores the result: the score would be of examples that the "
            "plan was fitted to. Use train, validation or calibration."
        )


def data_as_declared(subject: ModelSubject) -> None:
    """Only such splits are read as ``info.data`` says."""
    run, data = subject.plain, subject.info.data
    # To count MACs, prunekit itself measures how long examples are.
    counted = {"calibration", "train"} if run.budget.metric == "macs" else set()
    found = sorted(run.task.splits_read - _READS[data] - counted - {"test"})
    if found:
        allowed = ", ".join(sorted(_READS[data])) or "no split"
        raise CheckFailed(
            f"planning read the split {', '.join(found)}; with info.data = {data!r} it may read {allowed}. "
            "Use prunekit.tasks.calibration.calibration_examples, which chooses the split, or declare other "
            "data."
        )


def calibrates_on_train(subject: ModelSubject) -> None:
    """Where there is no calibration split, training examples will do."""
    subject.valid  # noqa: B018 (a method that cannot plan at all says nothing of this)
    advice = (
        "prunekit.tasks.calibration.calibration_examples takes train where there is no calibration split."
    )
    try:
        run = subject.again(calibration=False)
    except Exception as error:
        raise CheckFailed(
            f"on a task without a split `calibration` planning raised {explain(error, subject.module)}. "
            f"{advice}"
        ) from error
    if run.task.splits_read - {"train", "test"}:
        raise CheckFailed(
            f"on a task without a split `calibration` planning read "
            f"{', '.join(sorted(run.task.splits_read))}. {advice}"
        )


def same_seed_same_plan(subject: ModelSubject) -> None:
    """A run can be repeated, whatever else the process drew before."""
    first = subject.valid
    second = subject.again(global_seed=1)
    if differences := _differences(first, second):
        raise CheckFailed(
            f"with the same seed, data and model a second run differs in {differences}. Draw from "
            "torch.Generator().manual_seed(trainer.seed), never from the global random numbers or the clock, "
            "and go through sets in sorted order."
        )


def resume_gives_the_same(subject: ModelSubject) -> None:
    """A run that was interrupted and started again in its folder comes out as one that was not."""
    first = subject.valid
    requests = first.task.requests
    with TemporaryDirectory() as place:
        folder = Path(place) / "run"
        try:
            # Without data to stop at, the run is only done again where it has been done.
            subject.run(subject.adapter, folder, stop_at=requests // 2 + 1 if requests else None)
        except Stopped:
            pass
        else:
            if requests:
                raise CheckFailed(
                    "an interruption in the middle was caught and the run went on. Catch Exception at most, "
                    "never BaseException."
                )
        try:
            second = subject.run(subject.adapter, folder)
        except Exception as error:
            raise CheckFailed(
                f"started again in the folder of an interrupted run, planning raised "
                f"{explain(error, subject.module)}. Whatever it finds in trainer.folder must be whole: write "
                "files to another name first and rename them."
            ) from error
    if differences := _differences(first, second):
        raise CheckFailed(
            f"{'interrupted' if requests else 'done'} and started again in the same folder, the run differs "
            f"in {differences} from one that was not interrupted. What is kept in trainer.folder must say "
            "how far it goes, and be used for nothing else; trainer.fit goes on by itself."
        )


def _differences(first: Run, second: Run) -> str:
    """What differs of two runs' plans and weights; empty if nothing does."""
    parts = (("keep", first.plan.keep, second.plan.keep), ("scale", first.plan.scale, second.plan.scale))
    found = [f"the plan's {part} of {name}" for part, one, other in parts for name in changed(one, other)]
    found += [f"the weights {name}" for name in changed(first.after.weights, second.after.weights)]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def _is_deterministic(subject: ModelSubject) -> bool:
    return subject.info.deterministic


RULES = (
    Rule("never-reads-the-test-split", "The split that scores the result is never read.", never_test),
    Rule("data-as-declared", "No other splits are read than `info.data` says.", data_as_declared),
    Rule(
        "calibrates-on-train",
        "Without a split `calibration`, `train` is read.",
        calibrates_on_train,
        lambda subject: subject.info.data == "calibration",
    ),
    Rule(
        "same-seed-same-plan",
        "A second run of the same seed gives the same plan and weights, whatever was drawn before.",
        same_seed_same_plan,
        _is_deterministic,
    ),
    Rule(
        "resume-gives-the-same",
        "A run that was stopped in the middle and started again gives the same plan and weights.",
        resume_gives_the_same,
        _is_deterministic,
    ),
)
