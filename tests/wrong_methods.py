"""A method that keeps every rule of the check suite, and methods whose declaration or plan breaks one."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field

from prunekit.method import MethodInfo
from prunekit.pruning.budget import keep_by_score
from prunekit.pruning.plan import PruningPlan

INFO = MethodInfo(
    name="last-units",
    summary="removes the last units",
    paper="none: an example",
    kinds=("head", "neuron"),
    model_types=("bert",),
    trains=False,
    data="none",
    deterministic=True,
)


class Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    strength: float = Field(1.0, gt=0, description="changes nothing")


class Good:
    """Removes the units of the highest index, all groups together, to within one unit of the budget."""

    info = INFO
    Config = Keys

    def __init__(self, config):
        self.config = config

    def plan(self, target, task, budget, trainer):
        self.info.check_model(target)
        return self.cut(target, task, budget, trainer)

    def cut(self, target, task, budget, trainer):
        costs = self.costs(target, task, budget)
        scores = self.scores(target, costs, task, trainer)
        keep = keep_by_score(scores, costs, target.structure, self.share(budget, target, costs))
        return PruningPlan(keep=keep)

    def costs(self, target, task, budget):
        return target.costs(budget, task)

    def scores(self, target, costs, task, trainer):
        groups = [target.structure.sublayers[name].units for name in costs]
        return {group.name: -torch.arange(group.size, dtype=torch.float64) for group in groups}

    def share(self, budget, target, costs):
        return budget.share


WRONG = {}
"""Name to (method, the rules that it breaks, a part of what the first of these says)."""


def breaks(*rules, says):
    """Enter a wrong method under the rules that are to catch it, and no others."""

    def enter(method):
        WRONG[method.__name__] = (method, rules, says)
        return method

    return enter


# Declarations


@breaks("info-complete", says="info is None; give the class an attribute `info`")
class NoInfo(Good):
    info = None


@breaks("info-complete", says="name is 'Last Units'; use lower-case letters")
class SpacedName(Good):
    info = replace(INFO, name="Last Units")


@breaks("info-complete", says="kinds holds 'heads'; did you mean head?")
class NoSuchKind(Good):
    info = replace(INFO, kinds=("head", "neuron", "heads"))


@breaks(
    "info-complete",
    says="exceptions names the rule 'budget-meet', which there is not; did you mean budget-met?",
)
class NoSuchRule(Good):
    info = replace(INFO, exceptions={"budget-meet": "it is hard"})


@breaks(
    "signatures",
    "plan-runs",
    "unsupported-model-refused",
    says="takes (target, task, budget, trainer, strength)",
)
class WantsMore(Good):
    def plan(self, target, task, budget, trainer, strength):
        return super().plan(target, task, budget, trainer)


@breaks("config-defaults", says="cannot be made without keys (strength)")
class NeedsAKey(Good):
    info = replace(INFO, check_entry={"strength": 2.0})

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")

        strength: float = Field(description="has no default")


@breaks("config-forbids-unknown-keys", says="takes keys that it does not have")
class TakesAnyKey(Good):
    class Config(BaseModel):
        strength: float = Field(1.0, description="stands among any others")


@breaks("config-documented", says="strength has no description")
class SilentKey(Good):
    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")

        strength: float = 1.0


@breaks("config-keys-free", says="has the key train, which in a recipe's entry belongs to prunekit")
class TakenKey(Good):
    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")

        train: bool = Field(False, description="never arrives")


@breaks("check-entry-valid", "plan-runs", says="strength: Input should be greater than 0 (found -1)")
class WrongEntry(Good):
    info = replace(INFO, check_entry={"strength": -1})


@breaks("model-types-known", says="works on brt; did you mean bert?")
class MisspeltType(Good):
    info = replace(INFO, model_types=("brt",))


@breaks(
    "unsupported-model-refused",
    says="on a model of bart, which model_types leaves out, last-units made a plan",
)
class RefusesNothing(Good):
    def plan(self, target, task, budget, trainer):
        return self.cut(target, task, budget, trainer)


@breaks("unsupported-model-refused", says="raised KeyError: 'bart'")
class RefusesWrongly(Good):
    def plan(self, target, task, budget, trainer):
        {"bert": 0}[target.adapter.name]
        return self.cut(target, task, budget, trainer)


# Plans


@breaks("plan-runs", says="raised ZeroDivisionError: division by zero (raised in tests/wrong_methods.py:")
class Fails(Good):
    def cut(self, target, task, budget, trainer):
        return 1 / 0


@breaks("plan-names-and-indices", says="plan returned dict; return a PruningPlan")
class ReturnsADict(Good):
    def cut(self, target, task, budget, trainer):
        return super().cut(target, task, budget, trainer).keep


@breaks("plan-names-and-indices", says="names the group 'encoder.0.ffn.neurones'")
class UnknownGroup(Good):
    def cut(self, target, task, budget, trainer):
        return PruningPlan(keep={"encoder.0.ffn.neurones": (0,)})


@breaks("plan-names-and-indices", says="kept indices must lie between 0 and 3, found [0, 1, 4]")
class IndexTooHigh(Good):
    def cut(self, target, task, budget, trainer):
        return PruningPlan(keep={"encoder.0.self_attn.heads": (0, 1, 4)})


@breaks("plan-json-round-trip", says="cannot be written as JSON")
class TensorInThePlan(Good):
    def cut(self, target, task, budget, trainer):
        plan = super().cut(target, task, budget, trainer)
        return plan.model_copy(update={"achieved": {"scores": torch.ones(2)}})


@breaks("plan-json-round-trip", says="differs in achieved (before, after: ")
class NotANumber(Good):
    def cut(self, target, task, budget, trainer):
        plan = super().cut(target, task, budget, trainer)
        return plan.model_copy(update={"achieved": {"loss": float("nan")}})


@breaks("plan-json-round-trip", says="differs in achieved (before, after: ")
class NumbersAsKeys(Good):
    def cut(self, target, task, budget, trainer):
        plan = super().cut(target, task, budget, trainer)
        return plan.model_copy(update={"achieved": {"heads": {0: 3}}})


@breaks("only-declared-kinds", says="such as encoder.ffn, of kind sublayer")
class UndeclaredKind(Good):
    def cut(self, target, task, budget, trainer):
        plan = super().cut(target, task, budget, trainer)
        return plan.merged(PruningPlan(keep={"encoder.ffn": (0, 1, 2)}))


@breaks("budget-met", "scope-respected", says="0.4 was to be removed")
class RemovesTooLittle(Good):
    def share(self, budget, target, costs):
        return budget.share / 2


@breaks("budget-met", "scope-respected", says="too many")
class RemovesTooMuch(Good):
    def share(self, budget, target, costs):
        return min(1.5 * budget.share, 1)


@breaks("zero-sparsity-keeps-everything", says="at a sparsity of 0 the plan removes units of encoder.")
class AlwaysRemoves(Good):
    def share(self, budget, target, costs):
        return max(budget.share, 0.01)


@breaks("scope-respected", says="and yet the plan changes encoder.0.self_attn.heads")
class IgnoresScope(Good):
    def costs(self, target, task, budget):
        return target.parameter_costs()


@breaks("scope-respected", says="too many")
class CountsBeyondScope(Good):
    def share(self, budget, target, costs):
        total = sum(cost.prunable for cost in target.parameter_costs().values())
        return min(budget.share * total / sum(cost.prunable for cost in costs.values()), 1)
