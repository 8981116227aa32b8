"""Recipes that want to hurt: each is refused with a message that says what stands where; nothing is run."""

from functools import partial

import pytest
from cli_calls import call_main
from fake_plugins import fake_registry
from recipe_text import GOOD, changed, fault_in, load_text

from prunekit.errors import RecipeError
from prunekit.recipe import load_recipe
from prunekit.recipe_yaml import MAX_BYTES


@pytest.fixture
def fault(tmp_path):
    return partial(fault_in, tmp_path)


def seed(text):
    return changed("seed: 3", f"seed: {text}")


LISTS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10)
)
REPEATED = "aliases repeat more than 10,000 values, such as this one; write fewer aliases"
DEEP = "more than 50 levels of mappings and lists inside each other; write fewer"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(GOOD + LISTS, f"line 17, column 13: {REPEATED}", id="a billion laughs"),
        pytest.param(GOOD + MERGES, f"line 17, column 5: {REPEATED}", id="merge keys"),
        pytest.param(seed("[" * 5000 + "]" * 5000), f"line 16, column 57: {DEEP}", id="deep lists"),
        pytest.param(seed("[" * 100_000), f"line 16, column 57: {DEEP}", id="lists that never end"),
        pytest.param(seed("{a: " * 3000), f"line 16, column 204: {DEEP}", id="deep mappings"),
        pytest.param(GOOD + "- " * 5000, "is not valid YAML: line 17, column 1:", id="deep blocks"),
        pytest.param(
            seed("1" + "0" * 5000),
            "line 16, column 7: the number has 5,001 characters; write at most 200",
            id="10**5000",
        ),
        pytest.param(
            seed("0x" + "f" * 99_999),
            "the number has 100,001 characters; write at most 200",
            id="hexadecimal",
        ),
        pytest.param(
            seed("99999999999999999999"),
            "line 16, column 7: 99999999999999999999 is too large; write a whole number of at most "
            "9223372036854775807",
            id="beyond 64 bits",
        ),
        pytest.param(seed("1e999"), "line 16 seed = 1e999 must be a valid integer", id="1e999"),
        pytest.param(
            changed("3e-4", "1e999"), "train.learning_rate = 1e999 must be a finite number", id="infinite"
        ),
        pytest.param(
            seed("2020-99-99"),
            "line 16, column 7: '2020-99-99' cannot be read as a date; put it in quotes if it is a text",
            id="no date",
        ),
        pytest.param(seed("!!int abc"), "'abc' cannot be read as a whole number; put it in", id="no number"),
        pytest.param(seed("!!int ''"), "'' cannot be read as a whole number; put it in", id="empty number"),
        pytest.param(seed("!!bool 7"), "'7' cannot be read as true or false; put it in", id="no truth"),
        pytest.param(seed("!!str {a: 1}"), "expected a text, but found a mapping", id="tagged mapping"),
        pytest.param(
            seed("!!python/object/apply:os.system [ls]"),
            "could not determine a constructor for the tag '!!python/object/apply:os.system'; a recipe",
            id="code",
        ),
        pytest.param(seed("!!binary aGk="), "for the tag '!!binary'; a recipe has no tags", id="binary"),
        pytest.param(
            seed("!!omap [a: 1]"), "for the tag '!!omap'; a recipe has no tags", id="ordered mapping"
        ),
        pytest.param(seed('"\\U00110000"'), "line 16, column", id="beyond Unicode"),
        pytest.param(GOOD + "%YAML 1.1\n", "is not valid YAML: line 18, column 1:", id="directive"),
        pytest.param(
            changed("trims", '"\\ud800"'),
            "line 2, column 14: the text holds U+D800, which no file takes; leave that character out",
            id="half a character",
        ),
        pytest.param(
            changed("embedded:tiny", '"a\\0b"'),
            "line 3, column 8: the text holds U+0000, which no file takes; leave that character out",
            id="NUL",
        ),
        pytest.param(seed("&a [*a]"), "line 16: seed[0] contains itself through an alias.", id="itself"),
    ],
)
def test_a_recipe_beyond_the_limits_is_refused_by_line(text, said, fault):
    assert said in fault(text)


