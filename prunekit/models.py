"""Names of models to models: hub ids, folders, run folders and ``embedded:NAME``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prunekit.suggest
from prunekit import ranks
from prunekit.errors import CheckpointError, UnsupportedModelError
from prunekit.files import replacing_folder
from prunekit.image_processor import SETTINGS_FILE, ImageProcessor, takes_images
from prunekit.model_folder import check_attention, check_paths, read_config
from prunekit.shown import visible

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import NewModel

EMBEDDED = "embedded:"
PROCESSOR_FILES = ("tokenizer_config.json", SETTINGS_FILE)

_log = getLogger(__name__)


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
        CheckpointError: if an embedded model does not exist, or a path holds no model, or leads elsewhere.
    """
    if name.startswith(EMBEDDED):
        short = name.removeprefix(EMBEDDED)
        folder = Path(str(files("prunekit.embedded"))) / short
        if {"", ".", ".."} & set(short.split("/")) or not folder.is_dir():
            hint = prunekit.suggest.did_you_mean(short, embedded_names())
            raise CheckpointError(
                f"no embedded model {name!r}{hint} (there are: {', '.join(embedded_names())})"
            )
        return str(folder)
    try:
        return _found(name)
    except OSError as error:
        raise CheckpointError(f"{visible(name, 200)!r} is no name of a model: {error.strerror}.") from error


def _found(name: str) -> str:
    """The folder of a model or a run, or the name itself if there is no such folder."""
    path = Path(name)
    if (path / "model" / "config.json").is_file():
        check_paths(path / "model")
        return str(path / "model")
    if (path / "config.json").is_file():
        check_paths(path)
    elif path.is_dir():
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
    source = resolve(name)
    if Path(source).is_dir():
        found = hashlib.sha256()
        for path in sorted([Path(source) / "config.json", *Path(source).glob("*.safetensors")]):
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()
    return str(load_config(name)._commit_hash)


def short_name(name: str) -> str:
    """The last part of a model's name, in characters that every file system takes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name.rstrip("/").rpartition("/")[2]).strip(".-") or "model"


def read_weights(found: Any, source: str | Path, name: str) -> tuple[Any, dict[str, Any]]:
    """A model of a class in float32, and what transformers says of the tensors that it read.

    Args:
        found: the class.
        source: folder or hub id.
        name: what messages call the model.

    Raises:
        CheckpointError: if it cannot be loaded.
    """
    import torch

    try:
        with quiet_loading():
            # Other weight files are pickles, which run code when read.
            model, info = found.from_pretrained(
                source,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise not_loaded(name, error) from error
    return model, info


def load_model(name: str) -> PreTrainedModel:
    """The model in float32 and eval mode, with the head that its checkpoint was saved with.

    Args:
        name: hub id, folder, run folder or ``embedded:NAME``.

    Raises:
        CheckpointError: if there is no such model, or weights and config disagree.
        UnsupportedModelError: if its class is neither one of transformers nor a pruned one.
    """
    from prunekit.model_fit import check_finite, check_fit

    source, config = resolve(name), load_config(name)
    found = model_class(config)
    if Path(source).is_dir():
        check_fit(found, config, Path(source), strict=True)
    model, info = read_weights(found, source, name)
    # Checkpoints of some heads do not have the pooler that stands below them.
    missing = [key for key in sorted(info["missing_keys"]) if ".pooler." not in key]
    if missing:
        raise CheckpointError(
            f"{name}: {len(missing)} tensors of the {found.__name__} that config.json names are missing in "
            f"the file, such as {missing[0]}. Restore the weights as they were saved."
        )
    if info["unexpected_keys"]:
        extra = sorted(info["unexpected_keys"])
        _log.warning(
            "%s holds %d tensors that its model does not have, such as %s; they are left out.",
            name,
            len(extra),
            visible(extra[0], 80),
        )
    check_finite(model, name)
    loaded: PreTrainedModel = model.eval()
    return loaded


def load_config(name: str) -> Any:
    """The transformers config of a model; code that comes with it is never run.

    Raises:
        CheckpointError: if there is no such model, or its config makes no sense.
        UnsupportedModelError: if it can only be read with code of its own.
    """
    from transformers import AutoConfig

    source = resolve(name)
    if Path(source).is_dir():
        read_config(Path(source))
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # whatever a config class says of fields that make no sense
        raise not_loaded(name, error) from error
    check_attention(name, "attn_implementation", config._attn_implementation)
    return config


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
    found = getattr(transformers, names[0], None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise UnsupportedModelError(
            f"the checkpoint names the class {visible(names[0], 80)}, which transformers "
            f"{transformers.__version__} does not have. Use a checkpoint of a class that it has."
        )
    return found


def save_model(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    """Write a model with its tokenizer or image processor; ``folder`` appears whole or not at all.

    Of several processes the first alone writes, and all wait for it.
    """
    ranks.from_first(lambda: _write(model, processor, folder))


def _write(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    with quiet_loading(), replacing_folder(folder) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)


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
    if has_processor:
        check_paths(Path(name))
    try:
        with quiet_loading():
            if takes_images(source):
                return ImageProcessor.from_pretrained(source)
            return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # whatever the libraries say of files that make no sense
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
