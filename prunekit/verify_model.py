"""What a finished run's models are checked for: each function says what it found, or raises."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunekit.errors import VerificationError
from prunekit.model_fit import check_fit
from prunekit.models import load_config, model_class, read_weights
from prunekit.pruning.target import PrunableModel
from prunekit.pruning.verify import ONLY_PLAN, forced_generation, verify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedModel

    from prunekit.pruning.plan import PruningPlan

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_SHOWN = 4


def strictly_loaded(folder: Path) -> PreTrainedModel:
    """The model of a folder, in float32 and eval mode, where its file has just the tensors it is made of.

    Raises:
        VerificationError: naming the tensors that are missing, unknown or of another shape.
        PrunekitError: if the folder cannot be loaded at all.
    """
    config = load_config(str(folder))
    found = model_class(config)
    check_fit(found, config, folder, strict=True)
    model, info = read_weights(found, folder, str(folder))
    faults = [f"{name} is missing" for name in sorted(info["missing_keys"])]
    faults += [f"{name} is no part of the model" for name in sorted(info["unexpected_keys"])]
    faults += [f"{row[0]} has another shape" for row in info["mismatched_keys"]]
    if faults:
        raise VerificationError(f"{len(faults)} tensors are wrong: {_listed(faults)}")
    loaded: PreTrainedModel = model.eval()
    return loaded


def not_finite(model: PreTrainedModel) -> list[str]:
    """Names of the model's tensors that hold NaN or infinity."""
    return [
        name
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]


def same_shapes(model: PreTrainedModel, other: PreTrainedModel) -> str:
    """How many tensors two models share in name and shape.

    Raises:
        VerificationError: naming those that differ.
    """
    ours, theirs = (
        {name: tuple(tensor.shape) for name, tensor in each.state_dict().items()} for each in (model, other)
    )
    faults = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if faults:
        raise VerificationError(
            f"{len(faults)} tensors are not shaped as those of the final model: {_listed(faults)}"
        )
    return f"{len(ours)} tensors of the final model's shapes"


def cut_again(dense: PrunableModel, pruned: PreTrainedModel, plan: PruningPlan) -> str:
    """How many tensors the plan, applied to the dense model anew, gives bit for bit as they were saved.

    Raises:
        VerificationError: naming the tensors that differ.
    """
    expected, found = dense.pruned(plan).model.state_dict(), pruned.state_dict()
    faults = [
        name
        for name in sorted({*expected, *found})
        if name not in expected or name not in found or not torch.equal(expected[name], found[name])
    ]
    if faults:
        raise VerificationError(
            f"{len(faults)} of {len(expected)} tensors are not what the plan cuts from the dense model: "
            f"{_listed(faults)}"
        )
    return f"{len(expected)} tensors equal bit for bit"


def masked_equals(
    dense: PrunableModel, pruned: PreTrainedModel, plan: PruningPlan, batch: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Compare a pruned model, trained or not, with the dense model that holds its weights under masks.

    The pruned model's weights are put back to where in the dense model they were cut from; what was cut away
    stays the dense model's, and the masks must silence it. Then ``prunekit.pruning.verify.verify`` compares.

    Returns:
        What that returns.

    Raises:
        VerificationError: if the two differ, or the weights have no such places.
    """
    # Scales are in the pruned weights already.
    keep = plan.model_copy(update={"scale": {}})
    whole = _put_back(dense, pruned, keep)
    try:
        return verify(whole, PrunableModel(deepcopy(pruned), dense.adapter), keep, batch)
    except VerificationError as error:
        # What it advises is for a run that is under way.
        raise VerificationError(str(error).partition(f" {ONLY_PLAN}")[0]) from error


def _put_back(dense: PrunableModel, pruned: PreTrainedModel, keep: PruningPlan) -> PrunableModel:
    """A copy of the dense model with the pruned one's weights at the places they were cut from."""
    numbered = dense.copy()
    numbered.model.double()
    start = 0
    with torch.no_grad():
        for parameter in numbered.model.parameters():
            parameter.copy_(torch.arange(start, start + parameter.numel()).view_as(parameter))
            start += parameter.numel()
    places = dict(numbered.pruned(keep).model.named_parameters())
    theirs = dict(pruned.named_parameters())
    strange = [
        name
        for name in sorted({*places, *theirs})
        if name not in places or name not in theirs or places[name].shape != theirs[name].shape
    ]
    if strange:
        raise VerificationError(
            f"{len(strange)} parameters are not those that the plan leaves of the dense model: "
            f"{_listed(strange)}"
        )
    flat = torch.cat([parameter.detach().flatten() for parameter in dense.model.parameters()])
    for name, place in places.items():
        flat[place.detach().long()] = theirs[name].detach().to(flat.dtype)
    whole = dense.copy()
    start = 0
    with torch.no_grad():
        for parameter in whole.model.parameters():
            parameter.copy_(flat[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()
    return whole


def cached_equals_uncached(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> int:
    """How many tokens beam search gives alike with a cache and without one, in float64.

    Raises:
        VerificationError: if they differ.
    """
    exact = deepcopy(model).double().cpu().eval()
    cached, uncached = (forced_generation(exact, batch, use_cache=flag) for flag in (True, False))
    if not torch.equal(cached, uncached):
        count = int((cached != uncached).sum()) if cached.shape == uncached.shape else cached.numel()
        raise VerificationError(f"{count} of {cached.numel()} tokens differ without the cache")
    return cached.numel()


def tied(model: PreTrainedModel) -> list[tuple[str, str]]:
    """Pairs of names that the model says are one tensor.

    Raises:
        VerificationError: if such a pair is two tensors.
    """
    pairs = sorted(dict(getattr(model, "all_tied_weights_keys", None) or {}).items())
    named = dict(model.named_parameters(remove_duplicate=False))
    apart = [f"{a} and {b}" for a, b in pairs if a in named and named[a] is not named.get(b)]
    if apart:
        raise VerificationError(f"{len(apart)} pairs of tied weights are two tensors: {_listed(apart)}")
    return [(a, b) for a, b in pairs if a in named]


def pickles(folder: Path) -> tuple[list[str], int]:
    """Files below a folder that are pickles by their name or their first bytes; and how many files there are.

    A link is not followed: what it leads to is no part of the folder.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [path.relative_to(folder).as_posix() for path in files if _is_pickle(path)], len(files)


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4)
    # Pickle protocols 2 to 5; torch.save of today writes a zip archive of pickles.
    protocol = len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5
    return path.suffix.lower() in PICKLES or protocol or head == b"PK\x03\x04"


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
