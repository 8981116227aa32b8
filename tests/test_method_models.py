"""A run begins only with a method that declares the model's architecture."""

from __future__ import annotations

import pytest
from pipeline_calls import quick_recipe, run, saved_tiny, toy_registry

from prunekit import pipeline
from prunekit.errors import UnsupportedModelError

REFUSED = r"^first does not work on BartForConditionalGeneration \(bart\): it is for t5\."


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The method ``first``, which is for T5, on a BART."""
    return quick_recipe(saved_tiny(tmp_path_factory.mktemp("dense") / "bart", "bart"), methods={"first": {}})


def test_a_run_refuses_a_model_that_the_method_is_not_for_and_leaves_no_folder(recipe, tmp_path):
    with pytest.raises(UnsupportedModelError, match=REFUSED):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_it_too(recipe):
    with pytest.raises(UnsupportedModelError, match=REFUSED):
        pipeline.dry_run(recipe, None, registry=toy_registry())
