"""Scores of one model on its calibration batches, by either way of scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunekit import ranks
from prunekit.pruning.units import Sublayer
from prunekit.scoring.microbatches import Batch
from prunekit.scoring.scores import Scores
from prunekit_optin.exact import Advance, Terms, Units, exact_terms
from prunekit_optin.probes import CHUNK, Prober
from prunekit_optin.reference import Reference
from prunekit_optin.released import combined, factors
from prunekit_optin.trajectory import Trajectory

if TYPE_CHECKING:
    from prunekit.progress import Progress
    from prunekit.pruning.target import PrunableModel
    from prunekit_optin.config import OptinConfig

_SEEDS_PER_RUN = 1_000_003
EXACT_CALL_TOKENS = 16
PROBE_CALL_TOKENS = 256
"""What a part costs beside its tokens; more where a call computes one variant and not many."""


class Scorer:
    """Scores units of a model that is held still.

    Args:
        target: the dense model, inside ``prunekit.scoring.frozen.frozen``.
        config: the loss's settings.
        head_batches: calibration batches for heads.
        neuron_batches: for neurons; the same ones, but for the released code's two draws.
        seed: decides the compared tokens and the probes.
        progress: where to draw.
    """

    def __init__(
        self,
        target: PrunableModel,
        config: OptinConfig,
        head_batches: Sequence[Batch],
        neuron_batches: Sequence[Batch],
        *,
        seed: int,
        progress: Progress,
    ) -> None:
        self.target = target
        self.config = config
        self.batches = {"head": head_batches, "neuron": neuron_batches}
        self.seed = seed
        self.progress = progress
        self.trajectory = Trajectory(target.structure, config.features, last_output=config.last_output)
        self.factors = factors(config, target, self.trajectory)
        self._sublayers: Mapping[str, Sublayer] = {
            sub.units.name: sub for sub in target.structure.sublayers.values()
        }

    def exact(self, units: Units) -> dict[str, Tensor]:
        """Exact scores of these units of each group, in the order given, float64."""
        found: dict[str, Tensor] = {}
        kinds = ("head", "neuron")
        wanted = {
            kind: {n: i for n, i in units.items() if self._kind(n) == kind and len(i)} for kind in kinds
        }
        if self.config.blind_heads:
            found |= {n: torch.zeros(len(i), dtype=torch.float64) for n, i in wanted.pop("head").items()}
        total = sum(
            len(i) * len(self.batches[kind]) for kind, groups in wanted.items() for i in groups.values()
        )
        with self.progress.task("Exact scores", total=total) as advance:
            for kind, groups in wanted.items():
                if groups:
                    found |= self._exact(kind, groups, advance)
        return found

    def probed(self, groups: Sequence[str]) -> Scores:
        """Estimated scores of whole groups with their standard errors and signed samples."""
        same = self.batches["head"] is self.batches["neuron"]
        kinds = [list(groups)] if same else [[n for n in groups if self._kind(n) == k] for k in self.batches]
        values: dict[str, Tensor] = {}
        errors: dict[str, Tensor] = {}
        gradients: dict[str, Tensor] = {}
        for names in kinds:
            samples = self._samples(names) if names else []
            for name in names:
                factor, drawn = self.factors[name], [each[name] for each in samples]
                mean, error = _estimate(drawn)
                values[name], errors[name] = factor * mean, factor * error
                gradients[name] = torch.cat(drawn) * factor.sqrt().to(drawn[0].dtype)
        return Scores(values, errors, gradients)

    def _kind(self, group: str) -> str:
        return self.target.groups[group].kind

    def _reference(self, batch: Batch, number: int, call_tokens: int) -> Reference:
        seed = self.seed * _SEEDS_PER_RUN + number
        return Reference(self.target, batch, self.config, self.trajectory, seed=seed, call_tokens=call_tokens)

    def _exact(self, kind: str, units: Units, advance: Advance) -> dict[str, Tensor]:
        totals = {name: torch.zeros(len(indices), dtype=torch.float64) for name, indices in units.items()}
        sublayers = [self._sublayers[name] for name in units]
        last = sum(self.trajectory.position(sub) == self.trajectory.length - 1 for sub in sublayers)
        for number, batch in enumerate(self.batches[kind]):
            with torch.inference_mode():
                reference = self._reference(batch, number, EXACT_CALL_TOKENS)

            def of_groups(names: Sequence[str], reference: Reference = reference) -> dict[str, Terms]:
                return exact_terms(
                    self.target,
                    reference,
                    self.trajectory,
                    {name: units[name] for name in names},
                    advance=advance,
                    leak=self.config.head_mask_leak and kind == "head",
                    pre_activation=self.config.pre_activation_masks,
                )

            terms: dict[str, Terms] = {}
            for part in ranks.each(ranks.hands(list(units)), of_groups):
                terms |= part
            scores = combined(self.config, sublayers, [terms[name] for name in units], last)
            for name, score in zip(units, scores, strict=True):
                totals[name] += score
        return {
            name: self.factors[name][list(units[name])] * total / len(self.batches[kind])
            for name, total in totals.items()
        }

    def _samples(self, groups: Sequence[str]) -> list[dict[str, Tensor]]:
        """Signed samples ``[R, N]`` of each group, for each batch."""
        batches = self.batches[self._kind(groups[0])]
        numbers = range(len(batches))
        probers: dict[int, Prober] = {}
        count = max(2, ceil(self.config.probes / len(batches)))
        with self.progress.task("Probes", total=count * len(batches)) as advance:

            def begun(number: int) -> dict[str, Tensor]:
                with torch.no_grad():
                    reference = self._reference(batches[number], number, PROBE_CALL_TOKENS)
                seed = -1 - self.seed * _SEEDS_PER_RUN - number
                probers[number] = Prober(self.target, reference, self.trajectory, groups, seed=seed)
                return probers[number].draw(count, advance)

            # A batch is always the same process's.
            found = ranks.each(numbers, begun)
            while self.config.wanted_error and self._error(found) > self.config.wanted_error:
                further = ranks.each(numbers, lambda number: probers[number].draw(CHUNK, advance))
                for drawn, more in zip(found, further, strict=True):
                    drawn.update({name: torch.cat([samples, more[name]]) for name, samples in drawn.items()})
        return found

    def _error(self, samples: Sequence[Mapping[str, Tensor]]) -> float:
        """Median relative standard error over the units that have any score."""
        relative = []
        for name in samples[0]:
            mean, error = _estimate([each[name] for each in samples])
            relative.append((error / mean)[mean > 0])
        together = torch.cat(relative)
        return float(together.median()) if len(together) else 0.0


def _estimate(samples: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean over batches of the mean squares, and its standard error, float64, ``[N]``.

    Args:
        samples: for each batch ``[R, N]``, R at least 2.
    """
    squares = [each.double().square() for each in samples]
    mean = torch.stack([each.mean(0) for each in squares]).mean(0)
    variance = torch.stack([each.var(0) / len(each) for each in squares]).sum(0)
    return mean, variance.sqrt() / len(samples)
