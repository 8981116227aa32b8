"""Every fenced block of README.md, CONTRIBUTING.md and docs/ is checked as what it claims to be.

==========  ======================================================================================
language    what happens
==========  ======================================================================================
python      run from top to bottom of its page in one process, offline, in ``test_docs.py``
sh, bash    every line parsed by the real command line up to the command's own code, shipped recipes
            loaded; commands that only look something up are run. Pruning, training, comparing and
            timing are not run: they take minutes to hours
console     as sh, for lines that begin with ``$ ``; the other lines are output and are not compared
yaml        a whole recipe is loaded; a part of one is put into a whole one and loaded
toml        parsed; must be (a part of) a ``pyproject.toml`` with the tables that a plugin has
json        parsed
text        output, file trees and formulas: not checked, and nothing to be typed may stand there
==========  ======================================================================================

Anything else fails. The tutorial's blocks are run by ``test_tutorial.py``, step by step.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from functools import partial
from importlib import import_module

import pytest
import yaml
from fences import PAGES, ROOT, Fence, dedented, example_modules, fences, prose
from shown_commands import NotUnderstoodError, commands_of, faults, read_only
from typer.testing import CliRunner

from prunekit.cli import app
from prunekit.errors import RecipeError
from prunekit.plugins import Registry, Source, get_registry, plugin_sources
from prunekit.recipe import Recipe, load_recipe

# Pages whose commands and files are built up by another test, from the page itself.
RUN_ELSEWHERE = {"docs/writing-a-plugin.md": "tests/test_tutorial.py"}
PYTHON_TEST = (ROOT / "tests" / "test_docs.py").read_text()
WHOLE = {
    "version": 1,
    "model": "embedded:t5-g2p",
    "task": {"name": "g2p"},
    "budget": {"metric": "params", "sparsity": 0.3},
}
TEXT_TASK = {"name": "text2text", "data": {"train": "a.jsonl"}, "source": "{a}", "target": "b"}
# Plugins that pages tell of and that are not installed here, and files that are the reader's.
OTHERS = {"unit-norm", "my.yaml"}
LANGUAGES = ("python", "sh", "bash", "console", "yaml", "toml", "json", "text")


def all_fences(*languages: str) -> list[Fence]:
    pages = [page for page in PAGES if page.relative_to(ROOT).as_posix() not in RUN_ELSEWHERE]
    return [fence for page in pages for fence in fences(page) if fence.language in languages]


def shell_text(fence: Fence) -> str:
    if fence.language != "console":
        return fence.text
    return "\n".join(line[2:] for line in fence.text.splitlines() if line.startswith("$ "))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_is_of_a_kind_that_is_checked(page):
    name = page.relative_to(ROOT).as_posix()
    if name in RUN_ELSEWHERE:
        assert page.name in (ROOT / RUN_ELSEWHERE[name]).read_text()
        return
    unknown = [
        f"{fence}: {fence.info or 'no language'}" for fence in fences(page) if fence.info not in LANGUAGES
    ]
    assert unknown == []


@pytest.mark.parametrize("fence", all_fences("sh", "bash", "console"), ids=str)
def test_shown_commands_are_ones_that_the_programs_take(fence):
    assert [fault for words in commands_of(shell_text(fence)) for fault in faults(words)] == []


def mentions() -> dict[str, str]:
    """Commands in the running text, such as `prunekit prune --dry-run`, and where each is first."""
    found = {}
    for page in PAGES:
        for text in re.findall(r"(?<!`)`(prunekit\s+[a-z][^`]*)`(?!`)", prose(page)):
            command = " ".join(text.split())
            found.setdefault(command, f"{page.relative_to(ROOT).as_posix()}: {command}")
    return found


@pytest.mark.parametrize("command", mentions(), ids=mentions().values())
def test_commands_in_running_text_exist_with_their_options(command):
    words = [word for word in command.split() if word not in ("...", "…")]
    assert faults(words, complete=False) == []


def lookups() -> list[object]:
    """Commands, shown or mentioned, that look something up, without placeholders such as NAME."""
    shown = [
        words for fence in all_fences("sh", "bash", "console") for words in commands_of(shell_text(fence))
    ]
    mentioned = [command.split() for command in mentions() if not re.search(r"[A-Z]{2}|…|\.\.\.|>", command)]
    whole = {
        shlex.join(words): words[1:]
        for words in (*shown, *mentioned)
        if read_only(words) and faults(words) == [] and not OTHERS.intersection(words)
    }
    return [pytest.param(words, id=command) for command, words in whole.items()]


@pytest.mark.parametrize("arguments", lookups())
def test_shown_commands_that_only_look_something_up_run(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    words = arguments[: arguments.index(">")] if ">" in arguments else arguments
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output


def whole_recipe(fence: Fence) -> dict[str, object]:
    """The recipe that a block is, or is a part of.

    Lines that are indented belong to ``task:``, of the last recipe on the page that has one.
    """
    text, indented = dedented(fence.text)
    data = yaml.safe_load(text)
    assert isinstance(data, dict), f"{fence} is no mapping"
    if "version" in data:
        return data
    if indented:
        return {**WHOLE, "task": {**task_before(fence), **data}}
    unknown = [key for key in data if key not in Recipe.model_fields]
    assert unknown == [], f"{fence}: {unknown} are no keys of a recipe; no other YAML is understood"
    return {**WHOLE, **data}


def task_before(fence: Fence) -> dict[str, object]:
    above = [one for one in fences(fence.page) if one.language == "yaml" and one.line < fence.line]
    shown = [yaml.safe_load(one.text) for one in above if not dedented(one.text)[1]]
    return next((recipe["task"] for recipe in reversed(shown) if "task" in recipe), TEXT_TASK)


@pytest.mark.parametrize("fence", all_fences("yaml"), ids=str)
def test_shown_recipes_load(fence, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(fence.page.parent))
    beside = [Source(name, f"{name} 0", partial(import_module, name)) for name in example_modules(fence.page)]
    file = tmp_path / "shown.yaml"
    file.write_text(yaml.safe_dump(whole_recipe(fence), sort_keys=False), encoding="utf-8")
    load_recipe(file, registry=Registry([*plugin_sources(), *beside]) if beside else get_registry())


@pytest.mark.parametrize("fence", all_fences("toml"), ids=str)
def test_shown_toml_is_of_a_plugins_project_file(fence):
    tables = tomllib.loads(fence.text)
    assert set(tables) <= {"project", "build-system", "tool"}
    project = tables.get("project", {})
    wanted = {"name", "version", "description", "dependencies", "entry-points", "requires-python"}
    assert set(project) <= wanted | {"readme", "license", "optional-dependencies"}
    modules = project.get("entry-points", {}).get("prunekit", {}).values()
    assert [module for module in modules if not module.replace(".", "_").isidentifier()] == []


@pytest.mark.parametrize("fence", all_fences("json"), ids=str)
def test_shown_json_parses(fence):
    json.loads(fence.text)


@pytest.mark.parametrize("fence", all_fences("text"), ids=str)
def test_nothing_to_be_typed_hides_in_output(fence):
    typed = [
        line
        for line in fence.text.splitlines()
        if re.match(r"(\$ )?(prunekit|pip install|python) [a-z]", line)
    ]
    assert typed == []


@pytest.mark.parametrize("fence", all_fences("python"), ids=str)
def test_shown_python_is_seen_by_the_test_that_runs_it(fence):
    # That test looks for blocks at the margin.
    pattern = re.search(r'^PYTHON = re\.compile\(r"(.+)", re', PYTHON_TEST, re.MULTILINE)[1]
    shown = re.findall(
        pattern.encode().decode("unicode_escape"), fence.page.read_text(), re.DOTALL | re.MULTILINE
    )
    assert fence.text in shown


# That this file can fail


def fence_of(text: str, info: str = "yaml") -> Fence:
    return Fence(ROOT / "README.md", 1, info, text)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("prunekit prnue recipes/quickstart.yaml", "No such command"),
        ("prunekit prune --metod nash recipes/quickstart.yaml", "No such option"),
        ("prunekit prune", "Missing argument"),
        ("prunekit prune --seed -1 recipes/quickstart.yaml", "greater than or equal to 0"),
        ("prunekit prune recipes/quickstat.yaml", "does not ship"),
        ("prunekit prune --method nahs recipes/quickstart.yaml", "did you mean"),
        ("prunekit prune --set budget.sparsty=0.5 recipes/quickstart.yaml", "did you mean"),
        ("pip install -e '.[tset]'", "no extra tset"),
        ("python docs/generat.py", "does not exist"),
        ("python docs/generate.py --chek", "has no --chek"),
        ("export PRUNEKIT_NOTHING=1", "nothing reads"),
    ],
)
def test_a_wrong_command_is_found(command, said):
    assert said in " ".join(faults(shlex.split(command)))


def test_a_command_that_nothing_is_known_of_is_not_understood():
    with pytest.raises(NotUnderstoodError, match="no rule for curl -O page"):
        faults(["curl", "-O", "page"])


def test_lines_are_taken_apart_at_and_and_lose_their_comments():
    assert commands_of("cd a && prunekit show r  # look\nls \\\n  b\n") == [
        ["cd", "a"],
        ["prunekit", "show", "r"],
        ["ls", "b"],
    ]


def test_a_wrong_key_in_a_part_of_a_recipe_is_found(tmp_path):
    file = tmp_path / "shown.yaml"
    file.write_text(yaml.safe_dump(whole_recipe(fence_of("budget: {sparsty: 0.5}\n"))))
    with pytest.raises(RecipeError, match="did you mean sparsity"):
        load_recipe(file, registry=get_registry())


def test_yaml_that_is_no_part_of_a_recipe_is_not_understood():
    with pytest.raises(AssertionError, match="no other YAML is understood"):
        whole_recipe(fence_of("jobs: {test: {}}\n"))
