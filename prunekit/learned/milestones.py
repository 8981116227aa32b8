"""Milestones: states of one training of masks, kept where its sparsity passes others than the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prunekit import ranks
from prunekit.errors import BudgetError, CheckpointError
from prunekit.learned.config import LearnedMasksConfig
from prunekit.learned.goal import Goal
from prunekit.training import checkpoints
from prunekit.training.log import read_rows
from prunekit.training.loop import Kept

STAGE = "prune"
"""The stage of training that has milestones."""

_LOST = (
    f"To train again up to it, delete {STAGE}-last.safetensors beside it, with verify.json, and give the "
    "same command; or bring the file back."
)


class Milestone(NamedTuple):
    """How a milestone fared.

    Attributes:
        sparsity: the one that was asked for.
        met: whether a state was kept for it.
        step: after which it was met, or else of all steps after its target had passed it the nearest; none
            where the log has none.
        reached: the sparsity there: what the masks had learned, or, without ``snap_to_budget``, the cut's.
    """

    sparsity: float
    met: bool
    step: int | None
    reached: float | None


def label(sparsity: float) -> str:
    """A milestone's name in folders, files and the log: its sparsity with two digits, or all that it has."""
    return max(f"{sparsity:.2f}", repr(sparsity), key=len)


def state_path(folder: Path, sparsity: float) -> Path:
    """Where a run's training keeps the state of a milestone."""
    return folder / "checkpoints" / f"{STAGE}-{label(sparsity)}.safetensors"


def check_milestones(
    method: str, goals: Sequence[Goal], starts: Sequence[float], config: LearnedMasksConfig
) -> None:
    """Refuse milestones that a run does not pass.

    Args:
        method: what messages call the method.
        goals: what the run is to reach.
        starts: where the target of each rises from.
        config: with the milestones.

    Raises:
        BudgetError: if one does not lie between start and goal, or there are several goals.
    """
    if not config.save_at:
        return
    if len(goals) > 1:
        raise BudgetError(
            f"{method}: save_at names sparsities of one part of the model, but this run learns those of "
            f"{' and '.join(goal.name for goal in goals)} side by side. Learn one alone (nash: a rule for "
            "`selection`, such as uniform), or leave out save_at and run each budget with `prunekit compare "
            "--sweep`."
        )
    goal, start = goals[0], starts[0]
    outside = [f"{sparsity:g}" for sparsity in config.save_at if not start < sparsity < goal.sparsity]
    if outside:
        raise BudgetError(
            f"{method}: save_at = {', '.join(outside)} is not on the way of this run, in which the target "
            f"for the sparsity of the {goal.name} rises from {start:.4f} to {goal.sparsity:g}. Write "
            "sparsities between these two; the last one is the run's own and needs no milestone."
        )


def is_met(sparsity: float, reached: float, config: LearnedMasksConfig) -> bool:
    """Whether a milestone can be cut here: if the masks have learned as much, or, unsnapped, cut to it."""
    if config.snap_to_budget:
        return reached >= sparsity - config.sparsity_tolerance
    return abs(reached - sparsity) <= config.sparsity_tolerance


class Milestones:
    """Asks after each step which milestones are met for the first time; the log remembers those that were.

    Args:
        folder: the run folder.
        config: with the milestones.
        target_at: the target sparsity after a number of steps.
        reached: gives the sparsity now, as ``Milestone.reached`` has it.
    """

    def __init__(
        self,
        folder: Path,
        config: LearnedMasksConfig,
        target_at: Callable[[int], float],
        reached: Callable[[], float],
    ) -> None:
        self.folder, self.config, self.target_at, self.reached = folder, config, target_at, reached
        self._pending: list[float] | None = None

    def after(self, step: int) -> Kept:
        """What is to be kept of a step: the sparsity in the log, while a milestone waits, and met states."""
        if self._pending is None:
            # Of a run that goes on, the log holds the steps that are not done again, and no others.
            rows = ranks.from_first(lambda: read_rows(self.folder))
            before = [row for row in rows if row["step"] < step]
            self._pending = [found.sparsity for found in milestones(before, self.config) if not found.met]
        passed = [sparsity for sparsity in self._pending if self.target_at(step) >= sparsity]
        if not passed:
            return Kept()
        reached = ranks.from_first(self.reached)  # else one process might wait for others to write
        met = [sparsity for sparsity in passed if is_met(sparsity, reached, self.config)]
        self._pending = [sparsity for sparsity in self._pending if sparsity not in met]
        return Kept(
            {_figure(sparsity): reached for sparsity in passed},
            {label(sparsity): {"sparsity": sparsity} for sparsity in met},
        )


def milestones(rows: Sequence[Mapping[str, Any]], config: LearnedMasksConfig) -> list[Milestone]:
    """How each milestone fared, in their order, by the rows of a run's log."""
    found = []
    for sparsity in config.save_at:
        name = _figure(sparsity)
        steps = [(row["step"], row[name]) for row in rows if row["stage"] == STAGE and name in row]
        met = [(step, reached) for step, reached in steps if is_met(sparsity, reached, config)]
        nearest = min(steps, key=lambda pair: abs(pair[1] - sparsity), default=(None, None))
        found.append(Milestone(sparsity, bool(met), *(met[0] if met else nearest)))
    return found


def missed_warnings(found: Sequence[Milestone], config: LearnedMasksConfig) -> list[str]:
    """A sentence for the report's warnings, without its full stop, for each milestone that was not met."""
    said = []
    for each in found:
        if each.met:
            continue
        near = "no step came near it"
        if each.reached is not None:
            side = "above" if each.reached > each.sparsity else "below"
            near = (
                f"the nearest after its target had passed it was {each.reached:.4f} at step {each.step}, "
                f"{abs(each.reached - each.sparsity):.4f} {side} it and outside the tolerance of "
                f"{config.sparsity_tolerance:g}"
            )
        said.append(
            f"the milestone {each.sparsity:g} was not met, and no model is saved for it: {near}. "
            "With snap_to_budget the cut meets it to one unit"
        )
    return said


def load_state(folder: Path, sparsity: float, modules: Mapping[str, Any]) -> None:
    """Put the state of a milestone into modules.

    Raises:
        CheckpointError: if its file is missing or damaged; the text says how to get it back.
    """
    path = state_path(folder, sparsity)
    try:
        if not path.is_file():
            raise CheckpointError(f"{path.name} is missing from {path.parent}. {_LOST}")
        tensors, _ = checkpoints.load_tensors(path, _LOST)
    except CheckpointError as error:
        raise CheckpointError(f"the state of the milestone {sparsity:g} is lost: {error}") from error
    checkpoints.load_module_state(modules, tensors)


def _figure(sparsity: float) -> str:
    return f"milestone_{label(sparsity)}"
