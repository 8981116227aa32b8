"""What the rules for adapters share: outputs, differences, masks, and arithmetic that stays in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from prunekit.errors import PrunekitError
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import HIDDEN, block_group, sublayer_group
from prunekit.testing.outcome import CheckFailed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.pruning.target import PrunableModel
    from prunekit.pruning.units import UnitGroup

TOLERANCE = 1e-10
"""Largest difference allowed, as a share of the largest output where that exceeds 1; rounding is 1e-14."""
VISIBLE = 1e-6
"""Smallest difference that removing something must make; on tiny models it makes 1e-3 to 10."""

Masks = dict[str, Tensor]


def expect(holds: bool, text: str | Callable[[], str]) -> None:
    """Raise ``CheckFailed`` with ``text`` unless ``holds``."""
    if not holds:
        raise CheckFailed(text if isinstance(text, str) else text())


class _Float64Stays(TorchFunctionMode):
    """Lets nothing round a float64 tensor to float32, as some norms and softmaxes do in any precision.

    Masked and pruned models sum over different numbers of entries, so such roundings fall differently, and a
    fault of 1e-8 could not be told from them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if func is Tensor.float:
                return args[0]
            args = (args[0], *(torch.float64 if each is torch.float32 else each for each in args[1:]))
            if kwargs.get("dtype") is torch.float32:
                kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


@contextmanager
def exact() -> Iterator[None]:
    """Compute without gradients, in float64 throughout."""
    with torch.no_grad(), _Float64Stays():
        yield


def exact_with_gradients() -> TorchFunctionMode:
    """As ``exact``, with gradients."""
    return _Float64Stays()


def outputs(model: PreTrainedModel, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every floating-point tensor that the model returns, by name."""
    found = model(**inputs)
    return {
        name: tensor
        for name, tensor in found.items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point()
    }


def difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Largest difference, as a share of the largest value where that exceeds 1; infinite for other shapes."""
    if first.keys() != second.keys() or any(first[n].shape != second[n].shape for n in first):
        return float("inf")
    largest = max(1.0, *(float(tensor.abs().max()) for tensor in first.values()))
    return max(float((first[name] - second[name]).abs().max()) for name in first) / largest


def narrowed(
    states: Mapping[str, Tensor], small: Mapping[str, Tensor], plan: PruningPlan
) -> dict[str, Tensor]:
    """The kept hidden units of those states that are as wide as the stream; a pruned model has no others."""
    kept = list(plan.keep.get(HIDDEN, ()))
    return {
        name: state[..., kept]
        if kept and name in small and state.shape[-1] != small[name].shape[-1]
        else state
        for name, state in states.items()
    }


def pruned(
    target: PrunableModel, masks: Mapping[str, Tensor], what: str
) -> tuple[PruningPlan, PrunableModel]:
    """The plan of ``masks`` and the target cut to it.

    Raises:
        CheckFailed: if it cannot be cut, with ``what`` was to be removed.
    """
    plan = PruningPlan.from_masks(masks, target.groups)
    try:
        return plan, target.pruned(plan)
    except PrunekitError as error:
        raise CheckFailed(
            f"{what}: {type(target.model).__name__} cannot be cut: {type(error).__name__}: {error}"
        ) from error


def random_masks(groups: Iterable[UnitGroup], *, seed: int, soft: bool = False) -> Masks:
    """A mask for each group, with at least one unit on and one off; those on are soft but for blocks."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for group in groups:
        mask = (torch.rand(group.size, generator=generator) < 0.5).double()
        order = torch.randperm(group.size, generator=generator)
        mask[order[-1]] = 0
        mask[order[0]] = 1
        if soft and group.kind != "block":
            mask *= 0.3 + torch.rand(group.size, generator=generator, dtype=torch.float64)
        masks[group.name] = mask
    return masks


def off(target: PrunableModel, *closed: tuple[str, int | None]) -> Masks:
    """Masks that close single units of groups, or all of a group where the index is none."""
    masks: Masks = {}
    for name, index in closed:
        mask = masks.setdefault(name, torch.ones(target.groups[name].size, dtype=torch.float64))
        mask[slice(None) if index is None else index] = 0
    return masks


def mixtures(target: PrunableModel) -> dict[str, Masks]:
    """Several kinds of units at once, with dead sublayers among them, by what is removed."""
    groups = target.groups.values()
    kinds = ("head", "neuron", "sublayer", "block")
    found = {
        "half of the heads and neurons": random_masks(
            [g for g in groups if g.kind in ("head", "neuron")], seed=3
        ),
        "some of everything but hidden units": random_masks([g for g in groups if g.kind in kinds], seed=4),
        "the same with factors": random_masks([g for g in groups if g.kind in kinds], seed=4, soft=True),
    }
    if HIDDEN in target.groups:
        found["some of everything"] = random_masks(groups, seed=5, soft=True)
    return found


def edges(target: PrunableModel) -> dict[str, Masks]:
    """Where tables and their quirks go wrong: first and last blocks, dead sublayers, all of a role."""
    found: dict[str, Masks] = {}
    for stack in target.structure.stacks.values():
        blocks = block_group(stack.name)
        for block in {0, stack.depth // 2, stack.depth - 1} if stack.depth > 1 else ():
            found[f"block {block} of the {stack.name}"] = off(target, (blocks, block))
        for role in stack.roles:
            group = sublayer_group(stack.name, role)
            last = target.structure.sublayers.get(f"{stack.name}.{stack.depth - 1}.{role}")
            first = target.structure.sublayers.get(f"{stack.name}.0.{role}")
            found[f"every {role} of the {stack.name}"] = off(target, (group, None))
            found[f"{stack.name}.1.{role}"] = off(target, (group, min(1, stack.depth - 1)))
            if first is not None:
                found[f"all units of {first.name}"] = off(target, (first.units.name, None))
            if last is not None and stack.depth > 1 and last.units.kind == "head":
                found[f"block 0 of the {stack.name} and a head of {last.name}"] = off(
                    target, (blocks, 0), (last.units.name, 0)
                )
    return found


def irregular(target: PrunableModel) -> Masks:
    """What no stock config can say: single units, a dead sublayer and a block of every stack."""
    closed: list[tuple[str, int | None]] = []
    for stack in target.structure.stacks.values():
        closed.append((block_group(stack.name), 0))
        subs = [sub for sub in target.structure.sublayers.values() if sub.stack == stack.name]
        for sub in subs:
            if sub.block == stack.depth - 1:
                closed += [(sub.units.name, unit) for unit in range(0, sub.units.size - 1, 2)]
        first = next((sub for sub in subs if sub.block == 1), None)
        if first is not None and stack.depth > 2:
            closed.append((first.units.name, None))
    return off(target, *closed)


def listed(items: Sequence[str], limit: int = 6) -> str:
    """Items in a sentence, the first few of them."""
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")
