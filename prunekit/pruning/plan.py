"""The pruning plan: which units are kept, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import prunekit.suggest
from prunekit.errors import PlanError
from prunekit.files import write_text
from prunekit.json_files import read_strictly
from prunekit.pruning.units import UnitGroup
from prunekit.shown import Shown, as_html, as_text, visible

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
_SHOWN_GROUPS = 24
_SHOWN_FAULTS = 5
_LARGEST_SCALE = 3.4e38  # what float32 holds; a larger one makes weights infinite


class PruningPlan(BaseModel):
    """What a method hands on.

    Attributes:
        keep: for each group, the sorted unique indices of the units that stay; an absent group stays whole.
        scale: for each group, one factor per kept unit, multiplied into the weights by surgery.
        model_type: transformers' model type of the dense model.
        base_model: name of the dense model, as the recipe gives it.
        base_config_sha256: hash of the dense model's config.
        method: name of the method.
        method_version: version of the distribution that provides it.
        recipe_sha256: hash of the resolved recipe.
        budget: what was asked.
        achieved: what the kept units amount to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    keep: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    scale: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    model_type: str = ""
    base_model: str = ""
    base_config_sha256: str = ""
    method: str = ""
    method_version: str = ""
    recipe_sha256: str = ""
    budget: dict[str, Any] = Field(default_factory=dict)
    achieved: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def from_masks(cls, masks: Mapping[str, Tensor], groups: Mapping[str, UnitGroup]) -> PruningPlan:
        """Keep the units whose mask is not zero, with the mask's value as their scale.

        Args:
            masks: for each group, ``[N]`` with 0 for a removed unit.
            groups: the model's groups.

        Raises:
            PlanError: if a group is unknown, a length is wrong, or a block's mask is neither 0 nor 1.
        """
        keep: dict[str, tuple[int, ...]] = {}
        scale: dict[str, tuple[float, ...]] = {}
        for name, mask in masks.items():
            values = mask.detach().double().cpu().tolist()
            kept = tuple(i for i, value in enumerate(values) if value != 0)
            factors = tuple(values[i] for i in kept)
            group = groups.get(name)
            if group is not None and len(values) != group.size:
                raise PlanError(
                    f"mask of {name} has {len(values)} entries; the group has {group.size} units."
                )
            if any(factor != 1 for factor in factors):
                if group is not None and group.kind == "block":
                    found = _short(sorted(set(factors)))
                    raise PlanError(f"{name}: a block's mask must be 0 or 1, found {found}.")
                scale[name] = factors
            if len(kept) < len(values) or name in scale:
                keep[name] = kept
        plan = cls(keep=keep, scale=scale)
        plan.check(groups)
        return plan

    def check(self, groups: Mapping[str, UnitGroup]) -> None:
        """Compare the plan with a model's groups.

        Raises:
            PlanError: naming the group, what was found and what is allowed.
        """
        for name, kept in self.keep.items():
            group = groups.get(name)
            if group is None:
                hint = prunekit.suggest.did_you_mean(name, groups)
                raise PlanError(f"the plan names the group {name!r}, which this model does not have{hint}")
            if list(kept) != sorted(set(kept)):
                raise PlanError(f"{name}: kept indices must be sorted and unique, found {_short(kept)}.")
            if kept and not (kept[0] >= 0 and kept[-1] < group.size):
                raise PlanError(
                    f"{name}: kept indices must lie between 0 and {group.size - 1}, found {_short(kept)}."
                )
            if group.kind in ("block", "hidden") and not kept:
                unit = "block" if group.kind == "block" else "hidden unit"
                raise PlanError(f"{name}: at least one {unit} must be kept.")
        for name, factors in self.scale.items():
            if name not in groups:
                hint = prunekit.suggest.did_you_mean(name, groups)
                raise PlanError(f"the plan scales the group {name!r}, which this model does not have{hint}")
            if len(factors) != len(self.keep.get(name, ())):
                raise PlanError(
                    f"{name}: {len(factors)} scales for {len(self.keep.get(name, ()))} kept units; "
                    "give one for each."
                )
            if any(factor == 0 or not isfinite(factor) for factor in factors):
                raise PlanError(
                    f"{name}: scales must be finite and not 0, found {_short(sorted(set(factors)))}. To "
                    "remove a unit, leave it out of `keep`."
                )
            if any(abs(factor) > _LARGEST_SCALE for factor in factors):
                raise PlanError(
                    f"{name}: scales must lie between -{_LARGEST_SCALE:g} and {_LARGEST_SCALE:g}, found "
                    f"{max(factors, key=abs):g}, which makes weights infinite."
                )
            if groups[name].kind == "block" and set(factors) - {1}:
                raise PlanError(f"{name}: a block's scale must be 1, found {_short(sorted(set(factors)))}.")

    def masks(self, groups: Mapping[str, UnitGroup]) -> dict[str, Tensor]:
        """The masks ``[N]`` (float64) under which the dense model equals the pruned one.

        Raises:
            PlanError: if the plan does not fit the groups, as ``check`` says.
        """
        import torch

        self.check(groups)
        masks = {}
        for name, kept in self.keep.items():
            mask = torch.zeros(groups[name].size, dtype=torch.float64)
            factors = self.scale.get(name, (1.0,) * len(kept))
            mask[list(kept)] = torch.tensor(factors, dtype=torch.float64)
            masks[name] = mask
        return masks

    def merged(self, other: PruningPlan) -> PruningPlan:
        """This plan's groups and ``other``'s, which speak of different groups of the same model."""
        return self.model_copy(
            update={"keep": {**self.keep, **other.keep}, "scale": {**self.scale, **other.scale}}
        )

    def save(self, path: Path) -> None:
        """Write ``plan.json``."""
        write_text(path, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> PruningPlan:
        """Read ``plan.json``.

        Raises:
            PlanError: if it is not JSON, has another format, or holds unknown keys or values that are no
                indices and factors; the text says which.
        """
        try:
            data, text = read_strictly(path)
            found = data.get("format", FORMAT) if isinstance(data, dict) else FORMAT
            if found != FORMAT:
                raise PlanError(
                    f"{path} has plan format {visible(str(found), 40)}; this prunekit reads format {FORMAT}."
                )
            return cls.model_validate_json(text.encode(), strict=True)
        except ValidationError as error:
            raise PlanError(f"{path} is not a pruning plan: {_faults(error)}") from error
        except (OSError, ValueError) as error:
            raise PlanError(
                f"{path} is not a pruning plan: {visible(str(error), 300)}. Give the plan.json of a run; to "
                "make this one again, delete it and run the recipe."
            ) from error

    def __repr__(self) -> str:
        return as_text([self._shown()])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return as_html([self._shown()])

    def _shown(self) -> Shown:
        of = " ".join(
            f"{word} {name}" for word, name in (("of", self.method), ("for", self.base_model)) if name
        )
        rows = [
            (name, str(len(kept)), _short(kept)) for name, kept in list(self.keep.items())[:_SHOWN_GROUPS]
        ]
        more = len(self.keep) - len(rows)
        return Shown(
            f"PruningPlan {of}".strip() + f": {len(self.keep)} groups named, all others stay whole",
            ("group", "kept", "units"),
            rows,
            [f"and {more} more groups"] if more else [],
        )


def _short(numbers: Sequence[float]) -> str:
    # Python refuses to print whole numbers of thousands of digits.
    huge = "a number of thousands of digits"
    texts = [huge if isinstance(n, int) and abs(n) > 10**400 else str(n) for n in numbers[:8]]
    return f"[{', '.join(texts)}{', …' if len(numbers) > 8 else ''}]"


def _faults(error: ValidationError) -> str:
    """The first faults, each with its place and the value there, on a line of its own."""
    details = error.errors(include_url=False, include_context=False)
    lines = []
    for each in details[:_SHOWN_FAULTS]:
        place, said = ".".join(map(str, each["loc"])), each["msg"].replace("Input should", "must")
        lines.append(f"{visible(place, 80)} = {visible(repr(each['input']), 40)}: {said}")
    more = len(details) - len(lines)
    return "\n  ".join(["", *lines, *([f"and {more} more"] if more else [])])
