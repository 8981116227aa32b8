"""What the dense model computes on one calibration batch, and how far a changed model is from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunekit.scoring.microbatches import Batch, Part, split_batch
from prunekit.scoring.replay import Tap, run_dense
from prunekit_optin.loss import answer_divergence, manifold_distance, unit_rows
from prunekit_optin.trajectory import Feature, Trajectory

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel
    from prunekit_optin.config import OptinConfig


class Reference:
    """The dense model's compared tensors and answers on one batch.

    The tokens compared are drawn once for each stack, among those that are not padding. They do not depend on
    how the batch is put into parts.

    Args:
        target: the dense model, in evaluation mode.
        batch: as a task collates it.
        config: the loss's settings.
        trajectory: the compared tensors.
        seed: decides the tokens.
        call_tokens: what one more part costs, in tokens.

    Attributes:
        parts: of the batch.
        features: for each compared tensor its rows at length 1, ``[K, d]``.
        answers: for each part the logits that count, ``[n, C]``.
        computed: for each part the tokens that a pass computes, over all stacks, padding included.
    """

    def __init__(
        self,
        target: PrunableModel,
        batch: Batch,
        config: OptinConfig,
        trajectory: Trajectory,
        *,
        seed: int,
        call_tokens: int = 16,
    ) -> None:
        self.config = config
        split = split_batch(target.model, batch, trim=not config.include_padding, call_tokens=call_tokens)
        self.parts: Sequence[Part] = split.parts
        self._counted_answers = split.answers
        self._generator = torch.Generator().manual_seed(seed)
        paths = [Tap(tensor.path) for tensor in trajectory.tensors]
        outcomes = [run_dense(target, part.inputs, paths) for part in self.parts]
        self.answers = [self.counted(number, outcome.logits)[0] for number, outcome in enumerate(outcomes)]
        stacks = {tensor.stack: tensor.path for tensor in trajectory.tensors}
        self.computed = [sum(o.taps[path].shape[1] for path in stacks.values()) for o in outcomes]
        self._tokens: dict[str, list[Tensor]] = {}
        self.features: dict[str, Tensor] = {}
        for tensor in trajectory.tensors:
            found = [outcome.taps[tensor.path][0] for outcome in outcomes]  # [b * T, d]
            if tensor.stack not in self._tokens:
                self._tokens[tensor.stack] = self._drawn(split.counted.get(tensor.stack), found)
            rows = [each[tokens] for each, tokens in zip(found, self._tokens[tensor.stack], strict=True)]
            self.features[tensor.path] = unit_rows(torch.cat(rows))

    def taps(self, part: int, tensors: Sequence[Feature]) -> list[Tap]:
        """What to watch while part number ``part`` runs."""
        return [Tap(tensor.path, self._tokens[tensor.stack][part]) for tensor in tensors]

    def sizes(self, stack: str) -> list[int]:
        """How many of a stack's compared tokens are in each part."""
        return [len(tokens) for tokens in self._tokens[stack]]

    def distance(self, features: Mapping[str, Tensor]) -> Tensor:
        """Sum over tensors of the manifold distance to the dense model, for each variant, ``[M]``, float64.

        Args:
            features: for each compared tensor the rows of all parts, ``[M, K, d]``, at any length.
        """
        config = self.config
        rows = {path: unit_rows(tensor) for path, tensor in features.items()}
        if config.token_draw == "shared":
            found = [
                manifold_distance(tensor, self.features[path], aggregate=config.aggregate).double()
                for path, tensor in rows.items()
            ]
            return torch.stack(found).sum(0)
        total = torch.zeros(len(next(iter(rows.values()))), dtype=torch.float64)
        for variant in range(len(total)):
            for path, tensor in rows.items():
                dense = self.features[path]
                drawn = torch.randperm(len(dense), generator=self._generator)[: config.tokens]
                drawn = drawn.to(dense.device)
                one = tensor[variant : variant + 1, drawn]
                total[variant] += float(manifold_distance(one, dense[drawn], aggregate=config.aggregate))
        return total.to(next(iter(rows.values())).device)

    def divergence(self, part: int, logits: Tensor) -> Tensor:
        """KL from the dense model's answers in a part, for each variant, ``[M]``, float64.

        Args:
            part: number of the part.
            logits: ``[M, b, ...]``.
        """
        config = self.config
        return answer_divergence(
            self.counted(part, logits),
            self.answers[part],
            temperature=config.temperature,
            soften=config.soften,
        )

    def counted(self, part: int, logits: Tensor) -> Tensor:
        """The logits that count, ``[M, n, C]``."""
        if self._counted_answers is None:
            return logits.flatten(1, -2)
        counted = self._counted_answers[self.parts[part].rows, : logits.shape[2]]
        return logits[:, counted]

    def _drawn(self, counted: Tensor | None, found: Sequence[Tensor]) -> list[Tensor]:
        """The compared tokens of each part, as positions in ``[b * T]``."""
        widths = [len(each) // len(part.rows) for each, part in zip(found, self.parts, strict=True)]
        device = found[0].device
        if counted is None:
            examples = sum(len(part.rows) for part in self.parts)
            counted = torch.ones(examples, max(widths), dtype=torch.bool, device=device)
        places = counted.flatten().nonzero().flatten()
        if self.config.token_draw == "shared" and len(places) > self.config.tokens:
            chosen = torch.randperm(len(places), generator=self._generator)[: self.config.tokens]
            places = places[chosen.to(device)]
        wanted = torch.zeros_like(counted).flatten().index_fill(0, places, True).view_as(counted)
        return [
            wanted[part.rows, :width].flatten().nonzero().flatten()
            for part, width in zip(self.parts, widths, strict=True)
        ]
