"""Ten thousand random recipes as many plans: each is taken, or refused with an error of prunekit."""

from random import Random

import pytest
from fuzz_loading import FuzzError, fuzz, take_plan, take_recipe, warm_up, watched
from hostile_texts import random_plan, random_recipe

pytestmark = pytest.mark.slow

COUNT = 10_000


@pytest.fixture(scope="module", autouse=True)
def _warm(module_on_one_thread):
    warm_up()


@pytest.mark.parametrize(("take", "error"), [(take_recipe, "RecipeError"), (take_plan, "PlanError")])
def test_a_few_random_inputs_are_taken_or_refused(take, error, tmp_path):
    found = fuzz(take, tmp_path, 150, seed=10**6)
    assert set(found) == {"taken", error}


@pytest.mark.slow
def test_ten_thousand_random_recipes_are_taken_or_refused(tmp_path):
    found = fuzz(take_recipe, tmp_path, COUNT, seed=0)
    assert found.total() == COUNT
    assert set(found) == {"taken", "RecipeError"}


@pytest.mark.slow
def test_ten_thousand_random_plans_are_taken_or_refused(tmp_path):
    found = fuzz(take_plan, tmp_path, COUNT, seed=0)
    assert found.total() == COUNT
    assert set(found) == {"taken", "PlanError"}


def test_the_fuzzer_notices_a_file_opened_elsewhere(tmp_path):
    folder, other = tmp_path / "given", tmp_path / "other"
    folder.mkdir()
    with pytest.raises(FuzzError, match=r"outside of the folder: open .*other"), watched(folder):
        other.write_text("x")


def test_the_fuzzer_notices_a_process(tmp_path):
    import subprocess
    import sys

    with pytest.raises(FuzzError, match=r"outside of the folder: subprocess\.Popen"), watched(tmp_path):
        subprocess.run([sys.executable, "-c", ""], check=True)


def test_the_fuzzer_names_the_input_that_broke_something(tmp_path):
    def take(random, folder):
        if random.random() < 0.5:
            raise KeyError("lost")

    with pytest.raises(FuzzError, match=r"input \d+: KeyError: 'lost'"):
        fuzz(take, tmp_path, 20, seed=0)


def test_a_seed_gives_the_same_inputs_again():
    sizes = {"a": 4, "b": 3}
    for seed in range(20):
        assert random_recipe(Random(seed)) == random_recipe(Random(seed))
        assert random_plan(Random(seed), sizes) == random_plan(Random(seed), sizes)
