"""A static cache and ``torch.compile``, and the proof that they changed no output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunekit.errors import PrunekitError
from prunekit.measure.failures import describe, is_out_of_memory
from prunekit.measure.prepare import generates

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import SpeedSpec

# Of the largest output. Fused kernels sum in another order, and in 16 bits they round less often.
FORWARD_TOLERANCE = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02}


def is_accelerated(spec: SpeedSpec) -> bool:
    """Whether ``spec`` asks for anything that could change outputs."""
    return spec.static_cache or spec.compile


@contextmanager
def accelerated(model: PreTrainedModel, spec: SpeedSpec) -> Iterator[None]:
    """The static cache and the compiled forward of ``spec`` while the block runs.

    For ``generate`` the encoder is compiled beside the model, whose forward then gets the encoder's outputs.
    Enter it inside `prunekit.measure.prepare.prepared`, whose generation settings it changes.
    """
    if spec.static_cache:
        model.generation_config.cache_implementation = "static"
    modules = [model, *([model.get_encoder()] if generates(model) else [])] if spec.compile else []
    forwards = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = torch.compile(module.forward)
        yield
    finally:
        for module, forward in zip(modules, forwards, strict=True):
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward
        if modules:
            # The next measurement has other shapes; a kernel made general for both would be slower for each.
            torch.compiler.reset()


def check_output(plain: Any, run: Callable[[], Any], spec: SpeedSpec) -> dict[str, Any]:
    """Run the accelerated call once and compare it with the plain one.

    Args:
        plain: token ids of ``generate``, ``[B, T]``, or what ``forward`` returned.
        run: the same call with the options on.
        spec: names the options and the number format.

    Returns:
        ``compared``: "tokens" with ``equal`` (share of equal positions; must be 1 in fp32, and is told in 16
        bits, where rounding may change a choice), or "outputs" with ``max_abs`` and ``tolerance``.

    Raises:
        PrunekitError: if the call fails with the options on, or gives something else.
    """
    what = " and ".join(
        word
        for word, asked in (("a static cache", spec.static_cache), ("torch.compile", spec.compile))
        if asked
    )
    try:
        found = run()
    # The plain call has just gone through, so whatever comes out of the compiler's many layers is its own.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise PrunekitError(
            f"does not run with {what}: {describe(error)}. Measure it without, or with other versions of "
            "torch and transformers."
        ) from error
    if isinstance(plain, Tensor):
        return _same_tokens(plain, found, what, spec)
    return _same_outputs(_tensors(plain), _tensors(found), what, spec)


def _same_tokens(plain: Tensor, found: Tensor, what: str, spec: SpeedSpec) -> dict[str, Any]:
    equal = float((plain == found).float().mean()) if plain.shape == found.shape else 0.0
    if equal < 1 and spec.dtype == "fp32":
        raise PrunekitError(
            f"generates other tokens with {what}: {equal:.1%} are those of the plain call, in fp32. Its time "
            "would be that of another model."
        )
    return {"compared": "tokens", "equal": equal}


def _same_outputs(plain: list[Tensor], found: list[Tensor], what: str, spec: SpeedSpec) -> dict[str, Any]:
    pairs = list(zip(plain, found, strict=True))
    furthest = max(float((a.float() - b.float()).abs().max()) for a, b in pairs)
    tolerance = FORWARD_TOLERANCE[spec.dtype] * max(float(tensor.float().abs().max()) for tensor in plain)
    # Written so that NaN fails.
    if not furthest <= tolerance:
        raise PrunekitError(
            f"computes something else with {what}: outputs differ by {furthest:.3g}, more than "
            f"{tolerance:.3g} ({spec.dtype}). Its time would be that of another model."
        )
    return {"compared": "outputs", "max_abs": furthest, "tolerance": tolerance}


def _tensors(output: Any) -> list[Tensor]:
    return [item for item in output.to_tuple() if isinstance(item, Tensor) and item.is_floating_point()]
