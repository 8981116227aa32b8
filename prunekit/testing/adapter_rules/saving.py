"""Rules about checkpoints: a pruned model is saved, loaded by transformers, and is the same model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
import transformers

from prunekit.errors import PrunekitError
from prunekit.models import quiet_loading
from prunekit.pruning.auto import auto_classes, register, register_adapter
from prunekit.pruning.checkpoint import PrunedModel
from prunekit.pruning.target import PrunableModel
from prunekit.pruning.units import HIDDEN, block_group
from prunekit.testing.adapter_rules.compare import (
    TOLERANCE,
    Masks,
    difference,
    exact,
    expect,
    irregular,
    listed,
    mixtures,
    off,
    outputs,
    pruned,
)
from prunekit.testing.adapter_rules.generating import generate, same_text
from prunekit.testing.adapter_rules.masking import assert_masked_is_pruned
from prunekit.testing.adapter_subject import AdapterSubject
from prunekit.testing.outcome import CheckFailed, NotApplicable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' bars and warnings, such as the one about heads that are not tied."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with quiet_loading():
            yield
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def registered(adapter: Any) -> Iterator[None]:
    """Let the Auto classes know this adapter inside, installed or not; afterwards what they knew before."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    register()  # now, or loading would do it inside and overwrite ours
    tables = [CONFIG_MAPPING, *(auto._model_mapping for auto in auto_classes())]
    before = [dict(table._extra_content) for table in tables]
    try:
        register_adapter(adapter)
        yield
    finally:
        for table, content in zip(tables, before, strict=True):
            table._extra_content = content


