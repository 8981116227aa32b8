"""A folder that holds a model, looked at before any library reads it: its paths, config and weights' sizes.

What a folder says may come from anybody. Its code is never run, files outside of it are never read, and
memory is bounded by what its weights hold, whatever its config claims.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prunekit.errors import CheckpointError, UnsupportedModelError
from prunekit.json_files import read_strictly
from prunekit.shown import visible

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
READ = (".json", ".safetensors", ".txt", ".model", ".jinja")
"""Ends of the names of files that transformers reads from a folder."""
MAX_LABELS = 1_000_000
"""Outputs of a head. Their names are made one by one, so a number alone could fill the memory."""
MAX_BLOCKS = 1_000
"""Blocks of a stack, or as many as there are tensors: blocks too are made one by one."""
MAX_INTEGER = 2**40
"""Largest whole number of a config."""
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")

_DEPTH = re.compile(r"(.*_)?layers?")
_SHARD = re.compile(r"[^./\\][^/\\]*\.safetensors")
_log = logging.getLogger(__name__)

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each tensor by name, as the header of its file says."""


def check_paths(folder: Path) -> None:
    """Refuse a folder of which a file that would be read lies elsewhere, or is no file.

    Links into the same folder are allowed, and those of the hub's cache, whose files lie under ``blobs``.

    Raises:
        CheckpointError: naming the file and where it leads.
    """
    home = folder.resolve()
    # In the hub's cache a folder is MODEL/snapshots/COMMIT.
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    for path in sorted(folder.iterdir()):
        if path.suffix not in READ or path.is_dir():
            continue
        target = path.resolve()
        if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
            raise CheckpointError(
                f"{path} is a link that leads out of the folder, to {target}. Copy that file into the folder "
                "if you trust it; what lies elsewhere is not read."
            )
        if not target.is_file():
            raise CheckpointError(f"{path} is no file that can be read. Restore it, or remove it.")


def read_config(folder: Path) -> dict[str, Any]:
    """The content of ``config.json``, where it asks for nothing that a model's folder must not ask for.

    Raises:
        CheckpointError: if it is no JSON object, or its numbers make no sense.
        UnsupportedModelError: if it can only be read with code of its own, or its weights are quantised.
    """
    path = folder / CONFIG
    try:
        config, _ = read_strictly(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {visible(str(error), 300)}. Restore it as it was saved."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object. Restore it as it was saved.")
    names = config.get("architectures")
    if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
        raise CheckpointError(f"{path}: architectures must be a list of names, found {_shown(names)}.")
    if not isinstance(config.get("model_type", ""), str):
        raise CheckpointError(f"{path}: model_type must be a name, found {_shown(config['model_type'])}.")
    _check_code(path, config)
    _check_numbers(path, config)
    return config


def check_attention(source: str, key: str, value: Any) -> None:
    """Refuse an attention kernel that would be fetched from somewhere.

    Raises:
        CheckpointError: naming it and those allowed.
    """
    if value is not None and value not in ATTENTION:
        raise CheckpointError(
            f"{source}: {key} = {_shown(value)} asks for a kernel, which is code from elsewhere. Allowed are "
            f"{', '.join(ATTENTION)}; remove the line to use the default."
        )


def _check_code(path: Path, config: Mapping[str, Any]) -> None:
    for key, value in _inside(config):
        if "attn_implementation" in key:
            check_attention(str(path), key, value)
    if "auto_map" in config:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        from prunekit.pruning.auto import register

        register()
        code, known = _shown(config["auto_map"]), _shown(config.get("model_type"))
        said = f"{path} names code of its own (auto_map: {code}), which prunekit never runs"
        if config.get("model_type") not in CONFIG_MAPPING:
            raise UnsupportedModelError(
                f"{said}, and its model_type {known} is none that transformers has without it. Use a "
                "checkpoint of a class that transformers has."
            )
        _log.warning("%s; the class that transformers has is used.", said)
    if config.get("quantization_config") is not None:
        raise UnsupportedModelError(
            f"{path}: quantization_config = {_shown(config['quantization_config'])}: quantised weights "
            "cannot be pruned. Use the checkpoint that they were made of."
        )


def _check_numbers(path: Path, config: Mapping[str, Any]) -> None:
    labels = config.get("num_labels", 0)
    if isinstance(labels, int) and not 0 <= labels <= MAX_LABELS:
        raise CheckpointError(f"{path}: num_labels = {labels}; allowed are 0 to {MAX_LABELS}.")
    for key, value in _inside(config):
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise CheckpointError(
                f"{path}: {key} = {_shown(value)} is too large; no model has such a number."
            )


def check_depth(folder: Path, config: Mapping[str, Any], tensors: Tensors) -> None:
    """Refuse a config with more blocks than the weights can have.

    Raises:
        CheckpointError: naming the field and both numbers.
    """
    most = max(MAX_BLOCKS, len(tensors))
    for key, value in _inside(config):
        if isinstance(value, int) and _DEPTH.fullmatch(key) and not 0 <= value <= most:
            raise CheckpointError(
                f"{folder / CONFIG}: {key} = {value}, but the weights are {len(tensors)} tensors. Restore "
                "the file as it was saved."
            )


def tensors_in(folder: Path) -> Tensors:
    """Type and shape of all tensors in a folder's safetensors files; empty if it has none.

    Raises:
        CheckpointError: if a file is damaged, or the index names files outside of the folder.
    """
    from safetensors import SafetensorError, safe_open

    found: Tensors = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    part = file.get_slice(name)
                    found[name] = (part.get_dtype(), tuple(part.get_shape()))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} is damaged: {visible(str(error), 200)}. Restore the file, or delete the folder and "
                "make it again."
            ) from error
    return found


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / INDEX
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    try:
        data, _ = read_strictly(index)
        names = sorted(set(data["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} does not say which file holds which tensor ({visible(repr(error), 200)}). Restore it."
        ) from error
    for name in names:
        if not (isinstance(name, str) and _SHARD.fullmatch(name)):
            raise CheckpointError(
                f"{index} names the file {_shown(name)}; allowed are names of safetensors files in the same "
                "folder. Restore it as it was saved."
            )
    return [folder / name for name in names]


def _inside(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All keys with their values, those of objects inside included."""
    left: list[Any] = [config]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            yield from value.items()
            left += value.values()
        elif isinstance(value, list):
            left += value


def _shown(value: Any) -> str:
    return visible(repr(value), 60)
