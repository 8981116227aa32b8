"""L0 masks with hard-concrete gates.

Pure arithmetic, shared by the methods that learn their masks. Nothing here knows a model: masks leave as one
vector per group name. Everything is float32, under autocast too: one update of a logit is smaller than a step
of bfloat16. ``expected_size`` says what the masks amount to, ``lagrangian`` steers it.

Louizos et al. 2018 (arXiv:1712.01312) for the distribution, Wang et al. 2020 (arXiv:1910.04732) for the
deterministic estimate, Xia et al. 2022 (CoFi, arXiv:2204.00408) for the constants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from prunekit import ranks

UnitKind = Literal["head", "neuron", "sublayer", "block", "hidden"]
FinalMask = Literal["soft", "binary"]

STRETCH_LOW = -0.1
STRETCH_HIGH = 1.1
TEMPERATURE = 2 / 3
EVALUATION_GAIN = 0.8
EPSILON = 1e-6
MIN_LOGIT = math.log(0.01)
MAX_LOGIT = math.log(100.0)
OPEN_LOGIT = 10.0
INITIAL_STD = 0.01
# Logit at which a mask element is open with probability one half; a single element closes below it.
CLOSING_LOGIT = -TEMPERATURE * math.log(STRETCH_HIGH / -STRETCH_LOW)

# Entries of these kinds are unrelated parts of the model: each is decided alone, not ranked within its group.
_DECIDED_ALONE = frozenset({"sublayer", "block"})


def hard_concrete_sample(log_alpha: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample mask values from the stretched, clipped binary concrete distribution.

    Louizos et al. 2018; ``z = clip(s (r - l) + l, 0, 1)`` with ``s = sigmoid((logit(u) + log_alpha) / T)``.
    The temperature T divides the whole sum, as in CoFi's and NASH's released code; NASH's appendix omits it.
    In several processes every one is given what the first draws.

    Args:
        log_alpha: logits, any shape, unbounded; higher is more often open.
        generator: source of the uniform noise. It may live on the CPU while the logits do not; the noise is
            then the same for every device.

    Returns:
        Mask values of the same shape, float32, in [0, 1]; exactly 0 and exactly 1 have positive probability.
        The gradient flows to ``log_alpha`` and is zero where the value was clipped.
    """
    device = log_alpha.device if generator is None else generator.device
    uniform = torch.rand(log_alpha.shape, generator=generator, device=device, dtype=torch.float32)
    uniform = ranks.same(uniform)
    noise = torch.logit(EPSILON + (1 - 2 * EPSILON) * uniform).to(log_alpha.device)
    concrete = torch.sigmoid((noise + log_alpha.float()) / TEMPERATURE)
    return (concrete * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW).clamp(0, 1)


def probability_open(log_alpha: Tensor) -> Tensor:
    """Probability that a sampled mask value is above zero, ``sigmoid(log_alpha - CLOSING_LOGIT)``.

    Args:
        log_alpha: logits, any shape.

    Returns:
        Probabilities of the same shape, float32, in [1e-6, 1 - 1e-6]; differentiable.
    """
    return torch.sigmoid(log_alpha.float() - CLOSING_LOGIT).clamp(EPSILON, 1 - EPSILON)


@torch.no_grad()
def deterministic_mask(log_alpha: Tensor, *, final: FinalMask = "soft") -> Tensor:
    """The mask that stands for the distribution when nothing may be random: evaluation and the final plan.

    A group of N closes its ``round(N - sum of P(open))`` lowest logits (halves round to even). Among equal
    logits the lower index is kept. A group of one therefore closes where P(open) is below one half.

    Args:
        log_alpha: logits, ``[..., N]``; each row of the last axis is a group of its own.
        final: ``soft`` gives survivors ``sigmoid(1.2 log_alpha)``, the released code's value, always below 1;
            ``binary`` gives them 1. Both keep the same indices.

    Returns:
        Mask values, ``[..., N]``, float32, in [0, 1]; no gradient.
    """
    log_alpha = log_alpha.float()
    closed = (1 - probability_open(log_alpha)).sum(-1, keepdim=True).round()  # [..., 1]
    order = torch.argsort(log_alpha, dim=-1, descending=True, stable=True)
    rank = torch.argsort(order, dim=-1)  # 0 = highest logit
    survives = rank < log_alpha.shape[-1] - closed
    value = torch.sigmoid(EVALUATION_GAIN / TEMPERATURE * log_alpha)
    return survives.float() if final == "binary" else torch.where(survives, value, 0.0)


