"""CoFi: learn masks of every grain together with the weights, cut to the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from prunekit.errors import BudgetError, UnsupportedModelError
from prunekit.method import MethodInfo
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import HIDDEN, sublayer_group
from prunekit_cofi.config import INFO, CofiConfig

if TYPE_CHECKING:
    from prunekit.pruning.cost import SublayerCost
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer


class Cofi:
    """CoFi on encoders and encoder-decoders; on T5 it is the NASH paper's CoFi-T5."""

    info: ClassVar[MethodInfo] = INFO
    Config: ClassVar[type[BaseModel]] = CofiConfig

    def __init__(self, config: CofiConfig) -> None:
        self.config = config

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Train the model under masks, taught by its own copy; keep what the masks kept.

        Raises:
            UnsupportedModelError: if hidden units are to be pruned and this model's cannot.
            BudgetError: if the budget is a latency, the scope holds only part of what a mask spans, the
                steps cannot reach the sparsity, or a milestone is not on the way.
            TrainingError: if the learned sparsity ends further from the target than ``sparsity_tolerance``.
        """
        # Imported here so that listing methods does not load torch.
        from prunekit.learned.goal import Goal
        from prunekit.learned.stage import MaskTraining
        from prunekit_cofi.loss import CofiLoss, layer_transforms

        config = self.config
        if budget.metric == "latency":
            raise BudgetError(
                "cofi counts its budget in params or macs, not latency: its masks learn a share, not a time. "
                "Write budget.metric: params or macs, and a sparsity in place of the ratio."
            )
        costs = target.costs(budget, task)
        groups = _masked_groups(target, costs, config)
        goal = Goal("model", costs, groups, budget.share, budget.round_to)
        teacher = target.copy()
        teacher.model.to(trainer.device).eval().requires_grad_(False)
        embeddings = target.model.get_input_embeddings().parameters() if config.freeze_embeddings else ()
        frozen = [parameter.requires_grad_(False) for parameter in embeddings if parameter.requires_grad]
        transforms = layer_transforms(target) if config.layer_weight else {}
        loss = CofiLoss(config, target, teacher, transforms)
        masks = MaskTraining(INFO.name, config, target, loss, task, trainer, [goal], transforms).run()
        for parameter in frozen:
            parameter.requires_grad_(True)
        return PruningPlan.from_masks(masks, target.groups)


def _masked_groups(
    target: PrunableModel, costs: dict[str, SublayerCost], config: CofiConfig
) -> tuple[str, ...]:
    """The groups of the kinds in ``config`` that the budget counts: units, then sublayers, then hidden."""
    structure = target.structure
    counted = [structure.sublayers[name] for name in costs]
    names = [sub.units.name for sub in counted if sub.units.kind in config.kinds]
    if "sublayer" in config.kinds:
        for stack in structure.stacks.values():
            names += [sublayer_group(stack.name, role) for role in stack.roles]
    outside = [name for name in structure.sublayers if name not in costs]
    spanning = [kind for kind in config.kinds if kind in ("sublayer", HIDDEN)]
    if outside and spanning:
        left = [kind for kind in config.kinds if kind not in spanning]
        raise BudgetError(
            f"cofi: the budget's scope leaves out {outside[0]} and {len(outside) - 1} more sublayers, but "
            f"masks on {' and '.join(spanning)} units span the whole model. Leave budget.scope empty, or "
            f"write kinds: [{', '.join(left) or 'head, neuron'}]."
        )
    if HIDDEN in config.kinds:
        if HIDDEN not in structure.groups:
            raise UnsupportedModelError(
                f"cofi: hidden units of {type(target.model).__name__} cannot be pruned: "
                f"{structure.no_hidden}. Write kinds: [head, neuron, sublayer]."
            )
        names.append(HIDDEN)
    return tuple(names)
