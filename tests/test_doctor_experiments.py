"""What the doctor tries: cut copies, settings, rounded widths."""

from __future__ import annotations

import pytest
import torch
from doctor_calls import shape, small_spec

from prunekit.doctor.experiments import (
    cut_experiments,
    narrow_copy,
    rounding_experiment,
    setting_experiments,
)
from prunekit.doctor.widths import matrix_widths, rounded_down, sublayer_widths
from prunekit.plugins import get_registry
from prunekit.pruning.plan import PruningPlan
from prunekit.recipe import load_recipe
from prunekit.testing.tiny import TINY_MODELS, tiny_model

pytestmark = pytest.mark.slow

RECIPE = """\
version: 1
model: embedded:t5-g2p
task: {{name: g2p}}
budget: {{sparsity: 0.3, scope: ["encoder.*"]}}
methods: {{{method}}}
"""


STACKS = ("encoder", "decoder")

# Experiments


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_each_stack_of_encoder_decoders_is_cut_by_half_in_three_ways(name, prunable):
    target = prunable(tiny_model(name))
    whole = shape(target.model)
    found = {e.factor: shape(e.model) for e in cut_experiments(target, small_spec())}
    ways = ("feed-forward width", "number of heads")
    widths = [f"{stack} {way}" for stack in ("decoder", "encoder") for way in ways]
    assert list(found) == ["decoder depth", "encoder depth", *widths]
    assert (found["decoder depth"].encoder, found["decoder depth"].decoder) == (3, 2)
    assert (found["encoder depth"].encoder, found["encoder depth"].decoder) == (2, 3)
    assert sum(whole.neurons - found[f"{s} feed-forward width"].neurons for s in STACKS) == whole.neurons // 2
    assert sum(whole.heads - found[f"{s} number of heads"].heads for s in STACKS) == whole.heads // 2
    assert shape(target.model) == whole
    assert vars(shape(narrow_copy(target, small_spec()))) == {**vars(whole), "neurons": whole.neurons // 2}


def test_a_model_with_one_stack_is_cut_in_three_ways(prunable):
    found = {e.factor: e.name for e in cut_experiments(prunable(tiny_model("bert")), small_spec())}
    assert found == {
        "encoder depth": "half the encoder's blocks",
        "feed-forward width": "half the neurons",
        "number of heads": "half the heads",
    }


def test_a_cut_says_how_much_it_leaves_and_how_a_recipe_gets_it(prunable):
    found = {e.name: e for e in cut_experiments(prunable(tiny_model("t5")), small_spec())}
    blocks, neurons = found["half the decoder's blocks"], found["half the decoder's neurons"]
    assert (blocks.change, blocks.how) == ("2 of 3 blocks left", ("nash: {decoder_layers: 2}",))
    assert blocks.left == pytest.approx(2 / 3)
    assert found["half the encoder's blocks"].how == ("uniform: {encoder_layers: 2}",)
    assert neurons.change == "30 of 60 neurons left"
    assert neurons.how[0].startswith('budget: {sparsity: 0.50, scope: ["decoder.*.ffn.neurons"]}')


def test_budgets_for_a_pruned_model_are_shares_of_the_model_it_came_from(prunable):
    dense = prunable(tiny_model("bert"))
    narrow = PruningPlan(keep={f"encoder.{i}.ffn.neurons": tuple(range(10)) for i in range(3)})
    found = cut_experiments(dense.pruned(narrow), small_spec(), origin=dense.structure)
    neurons = next(e for e in found if e.name == "half the neurons")
    assert neurons.change == "15 of 30 neurons left"
    assert "sparsity: 0.75" in neurons.how[0]  # 15 of the 60 that there were


@pytest.mark.parametrize("name", TINY_MODELS)
def test_how_lines_are_valid_recipes(name, prunable, tmp_path):
    target = prunable(tiny_model(name))
    for experiment in (
        *cut_experiments(target, small_spec()),
        *setting_experiments(target.model, small_spec()),
    ):
        for number, line in enumerate(experiment.how):
            path = tmp_path / f"{number}.yaml"
            if line.split(":")[0] in ("nash", "uniform"):
                text = RECIPE.format(method=line)
            else:
                filled = RECIPE.format(method="magnitude: {}").splitlines()
                text = "\n".join([*(row for row in filled if row[:6] != line[:6]), line])
            path.write_text(text)
            load_recipe(path, registry=get_registry())


def test_the_rounding_line_fits_into_a_budget(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(method="magnitude: {}").replace("0.3,", "0.3, round_to: 8,"))
    assert load_recipe(path, registry=get_registry()).budget.round_to == 8


def test_a_single_block_or_unit_is_not_halved(prunable):
    target = prunable(tiny_model("bert"))
    one = {"encoder.blocks": (0,), "encoder.0.self_attn.heads": (1,), "encoder.0.ffn.neurons": (3,)}
    assert cut_experiments(target.pruned(PruningPlan(keep=one)), small_spec()) == []


def test_settings_that_hold_already_are_not_tried():
    t5, bert = tiny_model("t5"), tiny_model("bert")
    assert [e.name for e in setting_experiments(t5, small_spec())] == ["greedy in place of beams", "bf16"]
    assert [e.name for e in setting_experiments(t5, small_spec(num_beams=1))] == ["bf16"]
    assert [e.name for e in setting_experiments(bert, small_spec())] == ["bf16"]
    assert setting_experiments(bert, small_spec(dtype="bf16")) == []


# Widths


def test_widths_are_units_times_their_width(prunable):
    found = sublayer_widths(prunable(tiny_model("bert")).structure)  # 3 x (4 heads x 4, 20 neurons)
    assert (found["sublayers"], found["missing"]) == (6, {"8": 3, "16": 3, "64": 6})
    heads, neurons = found["odd"][:2]
    assert (heads["name"], heads["width"], heads["misses"]) == ("encoder.0.self_attn.heads", 16, [64])
    assert (neurons["units"], neurons["width"], neurons["misses"]) == (20, 20, [8, 16, 64])


def test_rounding_needs_whole_heads(prunable):
    keep = {f"encoder.{i}.self_attn.heads": (0, 2, 3) for i in range(3)}  # 12 wide each
    found = sublayer_widths(prunable(tiny_model("bert")).pruned(PruningPlan(keep=keep)).structure)
    # To 8: a head more or fewer (16 or 8 wide) and 4 neurons, in each of 3 blocks.
    assert found["rounding"][0] == {"round_to": 8, "up": 3 * (1 + 4), "down": 3 * (1 + 4)}


def test_rounding_down_spares_what_would_vanish(prunable):
    keep = {"encoder.0.ffn.neurons": tuple(range(5)), "encoder.1.ffn.neurons": tuple(range(9))}
    pruned = prunable(tiny_model("bert")).pruned(PruningPlan(keep=keep))
    assert rounded_down(pruned.structure, 8) == {"encoder.1.ffn.neurons": 8, "encoder.2.ffn.neurons": 16}
    experiment = rounding_experiment(pruned, small_spec())
    assert experiment.change == "5 units fewer in 2 sublayers"
    assert experiment.how == ("budget: {round_to: 8}  # beside its other keys",)
    assert shape(experiment.model).neurons == 5 + 8 + 16


def test_a_model_without_an_adapter_has_the_widths_of_its_linear_layers():
    model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Linear(64, 12))
    found = matrix_widths(model)
    assert (found["sublayers"], found["missing"]) == (2, {"8": 1, "16": 1, "64": 1})
    assert found["odd"][0]["name"] == "1"
