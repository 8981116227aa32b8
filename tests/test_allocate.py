"""The budget solver: the best sum of scores that a budget pays for, and never more than it pays for."""

import itertools
import re

import numpy as np
import pytest
import torch
from budget_calls import (
    kept_cost,
    layout,
    objective,
    prices,
    problems,
    quick,
    random_scores,
    removed_share,
    scores,
    total_cost,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from prunekit.errors import BudgetError
from prunekit.pruning.allocate import ROUNDING, allocate
from prunekit.recipe import BudgetSpec
from prunekit.testing.tiny import tiny_model


def charged(keep, costs):
    """What the solver counts: every sublayer's fixed cost, and the kept units."""
    return sum(c.fixed + c.unit * len(keep[f"{name}.units"]) for name, c in costs.items())


def best_by_trying(wanted, costs, budget, floor):
    """The largest objective of all subsets of units that the budget pays for; none if there is no such."""
    owner = np.array([name for name, c in costs.items() for _ in range(c.units)])
    price = np.array([costs[name].unit for name in owner])
    value = np.concatenate([wanted[f"{name}.units"].clamp(min=0).numpy() for name in costs])
    rows = (np.arange(2 ** len(owner))[:, None] >> np.arange(len(owner))) & 1  # one subset a row
    fixed = sum(c.fixed for c in costs.values())
    allowed = rows @ price + fixed <= budget + ROUNDING * total_cost(costs)
    for name, c in costs.items():
        allowed &= rows[:, owner == name].sum(1) >= min(floor, c.units)
    return float((rows[allowed] @ value).max()) if allowed.any() else None


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_the_result_is_the_best_of_all_choices(classes):
    @quick
    @given(problems(classes, most=14), st.floats(0, 0.99), st.integers(0, 2))
    def check(problem, sparsity, floor):
        costs, structure, wanted = problem
        budget = (1 - sparsity) * total_cost(costs)
        best = best_by_trying(wanted, costs, budget, floor)
        if best is None:  # only what must stay is affordable, or not even that
            return
        keep = allocate(wanted, costs, structure, sparsity, floor=floor)
        assert objective(keep, wanted) == pytest.approx(best, rel=1e-9, abs=1e-9)
        assert all(len(kept) >= min(floor, len(wanted[name])) for name, kept in keep.items())

    check()


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.55, 0.8, 0.95, 0.99])
def test_the_result_is_an_integer_program_s(classes, sparsity):
    units = {f"s{i}": (prices[i % classes] * 100 + i % classes, 20 + i) for i in range(6)}
    costs, structure = layout(**units)
    wanted = {
        name: vector.exp() * costs[name.removesuffix(".units")].unit
        for name, vector in random_scores(costs, seed=classes, draw=torch.randn).items()
    }
    value = torch.cat(list(wanted.values())).numpy()
    price = np.repeat([c.unit for c in costs.values()], [c.units for c in costs.values()])
    budget = (1 - sparsity) * total_cost(costs)
    found = milp(
        -value,
        constraints=LinearConstraint(price[None], ub=budget * (1 + 1e-9)),
        bounds=Bounds(0, 1),
        integrality=np.ones(len(value)),
        options={"mip_rel_gap": 0},
    )
    keep = allocate(wanted, costs, structure, sparsity)
    assert objective(keep, wanted) == pytest.approx(-found.fun, rel=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_the_budget_is_never_exceeded_and_nothing_affordable_is_left_out(classes):
    @quick
    @given(problems(classes, most=40), st.floats(0, 0.99))
    def check(problem, sparsity):
        costs, structure, wanted = problem
        keep = allocate(wanted, costs, structure, sparsity)
        budget = (1 - sparsity) * total_cost(costs)
        rounding = ROUNDING * total_cost(costs)
        assert kept_cost(keep, costs) <= budget + rounding
        removed = [c.unit for name, c in costs.items() if len(keep[f"{name}.units"]) < c.units]
        assert not removed or budget - charged(keep, costs) < min(removed) + rounding

    check()


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_a_larger_budget_never_has_a_lower_objective(classes):
    @quick
    @given(problems(classes, most=40))
    def check(problem):
        costs, structure, wanted = problem
        values = [objective(allocate(wanted, costs, structure, p / 8), wanted) for p in range(8)]
        assert all(less <= more + 1e-9 for more, less in itertools.pairwise(values))

    check()


@quick
@given(problems(4, most=40), st.floats(0, 0.99), st.randoms(use_true_random=False))
def test_the_order_in_which_groups_are_given_does_not_matter(problem, sparsity, random):
    costs, structure, wanted = problem
    names, groups = list(costs), list(wanted)
    random.shuffle(names)
    random.shuffle(groups)
    shuffled = {name: costs[name] for name in names}
    keep = allocate({name: wanted[name] for name in groups}, shuffled, structure, sparsity)
    assert keep == allocate(wanted, costs, structure, sparsity)


# Worked by hand


def test_a_case_worked_by_hand():
    # Two heads of 10 and five neurons of 2: 30 in all, 15 to spend. No head: all five neurons, 2.7. One head
    # (0.4) and two neurons (0.9 + 0.8): 2.1. Two heads cost more than there is.
    costs, structure = layout(attn=(10, 2), ffn=(2, 5))
    wanted = scores(attn=[0.2, 0.4], ffn=[0.1, 0.5, 0.9, 0.4, 0.8])
    assert allocate(wanted, costs, structure, 0.5) == {"attn.units": (), "ffn.units": (0, 1, 2, 3, 4)}
    wanted = scores(attn=[0.2, 1.1], ffn=[0.1, 0.5, 0.9, 0.4, 0.8])
    assert allocate(wanted, costs, structure, 0.5) == {"attn.units": (1,), "ffn.units": (2, 4)}


def test_heads_that_cost_more_than_the_budget_are_not_kept():
    # The defect of the routine this one replaces: heads alone may exceed the budget there.
    costs, structure = layout(attn=(10, 3), ffn=(1, 6))
    keep = allocate(scores(attn=[9.0, 9, 9], ffn=[1.0] * 6), costs, structure, 0.8)
    assert keep == {"attn.units": (), "ffn.units": (0, 1, 2, 3, 4, 5)}


def test_what_does_not_fit_makes_room_for_less_valuable_units_that_do():
    costs, structure = layout(a=(6, 2), b=(4, 2))
    keep = allocate(scores(a=[7.0, 7], b=[1.0, 1]), costs, structure, 0.5)
    assert keep == {"a.units": (0,), "b.units": (0,)}


def test_nothing_is_removed_for_a_sparsity_of_0():
    costs, structure = layout(a=(3, 2, 1), b=(1, 3), c=(2, 2))
    keep = allocate(scores(a=[-1.0, 0], b=[-5.0, 2, 0], c=[1.0, 1]), costs, structure, 0)
    assert keep == {"a.units": (0, 1), "b.units": (0, 1, 2), "c.units": (0, 1)}


def test_a_share_that_units_meet_exactly_leaves_nothing_over():
    costs, structure = layout(a=(1, 100))
    wanted = scores(a=list(range(100)))
    left = [len(allocate(wanted, costs, structure, percent / 100)["a.units"]) for percent in range(100)]
    assert left == [100 - percent for percent in range(100)]


def test_ties_go_to_the_first_group_and_the_lower_index():
    costs, structure = layout(b=(1, 3), a=(1, 3))
    keep = allocate(scores(b=[1.0, 1, 1], a=[1.0, 1, 1]), costs, structure, 0.3)
    assert keep == {"b.units": (0,), "a.units": (0, 1, 2)}


def test_units_without_value_fill_what_is_left_best_first():
    costs, structure = layout(a=(2, 2), b=(1, 4))
    keep = allocate(scores(a=[-1.0, -9], b=[0.0, -3, -2, 5]), costs, structure, 0.5)
    assert keep == {"a.units": (0,), "b.units": (0, 3)}


def test_groups_without_scores_stay_and_are_paid_for():
    costs, structure = layout(a=(1, 4), b=(1, 4))
    assert allocate(scores(a=[3.0, 1, 2, 4]), costs, structure, 0.25) == {"a.units": (0, 3)}


def test_without_scores_everything_stays_if_the_budget_allows():
    costs, structure = layout(a=(1, 4))
    assert allocate({}, costs, structure, 0) == {}
    with pytest.raises(BudgetError, match="1 of 1 groups in scope have no scores"):
        allocate({}, costs, structure, 0.1)


def test_the_bias_of_an_emptied_sublayer_is_paid_for_all_the_same():
    # 12 in all, 6 to spend, 2 of them on the bias of a: four units of b are left, though a is empty.
    costs, structure = layout(a=(1, 4, 2), b=(1, 6))
    keep = allocate(scores(a=[0.0] * 4, b=[1.0] * 6), costs, structure, 0.5)
    assert keep == {"a.units": (), "b.units": (0, 1, 2, 3)}


def test_where_not_even_the_biases_are_affordable_everything_goes():
    costs, structure = layout(a=(1, 4, 2), b=(1, 4, 2))
    assert allocate(scores(a=[1.0] * 4, b=[1.0] * 4), costs, structure, 0.9) == {"a.units": (), "b.units": ()}


def test_a_floor_keeps_the_best_units_of_every_group():
    costs, structure = layout(a=(1, 4), b=(1, 4), c=(1, 1))
    wanted = scores(a=[0.1, 0.3, 0.2, 0.4], b=[5.0, 6, 7, 8], c=[0.0])
    keep = allocate(wanted, costs, structure, 4 / 9, floor=2)
    assert keep == {"a.units": (1, 3), "b.units": (2, 3), "c.units": (0,)}


def test_scores_in_proportion_to_costs_fill_the_budget_to_less_than_a_unit():
    # Every choice that spends the budget is as good as any other: far too many to list.
    costs, structure = layout(a=(3001, 140), b=(2503, 140), c=(1009, 140), d=(39, 20_000), e=(12, 20_000))
    wanted = {f"{name}.units": torch.full((c.units,), c.unit).double() for name, c in costs.items()}
    for sparsity in (0.1, 0.4, 0.95):
        budget = (1 - sparsity) * total_cost(costs)
        assert budget - 3001 < kept_cost(allocate(wanted, costs, structure, sparsity), costs) <= budget


@pytest.mark.parametrize("metric", ["params", "macs"])
@pytest.mark.parametrize("name", ["t5", "t5-gated", "bart", "bert", "vit"])
def test_a_model_cut_by_the_solver_is_just_within_its_budget(name, metric, prunable):
    target = prunable(tiny_model(name))
    is_seq2seq = "decoder" in target.structure.stacks
    lengths = {"length": None if name == "vit" else 11, "target_length": 6 if is_seq2seq else None}
    budget = BudgetSpec(metric=metric, sparsity=0.4, macs=lengths)
    costs = target.costs(budget)
    generator = torch.Generator().manual_seed(0)
    units = {n: target.structure.sublayers[n].units for n in costs}
    wanted = {u.name: torch.rand(u.size, generator=generator) for u in units.values()}
    keep = allocate(wanted, costs, target.structure, budget.sparsity)
    used = sum(c.kept(len(keep[units[n].name])) for n, c in costs.items())
    fixed = sum(c.fixed for c in costs.values())
    allowed = 0.6 * total_cost(costs)
    assert allowed - min(c.unit for c in costs.values()) - fixed < used <= allowed * (1 + ROUNDING)


# What is refused


def test_scores_outside_the_scope_are_refused():
    costs, structure = layout(a=(10, 2))
    text = "b.units was scored but is outside the budget's scope; score what is in it."
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        allocate(scores(a=[1, 2], b=[1.0]), costs, structure, 0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_refused(value):
    costs, structure = layout(a=(10, 2))
    text = "a.units has scores that are not finite numbers; look for NaN in the model."
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        allocate(scores(a=[1, value]), costs, structure, 0.5)


def test_a_budget_below_what_is_not_scored_names_the_largest_that_can_be_met():
    costs, structure = layout(a=(1, 4), b=(1, 2))
    with pytest.raises(BudgetError) as caught:
        allocate(scores(a=[1.0] * 4), costs, structure, 0.9)
    assert str(caught.value) == (
        "a sparsity of 0.9 cannot be reached: 0.3333 of the cost in scope must stay, because 1 of 2 groups "
        "in scope have no scores. Ask for at most 0.6666."
    )


def test_a_budget_below_the_floor_names_the_largest_that_can_be_met():
    costs, structure = layout(a=(3, 4, 1), b=(7, 2), c=(5, 1))
    wanted = scores(a=[1.0] * 4, b=[2.0] * 2)
    with pytest.raises(BudgetError, match="no scores and each group keeps at least 1 units") as caught:
        allocate(wanted, costs, structure, 0.99, floor=1)
    largest = float(re.search(r"at most ([\d.]+)\.$", str(caught.value)).group(1))
    keep = allocate(wanted, costs, structure, largest, floor=1)
    assert [len(kept) for kept in keep.values()] == [1, 1]
    assert removed_share(keep, costs) >= largest
