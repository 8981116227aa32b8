"""From trained mask logits to the final masks of a goal, cut to its budget within one unit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prunekit.adapters.base import Structure
from prunekit.learned.goal import Goal
from prunekit.pruning.budget import keep_by_score
from prunekit.pruning.cost import SublayerCost
from prunekit.pruning.units import HIDDEN, block_group, sublayer_group
from prunekit.training import l0

Entry = tuple[str, int]


def snapped_masks(
    goal: Goal, masks: l0.L0Masks, structure: Structure, final: l0.FinalMask
) -> dict[str, Tensor]:
    """The goal's masks, with its sparsity met to within one unit (one bundle, where widths are rounded).

    Hidden units, sublayers and blocks are decided first, as ``L0Masks.deterministic`` does. Heads and neurons
    of the sublayers that are left then go in the order of their logits until the budget is met
    (``keep_by_score``); a sublayer that loses all of them is gone as well. If the first decisions alone
    remove too much, closed sublayers are reopened, then blocks, then hidden units, the highest logit first,
    until that is no longer so. Where heads and neurons are not enough, as not all are masked, hidden units
    close, then sublayers, then blocks, the lowest logit first.

    Without masks on heads and neurons, the budget is met to within one hidden unit. Without these too,
    sublayers or blocks go by their logits alone: the result is as near to the budget as wholes allow, and not
    below it where they all cost the same.

    Args:
        goal: the goal.
        masks: trained logits of its groups.
        structure: the model's.
        final: ``soft`` scales what is kept by ``sigmoid(1.2 logit)``, blocks excepted; ``binary`` by 1.

    Returns:
        For each group of the goal ``[N]``, 0 where removed, on the logits' device.

    Raises:
        BudgetError: if all that is masked together is not enough.
    """
    state = _State(goal, masks, structure)
    units = {
        sub.units.name: sub.name
        for sub in (structure.sublayers[name] for name in goal.costs)
        if sub.units.name in goal.masks
    }
    if units or HIDDEN in goal.masks:
        if not units:
            state.open[HIDDEN] = set(range(len(state.logits[HIDDEN])))
        state.reopen()
        state.close()
    else:
        _cut_wholes(state)
    if units:
        _cut_units(state, units)
    return {name: _values(masks, name, kept, final) for name, kept in state.open.items()}


def rounded_masks(masks: l0.L0Masks, final: l0.FinalMask) -> dict[str, Tensor]:
    """Every group cut by itself to its expected number of units, whatever the budget."""
    found = {}
    for name, mask in masks.deterministic("binary").items():
        kept = mask.nonzero().flatten().tolist()
        if masks.kinds[name] == "hidden" and not kept:
            kept = [int(masks.log_alpha(name).argmax())]
        found[name] = _values(masks, name, set(kept), final)
    return found


def _values(masks: l0.L0Masks, name: str, kept: set[int], final: l0.FinalMask) -> Tensor:
    logits = masks.log_alpha(name).detach().float()
    index = torch.tensor(sorted(kept), dtype=torch.long, device=logits.device)
    values = torch.sigmoid(l0.EVALUATION_GAIN / l0.TEMPERATURE * logits[index])
    if final == "binary" or masks.kinds[name] == "block":
        values = torch.ones_like(values)
    return torch.zeros_like(logits).index_copy(0, index, values)


class _State:
    """What of a goal is open; heads and neurons count as open until they are cut.

    Attributes:
        open: for each group of the goal the indices that are kept.
        wanted: cost that may be left.
        rounding: below this, a difference of costs is none.
    """

    def __init__(self, goal: Goal, masks: l0.L0Masks, structure: Structure) -> None:
        self.goal, self.masks, self.structure = goal, masks, structure
        self.logits = {name: masks.log_alpha(name).detach().float().cpu() for name in goal.masks}
        self.wanted = (1 - goal.sparsity) * goal.total
        self.rounding = 1e-9 * goal.total
        coarse = masks.deterministic("binary")
        self.open: dict[str, set[int]] = {}
        for name in goal.masks:
            is_unit = masks.kinds[name] in ("head", "neuron")
            mask = torch.ones_like(self.logits[name]) if is_unit else coarse[name]
            self.open[name] = set(mask.nonzero().flatten().tolist())
        if HIDDEN in self.open and not self.open[HIDDEN]:
            self.open[HIDDEN] = {int(self.logits[HIDDEN].argmax())}

    def gates(self, name: str) -> list[Entry]:
        """The mask entries on a sublayer and on its block."""
        sub = self.structure.sublayers[name]
        groups = (sublayer_group(sub.stack, sub.role), block_group(sub.stack))
        return [(group, sub.block) for group in groups if group in self.open]

    def is_open(self, entry: Entry) -> bool:
        """Whether a mask entry is kept."""
        return entry[1] in self.open[entry[0]]

    def alive(self) -> dict[str, SublayerCost]:
        """What the sublayers that are left cost with all their units, at the present width."""
        cut = self.structure.groups[HIDDEN].size - len(self.open[HIDDEN]) if HIDDEN in self.open else 0
        return {
            name: cost.narrowed(cut)
            for name, cost in self.goal.costs.items()
            if all(self.is_open(entry) for entry in self.gates(name))
        }

    def left(self) -> float:
        """What they cost together."""
        return sum(cost.prunable for cost in self.alive().values())

    def reopen(self) -> None:
        """Open sublayers of open blocks, then blocks, then hidden units, until enough is left."""
        while self.left() < self.wanted - self.rounding:
            closed = ([entry for entry in kind if not self.is_open(entry)] for kind in self._entries())
            candidates = next(entries for entries in closed if entries)
            group, index = max(candidates, key=self.logit)
            self.open[group].add(index)

    def close(self) -> None:
        """Close hidden units, then sublayers, then blocks, until units can do the rest."""
        while self._without_units() > self.wanted + self.rounding:
            sublayers, blocks, hidden = (
                [entry for entry in kind if self.is_open(entry)] for kind in self._entries()
            )
            fixed = [entry for entry in sublayers if not self.open.keys() & self._units_under(entry)]
            # Of hidden units and of blocks one always stays.
            kinds = (hidden if len(hidden) > 1 else [], fixed, blocks if len(blocks) > 1 else [])
            candidates = next((entries for entries in kinds if entries), None)
            if candidates is None:
                return
            group, index = min(candidates, key=self.logit)
            self.open[group].remove(index)

    def _without_units(self) -> float:
        """What would be left without any head and neuron that has a mask."""
        units = {name: self.structure.sublayers[name].units.name for name in self.goal.costs}
        alive = self.alive().items()
        return sum(cost.prunable for name, cost in alive if units[name] not in self.open)

    def _units_under(self, entry: Entry) -> set[str]:
        names = [name for name in self.goal.costs if entry in self.gates(name)]
        return {self.structure.sublayers[name].units.name for name in names}

    def _entries(self) -> tuple[list[Entry], list[Entry], list[Entry]]:
        """Mask entries on sublayers whose block is open, on blocks, on hidden units."""
        sublayers, blocks = [], []
        for name in self.goal.costs:
            kinds = {self.masks.kinds[entry[0]]: entry for entry in self.gates(name)}
            block = kinds.get("block")
            if block is not None and block not in blocks:
                blocks.append(block)
            if "sublayer" in kinds and (block is None or self.is_open(block)):
                sublayers.append(kinds["sublayer"])
        return sublayers, blocks, [(HIDDEN, i) for i in range(len(self.logits.get(HIDDEN, ())))]

    def logit(self, entry: Entry) -> float:
        """The trained logit of a mask entry."""
        return float(self.logits[entry[0]][entry[1]])


def _cut_units(state: _State, units: Mapping[str, str]) -> None:
    alive = state.alive()
    left = sum(cost.prunable for cost in alive.values())
    # The share of what is left that must go; the sparsity itself, to the last bit, where nothing is gone yet.
    share = state.goal.sparsity - (1 - state.goal.sparsity) * (state.goal.total - left) / left
    logits = {group: state.logits[group] for group, name in units.items() if name in alive}
    kept = keep_by_score(logits, alive, state.structure, max(share, 0.0), round_to=state.goal.round_to)
    for group in units:
        state.open[group] = set(kept.get(group, ()))


def _cut_wholes(state: _State) -> None:
    for group, logits in state.logits.items():
        state.open[group] = set(range(len(logits)))
    entries = list(dict.fromkeys(entry for name in state.goal.costs for entry in state.gates(name)))
    entries.sort(key=lambda entry: (state.logit(entry), *entry))
    prices = [state.left() - _left_without(state, entry) for entry in entries]
    for group, index in entries:
        if _left_without(state, (group, index)) >= state.wanted - state.rounding:
            state.open[group].remove(index)
    gap = state.left() - state.wanted
    rest = [entry for entry in entries if state.is_open(entry) and _left_without(state, entry) > 0]
    if gap <= state.rounding or not rest:
        return
    group, index = min(rest, key=lambda entry: abs(_left_without(state, entry) - state.wanted))
    alike = max(prices) - min(prices) <= state.rounding
    if alike or abs(_left_without(state, (group, index)) - state.wanted) <= gap:
        state.open[group].remove(index)


def _left_without(state: _State, entry: Entry) -> float:
    group, index = entry
    state.open[group].remove(index)
    left = state.left()
    state.open[group].add(index)
    return left
