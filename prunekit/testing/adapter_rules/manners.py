"""Rules about manners: what cannot be pruned is refused, and what is given is left as it was."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.auto import modeling_auto

from prunekit.errors import UnsupportedModelError
from prunekit.pruning.target import PrunableModel
from prunekit.testing.adapter_rules.compare import exact, expect, irregular, listed, mixtures, outputs, pruned
from prunekit.testing.adapter_rules.costs import assert_counted_as_computed
from prunekit.testing.adapter_rules.generating import assert_same_text
from prunekit.testing.adapter_rules.masking import assert_masked_is_pruned, on_device
from prunekit.testing.adapter_subject import AdapterSubject
from prunekit.testing.outcome import CheckFailed, NotApplicable

_FLAGS: tuple[dict[str, Any], ...] = (
    {"chunk_size_feed_forward": 1},
    {"is_decoder": True},
    {"is_decoder": True, "add_cross_attention": True},
)


def variants_work_or_are_refused(subject: AdapterSubject) -> None:
    """With config flags that change how a model runs, it is pruned rightly or refused with a reason."""
    config = subject.target().model.config
    for flags in _FLAGS:
        if config.is_encoder_decoder or not all(hasattr(config, flag) for flag in flags):
            continue
        causal = modeling_auto.AutoModelForCausalLM._model_mapping.get(type(config), None)
        try:
            model = subject.build(causal if "is_decoder" in flags else None, **flags)
            with exact():
                outputs(model, subject.inputs(model))
        except Exception:
            continue  # there is no such model
        said = ", ".join(f"{flag}={value}" for flag, value in flags.items())
        try:
            target = PrunableModel(model, subject.adapter)
        except UnsupportedModelError as error:
            reason = str(error).partition("cannot be pruned: ")[2]
            expect(
                len(reason.split()) > 3,
                f"with {said} the model is refused, but the reason is {reason!r}. Say in `refuse` what was "
                "found and what to load instead.",
            )
            continue
        try:
            _assert_works(subject, target, said)
        except CheckFailed as error:
            _blame_the_variant(subject, error)
            raise


def _blame_the_variant(subject: AdapterSubject, error: CheckFailed) -> None:
    """Make sure that what fails of a variant does not fail of the plain model too.

    Raises:
        NotApplicable: if it does; other rules say so.
    """
    try:
        _assert_works(subject, subject.target(), "no flags set")
    except CheckFailed:
        raise NotApplicable("the plain model is not pruned rightly either; see the rules above") from error


def _assert_works(subject: AdapterSubject, target: PrunableModel, said: str) -> None:
    inputs = subject.inputs(target.model)
    what = f"units of a model with {said} (or refuse it in `refuse`)"
    for masks in (irregular(target), *mixtures(target).values()):
        assert_masked_is_pruned(target, masks, inputs, what, visible=False)
    assert_counted_as_computed(target, irregular(target), what)
    if target.model.can_generate() and "is_decoder" in said:
        assert_same_text(target, irregular(target), inputs, what)


def dense_model_untouched(subject: AdapterSubject) -> None:
    """Resolving, masking and cutting leave the model, its config and its modules as they were."""
    model = subject.build()
    inputs = subject.inputs(model)
    before, tensors = _photographed(model), {n: t.clone() for n, t in model.state_dict().items()}
    subject.target()  # resolves, and has slices of the right length
    target = PrunableModel(model, subject.adapter)
    for what, masks in mixtures(target).items():
        _, small = pruned(target, masks, what)
        with exact(), target.masked(on_device(masks, model.device)):
            outputs(model, inputs)
        with torch.no_grad():
            for parameter in small.model.parameters():
                parameter.zero_()
    after = _photographed(model)
    for part, was in before.items():
        changed = sorted(
            str(key) for key in was.keys() | after[part].keys() if was.get(key) != after[part].get(key)
        )
        expect(
            not changed,
            f"pruning changed the dense model's {part}: {listed(changed)}. `structure`, `stream`, "
            "`refuse`, `shared` and `kept_norm` only read; `set_heads` and `finish` are given a copy.",
        )
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, tensors[name])]
    expect(
        not changed,
        f"pruning changed tensors of the dense model: {listed(changed)}. Copy before you write.",
    )


def _photographed(model: Any) -> dict[str, dict[str, Any]]:
    """What can be compared of a model besides its tensors' values."""
    return {
        "config": {key: repr(value) for key, value in model.config.to_dict().items()},
        "classes of modules": {path: type(module).__name__ for path, module in model.named_modules()},
        "attributes of modules": {
            f"{path}.{key}": repr(value)
            for path, module in model.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, (int, float, str, bool, tuple))
        },
        "tensors": {
            name: (tuple(t.shape), id(t)) for name, t in model.named_parameters(remove_duplicate=False)
        },
        "hooks": {
            path: len(module._forward_hooks) + len(module._forward_pre_hooks) + ("forward" in vars(module))
            for path, module in model.named_modules()
        },
    }
