"""The plan: masks and back, JSON and back, and what it refuses."""

import json

import pytest
import torch

from prunekit.errors import PlanError
from prunekit.pruning.plan import PruningPlan
from prunekit.testing.tiny import tiny_model


@pytest.fixture(scope="module")
def groups(prunable):
    return prunable(tiny_model("t5")).groups


def test_masks_of_a_plan_give_the_plan_back(groups):
    plan = PruningPlan(
        keep={
            "encoder.0.self_attn.heads": (0, 2),
            "encoder.1.ffn.neurons": (3, 4, 19),
            "encoder.2.self_attn.heads": (),
            "decoder.self_attn": (0, 1),
            "decoder.blocks": (1, 2),
        },
        scale={"encoder.0.self_attn.heads": (0.5, 1.25), "decoder.self_attn": (0.75, 1.0)},
    )
    again = PruningPlan.from_masks(plan.masks(groups), groups)
    assert (again.keep, again.scale) == (plan.keep, plan.scale)


def test_masks_hold_the_scales_and_zeros(groups):
    plan = PruningPlan(
        keep={"encoder.0.self_attn.heads": (1, 3)}, scale={"encoder.0.self_attn.heads": (0.5, 2.0)}
    )
    (mask,) = plan.masks(groups).values()
    assert mask.dtype == torch.float64
    assert mask.tolist() == [0.0, 0.5, 0.0, 2.0]


def test_masks_for_a_model_without_the_group_are_refused(groups):
    with pytest.raises(PlanError) as caught:
        PruningPlan(keep={"encoder.0.self_attn.head": (0,)}).masks(groups)
    assert str(caught.value) == (
        "the plan names the group 'encoder.0.self_attn.head', which this model does not have; did you mean "
        "encoder.0.self_attn.heads?"
    )


def test_a_mask_of_ones_leaves_no_trace_in_the_plan(groups):
    plan = PruningPlan.from_masks({"encoder.0.self_attn.heads": torch.ones(4)}, groups)
    assert plan.keep == {}
    assert plan.scale == {}


def test_a_binary_mask_needs_no_scale(groups):
    plan = PruningPlan.from_masks({"encoder.0.self_attn.heads": torch.tensor([1.0, 0, 1, 0])}, groups)
    assert plan.keep == {"encoder.0.self_attn.heads": (0, 2)}
    assert plan.scale == {}


def test_a_soft_mask_without_zeros_keeps_all_units_with_scales(groups):
    plan = PruningPlan.from_masks({"encoder.self_attn": torch.tensor([0.5, 1.0, 0.25])}, groups)
    assert plan.keep == {"encoder.self_attn": (0, 1, 2)}
    assert plan.scale == {"encoder.self_attn": (0.5, 1.0, 0.25)}


def test_masks_may_require_gradients(groups):
    mask = torch.tensor([1.0, 0, 1, 0], requires_grad=True)
    assert PruningPlan.from_masks({"encoder.0.self_attn.heads": mask}, groups).keep


def test_merged_plans_hold_the_groups_of_both():
    first = PruningPlan(keep={"decoder.blocks": (0, 2)}, method="nash")
    second = PruningPlan(keep={"encoder.0.ffn.neurons": (1,)}, scale={"encoder.0.ffn.neurons": (0.5,)})
    merged = first.merged(second)
    assert merged.keep == {"decoder.blocks": (0, 2), "encoder.0.ffn.neurons": (1,)}
    assert merged.scale == second.scale
    assert merged.method == "nash"


def test_a_saved_plan_is_read_back_exactly(tmp_path):
    plan = PruningPlan(
        keep={"encoder.0.ffn.neurons": (0, 7), "encoder.1.self_attn.heads": ()},
        scale={"encoder.0.ffn.neurons": (0.1, 1 / 3)},
        model_type="t5",
        base_model="embedded:t5-g2p",
        base_config_sha256="ab",
        method="nash",
        method_version="0.1.0",
        recipe_sha256="cd",
        budget={"metric": "params", "sparsity": 0.3},
        achieved={"params": {"dense": 10, "pruned": 7}},
    )
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan


