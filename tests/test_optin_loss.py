"""The two terms of the trajectory loss: by hand, by what must not change them, and where they are tiny."""

from math import log

import pytest
import torch
from prunekit_optin.loss import answer_divergence, manifold_distance, unit_rows


def rows(tokens, width, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return unit_rows(torch.randn(tokens, width, generator=generator, dtype=torch.float64)).to(dtype)


def near(dense, size, *, seed=1):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(dense.shape, generator=generator, dtype=torch.float64)
    return unit_rows(dense.double() + size * noise).to(dense.dtype)


def gram_distance(changed, dense):
    """By the definition."""
    return (changed @ changed.mT - dense @ dense.mT).square().sum()


def test_the_distance_of_two_tokens_by_hand():
    dense = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    changed = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    # Their cosine goes from 0 to 0.6, and stands in the matrix twice.
    assert manifold_distance(changed, dense).tolist() == pytest.approx([2 * 0.36])
    assert manifold_distance(changed, dense, aggregate="mean").tolist() == pytest.approx([2 * 0.36 / 4])


@pytest.mark.parametrize(("tokens", "width"), [(7, 12), (40, 6)], ids=["few tokens", "many tokens"])
@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-5])
def test_either_form_of_the_distance_equals_the_gram_matrices(tokens, width, size):
    dense = rows(tokens, width)
    changed = torch.stack([near(dense, size, seed=seed) for seed in (1, 2)])
    expected = [gram_distance(each, dense).item() for each in changed]
    assert manifold_distance(changed, dense).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("tokens", "width"), [(7, 12), (40, 6)], ids=["few tokens", "many tokens"])
def test_equal_features_are_at_distance_zero_exactly(tokens, width):
    dense = rows(tokens, width, dtype=torch.float32)
    assert manifold_distance(dense[None].clone(), dense).item() == 0


@pytest.mark.parametrize(("tokens", "width"), [(7, 12), (40, 6)], ids=["few tokens", "many tokens"])
def test_the_distance_ignores_token_lengths_order_and_a_common_rotation(tokens, width):
    dense, changed = rows(tokens, width), near(rows(tokens, width), 0.3)
    expected = gram_distance(changed, dense).item()
    generator = torch.Generator().manual_seed(3)
    scale = 0.1 + torch.rand(tokens, 1, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
    order = torch.randperm(tokens, generator=generator)
    for first, second in (
        (unit_rows(scale * changed), dense),
        (changed @ turn, dense),
        (changed[order], dense[order]),
    ):
        assert manifold_distance(first[None], second).item() == pytest.approx(expected, rel=1e-9)
    assert manifold_distance((dense @ turn)[None], dense).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("tokens", "width"), [(64, 64), (64, 16)], ids=["few tokens", "many tokens"])
@pytest.mark.parametrize("size", [1e-2, 1e-4])
def test_tiny_changes_survive_float32(tokens, width, size):
    dense = rows(tokens, width, dtype=torch.float32)
    changed = near(dense, size)
    exact = gram_distance(changed.double(), dense.double()).item()
    assert manifold_distance(changed[None], dense).item() == pytest.approx(exact, rel=1e-3)


def test_the_divergence_of_two_classes_by_hand():
    dense, changed = torch.tensor([[0.0, 0.0]]), torch.tensor([[[0.0, 4 * log(3)]]])
    # Softened by 4: one half each against a quarter and three quarters.
    expected = 16 * 0.5 * (log(0.5 / 0.25) + log(0.5 / 0.75))
    assert answer_divergence(changed, dense, temperature=4).tolist() == pytest.approx([expected])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_softened_divergence_is_torchs(temperature):
    generator = torch.Generator().manual_seed(0)
    dense, *changed = torch.randn(3, 5, 4, generator=generator)
    expected = [
        temperature**2
        * torch.nn.functional.kl_div(
            torch.log_softmax(each.double() / temperature, -1),
            torch.log_softmax(dense.double() / temperature, -1),
            log_target=True,
            reduction="sum",
        ).item()
        for each in changed
    ]
    found = answer_divergence(torch.stack(changed), dense, temperature=temperature)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_without_softening_the_temperature_is_a_constant_factor():
    generator = torch.Generator().manual_seed(0)
    dense, changed = torch.randn(2, 5, 4, generator=generator)
    found = [
        answer_divergence(changed[None], dense, temperature=t, soften=False).item() / t**2 for t in (1, 2, 8)
    ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-12)


def test_a_single_class_diverges_by_zero_exactly():
    dense, changed = torch.tensor([[1.0], [2.0]]), torch.tensor([[[5.0], [-3.0]]])
    assert answer_divergence(changed, dense, temperature=4).item() == 0


def test_tiny_changes_of_logits_are_not_lost():
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    shift = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    small, large = (
        answer_divergence((dense + size * shift)[None], dense, temperature=1).item() / size**2
        for size in (1e-7, 1e-3)
    )
    assert small == pytest.approx(large, rel=1e-2)
