"""prunekit's checks for adapters, and what is RoBERTa's own: the tied head, positions and padding."""

from collections.abc import Callable

import pytest
import torch
from prunekit_roberta.adapter import ROBERTA
from transformers import RobertaForMaskedLM, RobertaModel

from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel
from prunekit.testing import parametrize_with_checks, tiny_inputs, tiny_model

PLAN = PruningPlan(
    keep={
        "encoder.blocks": (0, 2),
        "encoder.0.self_attn.heads": (1, 3),
        "encoder.2.ffn.neurons": (0, 5, 7),
        "hidden": tuple(range(0, 16, 2)),
    }
)


@parametrize_with_checks([ROBERTA])
def test_prunekit_s_checks_hold(check: Callable[[], None]) -> None:
    check()


@pytest.fixture
def dense() -> PrunableModel:
    model = tiny_model("roberta", adapter=ROBERTA, model_class=RobertaForMaskedLM, dtype=torch.float64)
    return PrunableModel(model, ROBERTA)


def masked_and_pruned(
    dense: PrunableModel, inputs: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the masked model and of the pruned one."""
    pruned = dense.pruned(PLAN).model
    with torch.no_grad(), dense.masked(PLAN.masks(dense.groups)):
        masked = dense.model(**inputs).logits
    with torch.no_grad():
        return masked, pruned(**inputs).logits


def test_the_head_and_the_embeddings_are_one_matrix_after_cutting_hidden_units(dense: PrunableModel) -> None:
    model = dense.pruned(PLAN).model
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    assert model.lm_head.decoder.bias is model.lm_head.bias
    assert model.lm_head.decoder.weight.shape == (40, 8)


def test_positions_begin_behind_the_padding_s_as_before(dense: PrunableModel) -> None:
    kept = list(PLAN.keep["hidden"])
    was = dense.model.roberta.embeddings.position_embeddings
    now = dense.pruned(PLAN).model.roberta.embeddings.position_embeddings
    assert now.padding_idx == was.padding_idx == 1
    assert torch.equal(now.weight, was.weight[:, kept])


def test_padding_changes_nothing_before_it(dense: PrunableModel) -> None:
    pruned = dense.pruned(PLAN).model
    inputs = tiny_inputs(pruned)
    ids = inputs["input_ids"][:1, :5]  # the first row ends with two paddings
    with torch.no_grad():
        padded = pruned(**inputs).logits[:1, :5]
        alone = pruned(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.allclose(padded, alone, atol=1e-12)


@pytest.mark.parametrize("length", [1, 7, 32])
def test_masked_equals_pruned_with_every_row_padded_differently(length: int, dense: PrunableModel) -> None:
    inputs = tiny_inputs(dense.model, batch=4, length=length)
    for row in range(1, 4):
        padding = min(row, length - 1)
        if padding:
            inputs["input_ids"][row, -padding:] = 1
            inputs["attention_mask"][row, -padding:] = 0
    inputs["attention_mask"][:, 0] = 1
    masked, pruned = masked_and_pruned(dense, inputs)
    assert float((masked - pruned).abs().max()) <= 1e-10 * max(1.0, float(masked.abs().max()))


def test_a_decoder_is_refused_with_what_to_do() -> None:
    model = tiny_model("roberta", adapter=ROBERTA, model_class=RobertaModel, changes={"is_decoder": True})
    assert ROBERTA.refuse(model) == (
        "config.is_decoder is true, and this adapter prunes encoders. Load it with is_decoder=False."
    )
