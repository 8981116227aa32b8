"""OPTIN: score by the trajectory, allocate, and where asked rearrange and tune."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from prunekit.errors import PrunekitError, UnsupportedModelError
from prunekit.method import MethodInfo
from prunekit_optin.config import INFO, OptinConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.scoring.scores import Scores
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer
    from prunekit_optin.scorer import Scorer

_log = logging.getLogger(__name__)
# What has no part in the scores: another value of these reuses them.
_BESIDE_SCORES = {"floor", "tune", "profile"}


class Optin:
    """OPTIN on every model that has heads and neurons; no labels, no training."""

    info: ClassVar[MethodInfo] = INFO
    Config: ClassVar[type[BaseModel]] = OptinConfig

    def __init__(self, config: OptinConfig) -> None:
        self.config = config

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Keep the units whose removal would bend the trajectory most, as many as the budget pays for.

        Scores are kept in the run folder, and taken from there or from a run beside it where nothing that
        they depend on has changed.

        Raises:
            BudgetError: if the budget cannot be met.
            DataError: if the task has too few calibration examples.
            UnsupportedModelError: if the released code's settings do not fit the model.
            PrunekitError: if the model has a single class, weights that are not finite or in less than
                float32, or scoring in less than float32 is asked for.
        """
        # Imported here so that listing methods does not load torch.
        from prunekit.scoring.cache import ScoreCache, fingerprint
        from prunekit.scoring.frozen import frozen
        from prunekit.scoring.oneshot import calibration_batches, finish, unit_costs
        from prunekit.scoring.scores import Scores
        from prunekit_optin.auto import refined
        from prunekit_optin.scorer import Scorer

        config = self.config
        _check(target, task, config, trainer)
        costs = unit_costs(target, budget, task)
        groups = [target.structure.sublayers[name].units.name for name in costs]
        batches = calibration_batches(task, config, trainer.seed)
        others = calibration_batches(task, config, trainer.seed + 1) if config.separate_batches else batches
        settings = {**config.model_dump(mode="json", exclude=_BESIDE_SCORES), "seed": trainer.seed}
        if config.adaptive_kl:
            # Every score then depends on those before it.
            settings["groups"] = groups
        with frozen(target.model):
            marks = fingerprint(self.info.name, target.model, [*batches, *others], settings)
            cache = ScoreCache(trainer.folder, marks)
            scorer = Scorer(target, config, batches, others, seed=trainer.seed, progress=trainer.progress)
            known = cache.load() or Scores({})
            trainer.reused_s += cache.reused_s
            scores = self._scores(scorer, [name for name in groups if name not in known.values])
            scores = known.joined(scores).only(groups)
            scores.check()
            values = scores.values
            if config.scoring == "auto":
                values, scores = refined(scorer, scores, costs, budget, config.floor)
            cache.save(known.joined(scores))
        scores = replace(scores, values=values)
        return finish(target, scores, costs, budget, config, batches, progress=trainer.progress)

    def _scores(self, scorer: Scorer, groups: Sequence[str]) -> Scores:
        """Scores of these groups that do not depend on a budget yet."""
        from prunekit.scoring.scores import Scores

        config = self.config
        kinds = {name: scorer.target.groups[name].kind for name in groups}
        exactly = [
            name
            for name in groups
            if config.scoring == "exact" or (config.scoring == "auto" and kinds[name] == "head")
        ]
        exact = scorer.exact({name: range(scorer.target.groups[name].size) for name in exactly})
        # Rearrangement needs signed samples of every unit, those of exactly scored ones too.
        probed = list(groups) if config.rearrange else [name for name in groups if name not in exact]
        estimated = scorer.probed(probed)
        return Scores(
            {name: exact[name] if name in exact else estimated.values[name] for name in groups},
            {name: error for name, error in estimated.errors.items() if name not in exact},
            estimated.gradients,
        )


def _check(target: PrunableModel, task: Task, config: OptinConfig, trainer: Trainer) -> None:
    if trainer.spec.precision == "bf16":
        raise PrunekitError(
            "train.precision: bf16 asks for scoring in bfloat16, whose rounding alone is larger than what "
            "removing most units changes: their scores would be noise. Leave train.precision out; optin "
            "scores in float32."
        )
    model = target.model
    is_vision = model.main_input_name == "pixel_values"
    if config.profile != "paper" and is_vision != (config.profile == "released-vision"):
        about = "language models" if is_vision else "images"
        fact = "is not one" if is_vision else "does not read them"
        raise UnsupportedModelError(
            f"profile: {config.profile} is what the released code does on {about}, and "
            f"{type(model).__name__} {fact}. Write profile: {'released-vision' if is_vision else 'released'}."
        )
    classes = getattr(model.config, "num_labels", None)
    if classes != 1 or task.family == "text2text":
        return
    if task.family == "classification" or model.config.problem_type == "single_label_classification":
        raise PrunekitError(
            f"{type(model).__name__} has one class, so that every example has the same answer and nothing is "
            "left to preserve. Use a model with at least two classes."
        )
    _log.warning(
        "%s answers with a single number: the divergence of answers is always 0, and optin scores by the "
        "features' distance alone",
        type(model).__name__,
    )
