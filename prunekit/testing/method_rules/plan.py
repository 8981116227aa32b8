"""Rules about the plan itself: that it can be used, and removes what was asked for."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prunekit.errors import BudgetError, PlanError, UnsupportedModelError
from prunekit.pruning.cost import cut_hidden, kept_cost, kept_units
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import HIDDEN, UnitGroup
from prunekit.testing.outcome import CheckFailed, NotApplicable, explain
from prunekit.testing.rules import Rule
from prunekit.testing.snapshot import changed
from prunekit.testing.subject import ModelSubject, Run

_ROUNDING = 1e-9  # of the total, for sums of floats


def plan_runs(subject: ModelSubject) -> None:
    """Planning comes to an end."""
    if isinstance(subject.attempt, UnsupportedModelError) and subject.model not in subject.info.model_types:
        raise NotApplicable(
            f"it works on any architecture that it can, and refuses this one: {subject.attempt}"
        )
    if isinstance(subject.attempt, Exception):
        entry = dict(subject.info.check_entry)
        raise CheckFailed(
            f"planning on a tiny {subject.model} (three blocks a stack) with the recipe entry {entry} raised "
            f"{explain(subject.attempt, subject.module)}. If it needs other settings on so small a model, "
            "give them in info.check_entry."
        ) from subject.attempt


def names_and_indices(subject: ModelSubject) -> None:
    """The plan names groups and units that the model has."""
    run = subject.plain
    if not isinstance(run.plan, PruningPlan):
        raise CheckFailed(f"plan returned {type(run.plan).__name__}; return a PruningPlan.")
    try:
        run.plan.check(run.target.groups)
    except PlanError as error:
        raise CheckFailed(
            f"the plan does not fit the model it was made of: {error} Take names and sizes from "
            "target.groups."
        ) from error


def json_round_trip(subject: ModelSubject) -> None:
    """The plan is the same after it was written and read."""
    plan = subject.plain.plan
    if not isinstance(plan, PruningPlan):
        raise NotApplicable("it is no plan: see plan-names-and-indices")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        try:
            plan.save(path)
            found = PruningPlan.load(path)
        except (ValueError, TypeError, PlanError) as error:
            raise CheckFailed(
                f"the plan cannot be written as JSON and read again: {error}. Put numbers, texts, lists and "
                "mappings into `achieved` and `budget`, no tensors or arrays."
            ) from error
    before, after = _listed(plan.model_dump()), _listed(found.model_dump())
    differing = changed(before, after)
    if differing:
        shown = str({name: (before[name], after[name]) for name in differing})[:300]
        raise CheckFailed(
            f"the plan read from its file differs in {', '.join(differing)} (before, after: {shown}). Keep "
            "to finite numbers, texts, lists and mappings with texts as keys."
        )


def _listed(value: Any) -> Any:
    """The value with tuples as lists, which is all that JSON may change about it."""
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value


def declared_kinds(subject: ModelSubject) -> None:
    """The plan removes units of declared kinds only."""
    run = subject.valid
    named = {name: run.target.groups[name].kind for name in (*run.plan.keep, *run.plan.scale)}
    other = {name: kind for name, kind in named.items() if kind not in subject.info.kinds}
    if other:
        name, kind = next(iter(other.items()))
        raise CheckFailed(
            f"the plan names {len(other)} groups of kinds that info.kinds {subject.info.kinds} leaves out, "
            f"such as {name}, of kind {kind}. Declare the kind, or leave such groups out of the plan."
        )


def budget_met(subject: ModelSubject) -> None:
    """What was asked for is removed, and hardly more."""
    check_budget(subject, subject.valid)


def check_budget(subject: ModelSubject, run: Run) -> None:
    """Compare what a plan removes with the budget, as far as the declaration lets it miss it.

    Raises:
        CheckFailed: if it removes too little or too much.
    """
    info, plan = subject.info, run.plan
    costs = run.target.costs(run.budget, run.task)
    total = sum(cost.prunable for cost in costs.values())
    left = kept_cost(costs, run.target.structure, plan.keep)
    excess = (total - left) - run.budget.share * total
    slack = (info.budget_tolerance + _ROUNDING) * total
    largest = max((_price(run, run.target.groups[name]) for name in plan.keep), default=0.0)
    # What goes with a sublayer that loses its last unit belongs to no unit.
    left_units = kept_units(run.target.structure, plan.keep)
    along = sum(cost.fixed for name, cost in costs.items() if not left_units[name])
    most = info.budget_units * largest + along
    if -slack <= excess < most + slack or abs(excess) <= slack:
        return
    unit = run.budget.metric
    raise CheckFailed(
        f"of {total:g} {unit} in scope {run.budget.share:.4g} was to be removed, and {1 - left / total:.4f} "
        f"was: {abs(excess):g} too {'few' if excess < 0 else 'many'}. By what info declares (budget_units "
        f"{info.budget_units}, budget_tolerance {info.budget_tolerance:g}) it may be "
        f"{slack:.3g} too few, and less than {most + slack:.6g} too many, the largest unit of the plan "
        f"costing {largest:g}. Count by target.costs(budget, task), or declare more."
    )


def _price(run: Run, group: UnitGroup) -> float:
    """The most that one unit of a group costs inside the budget's scope; nothing outside it."""
    costs = run.target.costs(run.budget, run.task)
    subs = run.target.structure.sublayers
    if group.kind == "hidden":
        return sum(c.unit_per_hidden * c.units + c.fixed_per_hidden for c in costs.values())
    if group.kind in ("head", "neuron"):
        return max((c.unit for name, c in costs.items() if subs[name].units.name == group.name), default=0.0)
    stack, _, role = group.name.partition(".")
    inside = [
        (subs[n].block, c.prunable)
        for n, c in costs.items()
        if subs[n].stack == stack and role in ("blocks", subs[n].role)
    ]
    return max((sum(p for at, p in inside if at == block) for block, _ in inside), default=0.0)