def reloaded(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model saved to ``folder`` and loaded by an Auto class, as users load it.

    Raises:
        CheckFailed: if it cannot be saved or loaded, or is of another class.
    """
    name = type(model).__name__
    auto = _auto_class_of(model)
    try:
        with _quiet():
            model.save_pretrained(folder)
            found = auto.from_pretrained(folder, dtype=model.dtype)
    except (PrunekitError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckFailed(
            f"a pruned {name} cannot be saved and loaded again: {type(error).__name__}: {error}"
        ) from error
    expect(
        type(found).__name__ == name,
        f"a saved {name} is loaded as {type(found).__name__}; it must stay what it is.",
    )
    return found.eval().to(model.device)


def _auto_class_of(model: PreTrainedModel) -> Any:
    for auto in auto_classes():
        known = auto._model_mapping.get(type(model.config), ())
        if type(model) in (known if isinstance(known, tuple) else (known,)):
            return auto
    raise CheckFailed(f"no Auto class knows {type(model).__name__}.")


def assert_same_model(
    model: PreTrainedModel, other: PreTrainedModel, inputs: dict[str, Any], what: str
) -> None:
    """Compare tensors bit for bit, and outputs."""
    first, second = model.state_dict(), other.state_dict()
    odd = sorted(first.keys() ^ second.keys())
    odd += [name for name in first.keys() & second.keys() if not torch.equal(first[name], second[name])]
    expect(not odd, f"{what}: {listed(odd)} is not as it was saved.")
    with exact():
        found = difference(outputs(model, inputs), outputs(other, inputs))
    expect(
        found <= TOLERANCE,
        f"{what}: all saved tensors are equal, yet outputs differ by {found:.1e}. Something that the "
        "forward pass reads is in neither the tensors nor config.json: `set_heads`, `finish` and the "
        "replacements in "
        "`dead` must do the same on a freshly built model.",
    )


def strict_reload(subject: AdapterSubject) -> None:
    """A pruned model of every class is saved and loaded by an Auto class, twice, and stays the same."""
    with registered(subject.adapter), TemporaryDirectory() as folder:
        for number, target in enumerate(subject.each()):
            inputs = subject.inputs(target.model)
            for case, masks in enumerate((irregular(target), *list(mixtures(target).values())[-1:])):
                _, small = pruned(target, masks, "units of every kind")
                place = Path(folder) / f"{number}-{case}"
                loaded = reloaded(small.model, place)
                assert_same_model(small.model, loaded, inputs, f"{type(small.model).__name__} loaded again")
                pickles = [p.name for p in place.iterdir() if p.suffix in (".bin", ".pt", ".pkl")]
                expect(not pickles, f"saved as pickles: {listed(pickles)}")
            again = reloaded(loaded, Path(folder) / f"{number}-again")
            assert_same_model(loaded, again, inputs, f"{type(loaded).__name__} loaded a second time")


def tied_weights_stay_tied(subject: AdapterSubject) -> None:
    """Parameters that were one are one after pruning and after a reload, and no others become one."""
    tied = 0
    with registered(subject.adapter), TemporaryDirectory() as folder:
        for number, target in enumerate(subject.each()):
            wanted = _ties(target)
            tied += len(wanted)
            for case, masks in enumerate((irregular(target), *list(mixtures(target).values())[-1:])):
                _, small = pruned(target, masks, "units of every kind")
                _assert_ties(wanted, small, "after pruning")
                loaded = reloaded(small.model, Path(folder) / f"{number}-{case}")
                again = PrunableModel(loaded, subject.adapter)
                _assert_ties(wanted, again, "after saving and loading")
    if not tied:
        raise NotApplicable("no parameters of this variant are tied")


def _ties(target: PrunableModel) -> set[frozenset[str]]:
    """Groups of names of one parameter, outside the blocks: inside, numbers move."""
    blocks = tuple(f"{stack.blocks}." for stack in target.structure.stacks.values())
    names: dict[int, set[str]] = {}
    for name, parameter in target.model.named_parameters(remove_duplicate=False):
        if not name.startswith(blocks):
            names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def _assert_ties(wanted: set[frozenset[str]], small: PrunableModel, when: str) -> None:
    found = _ties(small)
    lost, new = sorted(map(sorted, wanted - found)), sorted(map(sorted, found - wanted))
    expect(
        not lost and not new,
        f"{when}, {type(small.model).__name__} has other ties than the dense model: "
        f"{listed([' = '.join(group) for group in lost]) or 'none'} lost, "
        f"{listed([' = '.join(group) for group in new]) or 'none'} new. `finish` and `set_heads` must not "
        "replace embeddings or heads.",
    )


def stock_when_regular(subject: AdapterSubject) -> None:
    """A result that stock config fields can say is a stock model: transformers runs it without prunekit."""
    stock = 0
    for target in subject.each():
        for what, masks in _regular(target).items():
            _, small = pruned(target, masks, what)
            if isinstance(small.model, PrunedModel):
                continue  # the adapter says that transformers cannot run it
            stock += 1
            _assert_stock(target, small, subject.inputs(target.model), what)
    if not stock:
        raise NotApplicable("is_stock says that transformers can run no regular result")


def _regular(target: PrunableModel) -> dict[str, Masks]:
    """Equal widths everywhere, and fewer blocks in one stack or in all."""
    widths: list[tuple[str, int | None]] = []
    stacks = target.structure.stacks.values()
    for sub in target.structure.sublayers.values():
        if sub.units.kind == "neuron":
            # Which ones does not matter, so they differ from block to block.
            widths += [(sub.units.name, (unit + sub.block) % sub.units.size) for unit in range(0, 6, 2)]
    found = {f"block 1 of the {s.name}": off(target, (block_group(s.name), 1)) for s in stacks if s.depth > 1}
    every = [(block_group(s.name), 0) for s in stacks if s.depth > 1]
    found["three neurons of each FFN"] = off(target, *widths)
    found["three neurons of each FFN and block 0 of every stack"] = off(target, *widths, *every)
    return found


def _assert_stock(target: PrunableModel, small: PrunableModel, inputs: dict[str, Any], what: str) -> None:
    model, name = small.model, type(small.model).__name__
    with TemporaryDirectory() as folder:
        try:
            with _quiet():
                model.save_pretrained(folder)
                found, info = getattr(transformers, name).from_pretrained(
                    folder, dtype=model.dtype, output_loading_info=True
                )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise CheckFailed(
                f"without {what}, {name} is saved as a stock model, and transformers cannot load it: "
                f"{type(error).__name__}: {error}. {_OF_STOCK}"
            ) from error
    odd = [*info["missing_keys"], *info["unexpected_keys"], *(row[0] for row in info["mismatched_keys"])]
    expect(not odd, f"without {what}, {name} is saved as a stock model that lacks {listed(odd)}. {_OF_STOCK}")
    loaded = found.eval().to(model.device)
    with exact():
        apart = difference(outputs(model, inputs), outputs(loaded, inputs))
    expect(
        apart <= TOLERANCE,
        f"without {what}, the stock {name} that transformers loads differs by {apart:.1e}. {_OF_STOCK}",
    )
    if "decoder" in target.structure.stacks and loaded.can_generate():
        try:
            same = same_text(generate(loaded, inputs, cache=True), generate(model, inputs, cache=False))
        except (IndexError, KeyError, RuntimeError, ValueError):
            same = False
        expect(
            same,
            f"without {what}, the stock {name} that transformers loads generates something else with a "
            f"cache. {_OF_STOCK}",
        )


_OF_STOCK = "Correct the config fields of the stack's table, or say so in `is_stock`."


def prunes_again(subject: AdapterSubject) -> None:
    """A pruned model can be masked and pruned once more, with what was removed still gone."""
    target = subject.target()
    inputs = subject.inputs(target.model)
    _, once = pruned(target, irregular(target), "units of every kind")
    gone = target.structure.dead(_keep(target))
    expect(
        len(once.structure.sublayers) == len(target.structure.sublayers) - len(gone),
        f"of a pruned model's {len(target.structure.sublayers) - len(gone)} sublayers the adapter finds "
        f"{len(once.structure.sublayers)}: it must recognise removed ones by the first replacement in "
        "`dead`.",
    )
    second = {
        sub.units.name: off(once, (sub.units.name, 0))[sub.units.name]
        for sub in once.structure.sublayers.values()
        if sub.units.size > 1
    }
    if HIDDEN in once.groups:
        second |= off(once, (HIDDEN, 1))
    assert_masked_is_pruned(once, second, inputs, "units of a model that was pruned before", visible=False)
    with registered(subject.adapter), TemporaryDirectory() as folder:
        _, twice = pruned(once, second, "units of a model that was pruned before")
        loaded = reloaded(twice.model, Path(folder) / "twice")
        assert_same_model(twice.model, loaded, inputs, "a model that was pruned twice, loaded again")


def _keep(target: PrunableModel) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(i for i, value in enumerate(mask.tolist()) if value)
        for name, mask in irregular(target).items()
    }
