"""Trajectory distances of all units at once, estimated by random probes of the model's derivative.

Near the dense model both terms of the loss are quadratic, so its gradient says nothing and its curvature
everything. For a unit's mask ``m`` the distance is ``sum((dM/dm) ** 2)`` over the entries of the Gram
matrices ``M``. With independent standard normal weights ``V`` that sum is the expectation of ``g ** 2`` for
``g = d<V, M>/dm``, and one backward pass gives ``g`` for every unit of the model. The divergence adds, with
labels drawn from the model's own answers and random signs, its Fisher information in the same pass: as the
draws are independent, the cross terms vanish in expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from prunekit.scoring.replay import run_dense
from prunekit_optin.loss import unit_rows
from prunekit_optin.reference import Reference
from prunekit_optin.trajectory import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.pruning.target import PrunableModel

ANSWERS = "answers"
CHUNK = 16
"""Probes that share a forward pass."""
MEMORY = 512 * 2**20
"""Bytes that the gradients of probes going back together may need."""


@dataclass(frozen=True)
class Cotangents:
    """Weights of what the probes differentiate.

    Args:
        features: for each compared tensor, weights of its rows at length 1, ``[R, K, d]``.
        answers: for each part, weights of its logits, ``[R, n, C]``; none where they do not count.
    """

    features: Mapping[str, Tensor]
    answers: Sequence[Tensor] | None


class Prober:
    """Draws probes of one batch.

    Args:
        target: the dense model, in evaluation mode, its weights without gradients.
        reference: the batch, and what the dense model makes of it.
        trajectory: the compared tensors.
        groups: the unit groups to score.
        seed: decides the probes.
    """

    def __init__(
        self,
        target: PrunableModel,
        reference: Reference,
        trajectory: Trajectory,
        groups: Sequence[str],
        *,
        seed: int,
    ) -> None:
        self.target = target
        self.reference = reference
        self.trajectory = trajectory
        self.groups = list(groups)
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, count: int, advance: Callable[[int], None] = lambda count: None) -> dict[str, Tensor]:
        """Signed derivatives of ``count`` more probes, ``[count, N]`` for each group.

        A score is their mean square.

        Args:
            count: at least 1.
            advance: called with the number of probes done.
        """
        found: list[dict[str, Tensor]] = []
        for start in range(0, count, CHUNK):
            some = min(CHUNK, count - start)
            cotangents = self._cotangents(some)
            found.append(derivatives(self.target, self.reference, self.trajectory, self.groups, cotangents))
            advance(some)
        return {name: torch.cat([each[name] for each in found]).cpu() for name in self.groups}

    def _cotangents(self, count: int) -> Cotangents:
        reference, config = self.reference, self.reference.config
        features = {}
        for path, rows in reference.features.items():
            scale = 1 / len(rows) if config.aggregate == "mean" else 1.0
            weights = torch.empty(count, *rows.shape, dtype=rows.dtype, device=rows.device)
            for one in weights:
                normal = torch.randn(len(rows), len(rows), generator=self._generator, dtype=rows.dtype)
                normal = normal.to(rows.device)
                # d<V, Y Y^T> = <(V + V^T) Y, dY>
                torch.matmul(normal + normal.mT, rows * scale, out=one)
            features[path] = weights
        if config.kl_weight == 0:
            return Cotangents(features, None)
        return Cotangents(features, [self._answer_weights(logits, count) for logits in reference.answers])

    def _answer_weights(self, logits: Tensor, count: int) -> Tensor:
        """Weights of the logits for labels drawn from the model's own answers, ``[R, n, C]``.

        The divergence times ``T ** 2`` is half of ``T ** 2 E[(d log p(y) / dm) ** 2]``, and softened
        ``d log p(y) = <onehot(y) - p, d logits> / T``: the temperature leaves the answers, and nothing else.
        """
        config = self.reference.config
        divisor = config.temperature if config.soften else 1.0
        answers = torch.softmax(logits.double() / divisor, dim=-1)  # [n, C]
        drawn = torch.multinomial(answers.cpu(), count, replacement=True, generator=self._generator)  # [n, R]
        signs = torch.randint(0, 2, (count, len(answers), 1), generator=self._generator) * 2 - 1
        labels = one_hot(drawn.T, answers.shape[-1]).to(answers)  # [R, n, C]
        size = sqrt(config.kl_weight / 2) * config.temperature / divisor
        return (size * signs.to(answers.device) * (labels - answers)).to(logits.dtype)


def derivatives(
    target: PrunableModel,
    reference: Reference,
    trajectory: Trajectory,
    groups: Sequence[str],
    cotangents: Cotangents,
) -> dict[str, Tensor]:
    """Derivative in every mask of the weighted sum of what is compared for it, for each probe.

    A unit's sum holds the tensors behind its block; what its own block's tensor would add is taken off again.

    Args:
        target: the dense model, in evaluation mode, its weights without gradients.
        reference: the batch, and what the dense model makes of it.
        trajectory: the compared tensors.
        groups: the unit groups to differentiate in.
        cotangents: the weights of R probes.

    Returns:
        For each group ``[R, N]``.
    """
    sublayers = {sub.units.name: sub for sub in target.structure.sublayers.values()}
    positions = {name: trajectory.position(sublayers[name]) for name in groups}
    pieces = {
        tensor.path: torch.split(cotangents.features[tensor.path], reference.sizes(tensor.stack), 1)
        for tensor in trajectory.tensors
    }
    count = len(next(iter(cotangents.features.values())))
    totals: dict[str, list[Tensor]] = {name: [] for name in groups}
    with _eager(target.model), torch.enable_grad():
        for number, part in enumerate(reference.parts):
            with _input_masks(target, groups) as masks:
                outcome = run_dense(target, part.inputs, reference.taps(number, trajectory.tensors))
            outputs = {path: unit_rows(rows[0]) for path, rows in outcome.taps.items()}
            weights = {path: piece[number] for path, piece in pieces.items()}
            if cotangents.answers is not None:
                outputs[ANSWERS] = reference.counted(number, outcome.logits)[0]
                weights[ANSWERS] = cotangents.answers[number]
            for some in torch.split(torch.arange(count), _at_once(target, reference, number)):
                chosen = {path: weight[some] for path, weight in weights.items()}
                pulled = _pulled(outputs, chosen, masks)
                for tensor in trajectory.tensors:
                    own = {n: masks[n] for n, p in positions.items() if p == tensor.position}
                    if own and tensor.reached and tensor not in trajectory.behind(tensor.position):
                        local = _pulled({tensor.path: outputs[tensor.path]}, chosen, own)
                        for name, gradient in local.items():
                            pulled[name] = pulled[name] - gradient
                for name, gradient in pulled.items():
                    totals[name].append(gradient)
    return {
        name: torch.cat(parts).view(len(reference.parts), count, -1).sum(0) for name, parts in totals.items()
    }


def _pulled(
    outputs: Mapping[str, Tensor], weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Derivative in each mask of the weighted sum of the outputs, for each row of weights, ``[R, N]``."""
    paths = [path for path, output in outputs.items() if output.requires_grad]
    count = len(next(iter(weights.values())))
    if not paths:
        return {name: mask.new_zeros(count, len(mask)) for name, mask in masks.items()}
    found = torch.autograd.grad(
        [outputs[path] for path in paths],
        list(masks.values()),
        [weights[path] for path in paths],
        retain_graph=True,
        is_grads_batched=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(masks, found, strict=True))


@contextmanager
def _input_masks(target: PrunableModel, groups: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Masks of ones, ``[N]``, that multiply what output projections read while the context is open.

    ``target.masks`` folds masks into weights, which is dearer where many gradients go back through one pass.
    """
    model = target.model
    sublayers = {sub.units.name: sub for sub in target.structure.sublayers.values()}
    masks = {
        name: torch.ones(target.groups[name].size, dtype=model.dtype, device=model.device, requires_grad=True)
        for name in groups
    }

    def multiply(mask: Tensor, width: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (args[0] * mask.repeat_interleave(width), *args[1:])

        return hook

    handles = [
        model.get_submodule(sublayers[name].output).register_forward_pre_hook(
            multiply(mask, sublayers[name].units.width)
        )
        for name, mask in masks.items()
    ]
    try:
        yield masks
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Run attention as matrix products: fused kernels cannot send several gradients back at once."""
    kernel = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(kernel)


def _at_once(target: PrunableModel, reference: Reference, part: int) -> int:
    """How many probes go back together through a part."""
    widest = max(sub.units.size * sub.units.width for sub in target.structure.sublayers.values())
    return max(1, MEMORY // (4 * reference.computed[part] * widest * int(target.model.dtype.itemsize)))
