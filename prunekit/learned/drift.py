"""What a report should say of how masks were learned: sparsity that overshot, multipliers too large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunekit.learned.goal import Goal, labelled

OVERSHOOT = 0.05
"""Sparsity above the final target from which it is told; runs that settle well stay below it."""
OUTWEIGHED = 10.0
"""The sparsity term's size, in that of the rest of the loss, from which a step is counted."""
SHARE = 0.05
"""Share of the steps that are so before it is told: single steps are, wherever the rest is nearly 0."""


def drift_warnings(
    rows: Sequence[Mapping[str, Any]], goals: Sequence[Goal], *, tolerance: float
) -> list[str]:
    """Sentences for the report's warnings, without full stops; none of a run that went well.

    Args:
        rows: the stage's steps in the training log.
        goals: what was to be reached.
        tolerance: how far the learned sparsity may be from its target; an overshoot within it is not told.
    """
    found = []
    for goal in goals:
        names = ("sparsity", "target", "lambda_1", "lambda_2")
        keys = [labelled(goals, goal, name) for name in names]
        steps = [(row["step"], row["loss"], *(row[key] for key in keys)) for row in rows]
        if steps:
            found += _overshot(goal, [(step, sparsity) for step, _, sparsity, *_ in steps], tolerance)
            found += _outweighed(goal, steps)
    return found


def _overshot(goal: Goal, steps: Sequence[tuple[int, float]], tolerance: float) -> list[str]:
    step, highest = max(steps, key=lambda pair: pair[1])
    if highest - goal.sparsity <= max(OVERSHOOT, tolerance):
        return []
    return [
        f"the {goal.name}'s sparsity overshot: it was {highest:.3f} at step {step} where the target is "
        f"{goal.sparsity:g}, and ended at {steps[-1][1]:.3f}; units that closed meanwhile were trained less. "
        "A longer sparsity_warmup or a lower train.mask_learning_rate keeps nearer to the target"
    ]


def _outweighed(goal: Goal, steps: Sequence[tuple[int, float, float, float, float, float]]) -> list[str]:
    ratios = []
    for step, loss, sparsity, target, lambda_1, lambda_2 in steps:
        gap = sparsity - target
        penalty = lambda_1 * gap + lambda_2 * gap**2
        if abs(penalty) > OUTWEIGHED * abs(loss - penalty):
            ratios.append((abs(penalty), step, lambda_1, lambda_2))
    if len(ratios) <= SHARE * len(steps):
        return []
    penalty, step, lambda_1, lambda_2 = max(ratios)
    return [
        f"the multipliers of the {goal.name}'s sparsity outweighed the task: in {len(ratios)} of "
        f"{len(steps)} steps their term was more than {OUTWEIGHED:g} times the rest of the loss "
        f"({penalty:.3g} at step {step}, with lambda_1 {lambda_1:.3g} and lambda_2 {lambda_2:.3g}). "
        "A longer sparsity_warmup, more steps, a lower initial_lambda_2 or a lower "
        "train.mask_learning_rate holds them back"
    ]
