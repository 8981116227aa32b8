"""Names of models to models: hub ids, folders, run folders and ``embedded:NAME``."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from logging import ERROR
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prunekit.suggest
from prunekit.errors import CheckpointError, UnsupportedModelError
from prunekit.image_processor import SETTINGS_FILE, ImageProcessor, takes_images

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import NewModel

EMBEDDED = "embedded:"
PROCESSOR_FILES = ("tokenizer_config.json", SETTINGS_FILE)


def embedded_names() -> list[str]:
    """Names of the models that ship with prunekit."""
    return sorted(
        entry.name
        for entry in files("prunekit.embedded").iterdir()
        if entry.joinpath("config.json").is_file()
    )


def resolve(name: str) -> str:
    """Folder or hub id that transformers understands, for a name as users write it.

    Raises:
        CheckpointError: if an embedded model does not exist, or a path holds no model.
    """
    if name.startswith(EMBEDDED):
        short = name.removeprefix(EMBEDDED)
        folder = Path(str(files("prunekit.embedded"))) / short
        if not folder.is_dir():
            hint = prunekit.suggest.did_you_mean(short, embedded_names())
            raise CheckpointError(
                f"no embedded model {name!r}{hint} (there are: {', '.join(embedded_names())})"
            )
        return str(folder)
    path = Path(name)
    if (path / "model" / "config.json").is_file():
        return str(path / "model")
    if path.is_dir() and not (path / "config.json").is_file():
        raise CheckpointError(
            f"{name}: the folder holds no config.json, so it is neither a model nor a finished run. "
            "Give a model folder, a run folder, a hub id or embedded:NAME."
        )
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local and not path.exists():
        raise CheckpointError(
            f"{name}: no such folder. Give a model folder, a run folder, a hub id or embedded:NAME."
        )
    return name


def model_fingerprint(name: str) -> str:
    """What tells a model's weights from others: a digest of the files in a folder, or the hub's commit.

    Raises:
        CheckpointError: if there is no such model.
    """
    from transformers import AutoConfig

    source = resolve(name)
    if Path(source).is_dir():
        found = hashlib.sha256()
        for path in sorted([Path(source) / "config.json", *Path(source).glob("*.safetensors")]):
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()
    try:
        with quiet_loading():
            return str(AutoConfig.from_pretrained(source)._commit_hash)
    except (OSError, ValueError) as error:
        raise not_loaded(name, error) from error


def short_name(name: str) -> str:
    """The last part of a model's name, in characters that every file system takes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name.rstrip("/").rpartition("/")[2]).strip(".-") or "model"


def load_model(name: str) -> PreTrainedModel:
    """The model in float32 and eval mode, with the head that its checkpoint was saved with.

    Args:
        name: hub id, folder, run folder or ``embedded:NAME``.

    Raises:
        CheckpointError: if there is no such model, or weights and config disagree.
        UnsupportedModelError: if its class is neither one of transformers nor a pruned one.
    """
    import torch
    from transformers import AutoConfig

    source = resolve(name)
    try:
        with quiet_loading():
            found = model_class(AutoConfig.from_pretrained(source))
            # Other weight files are pickles, which run code when read.
            model = found.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise not_loaded(name, error) from error
    return model.eval()


def not_loaded(name: str, error: Exception) -> CheckpointError:
    """The error for a model that cannot be loaded; of one that is not here, what to do without a network."""
    from huggingface_hub.constants import HF_HUB_CACHE

    if Path(resolve(name)).exists():
        return CheckpointError(f"{name} cannot be loaded: {error}")
    first = str(error).partition("\n")[0]
    return CheckpointError(
        f"{name} cannot be had: it is no folder here, and neither the hub nor its cache {HF_HUB_CACHE} gave "
        f"it ({type(error).__name__}: {first}). Without a network here, run this once where there is one and "
        "copy that cache (HF_HOME says where such folders are looked for), or copy the model's own folder "
        "and name that."
    )


def model_class(config: Any) -> Any:
    """The class that the checkpoint names, pruned or stock; the bare model where it names none."""
    import transformers
    from transformers import AutoModel

    from prunekit.pruning.auto import pruned_classes

    names = config.architectures or []
    if not names:
        return AutoModel
    known = pruned_classes()
    if names[0] in known:
        return known[names[0]]
    if not hasattr(transformers, names[0]):
        raise UnsupportedModelError(
            f"the checkpoint names the class {names[0]}, which transformers {transformers.__version__} does "
            "not have. Use a checkpoint of a class that it has."
        )
    return getattr(transformers, names[0])


def save_model(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    """Write a model with its tokenizer or image processor; ``folder`` appears whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with quiet_loading():
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the libraries' bars for files, and the hub's complaints; prunekit draws and tells its own."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    were_on, level = logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    logging.disable_progress_bar()
    hub_logging.set_verbosity(ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if were_on:
            logging.enable_progress_bar()


def load_processor(name: str) -> Any:
    """The tokenizer or image processor saved beside a model.

    Raises:
        CheckpointError: if there is none.
    """
    from transformers import AutoTokenizer

    # A folder may hold a processor and no model; `finetune` builds the model itself.
    has_processor = any((Path(name) / file).is_file() for file in PROCESSOR_FILES)
    source = name if has_processor else resolve(name)
    try:
        with quiet_loading():
            return (ImageProcessor if takes_images(source) else AutoTokenizer).from_pretrained(source)
    except (OSError, ValueError) as error:
        if not Path(source).is_dir():
            raise not_loaded(name, error) from error
        raise CheckpointError(
            f"{name}: no tokenizer or image processor beside the model ({error})."
        ) from error


def new_model(
    spec: NewModel, auto_class: str, head_config: Mapping[str, Any], *, seed: int
) -> PreTrainedModel:
    """A freshly initialised model.

    Args:
        spec: architecture, and fields of its config.
        auto_class: transformers' Auto class with the head that is wanted.
        head_config: fields of the config that the head needs; those of ``spec`` win.
        seed: decides the weights.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(spec.type, **{**head_config, **spec.config})
    # Where a type has several classes for one head (DeiT), transformers would trip over the usual None.
    config.architectures = config.architectures or []
    torch.manual_seed(seed)
    return getattr(transformers, auto_class).from_config(config)
