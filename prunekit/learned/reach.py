"""Whether a run's steps and mask learning rate can reach its goals, asked before anything is trained.

Reaching is what ``MaskTraining`` will ask: at some evaluation after the warm-up the expected sparsity is
within the tolerance of the target. The answer comes from the constraint alone (``prunekit.learned.pursuit``)
and is optimistic, since the task loss opposes it: a run that is let through can still miss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prunekit.adapters.base import Structure
from prunekit.errors import BudgetError
from prunekit.learned.config import LearnedMasksConfig
from prunekit.learned.goal import Goal
from prunekit.learned.pursuit import Pursuit
from prunekit.training.batches import total_steps

if TYPE_CHECKING:
    from prunekit.recipe import TrainSpec

# A search for better settings simulates at most this many steps: a few seconds.
_PATIENCE = 200_000
_LOWEST_RATE, _HIGHEST_RATE = 1e-3, 1.0


def check_reachable(
    method: str,
    goals: Sequence[Goal],
    structure: Structure,
    config: LearnedMasksConfig,
    spec: TrainSpec,
    examples: int,
) -> None:
    """Refuse settings that cannot reach the goals.

    Args:
        method: what messages call the method.
        goals: what to reach.
        structure: the model's.
        config: how masks are learned.
        spec: steps, mask learning rate, evaluations.
        examples: training examples.

    Raises:
        BudgetError: if a target lies outside what masks can express, or the constraint alone misses it with
            these settings; the message has the smallest settings that reach it, where some were found.
    """
    steps, rate = total_steps(examples, spec), spec.mask_learning_rate
    pursuits = [Pursuit(goal, structure, config) for goal in goals]
    for pursuit in pursuits:
        _check_limits(method, pursuit)
    for pursuit in pursuits:
        trace = pursuit.run(steps, rate)
        if not _passes(pursuit, trace, spec.eval_every):
            raise BudgetError(
                f"{method}: {steps} training steps at a mask learning rate of {rate:g} cannot bring the "
                f"sparsity of the {pursuit.goal.name} to {pursuit.goal.sparsity:g}: with nothing to oppose "
                f"it, it goes from {trace[0]:.4f} to {trace[-1]:.4f}, and at no evaluation after the "
                f"warm-up is it within the tolerance of {config.sparsity_tolerance:g}. "
                + _advice(pursuits, spec, examples)
            )


def _check_limits(method: str, pursuit: Pursuit) -> None:
    goal, (least, most) = pursuit.goal, pursuit.limits()
    if goal.sparsity > most:
        raise BudgetError(
            f"{method}: a sparsity of {goal.sparsity:g} of the {goal.name} cannot be learned; with every "
            f"mask at its lower limit the expected sparsity is {most:.4f}. Ask for at most "
            f"{int(most * 100) / 100:g}."
        )
    if 0 < goal.sparsity < least:
        raise BudgetError(
            f"{method}: a sparsity of {goal.sparsity:g} of the {goal.name} cannot be learned; with every "
            f"mask at its upper limit the expected sparsity is {least:.4f}. Ask for at least "
            f"{math.ceil(least * 1000) / 1000:g}, or for 0."
        )


def _passes(pursuit: Pursuit, trace: Sequence[float], eval_every: int | None) -> bool:
    """Whether an evaluation after the warm-up finds the sparsity within the tolerance."""
    config, steps = pursuit.config, len(trace) - 1
    warmup = int(config.sparsity_warmup * steps)
    evaluated = {steps, *range(eval_every or steps, steps + 1, eval_every or steps)}
    return any(
        abs(trace[step] - pursuit.goal.sparsity) <= config.sparsity_tolerance
        for step in evaluated
        if step >= warmup
    )


class _Search:
    """Looks for settings with which all goals settle, while its patience lasts."""

    def __init__(self, pursuits: Sequence[Pursuit]) -> None:
        self.pursuits = pursuits
        self.left = _PATIENCE

    def settles(self, steps: int, rate: float) -> bool:
        """Whether every goal stays within its tolerance for the last fifth of a run; no, without patience.

        A passing crossing is enough for a run that was asked for, but is nothing to advise.
        """
        for pursuit in self.pursuits:
            self.left -= steps
            if self.left < 0:
                return False
            goal, tolerance = pursuit.goal.sparsity, pursuit.config.sparsity_tolerance
            end = pursuit.run(steps, rate)[-max(1, steps // 5) :]
            if any(abs(sparsity - goal) > tolerance for sparsity in end):
                return False
        return True

    def smallest(self, holds: Callable[[float], bool], start: float, limit: float) -> float | None:
        """A value that a person can type and for which ``holds`` is true, and about half of which fails.

        Doubles from ``start`` up to ``limit``, bisects, then rounds up to two digits and asks once more.
        """
        high = start
        while not holds(high):
            high *= 2
            if high > limit or self.left <= 0:
                return None
        low = high / 2
        while high / low > 1.05 and high > start:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if holds(middle) else (middle, high)
        for _ in range(10):
            high = _two_digits(high)
            if high <= limit and holds(high):
                return high
            high *= 1.02
        return None


def _two_digits(value: float) -> float:
    """The next number of two significant digits, upwards."""
    unit: float = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.6g}")


def _advice(pursuits: Sequence[Pursuit], spec: TrainSpec, examples: int) -> str:
    steps, rate = total_steps(examples, spec), spec.mask_learning_rate
    found = []
    search = _Search(pursuits)
    lowest = min(rate, _LOWEST_RATE)
    fastest = search.smallest(lambda r: search.settles(steps, r), lowest, _HIGHEST_RATE)
    search = _Search(pursuits)
    if spec.max_steps is not None:
        longest = search.smallest(lambda n: search.settles(math.ceil(n), rate), steps, math.inf)
        if longest is not None:
            found.append(f"train.max_steps: {longest:g} at this rate")
    else:

        def steps_of(epochs: float) -> int:
            return total_steps(examples, spec.model_copy(update={"epochs": epochs}))

        epochs = search.smallest(lambda e: search.settles(steps_of(e), rate), spec.epochs, math.inf)
        if epochs is not None:
            found.append(f"train.epochs: {epochs:g} ({steps_of(epochs)} steps) at this rate")
    if fastest is not None:
        found.append(f"train.mask_learning_rate: {fastest:g} in these steps")
    if not found:
        return (
            "No more steps at this rate and no other rate in these steps were found that do: train longer "
            "and raise train.mask_learning_rate, or raise sparsity_tolerance."
        )
    return f"It takes at least {', or '.join(found)}; with the task loss against it, more."
