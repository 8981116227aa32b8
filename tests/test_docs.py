"""What a reader looks up is there, says what the code says, and runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pluggy
import pytest
import torch
import typer
import yaml
from fences import PAGES, example_modules
from oneshot_calls import plan_of

import prunekit.errors
from prunekit import hookspecs
from prunekit.achieved import achieved
from prunekit.cli import app
from prunekit.models import load_model, load_processor
from prunekit.plugins import Registry, Source, get_registry
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.recipe import BudgetSpec, Recipe
from prunekit.testing.tiny import tiny_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITH_PYTHON = [page for page in PAGES if PYTHON.search(page.read_text())]
GENERATE = runpy.run_path(str(DOCS / "generate.py"))
PROFILES = ("paper", "released", "released-vision")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# Entries


def test_every_hook_has_an_entry_with_its_arguments():
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    hooks = [hook for name, hook in vars(manager.hook).items() if name.startswith("prunekit_")]
    text = (DOCS / "plugins.md").read_text()
    assert hooks
    assert [f"`{hook.name}({', '.join(hook.spec.argnames)})" in text for hook in hooks] == [True] * len(hooks)


def commands(command, path):
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def test_every_command_has_an_entry():
    headings = re.findall(r"^## (prunekit.*)$", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert headings == list(commands(typer.main.get_command(app), "prunekit"))


def test_every_recipe_key_has_an_entry():
    keys = re.findall(r"^\| `([\w.]+)` \|", (DOCS / "recipes.md").read_text(), re.MULTILINE)
    documented = {key.rpartition(".")[2] for key in keys}
    schema = Recipe.model_json_schema()
    in_recipes = {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}
    registry = get_registry()
    of_tasks = {key for task in registry.tasks.values() for key in task.Config.model_fields}
    assert sorted((in_recipes | of_tasks) - documented) == []


def test_every_error_class_has_an_entry():
    headings = re.findall(r"^## (\w+)$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert headings == [name for name, item in vars(prunekit.errors).items() if isinstance(item, type)]


@pytest.mark.parametrize("name", get_registry().methods)
def test_every_method_has_a_page_with_its_keys(name):
    page, _, _ = GENERATE["method_page"](name, get_registry()).partition("#")
    text = (DOCS / page).read_text()
    missing = [key for key in get_registry().methods[name].Config.model_fields if f"`{key}`" not in text]
    assert missing == []


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profiles_shown_for_optin_are_the_methods_own(profile):
    section = (DOCS / "methods" / "optin.md").read_text().partition("\n## Keys\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \| (\S+) \|", section, re.MULTILINE)
    shown = {key: yaml.safe_load(values[PROFILES.index(profile)].strip("`")) for key, *values in rows}
    found = get_registry().methods["optin"].Config(profile=profile).model_dump()
    assert shown == {key: "none" if value is None else value for key, value in found.items()}


# Agreement


def test_generated_parts_are_up_to_date(capsys):
    assert GENERATE["main"](["--check"]) == 0, f"{capsys.readouterr().out}Run `python docs/generate.py`."


def test_the_readme_shows_the_quickstart_recipe():
    shown = re.search(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert shown[1] == (ROOT / "recipes" / "quickstart.yaml").read_text()


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def has_target(page: Path, target: str) -> bool:
    file, _, anchor = target.partition("#")
    path = page.parent / file if file else page
    if not path.exists() or not anchor:
        return path.exists()
    return anchor in map(slug, re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    inside = [target for target in targets if not re.match(r"https?://", target)]
    assert [target for target in inside if not has_target(page, target)] == []


# Examples


def run_examples(page: Path) -> dict[str, object]:
    """Run a page's Python from top to bottom; the value is what it defined."""
    namespace: dict[str, object] = {"__name__": page.stem}
    for example in PYTHON.findall(page.read_text()):
        exec(compile(example, str(page), "exec"), namespace)
    return namespace


@pytest.fixture
def finished_run(tmp_path, monkeypatch):
    """A folder that holds what the quickstart leaves, as far as examples read it."""
    model = load_model("embedded:t5-g2p")
    target = PrunableModel(model, find_adapter(model, get_registry().adapters))
    plan = PruningPlan(keep={"encoder.1.self_attn.heads": (0, 3)})
    folder = tmp_path / "runs" / "quickstart-nash" / "model"
    target.pruned(plan).model.save_pretrained(folder)
    load_processor("embedded:t5-g2p").save_pretrained(folder)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("finished_run")
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.name == "api.md" else ()) for page in WITH_PYTHON],
    ids=page_id,
)
def test_shown_python_runs(page, monkeypatch):
    if example_modules(page):
        monkeypatch.syspath_prepend(str(page.parent))
    run_examples(page)


def test_the_method_shown_for_plugins_meets_its_budget():
    shown = run_examples(DOCS / "plugins.md")
    hook = SimpleNamespace(prunekit_register_methods=shown["prunekit_register_methods"])
    registry = Registry([Source("unit-norm", "prunekit-unit-norm 0.1.0", lambda: hook)])
    method = registry.methods["unit-norm"]
    model = tiny_model("bart")
    target = PrunableModel(model, find_adapter(model, get_registry().adapters))
    budget = BudgetSpec(sparsity=0.3)
    plan = method(method.Config(power=1)).plan(target, None, budget, None)
    plan.check(target.groups)
    assert 0.3 <= achieved(target, plan, budget)["sparsity"] < 0.31


def test_the_scorer_shown_for_plugins_scores_once_for_two_budgets(tmp_path, monkeypatch):
    shown = run_examples(DOCS / "plugins.md")
    scored = []
    activity = shown["activity"]
    monkeypatch.setitem(shown, "activity", lambda *args: scored.append(args) or activity(*args))
    for sparsity in (0.3, 0.5):
        model = tiny_model("bert")
        target = PrunableModel(model, find_adapter(model, get_registry().adapters))
        plan = plan_of(shown["Activity"], target, tmp_path / str(sparsity), sparsity=sparsity)
        plan.check(target.groups)
        assert sparsity <= achieved(target, plan, BudgetSpec(sparsity=sparsity))["sparsity"] < sparsity + 0.02
    assert len(scored) == 1


def test_the_masks_page_shows_a_gradient_for_every_head(monkeypatch, finished_run):
    shown = run_examples(DOCS / "masks.md")
    assert shown["mask"].grad.shape == (shown["heads"].size,)
    assert torch.count_nonzero(shown["mask"].grad) == shown["heads"].size