def zero_sparsity(subject: ModelSubject) -> None:
    """Where nothing is to be removed, nothing is."""
    subject.valid  # noqa: B018 (a method that cannot plan at all says nothing of this)
    run = subject.again(budget={"sparsity": 0.0})
    removed = _removed(run, inside=True)
    if removed:
        raise CheckFailed(
            f"at a sparsity of 0 the plan removes units of {', '.join(removed[:4])}. Whoever asks for "
            "nothing to be removed gets the dense model back; look for a rounding up, or a unit that goes in "
            "any case."
        )


def scope_respected(subject: ModelSubject) -> None:
    """Nothing outside the budget's scope is touched, and the budget is met inside."""
    run = subject.valid
    if not run.budget.scope:
        stacks = list(run.target.structure.stacks.values())
        first = stacks[0]
        scope = (
            [f"{first.name}.*"] if len(stacks) > 1 else [f"{first.name}.{i}.*" for i in range(1, first.depth)]
        )
        try:
            run = subject.again(budget={"scope": scope})
        except BudgetError as error:
            raise NotApplicable(f"it refuses the scope {scope}: {error}") from error
        run.plan.check(run.target.groups)
    outside = _removed(run, inside=False)
    if outside:
        raise CheckFailed(
            f"the budget's scope is {run.budget.scope}, and yet the plan changes {', '.join(outside[:4])}. "
            "Score and cut only the sublayers that target.costs(budget, task) names."
        )
    check_budget(subject, run)


def _removed(run: Run, *, inside: bool) -> list[str]:
    """Groups that lose units, inside or outside the budget's scope; outside also those that are scaled."""
    structure, plan = run.target.structure, run.plan
    costs = run.target.costs(run.budget, run.task)
    left = kept_units(structure, plan.keep)
    found = [
        sub.units.name
        for name, sub in structure.sublayers.items()
        if (name in costs) == inside
        and (left[name] < sub.units.size or (not inside and sub.units.name in plan.scale))
    ]
    if cut_hidden(structure, plan.keep) and (inside or len(costs) < len(structure.sublayers)):
        found.append(HIDDEN)
    return found


RULES = (
    Rule("plan-runs", "`plan` returns on a model of three blocks, by `info.check_entry`.", plan_runs),
    Rule("plan-names-and-indices", "The plan names groups and units that the model has.", names_and_indices),
    Rule("plan-json-round-trip", "The plan is the same after it was written and read.", json_round_trip),
    Rule("only-declared-kinds", "The plan names groups of the kinds in `info.kinds` only.", declared_kinds),
    Rule("budget-met", "What is removed is what was asked for, as near as `info` declares.", budget_met),
    Rule("zero-sparsity-keeps-everything", "At a sparsity of 0 nothing in scope is removed.", zero_sparsity),
    Rule(
        "scope-respected",
        "Only what is in the budget's scope is removed or scaled, and the budget is met there.",
        scope_respected,
    ),
)
