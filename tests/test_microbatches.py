"""Batches in parts: every example once, padding gone, positions and answers unchanged."""

import pytest
import torch
from optin_calls import padded_batch

from prunekit.scoring.microbatches import split_batch
from prunekit.testing.tiny import tiny_inputs, tiny_model


def lengths_batch(lengths):
    """Token ids and mask of rows with these lengths."""
    longest = max(lengths)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.arange(3, 3 + mask.numel()).view_as(mask) % 30 + 3, "attention_mask": mask}


def shapes(split):
    return [tuple(part.inputs["input_ids"].shape) for part in split.parts]


def test_every_example_is_in_one_part_without_its_padding():
    split = split_batch(tiny_model("bert"), lengths_batch([5, 2, 7, 2, 5]), call_tokens=0)
    assert shapes(split) == [(1, 7), (2, 5), (2, 2)]
    assert [part.rows.tolist() for part in split.parts] == [[2], [0, 4], [1, 3]]
    assert all((part.inputs["attention_mask"] == 1).all() for part in split.parts)


def test_dear_calls_make_fewer_parts():
    batch = lengths_batch([5, 2, 7, 2, 5])
    assert shapes(split_batch(tiny_model("bert"), batch, call_tokens=5)) == [(3, 7), (2, 2)]
    assert shapes(split_batch(tiny_model("bert"), batch, call_tokens=100)) == [(5, 7)]


def test_padding_on_the_left_stays():
    batch = lengths_batch([4, 2])
    batch["attention_mask"] = batch["attention_mask"].flip(1)
    assert shapes(split_batch(tiny_model("bert"), batch, call_tokens=0)) == [(2, 4)]


def test_untrimmed_batches_stay_whole_and_count_padding():
    split = split_batch(tiny_model("bert"), lengths_batch([5, 2]), trim=False)
    assert shapes(split) == [(2, 5)]
    assert split.counted == {}


def test_images_stay_whole():
    batch = tiny_inputs(tiny_model("vit"), batch=3)
    split = split_batch(tiny_model("vit"), {**batch, "labels": torch.zeros(3, dtype=torch.long)})
    assert [list(part.inputs) for part in split.parts] == [["pixel_values"]]
    assert split.counted == {}
    assert split.answers is None


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_targets_are_cut_with_their_sources_and_padding_does_not_count(name):
    model = tiny_model(name)
    batch = padded_batch(model)
    split = split_batch(model, batch, call_tokens=0)
    for part in split.parts:
        (row,) = part.rows.tolist()
        assert part.inputs["input_ids"].shape[1] == batch["attention_mask"][row].sum()
        assert part.inputs["decoder_input_ids"].shape[1] == (batch["labels"][row] != -100).sum()
    assert torch.equal(split.answers, batch["labels"] != -100)
    assert torch.equal(split.counted["decoder"], split.answers)


@pytest.mark.parametrize("name", ["t5", "bart", "bert"])
def test_parts_give_the_logits_of_the_whole_batch(name):
    model = tiny_model(name, dtype=torch.float64)
    batch = padded_batch(model)
    split = split_batch(model, batch, call_tokens=0)
    with torch.no_grad():
        whole = model(**batch).logits
        for part in split.parts:
            logits = model(**part.inputs).logits
            for place, row in enumerate(part.rows.tolist()):
                counted = slice(None) if split.answers is None else split.answers[row]
                kept = slice(None) if split.answers is None else split.answers[row, : logits.shape[1]]
                assert torch.allclose(logits[place][kept], whole[row][counted], rtol=1e-5, atol=1e-6)
