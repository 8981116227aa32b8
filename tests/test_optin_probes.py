"""Probes estimate the curvature of the exact loss, without bias, with the error they state."""

import pytest
import torch
from oneshot_calls import same_state, state_of
from optin_calls import all_units, double, exact_scores, padded_batch, scorer_of
from prunekit_optin.probes import Cotangents, derivatives

from prunekit.scoring.frozen import frozen
from prunekit.scoring.replay import run_dense
from prunekit.testing.tiny import tiny_model

pytestmark = pytest.mark.slow

KL_WEIGHT = 0.5
SETTINGS = {"kl_weight": KL_WEIGHT, "tokens": 5, "aggregate": "sum"}
ARCHITECTURES = ["t5", "bart", "bert", "vit"]


class Probing:
    """Everything that derivatives of one batch need; inside ``frozen``."""

    def __init__(self, target, **config):
        self.target = target
        self.batch = padded_batch(target.model)
        self.scorer = scorer_of(target, [self.batch], **{**SETTINGS, **config})
        self.reference = self.scorer._reference(self.batch, 0, 0)
        self.groups = list(all_units(target))

    def squares(self, features, answers):
        """Sum over cotangents of the squared derivatives, with zeros for the tensors that are left out."""
        count = len(next(iter(features.values()))) if features else len(answers[0])
        whole = {
            path: features.get(path, rows.new_zeros(count, *rows.shape))
            for path, rows in self.reference.features.items()
        }
        found = derivatives(
            self.target, self.reference, self.scorer.trajectory, self.groups, Cotangents(whole, answers)
        )
        return {name: each.square().sum(0) for name, each in found.items()}

    def curvature(self):
        """The probes' expectation: every entry of every Gram matrix, and every answer, one at a time."""
        found = {name: 0 for name in self.groups}
        for path, rows in self.reference.features.items():
            basis = torch.eye(len(rows) ** 2, dtype=rows.dtype).view(-1, len(rows), len(rows))
            self._add(found, self.squares({path: (basis + basis.mT) @ rows}, None))
        for part, logits in enumerate(self.reference.answers):
            chances = torch.softmax(logits / 4, -1)
            for row, chance in enumerate(chances):
                answers = [each.new_zeros(len(chance), *each.shape) for each in self.reference.answers]
                surprise = torch.eye(len(chance), dtype=chance.dtype) - chance
                answers[part][:, row] = (KL_WEIGHT / 2 * chance).sqrt()[:, None] * surprise
                self._add(found, self.squares({}, answers))
        return found

    def loss(self, sub, unit, factor):
        """The exact loss with one unit's mask at ``factor``."""
        tensors = self.scorer.trajectory.behind(self.scorer.trajectory.position(sub))
        mask = torch.ones(sub.units.size, dtype=torch.float64)
        mask[unit] = factor
        rows, divergence = {tensor.path: [] for tensor in tensors}, 0.0
        with torch.no_grad(), self.target.masked({sub.units.name: mask}):
            for part, each in enumerate(self.reference.parts):
                outcome = run_dense(self.target, each.inputs, self.reference.taps(part, tensors))
                divergence += self.reference.divergence(part, outcome.logits)
                for path, found in outcome.taps.items():
                    rows[path].append(found)
        distance = self.reference.distance({path: torch.cat(found, 1) for path, found in rows.items()})
        return float(distance + KL_WEIGHT * divergence)

    @staticmethod
    def _add(found, more):
        for name, each in more.items():
            found[name] = found[name] + each