def initial_mean(kind: UnitKind, droprate_init: float = 0.5) -> float:
    """Where the logits of one kind start, on average; see ``initial_logits``."""
    return math.log(1 - droprate_init) - math.log(droprate_init) if kind == "neuron" else OPEN_LOGIT


def initial_logits(
    size: int, kind: UnitKind, *, droprate_init: float = 0.5, generator: torch.Generator | None = None
) -> Tensor:
    """Draw the starting logits of one group.

    Args:
        size: number of units in the group.
        kind: what a unit is. Neurons start at ``ln(1 - droprate_init) - ln(droprate_init)``, everything else
            practically open, as in the released code of CoFi and NASH.
        droprate_init: strictly between 0 and 1; at 0.5 a neuron starts open with probability 0.83.
        generator: source of the small spread around the mean (standard deviation ``INITIAL_STD``).

    Returns:
        Logits, ``[size]``, float32, on the generator's device (else the default one).
    """
    mean = initial_mean(kind, droprate_init)
    device = None if generator is None else generator.device
    return mean + INITIAL_STD * torch.randn(size, generator=generator, device=device, dtype=torch.float32)


class L0Masks(nn.Module):
    """One vector of trainable mask logits per group.

    Call ``clamp_`` after every optimiser step: far outside [ln 0.01, ln 100] no gradient leads back.

    Args:
        groups: size and kind of each group that gets a mask; a group left out stays fully open. The order of
            the names fixes which random numbers each group receives.
        droprate_init: see ``initial_logits``.
        generator: source of the initial spread.
    """

    def __init__(
        self,
        groups: Mapping[str, tuple[int, UnitKind]],
        *,
        droprate_init: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.kinds: dict[str, UnitKind] = {name: kind for name, (_, kind) in groups.items()}
        self.logits = nn.ParameterDict()
        for name, (size, kind) in groups.items():
            start = initial_logits(size, kind, droprate_init=droprate_init, generator=generator)
            self.logits[_parameter_name(name)] = nn.Parameter(start)

    def log_alpha(self, name: str) -> nn.Parameter:
        """The logits of one group, ``[N]``."""
        parameter: nn.Parameter = self.logits[_parameter_name(name)]
        return parameter

    def sample(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw one training mask per group, ``[N]`` each; see ``hard_concrete_sample``."""
        return self._split(hard_concrete_sample(self._joined(), generator))

    def probabilities(self) -> dict[str, Tensor]:
        """Probability of being open per unit, ``[N]`` for each group, differentiable."""
        return self._split(probability_open(self._joined()))

    def deterministic(self, final: FinalMask = "soft") -> dict[str, Tensor]:
        """Masks without randomness, ``[N]`` for each group; see ``deterministic_mask``.

        Heads, neurons and hidden dimensions are ranked within their group; every sublayer and every block is
        decided alone.
        """
        masks = {}
        for name, kind in self.kinds.items():
            log_alpha = self.log_alpha(name)
            groups = log_alpha.unsqueeze(-1) if kind in _DECIDED_ALONE else log_alpha
            masks[name] = deterministic_mask(groups, final=final).view_as(log_alpha)
        return masks

    @torch.no_grad()
    def clamp_(self) -> None:
        """Pull every logit back into [ln 0.01, ln 100], in place."""
        for parameter in self.logits.values():
            parameter.clamp_(MIN_LOGIT, MAX_LOGIT)

    def _joined(self) -> Tensor:
        # One kernel for all groups: a step would otherwise launch several per group and per layer.
        return torch.cat([self.log_alpha(name).float() for name in self.kinds])

    def _split(self, joined: Tensor) -> dict[str, Tensor]:
        sizes = [self.log_alpha(name).numel() for name in self.kinds]
        return dict(zip(self.kinds, torch.split(joined, sizes), strict=True))


def _parameter_name(group: str) -> str:
    # torch reserves the dot in parameter names.
    return group.replace(".", "/")
