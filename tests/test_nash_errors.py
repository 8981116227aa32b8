"""What NASH says when it cannot do what a recipe asks."""

from __future__ import annotations

import re

import pytest
from nash_calls import rows_of, run_nash, target_of
from transformers import T5EncoderModel

from prunekit.errors import BudgetError, TrainingError, UnsupportedModelError
from prunekit.pruning.layers import select_layers
from prunekit.testing.tiny import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def refused(error, folder, model="t5", **options):
    """The message with which a run is refused; nothing may have been trained or written before it."""
    with pytest.raises(error) as caught:
        run_nash(target_of(model), folder, **options)
    assert not (folder / "train.jsonl").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("scope", "first", "more"),
    [
        ([], "decoder.0.self_attn.heads", 8),
        (["*"], "decoder.0.self_attn.heads", 8),
        (["encoder.*", "decoder.2.*"], "decoder.2.self_attn.heads", 2),
    ],
)
def test_a_scope_beyond_the_encoder(tmp_path, scope, first, more):
    assert refused(BudgetError, tmp_path, budget={"sparsity": 0.3, "scope": scope}) == (
        f"nash learns masks for the encoder only, but the budget's scope includes {first} and {more} more "
        "outside it. Write budget.scope: ['encoder.*'] (the decoder is shortened by decoder_layers, whatever "
        "the scope)."
    )


def test_a_scope_that_names_nothing(tmp_path):
    text = refused(BudgetError, tmp_path, budget={"sparsity": 0.3, "scope": ["encodr.*"]})
    assert text == (
        "the budget's scope ['encodr.*'] matches no heads or neurons. Write patterns for names such as "
        "encoder.0.self_attn.heads; `prunekit adapters show t5` prints them all."
    )


def test_a_budget_in_macs(tmp_path):
    text = refused(BudgetError, tmp_path, budget={"metric": "macs", "sparsity": 0.3, "scope": ["encoder.*"]})
    assert text == (
        "nash counts its budget in params, not macs. Write budget.metric: params, or latency with a ratio of "
        "times."
    )


@pytest.mark.parametrize(
    ("name", "model_class"), [("bert", None), ("vit", None), ("t5", T5EncoderModel)], ids=str
)
def test_a_model_without_a_decoder(tmp_path, name, model_class):
    model = tiny_model(name, model_class=model_class)
    assert refused(UnsupportedModelError, tmp_path, model) == (
        f"nash shortens a decoder and narrows an encoder; {type(model).__name__} has only encoder. "
        "Use an encoder-decoder model (T5, BART)."
    )


def test_more_decoder_blocks_than_there_are(tmp_path):
    with pytest.raises(BudgetError) as expected:
        select_layers(3, 4)
    assert refused(BudgetError, tmp_path, decoder_layers=4) == str(expected.value)


def test_too_few_steps_to_reach_the_sparsity(tmp_path):
    train = {"epochs": 2, "batch_size": 8, "mask_learning_rate": 0.01}
    text = refused(BudgetError, tmp_path, train=train)
    assert text.startswith(
        "nash: 8 training steps at a mask learning rate of 0.01 cannot bring the sparsity of the encoder to "
        "0.3: with nothing to oppose it, it goes from "
    )
    assert " steps) at this rate; with the task loss against it, more." in text


@pytest.mark.parametrize("kept", [1, 2])
def test_too_few_steps_to_choose_decoder_blocks(tmp_path, kept):
    train = {"epochs": 2, "batch_size": 8, "mask_learning_rate": 0.1}
    text = refused(
        BudgetError,
        tmp_path,
        train=train,
        budget={"sparsity": 0.1, "scope": ["encoder.*"]},
        sparsity_tolerance=0.09,
        selection="auto-blocks",
        decoder_layers=kept,
    )
    assert f"cannot bring the sparsity of the decoder to {1 - kept / 3:g}: " in text


def test_a_sparsity_above_what_masks_can_reach(tmp_path):
    text = refused(BudgetError, tmp_path, budget={"sparsity": 0.97, "scope": ["encoder.*"]})
    assert text == (
        "nash: a sparsity of 0.97 of the encoder cannot be learned; with every mask at its lower limit the "
        "expected sparsity is 0.9529. Ask for at most 0.95."
    )


def test_a_missed_target_says_by_how_much_and_what_to_change(tmp_path):
    # Nothing but the task can be in the way: it holds the masks with a thousandfold weight.
    train = {"epochs": 60, "batch_size": 16, "mask_learning_rate": 0.5, "eval_every": 60}
    with pytest.raises(TrainingError) as caught:
        run_nash(target_of("t5"), tmp_path, train=train, prediction_weight=1e3, sparsity_tolerance=0.05)
    found = re.fullmatch(
        r"nash: the encoder's sparsity ended at (0\.\d{4}), (0\.\d{4}) (above|below) the target of 0\.3 and "
        r"outside the tolerance of 0\.05, and no evaluation after the warm-up \(step 96 of 120\) was inside "
        r"it\. Train longer \(train\.epochs\), raise train\.mask_learning_rate \(now 0\.5\), shorten "
        r"sparsity_warmup \(now 0\.8\), evaluate more often \(train\.eval_every\), or outweigh the task's "
        r"loss with a larger initial_lambda_2 \(now 0\)\.",
        str(caught.value),
    )
    assert found, str(caught.value)
    ended, missed = float(found[1]), float(found[2])
    assert ended == pytest.approx(rows_of(tmp_path)[-1]["sparsity"], abs=0.05)
    assert missed == pytest.approx(abs(ended - 0.3), abs=2e-4)
    assert (found[3] == "above") is (ended > 0.3)


def test_a_cut_that_misses_the_target_for_coarse_groups_says_so(tmp_path):
    # One unit of a tiny group is more than the tolerance, whatever the masks learn.
    train = {"epochs": 60, "batch_size": 16, "mask_learning_rate": 0.5, "eval_every": 60}
    with pytest.raises(TrainingError) as caught:
        run_nash(target_of("t5"), tmp_path, train=train, snap_to_budget=False, sparsity_tolerance=2e-3)
    realised = rows_of(tmp_path)[-1]["realised_sparsity"]
    assert f"ended at {realised:.4f}, " in str(caught.value)
    assert str(caught.value).endswith(" With snap_to_budget the cut meets it to one unit.")