@pytest.mark.usefixtures("exact_norm")
@pytest.mark.parametrize("features", ["ffn_output", "block_output"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_basis_probes_together_are_half_the_exact_losss_curvature(name, features, prunable):
    target = double(name, prunable)
    step = 1e-4
    with frozen(target.model):
        probing = Probing(target, features=features)
        found = probing.curvature()
        for sub in target.structure.sublayers.values():
            for unit in (0, sub.units.size - 1):
                # The loss is flat at 1, so half of its second derivative is all there is.
                sides = [probing.loss(sub, unit, 1 + sign * step) for sign in (1, -1)]
                expected = sum(sides) / 2 / step**2
                assert float(found[sub.units.name][unit]) == pytest.approx(expected, rel=1e-4, abs=1e-8), (
                    sub.name
                )


@pytest.mark.parametrize("features", ["ffn_output", "block_norm"])
def test_probes_average_to_the_basis_probes(features, prunable):
    target = double("vit", prunable)
    with frozen(target.model):
        probing = Probing(target, features=features, probes=2000)
        expected = probing.curvature()
        found = probing.scorer.probed(probing.groups)
    ratios = torch.cat([found.values[name] / expected[name] for name in probing.groups])
    # Units share the probes, so their errors do not average out; each is about sqrt(2 / 2000) = 0.03.
    assert ratios.mean().item() == pytest.approx(1, abs=0.05)
    assert ratios.min() > 0.8
    assert ratios.max() < 1.2


def test_without_the_divergence_probes_average_to_the_distance_alone(prunable):
    target = double("bert", prunable)
    with frozen(target.model):
        probing = Probing(target, kl_weight=0, probes=1000)
        found = probing.scorer.probed(probing.groups)
        expected = {name: 0 for name in probing.groups}
        for path, rows in probing.reference.features.items():
            basis = torch.eye(len(rows) ** 2, dtype=rows.dtype).view(-1, len(rows), len(rows))
            probing._add(expected, probing.squares({path: (basis + basis.mT) @ rows}, None))
    ratios = torch.cat([found.values[name] / expected[name] for name in probing.groups])
    assert ratios.mean().item() == pytest.approx(1, abs=0.08)


def test_unsoftened_answers_weigh_temperature_squared(prunable):
    target = double("bert", prunable)
    with frozen(target.model):
        one, four = (
            scorer_of(
                target, [padded_batch(target.model)], soften=False, temperature=t, kl_weight=w, probes=4
            )
            for t, w in ((1.0, 16.0), (4.0, 1.0))
        )
        groups = list(all_units(target))
        first, second = one.probed(groups), four.probed(groups)
    assert all(torch.allclose(first.values[name], second.values[name]) for name in groups)


def test_the_mean_has_one_kth_squared_of_the_sums_score(prunable):
    target = double("bert", prunable)
    batch = padded_batch(target.model)
    with frozen(target.model):
        total, mean = (
            scorer_of(target, [batch], aggregate=aggregate, kl_weight=0, probes=4, tokens=8).probed(
                ["encoder.0.ffn.neurons"]
            )
            for aggregate in ("sum", "mean")
        )
    name = "encoder.0.ffn.neurons"
    assert torch.allclose(total.values[name] / 64, mean.values[name])


def test_the_standard_error_is_that_of_repeated_estimates(prunable):
    target = double("bert", prunable)
    batch = padded_batch(target.model)
    with frozen(target.model):
        runs = [
            scorer_of(target, [batch], seed=seed, probes=32).probed(["encoder.0.ffn.neurons"])
            for seed in range(40)
        ]
    name = "encoder.0.ffn.neurons"
    spread = torch.stack([run.values[name] for run in runs]).std(0)
    stated = torch.stack([run.errors[name] for run in runs]).mean(0)
    assert (stated / spread).median().item() == pytest.approx(1, abs=0.2)


def test_scores_are_the_mean_squares_of_the_signed_samples(prunable):
    target = double("bert", prunable)
    with frozen(target.model):
        found = scorer_of(target, [padded_batch(target.model)], probes=6).probed(["encoder.0.ffn.neurons"])
    samples = found.gradients["encoder.0.ffn.neurons"]
    assert samples.shape == (6, 20)
    assert torch.allclose(samples.square().mean(0), found.values["encoder.0.ffn.neurons"])
    assert (samples < 0).any()


def test_probes_are_shared_out_among_the_batches(prunable):
    target = double("bert", prunable)
    batches = [padded_batch(target.model, seed=seed) for seed in (0, 5)]
    with frozen(target.model):
        found = scorer_of(target, batches, probes=9).probed(["encoder.0.ffn.neurons"])
    assert len(found.gradients["encoder.0.ffn.neurons"]) == 10


def test_a_wanted_error_decides_the_number_of_probes(prunable):
    target = prunable(tiny_model("bert"))
    batch = padded_batch(target.model)
    counts, errors = [], []
    with frozen(target.model):
        for wanted in (0.3, 0.15):
            found = scorer_of(target, [batch], probes=4, wanted_error=wanted).probed(
                ["encoder.0.ffn.neurons"]
            )
            counts.append(len(found.gradients["encoder.0.ffn.neurons"]))
            relative = found.errors["encoder.0.ffn.neurons"] / found.values["encoder.0.ffn.neurons"]
            errors.append(relative.median().item())
    assert errors[0] <= 0.3
    assert errors[1] <= 0.15
    # About 2 / error ** 2.
    assert 12 <= counts[0] <= 40
    assert 60 <= counts[1] <= 160


def test_probes_rank_units_as_exact_scores_do(prunable):
    from scipy.stats import spearmanr

    target = shallow_effects(prunable)
    batch = padded_batch(target.model, batch=8)
    exact = exact_scores(target, [batch], kinds=("neuron",))
    with frozen(target.model):
        found = scorer_of(target, [batch], probes=256).probed(list(exact))
    first, second = (torch.cat([each[name] for name in exact]) for each in (exact, found.values))
    assert spearmanr(first, second).statistic > 0.95


def shallow_effects(prunable):
    """A BERT of which a single neuron changes little, as in models of a useful size."""
    target = prunable(tiny_model("bert"))
    with torch.no_grad():
        for sub in target.structure.sublayers.values():
            if sub.role == "ffn":
                target.model.get_submodule(sub.output).weight *= 0.1
    return target


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_seed_gives_the_same_bits_and_leaves_everything_as_it_was(name, prunable):
    target = prunable(tiny_model(name).train())
    batch = padded_batch(target.model)
    before, kernel = state_of(target.model), target.model.config._attn_implementation
    with frozen(target.model):
        first, second = (
            scorer_of(target, [batch], probes=4).probed(list(all_units(target))) for _ in range(2)
        )
    assert same_state(before, state_of(target.model))
    assert target.model.config._attn_implementation == kernel
    assert all(torch.equal(first.values[key], second.values[key]) for key in first.values)


def test_a_dead_unit_scores_zero_with_no_error(prunable):
    target = prunable(tiny_model("bert"))
    sub = target.structure.sublayers["encoder.0.ffn"]
    with torch.no_grad():
        target.model.get_submodule(sub.output).weight[:, 4] = 0
    with frozen(target.model):
        found = scorer_of(target, [padded_batch(target.model)], probes=4).probed([sub.units.name])
    assert found.values[sub.units.name][4] == 0
    assert found.errors[sub.units.name][4] == 0
