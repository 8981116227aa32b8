"""The map of what a run kept, from its plan and its report."""

import subprocess
import sys

import pytest
from kept_calls import KEEP, KEPT, structure

from prunekit.errors import PlanError
from prunekit.reports.kept import KeptUnits, kept_map, overlap


@pytest.fixture
def found():
    return kept_map(KEEP, structure())


def sublayer(found, stack, layer, role):
    (chosen,) = (each for each in found.stacks if each.name == stack)
    return chosen.layers[layer].sublayer(role)


def test_stacks_layers_and_roles_are_in_the_models_order(found):
    assert [(stack.name, stack.roles) for stack in found.stacks] == [
        ("encoder", ("self_attn", "ffn")),
        ("decoder", ("self_attn", "cross_attn", "ffn")),
    ]
    assert [[layer.index for layer in stack.layers] for stack in found.stacks] == [[0, 1], [0, 1]]


def test_heads_and_neurons_are_those_of_the_plan(found):
    heads, neurons = (sublayer(found, "encoder", 0, role) for role in ("self_attn", "ffn"))
    assert (heads.kind, heads.size, heads.indices) == ("head", 4, (0, 3))
    assert (neurons.kind, neurons.size, neurons.kept) == ("neuron", 10, 3)


def test_a_group_that_the_plan_does_not_name_is_whole(found):
    assert sublayer(found, "decoder", 1, "cross_attn").indices == (0, 1, 2, 3)


def test_a_sublayer_without_units_is_removed(found):
    assert sublayer(found, "encoder", 1, "self_attn").removed
    assert not sublayer(found, "encoder", 0, "self_attn").removed


def test_a_sublayer_that_went_as_a_whole_keeps_none_of_the_units_that_the_plan_names(found):
    assert sublayer(found, "encoder", 1, "ffn").removed
    assert sublayer(found, "encoder", 1, "ffn").kept == 0


def test_a_removed_block_keeps_nothing(found):
    (_, decoder) = found.stacks
    assert [layer.removed for layer in decoder.layers] == [True, False]
    assert all(each.removed for each in decoder.layers[0].sublayers)


def test_a_total_counts_all_layers(found):
    (encoder, decoder) = found.stacks
    assert encoder.total("self_attn") == (2, 8)
    assert decoder.total("ffn") == (10, 20)


def test_hidden_units_are_told_if_the_report_counts_them(found):
    assert found.hidden == KeptUnits(6, (0, 2, 4))
    without = [row for row in structure() if row["group"] != "hidden"]
    keep = {group: kept for group, kept in KEEP.items() if group != "hidden"}
    assert kept_map(keep, without).hidden is None


def test_a_layer_without_a_role_has_no_such_sublayer(found):
    assert sublayer(found, "encoder", 0, "cross_attn") is None


def test_a_plan_of_another_model_is_refused():
    with pytest.raises(
        PlanError, match=r"names encoder\.7\.ffn\.neurons, which the report's structure lacks"
    ):
        kept_map({**KEEP, "encoder.7.ffn.neurons": [0]}, structure())


def test_a_plan_of_another_run_is_refused():
    rows = structure(encoder__0__ffn__neurons=(4, 10))
    with pytest.raises(PlanError, match="the plan keeps 3 units and the report counts 4"):
        kept_map(KEEP, rows)


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([0, 4], "keeps unit 4 of 4"),
        ([-1, 0], "keeps unit -1 of 4"),
        ([3, 0], "must be sorted and unique"),
        ([3, 3], "must be sorted and unique"),
    ],
)
def test_indices_that_the_model_does_not_have_are_refused(indices, text):
    with pytest.raises(PlanError, match=text):
        kept_map({**KEEP, "encoder.0.self_attn.heads": indices}, structure())


def test_a_map_laid_over_itself_shares_everything(found):
    rows = overlap(found, found)
    assert len(rows) == sum(group.endswith(("heads", "neurons")) for group in KEPT)
    assert all(row.only_first == row.only_second == 0 for row in rows)


def test_an_overlap_counts_what_both_keep_and_what_one_keeps_alone(found):
    other = kept_map(
        {**KEEP, "encoder.0.ffn.neurons": [5, 6, 7, 9]}, structure(encoder__0__ffn__neurons=(4, 10))
    )
    row = next(
        row for row in overlap(found, other) if (row.stack, row.layer, row.role) == ("encoder", 0, "ffn")
    )
    assert (row.both, row.only_first, row.only_second) == (2, 1, 2)


def test_maps_of_different_models_are_not_laid_over_each_other(found):
    wider = kept_map(
        {group: kept for group, kept in KEEP.items() if group != "encoder.0.ffn.neurons"},
        structure(encoder__0__ffn__neurons=(12, 12)),
    )
    with pytest.raises(
        PlanError, match=r"encoder\.0\.ffn: one run's dense model has 10 units and the other's 12"
    ):
        overlap(found, wider)
    shorter = kept_map({}, [row for row in whole() if not row["group"].startswith("decoder")])
    with pytest.raises(PlanError, match="has 4 units and the other's none"):
        overlap(found, shorter)


def whole():
    return [{"group": group, "kept": size, "size": size} for group, (_, size) in KEPT.items()]


def test_maps_need_no_torch():
    program = "import sys, prunekit.reports.kept, prunekit.reports.show; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
