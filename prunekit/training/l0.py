"""L0 masks with hard-concrete gates, the expected size they imply, and the Lagrangian that steers it.

Pure arithmetic, shared by the methods that learn their masks. Nothing here knows a model: costs arrive as
plain numbers, masks leave as one vector per group name. Everything is float32, under autocast too: one update
of a logit is smaller than a step of bfloat16.

Louizos et al. 2018 (arXiv:1712.01312) for the distribution, Wang et al. 2020 (arXiv:1910.04732) for the
Lagrangian and the deterministic estimate, Xia et al. 2022 (CoFi, arXiv:2204.00408) for the constants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

UnitKind = Literal["head", "neuron", "sublayer", "block", "hidden"]
FinalMask = Literal["soft", "binary"]
CountMode = Literal["exact", "weights"]

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
# Keeps the logarithm of P(unit closed) finite where a unit is certainly open.
_TINY = 1e-30


def hard_concrete_sample(log_alpha: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample mask values from the stretched, clipped binary concrete distribution.

    Louizos et al. 2018; ``z = clip(s (r - l) + l, 0, 1)`` with ``s = sigmoid((logit(u) + log_alpha) / T)``.
    The temperature T divides the whole sum, as in CoFi's and NASH's released code; NASH's appendix omits it.

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
    mean = math.log(1 - droprate_init) - math.log(droprate_init) if kind == "neuron" else OPEN_LOGIT
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


@dataclass(frozen=True)
class SublayerCost:
    """What one sublayer costs, in any additive measure (parameters, MACs).

    Attributes:
        group: name of the group of its heads or neurons.
        units: how many they are.
        unit_cost: cost of one unit.
        fixed_cost: cost that stays until the whole sublayer is gone, such as an output bias.
        sublayer: group name and index of the mask entry on the whole sublayer, if there is one.
        block: group name and index of the mask entry on the block that holds the sublayer, if there is one.
    """

    group: str
    units: int
    unit_cost: float
    fixed_cost: float = 0.0
    sublayer: tuple[str, int] | None = None
    block: tuple[str, int] | None = None

    @property
    def total(self) -> float:
        """Cost of the sublayer with nothing removed."""
        return self.unit_cost * self.units + self.fixed_cost


class ExpectedSize:
    """Expected cost that is left when masks are sampled, as a differentiable function of P(open).

    Masks are independent, so with p the units' probabilities the expectation of a sublayer is
    ``p_block p_sublayer (unit_cost sum(p) + fixed_cost (1 - prod(1 - p)))``.

    Args:
        sublayers: everything that counts; groups without a probability are taken as fully open.
        count: ``exact`` as above; ``weights`` spreads the fixed cost evenly over the units, as the released
            code of CoFi and NASH does (but without rounding each unit down to whole parameters).
        device: where the probabilities will live.
    """

    def __init__(
        self,
        sublayers: Sequence[SublayerCost],
        *,
        count: CountMode = "exact",
        device: torch.device | str = "cpu",
    ) -> None:
        self.total = sum(sublayer.total for sublayer in sublayers)
        gates = [gate for s in sublayers for gate in (s.sublayer, s.block) if gate is not None]
        self._gate_groups = {name for name, _ in gates}
        # Sublayers of equal width are rows of one matrix: a whole stack then costs a handful of operations.
        by_width = groupby(sorted(sublayers, key=lambda s: s.units), key=lambda s: s.units)
        self._tables = [_CostTable(list(rows), count, device) for _, rows in by_width]

    def kept(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected cost that is kept.

        Args:
            probabilities: P(open) per group name, ``[N]`` each, as ``L0Masks.probabilities`` gives them.

        Returns:
            Scalar between 0 and ``total``, in the unit of the costs.
        """
        gates = {name: p.unbind() for name, p in probabilities.items() if name in self._gate_groups}
        return torch.stack([table.kept(probabilities, gates) for table in self._tables]).sum()

    def sparsity(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected removed share, ``1 - kept / total``; a scalar in [0, 1]."""
        return 1 - self.kept(probabilities) / self.total


class _CostTable:
    """The sublayers of one width, as the rows of a matrix."""

    def __init__(self, rows: list[SublayerCost], count: CountMode, device: torch.device | str) -> None:
        self.rows = rows
        spread = [s.total / s.units if count == "weights" else s.unit_cost for s in rows]
        fixed = [0.0 if count == "weights" else s.fixed_cost for s in rows]
        self.unit_cost = torch.tensor(spread, dtype=torch.float32, device=device)  # [S]
        self.fixed_cost = torch.tensor(fixed, dtype=torch.float32, device=device)  # [S]
        self.has_fixed_cost = any(fixed)
        self.open_units = torch.ones(rows[0].units, device=device)  # [N]
        self.open_gate = torch.ones((), device=device)

    def kept(self, probabilities: Mapping[str, Tensor], gates: Mapping[str, Sequence[Tensor]]) -> Tensor:
        p = torch.stack([probabilities.get(row.group, self.open_units) for row in self.rows])  # [S, N]
        inside = self.unit_cost * p.sum(-1)  # [S]
        if self.has_fixed_cost:
            log_all_closed = (1 - p).clamp_min(_TINY).log().sum(-1)  # [S]
            inside = inside - self.fixed_cost * torch.expm1(log_all_closed)
        for entries in ([row.sublayer for row in self.rows], [row.block for row in self.rows]):
            found = [gates[e[0]][e[1]] if e and e[0] in gates else self.open_gate for e in entries]
            inside = inside * torch.stack(found)
        return inside.sum()


class Lagrangian(nn.Module):
    """Two multipliers that push the expected sparsity to a target, which rises over a warm-up.

    ``penalty = lambda_1 gap + lambda_2 gap^2`` with ``gap = expected sparsity - target_at(step)``; Wang et
    al. 2020. The masks descend on it, the multipliers ascend: give these an optimiser group of their own with
    ``maximize=True``, no weight decay and the masks' learning rate, constant. ``lambda_1`` takes either sign;
    the gradient of ``lambda_2`` is a square, so it never falls.

    The state dict holds the multipliers only: to resume, build with the same arguments, load it, and go on at
    the same step.

    Args:
        target: sparsity to reach, in [0, 1).
        warmup_steps: optimiser steps until the target stands at ``target``; 0 puts it there at once.
        start: sparsity that the target starts from; the masks' initial one avoids a first push the wrong way.
    """

    def __init__(self, target: float, warmup_steps: int, *, start: float = 0.0) -> None:
        super().__init__()
        self.target = target
        self.warmup_steps = warmup_steps
        self.start = start
        self.lambda_1 = nn.Parameter(torch.zeros(()))
        self.lambda_2 = nn.Parameter(torch.zeros(()))

    def target_at(self, step: int) -> float:
        """Target sparsity at a step, counted from 0 where pruning starts; linear, then constant."""
        if step >= self.warmup_steps:
            return self.target
        return self.start + (self.target - self.start) * step / self.warmup_steps

    def penalty(self, expected_sparsity: Tensor, step: int) -> Tensor:
        """The term to add to the loss: a scalar, float32, of either sign."""
        gap = expected_sparsity.float() - self.target_at(step)
        return self.lambda_1.float() * gap + self.lambda_2.float() * gap.square()


def steps_to_reach(mask_learning_rate: float, *, initial_logit: float = OPEN_LOGIT) -> int:
    """Fewest optimiser steps in which the constraint alone can close a mask element.

    Follows one logit under Adam (betas 0.9 and 0.999) from its start to ``CLOSING_LOGIT``, pulled by a
    multiplier that grows evenly, as it does while the target is far away. The gradient grows as the logit
    falls, and Adam then moves up to three learning rates a step, so distance over learning rate is no lower
    bound. To settle on its target as well, a run needs several times as many steps.

    Args:
        mask_learning_rate: learning rate of the logits, above 0.
        initial_logit: where the logit starts; the first clamp brings it to at most ``MAX_LOGIT``.
    """
    logit = min(initial_logit, MAX_LOGIT)
    mean = square = 0.0
    step = 0
    while logit >= CLOSING_LOGIT:
        step += 1
        open_ = 1 / (1 + math.exp(CLOSING_LOGIT - logit))
        gradient = step * open_ * (1 - open_)
        mean += (1 - 0.9) * (gradient - mean)
        square += (1 - 0.999) * (gradient**2 - square)
        logit -= mask_learning_rate * (mean / (1 - 0.9**step)) / math.sqrt(square / (1 - 0.999**step))
    return step