def test_a_saved_plan_is_plain_json(tmp_path):
    PruningPlan(keep={"decoder.blocks": (0, 2)}).save(tmp_path / "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["format"] == 1
    assert content["keep"] == {"decoder.blocks": [0, 2]}


def test_a_file_that_is_not_a_plan_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text('{"keep": {"decoder.blocks": [0]}, "kept": 3}')
    with pytest.raises(PlanError, match=r"plan\.json is not a pruning plan: (.|\n)*kept(.|\n)*not permitted"):
        PruningPlan.load(path)


def test_a_missing_plan_is_refused(tmp_path):
    with pytest.raises(PlanError, match=r"plan\.json is not a pruning plan: .*No such file"):
        PruningPlan.load(tmp_path / "plan.json")


def test_a_plan_of_another_format_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text('{"format": 2}')
    with pytest.raises(PlanError, match=r"plan\.json has plan format 2; this prunekit reads format 1\."):
        PruningPlan.load(path)


HEADS, BLOCKS = "encoder.0.self_attn.heads", "decoder.blocks"


@pytest.mark.parametrize(
    ("keep", "scale", "text"),
    [
        (
            {"encoder.0.self_attn.head": (0,)},
            {},
            "the plan names the group 'encoder.0.self_attn.head', which this model does not have; "
            "did you mean encoder.0.self_attn.heads?",
        ),
        ({"zzz": (0,)}, {}, "the plan names the group 'zzz', which this model does not have"),
        ({HEADS: (1, 1)}, {}, f"{HEADS}: kept indices must be sorted and unique, found [1, 1]."),
        ({HEADS: (2, 1)}, {}, f"{HEADS}: kept indices must be sorted and unique, found [2, 1]."),
        ({HEADS: (0, 4)}, {}, f"{HEADS}: kept indices must lie between 0 and 3, found [0, 4]."),
        ({HEADS: (-1, 2)}, {}, f"{HEADS}: kept indices must lie between 0 and 3, found [-1, 2]."),
        (
            {"encoder.0.ffn.neurons": (*range(9), 99)},
            {},
            "encoder.0.ffn.neurons: kept indices must lie between 0 and 19, found "
            "[0, 1, 2, 3, 4, 5, 6, 7, …].",
        ),
        ({BLOCKS: ()}, {}, f"{BLOCKS}: at least one block must be kept."),
        ({HEADS: (0, 1)}, {HEADS: (1.0,)}, f"{HEADS}: 1 scales for 2 kept units; give one for each."),
        ({}, {HEADS: (1.0,)}, f"{HEADS}: 1 scales for 0 kept units; give one for each."),
        (
            {HEADS: (0, 1)},
            {HEADS: (0.0, 1.0)},
            f"{HEADS}: scales must be finite and not 0, found [0.0, 1.0]. To remove a unit, leave it out of "
            "`keep`.",
        ),
        (
            {HEADS: (0,)},
            {HEADS: (float("inf"),)},
            f"{HEADS}: scales must be finite and not 0, found [inf]. To remove a unit, leave it out of "
            "`keep`.",
        ),
        ({BLOCKS: (0, 1)}, {BLOCKS: (0.5, 1.0)}, f"{BLOCKS}: a block's scale must be 1, found [0.5, 1.0]."),
    ],
)
def test_a_plan_that_does_not_fit_the_model_is_refused(keep, scale, text, groups):
    with pytest.raises(PlanError) as caught:
        PruningPlan(keep=keep, scale=scale).check(groups)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("name", "mask", "text"),
    [
        (BLOCKS, [0.5, 1.0, 0.0], f"{BLOCKS}: a block's mask must be 0 or 1, found [0.5, 1.0]."),
        (HEADS, [1.0, 0.0], f"mask of {HEADS} has 2 entries; the group has 4 units."),
        ("encoder.9.self_attn.heads", [0.0, 1.0], "the plan names the group 'encoder.9.self_attn.heads'"),
        (BLOCKS, [0.0, 0.0, 0.0], f"{BLOCKS}: at least one block must be kept."),
        (HEADS, [float("nan"), 1.0, 0.0, 0.0], f"{HEADS}: scales must be finite and not 0, found"),
    ],
)
def test_masks_that_cannot_become_a_plan_are_refused(name, mask, text, groups):
    with pytest.raises(PlanError) as caught:
        PruningPlan.from_masks({name: torch.tensor(mask)}, groups)
    assert str(caught.value).startswith(text)


def test_pruning_checks_the_plan_first(prunable):
    with pytest.raises(PlanError, match="between 0 and 3"):
        prunable(tiny_model("bert")).pruned(PruningPlan(keep={HEADS: (7,)}))
