"""The Python API at work on tiny models."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import yaml
from pipeline_calls import REGISTRY, quick_recipe, saved_tiny

import prunekit
from prunekit.errors import ComparisonError, PlanError, PrunekitError, RecipeError, UnsupportedModelError
from prunekit.models import load_model
from prunekit.recipe import Recipe
from prunekit.testing.tiny import tiny_inputs, tiny_model

pytestmark = pytest.mark.slow

HEADS = "encoder.0.self_attn.heads"
CHEAP = {"methods": {"half": {"method": "first"}}, "recover": {"epochs": 0}, "evaluate": {"limit": 8}}
QUICK = {"batch_size": 2, "num_beams": 1, "new_tokens": 2, "rounds": 1, "warmup": 0, "input_tokens": 4}


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path, one_thread):
    """An empty working folder, and the copy task and cheap method beside what is installed."""
    monkeypatch.setattr("prunekit.api.get_registry", lambda: REGISTRY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a tiny T5 with its tokenizer."""
    return saved_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def recipe(model):
    """A recipe as a mapping, of a run that takes seconds."""
    return quick_recipe(model, **CHEAP).model_dump(mode="json", exclude_none=True)


# prune


def test_a_recipe_as_a_mapping_is_run_into_a_folder_of_its_own(recipe):
    report = prunekit.prune(recipe, progress=False)
    assert str(report.folder).startswith("runs/copy-")
    assert report.folder.name.endswith("-half")
    assert json.loads((report.folder / "report.json").read_text()) == dict(report)


def test_a_recipe_in_a_file_is_run_into_the_folder_that_the_command_line_takes(recipe, here):
    (here / "mine.yaml").write_text(yaml.safe_dump(recipe))
    assert str(prunekit.prune("mine.yaml", "half", progress=False).folder) == "runs/mine-half"


def test_the_same_call_again_reads_what_is_finished(recipe, monkeypatch):
    first = prunekit.prune(recipe, progress=False)
    monkeypatch.setattr("prunekit.job.Job.prune", lambda job: pytest.fail("planned again"))
    assert prunekit.prune(Recipe.model_validate(recipe), progress=False) == first


def test_settings_and_seed_change_the_recipe(recipe):
    report = prunekit.prune(recipe, out="out", seed=3, settings={"methods.half.share": 0.75}, progress=False)
    assert (report["seed"], report["recipe"]["methods"]["half"]["share"]) == (3, 0.75)


def test_settings_do_not_touch_the_callers_mapping(recipe):
    before = copy.deepcopy(recipe)
    prunekit.load_recipe(recipe, {"budget.sparsity": 0.6}, registry=REGISTRY)
    assert recipe == before


def test_faults_of_settings_are_told_all_at_once(recipe):
    with pytest.raises(RecipeError) as told:
        prunekit.prune(recipe, settings={"budget.sparsity": 60, "budgt.scope": []})
    lines = str(told.value).splitlines()
    assert lines[0] == "the recipe has 2 problems"
    assert lines[1].startswith("  settings  budget.sparsity = 60  must be a fraction between 0 and 1")
    assert lines[2].startswith("  settings  budgt                 unknown key; did you mean budget?")


def test_the_plan_and_the_model_of_a_report_are_those_of_the_run(recipe, model):
    report = prunekit.prune(recipe, progress=False)
    again = prunekit.apply_plan(str(model), report.plan).model
    inputs = tiny_inputs(again, batch=2, length=4, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(report.load_model()(**inputs).logits, again(**inputs).logits)


# compare


def test_a_comparison_of_a_recipe_is_read_again_from_its_folder(recipe):
    found = prunekit.compare(recipe, progress=False, out="both", settings={"speed.rounds": 1})
    assert [row["name"] for row in found["rows"]] == ["dense", "half"]
    assert found.page.is_file()
    again = prunekit.compare("both")
    assert (dict(again), again.folder) == (dict(found), found.folder)
    assert found.render("csv").count("\n") == 3


def test_a_sweep_is_a_mapping_of_one_key(recipe):
    with pytest.raises(RecipeError, match="a comparison sweeps one key, and seed, train are given"):
        prunekit.compare(recipe, sweep={"seed": [1], "train": [2]})


@pytest.mark.parametrize(
    "asked", [{"seeds": 2}, {"sweep": {"seed": [1]}}, {"only": ["a"]}, {"settings": {"seed": 1}}], ids=str
)
def test_what_belongs_to_a_recipe_is_refused_for_finished_runs(here, asked):
    with pytest.raises(ComparisonError, match=f"^{next(iter(asked))} cannot change what is finished"):
        prunekit.compare([here], **asked)


# apply_plan


@pytest.fixture
def plan(model):
    """Two heads of the first block."""
    return prunekit.PruningPlan(keep={HEADS: (0, 1)})


@pytest.mark.parametrize("form", ["name", "path", "model", "target"])
def test_a_plan_is_applied_to_a_model_in_any_form(model, plan, form):
    forms = {
        "name": lambda: str(model),
        "path": lambda: model,
        "model": lambda: load_model(str(model)),
        "target": lambda: prunekit.PrunableModel.from_pretrained(model),
    }
    assert prunekit.apply_plan(forms[form](), plan).groups[HEADS].size == 2


def test_a_plan_is_read_from_a_file_or_a_run_folder(model, plan, here):
    plan.save(here / "run" / "plan.json")
    for source in ("run", "run/plan.json", here / "run"):
        assert prunekit.apply_plan(model, source).groups[HEADS].size == 2


def test_a_folder_without_a_plan_is_named(model, here):
    with pytest.raises(PlanError, match=r"holds no plan\.json, so it is no run folder"):
        prunekit.apply_plan(model, here)


def test_the_model_that_a_plan_is_applied_to_stays_whole(model, plan):
    target = prunekit.PrunableModel.from_pretrained(model)
    before = target.groups[HEADS].size
    prunekit.apply_plan(target, plan)
    assert prunekit.PrunableModel(target.model).groups[HEADS].size == before > 2


def test_a_model_without_an_adapter_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=10, n_positions=8))
    with pytest.raises(UnsupportedModelError, match="for which there is no adapter"):
        prunekit.PrunableModel(other)