def test_a_few_aliases_are_what_yaml_has_them_for(tmp_path):
    text = changed("train: {epochs: 4", "train: &t {epochs: 4").replace(
        "recover: {batch", "recover: {<<: {epochs: 2}, batch"
    )
    assert load_text(tmp_path, text).recover.epochs == 2


def test_a_file_without_an_end_is_read_no_further_than_the_limit(tmp_path):
    path = tmp_path / "recipe.yaml"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, registry=fake_registry())
    assert str(caught.value) == (
        f"{path} holds more than 16 MiB, which no recipe needs. Name data by its files, under task.data, or "
        "give the right file."
    )


@pytest.mark.parametrize("key", ["\\e[31mseed", "\\u202eseed", "\\x07seed"])
def test_a_key_cannot_steer_the_terminal_or_turn_the_writing(key, fault):
    text = fault(changed("seed: 3", f'"{key}": 3'))
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
    assert "unknown key; did you mean seed?" in text


def test_a_value_cannot_steer_the_terminal_or_turn_the_writing(fault):
    text = fault(seed('"\\e[2J\\u202e"'))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"\u202e" in text


def test_markup_in_a_key_is_shown_as_characters(capsys, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(changed("seed: 3", '"[red]x[/red]": 3'))
    done = call_main(capsys, "prune", str(path), "--out", str(tmp_path / "run"))
    assert done.code == 2
    assert "[red]x[/red]" in done.err


def test_escapes_in_a_models_name_reach_no_terminal(capsys, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        'version: 1\nmodel: "./no-\\e]0;owned\\a-model"\ntask: {name: g2p}\nbudget: {sparsity: 0.3}\n'
        "methods: {magnitude: }\n"
    )
    done = call_main(capsys, "prune", str(path), "--out", str(tmp_path / "run"))
    assert done.code == 1
    assert "\x1b" not in done.err
    assert r"no-\x1b]0;owned\x07-model: no such folder" in done.err


def test_of_thousands_of_faults_fifty_are_shown(fault):
    text = fault(GOOD + "".join(f"k{number}: 1\n" for number in range(3000)))
    assert "recipe.yaml has 3000 problems\n" in text
    assert text.endswith("\n and 2950 more")
    assert len(text.splitlines()) == 52


def test_an_endless_key_is_cut(fault):
    assert len(fault(GOOD + "? " + "x" * 100_000 + "\n: 3\n")) < 1000


@pytest.mark.parametrize("value", ["[" * 4000, "1" + "0" * 5000, "!!int x", "&a [*a]", '"\\ud800"'])
def test_a_hostile_override_is_a_fault_of_that_override(value, fault):
    assert " --set seed " in fault(GOOD, f"seed={value}")


def test_a_huge_number_from_python_is_refused():
    with pytest.raises(RecipeError) as caught:
        load_recipe({"version": 1, "seed": 10**5000}, registry=fake_registry())
    assert str(caught.value) == (
        "the recipe has a whole number of 16610 bits. Give at most 9223372036854775807."
    )


def test_a_list_in_itself_from_python_is_refused():
    value = []
    value.append(value)
    with pytest.raises(RecipeError, match=r"the recipe has more than 50 levels inside each other\."):
        load_recipe({"version": 1, "seed": value}, registry=fake_registry())


def test_no_recipe_can_turn_remote_code_on(fault):
    for text in (
        GOOD + "trust_remote_code: true\n",
        changed("model: embedded:tiny", "model: {type: t5, processor: x, trust_remote_code: true}"),
        changed("train: {epochs: 4", "train: {trust_remote_code: true, epochs: 4"),
        changed("trim: {decoder_layers: 3}", "trim: {trust_remote_code: true}"),
        changed("words: 7", "trust_remote_code: true"),
    ):
        assert "trust_remote_code unknown key" in fault(text)
