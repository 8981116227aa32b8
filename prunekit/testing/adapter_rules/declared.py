"""Rules about what an adapter says of itself, before anything is pruned."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from prunekit.errors import AdapterMismatchError, UnsupportedModelError
from prunekit.suggest import did_you_mean
from prunekit.testing.adapter_rules.compare import exact, expect, listed, outputs
from prunekit.testing.adapter_subject import AdapterSubject
from prunekit.testing.outcome import CheckFailed, NotApplicable

STACKS = ("encoder", "decoder")
_MOST_PARAMETERS = 200_000


def declaration_complete(subject: AdapterSubject) -> None:
    """Name, model type and summary are there, and stacks have the names that the rest relies on."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    adapter = subject.adapter
    expect(
        bool(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", adapter.name)),
        f"the name {adapter.name!r} must be kebab-case, such as 'roberta': it becomes part of a model type.",
    )
    expect(
        adapter.model_type in CONFIG_MAPPING,
        lambda: (
            f"transformers knows no model type {adapter.model_type!r}"
            f"{did_you_mean(adapter.model_type, list(CONFIG_MAPPING))}. Write the "
            "`model_type` of config.json."
        ),
    )
    expect(
        bool(adapter.summary.strip()) and "\n" not in adapter.summary,
        f"the summary is {adapter.summary!r}; write one line for `prunekit adapters list`.",
    )
    names = [stack.name for stack in adapter.stacks]
    expect(
        bool(names) and set(names) <= set(STACKS) and len(set(names)) == len(names),
        f"the stacks are named {names}; a table has an encoder, a decoder or both, under these names: costs "
        "and lengths are told by them.",
    )
    for stack in adapter.stacks:
        roles = [sub.role for sub in stack.sublayers]
        expect(
            bool(roles) and len(set(roles)) == len(roles),
            f"the sublayers of the {stack.name} have the roles {roles}; a block has one of a role, at least "
            "one.",
        )
        for sub in stack.sublayers:
            expect(
                (sub.attention is None) == (sub.role == "ffn") and bool(sub.inputs) and bool(sub.dead),
                f"{stack.name}: the {sub.role} sublayer needs `inputs`, `dead`, and an `attention` module "
                "exactly if it is attention.",
            )


def tiny_declared(subject: AdapterSubject) -> None:
    """Every variant makes a small model of three blocks a stack that runs."""
    adapter = subject.adapter
    expect(
        bool(adapter.tiny),
        f"{adapter.name}.tiny is empty, so that nothing can be tried. Declare the config fields of a "
        'model of three small blocks, such as tiny={"bert": {"hidden_size": 16, "num_hidden_layers": 3, …}}.',
    )
    for variant in adapter.tiny:
        _check_variant(AdapterSubject(adapter, variant, subject.device))


def _check_variant(subject: AdapterSubject) -> None:
    from transformers import GenerationConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    adapter, where = subject.adapter, f"tiny[{subject.model!r}]"
    if adapter.model_type not in CONFIG_MAPPING:
        raise NotApplicable("the model type is unknown; see declaration-complete")
    stock, generation = CONFIG_MAPPING[adapter.model_type](), GenerationConfig()
    # Configs take settings of generation too, and hand them on.
    fields = adapter.tiny[subject.model]
    unknown = [name for name in fields if not (hasattr(stock, name) or hasattr(generation, name))]
    expect(
        not unknown,
        lambda: (
            f"{where} has fields that {type(stock).__name__} does not know, so they change nothing: "
            f"{listed(unknown)}{did_you_mean(unknown[0], stock.to_dict())}."
        ),
    )
    try:
        model = subject.build()
        with exact():
            found = outputs(model, subject.inputs(model))
    except Exception as error:
        cause = error.__cause__ or error
        raise CheckFailed(
            f"{where} makes no model that runs: {type(cause).__name__}: {cause}. Correct its fields."
        ) from error
    expect(
        all(bool(tensor.isfinite().all()) for tensor in found.values()),
        f"the model of {where} gives NaN or infinite outputs; choose sizes at which it does not.",
    )
    for stack in adapter.stacks:
        depth = getattr(model.config, stack.depth_field, None)
        expect(
            depth == 3,
            f"{where} has {stack.depth_field} = {depth} for the {stack.name}; use 3 blocks, so that there "
            "is a first, a last and one between.",
        )
    count = sum(parameter.numel() for parameter in model.parameters())
    expect(
        count <= _MOST_PARAMETERS,
        f"{where} makes a model of {count:,} parameters; use at most {_MOST_PARAMETERS:,}, so that the "
        "checks take seconds. The vocabulary can be 40 tokens.",
    )


def every_path_resolves(subject: AdapterSubject) -> None:
    """Every path of the tables leads to a module, on every class of the architecture."""
    for model_class in subject.classes:
        model = subject.build(model_class)
        try:
            structure = subject.adapter.structure(model)
        except AdapterMismatchError as error:
            raise CheckFailed(
                str(error).partition("\n")[0] + " Correct the table: a stack's paths are relative to "
                "`model.base_model`, a sublayer's to its block."
            ) from error
        except UnsupportedModelError as error:
            if model_class is not subject.classes[0]:
                continue
            raise CheckFailed(
                f"tiny[{subject.model!r}] is a model that the adapter refuses: {error}"
            ) from error
        if model_class is subject.classes[0]:
            absent = [stack.name for stack in subject.adapter.stacks if stack.name not in structure.stacks]
            expect(
                not absent,
                f"the table's {listed(absent)} was not found in {model_class.__name__}: its base model "
                f"{type(model.base_model).__name__} has no module named as its path begins.",
            )
        _check_replacements(subject, model, structure)


def _check_replacements(subject: AdapterSubject, model: Any, structure: Any) -> None:
    tables = {(stack.name, sub.role): sub for stack in subject.adapter.stacks for sub in stack.sublayers}
    modules = dict(model.named_modules())
    for sub in structure.sublayers.values():
        block = f"{structure.stacks[sub.stack].blocks}.{sub.block}"
        for path, _ in tables[sub.stack, sub.role].dead:
            expect(
                f"{block}.{path}" in modules,
                f"{sub.name}: `dead` replaces {block}.{path}, which {type(model).__name__} does not have.",
            )
    for stack in structure.stacks.values():
        found = {sub.role for sub in structure.sublayers.values() if sub.stack == stack.name}
        gone = [role for role in stack.roles if role not in found]
        expect(
            not gone,
            f"{listed(gone)} of the {stack.name} counts as removed in a whole model: the first replacement "
            "in `dead` must be a class of which the stock module is no instance.",
        )


def sizes_follow_the_config(subject: AdapterSubject) -> None:
    """The config fields of a stack say its depth, heads and FFN width, and follow when they are changed."""
    for stack in subject.adapter.stacks:
        kinds = {sub.role == "ffn" for sub in stack.sublayers}
        declared = subject.build().config
        for field in (stack.depth_field, stack.heads_field, stack.ffn_field):
            expect(
                isinstance(getattr(declared, field, None), int),
                f"{type(declared).__name__} has no whole number {field!r}, which the {stack.name}'s table "
                f"names{did_you_mean(field, declared.to_dict())}. Regular results are saved by it.",
            )
        _follows(subject, stack.name, stack.depth_field, "blocks", (4, 2))
        if False in kinds:
            heads = getattr(declared, stack.heads_field)
            _follows(subject, stack.name, stack.heads_field, "heads", (heads // 2 or 1, 2 * heads, 1))
        if True in kinds:
            width = getattr(declared, stack.ffn_field)
            _follows(subject, stack.name, stack.ffn_field, "neurons", (width + 4, 2 * width))


def _follows(subject: AdapterSubject, stack: str, field: str, what: str, values: Iterable[int]) -> None:
    """Check the sizes of the declared model, then of the first of ``values`` that makes another one."""
    target = subject.target()
    declared = getattr(target.model.config, field)
    _sizes_are(target.structure, stack, field, what, declared)
    for value in values:
        if value == declared:
            continue
        try:
            model = subject.build(None, **{field: value})
        except Exception:
            continue  # not every size makes a model
        _sizes_are(subject.adapter.structure(model), stack, field, what, value)
        return


def _sizes_are(structure: Any, stack: str, field: str, what: str, wanted: int) -> None:
    if what == "blocks":
        found = {f"the {stack}": structure.stacks[stack].depth} if stack in structure.stacks else {}
    else:
        found = {
            sub.name: sub.units.size
            for sub in structure.sublayers.values()
            if sub.stack == stack and sub.units.name.endswith(what)
        }
    for name, size in found.items():
        hint = " Is `head_size` the attribute that holds the size of one head?" if what == "heads" else ""
        expect(
            size == wanted,
            f"with {field} = {wanted} in the config, {name} has {size} {what}; it must have as many as the "
            f"field says, since regular results are saved by it.{hint}",
        )