# masked


def test_masks_may_be_plain_numbers():
    target = prunekit.PrunableModel(tiny_model("bert").double())
    inputs = tiny_inputs(target.model, batch=2, length=5, seed=0)
    numbers = [0, *[1] * (target.groups[HEADS].size - 1)]
    with torch.no_grad(), target.masked({HEADS: numbers}):
        by_numbers = target.model(**inputs).logits
    with torch.no_grad(), target.masked({HEADS: torch.tensor(numbers, dtype=torch.float64)}):
        assert torch.equal(target.model(**inputs).logits, by_numbers)


# evaluate


def test_every_form_of_a_model_has_the_same_quality(model):
    plain = load_model(str(model))
    found = [
        prunekit.evaluate(each, "copy", limit=4, progress=False)
        for each in (str(model), plain, prunekit.PrunableModel(plain))
    ]
    assert [each["per"] for each in found] == [found[0]["per"]] * 3
    assert found[1]["model"] == "T5ForConditionalGeneration"


def test_a_pruned_model_keeps_its_tokenizer(model, plan):
    assert prunekit.evaluate(prunekit.apply_plan(model, plan), "copy", limit=4, progress=False)["n"] == 4


def test_a_model_of_nowhere_needs_a_processor(model):
    built = tiny_model("t5")
    with pytest.raises(PrunekitError, match="Give it: processor=, as an object or the name of a model"):
        prunekit.evaluate(built, "copy")
    assert prunekit.evaluate(built, "copy", limit=4, processor=model, progress=False)["n"] == 4


def test_a_recipe_says_how_to_evaluate_and_options_change_it(model, recipe):
    found = prunekit.evaluate(model, recipe=recipe, split="validation", limit=3, progress=False)
    assert (found["split"], found["n"]) == ("validation", 3)


def test_a_task_may_be_a_section_of_a_recipe(model):
    found = prunekit.evaluate(model, {"name": "copy", "longest": 3}, limit=2, progress=False)
    assert found["task"]["longest"] == 3


@pytest.mark.parametrize("given", [{}, {"task": "copy", "recipe": {}}], ids=["neither", "both"])
def test_a_task_or_a_recipe_is_wanted(model, given):
    with pytest.raises(RecipeError, match='give either a task, such as "gloss", or recipe=, and not both'):
        prunekit.evaluate(model, **given)


def test_a_setting_out_of_range_is_told(model):
    with pytest.raises(RecipeError, match=r"limit = 0 +must be greater than or equal to 1"):
        prunekit.evaluate(model, "copy", limit=0)


# measure_speed


def test_names_and_models_are_timed_together(model, plan):
    target = prunekit.PrunableModel.from_pretrained(model)
    found = prunekit.measure_speed(
        {"dense": str(model), "pruned": prunekit.apply_plan(target, plan)}, **QUICK, progress=False
    )
    (cell,) = found["cells"]
    assert list(cell["models"]) == ["dense", "pruned"]
    assert "speedup" in cell["models"]["pruned"]


def test_several_sizes_make_a_sweep(model):
    sizes = {**QUICK, "batch_size": [1, 2], "input_tokens": [3, 4]}
    found = prunekit.measure_speed([str(model)], **sizes, progress=False)
    cells = [(cell["batch_size"], cell["input_tokens"]) for cell in found["cells"]]
    assert cells == [(1, 3), (1, 4), (2, 3), (2, 4)]


@pytest.mark.parametrize("sizes", [0, [4, 0], []], ids=str)
def test_a_size_that_is_none_is_told(model, sizes):
    with pytest.raises(RecipeError, match=r"batch_size = 0 +must be greater than or equal to 1"):
        prunekit.measure_speed([str(model)], batch_size=sizes)


def test_nothing_to_measure_is_told():
    with pytest.raises(PrunekitError, match="no model to measure"):
        prunekit.measure_speed({})
