"""What a scorer hands on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from prunekit.errors import PrunekitError


@dataclass(frozen=True)
class Scores:
    """Importance of units, by unit group; 1-D tensors on the CPU.

    Args:
        values: for each group ``[N]``, float64, higher is kept; comparable across groups.
        errors: standard errors of ``values``, ``[N]``, where they are estimates.
        gradients: for each group ``[S, N]``: signed samples with which the loss of removing the units ``u``
            together is proportional to the squared norm of ``sum(gradients[:, u])``; for rearrangement.
        exact: for each group ``[N]`` whose ``values`` are estimates: exact scores of those units that have
            been scored exactly too, NaN elsewhere.
    """

    values: Mapping[str, Tensor]
    errors: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    exact: Mapping[str, Tensor] = field(default_factory=dict)

    def only(self, groups: Collection[str]) -> Scores:
        """The scores of these groups."""
        kept = [
            {name: tensor for name, tensor in tensors.items() if name in groups}
            for tensors in (self.values, self.errors, self.gradients, self.exact)
        ]
        return Scores(*kept)

    def joined(self, other: Scores) -> Scores:
        """Both, with the other's where they have the same groups."""
        return Scores(
            {**self.values, **other.values},
            {**self.errors, **other.errors},
            {**self.gradients, **other.gradients},
            {**self.exact, **other.exact},
        )

    def check(self) -> None:
        """Refuse scores that no order can be made of.

        Raises:
            PrunekitError: if a score or a gradient sample is not finite, naming the group.
        """
        for kind, tensors in (("scores", self.values), ("gradient samples", self.gradients)):
            for name, tensor in tensors.items():
                if not tensor.isfinite().all():
                    count = int((~tensor.isfinite()).sum())
                    raise PrunekitError(
                        f"{count} of {tensor.numel()} {kind} of {name} are NaN or infinite. Look for NaN in "
                        "the model's weights, or for activations that overflow its number format."
                    )
