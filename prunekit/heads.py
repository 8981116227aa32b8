"""Models with the head that a task needs: their own where it fits, a new one where it is to be trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.errors import CheckpointError, UnsupportedModelError
from prunekit.model_fit import check_finite, check_fit
from prunekit.models import load_config, load_model, model_class, not_loaded, quiet_loading, resolve
from prunekit.pruning.auto import choices
from prunekit.tasks.base import Task
from prunekit.tasks.label_map import in_order, model_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)


def check_head(name: str, model: PreTrainedModel, task: Task) -> None:
    """Refuse a model that cannot answer the task.

    Args:
        name: what messages call the model.
        model: what is to answer.
        task: what is asked.

    Raises:
        UnsupportedModelError: if the model's class has another head, or none.
        DataError: if the head does not fit the task's data, in its labels for example.
    """
    if type(model) not in choices(task.auto_class, type(model.config)):
        raise UnsupportedModelError(
            f"{name} is a {type(model).__name__}, but task {task.name} needs a model of "
            f"{task.auto_class}, trained on the task. Train one with `prunekit finetune`, or let the recipe "
            "do it with `teacher: {train: {epochs: 3}}`."
        )
    task.check_model(model)


def load_to_train(name: str, task: Task, *, seed: int) -> PreTrainedModel:
    """The model with a head for the task, in float32 and eval mode, to be trained on it.

    A head that fits is kept, and takes the task's label names if it has none of its own. Where the checkpoint
    has another head or other labels, the head is new and random, and the log says so; everything below it
    comes from the checkpoint.

    Args:
        name: hub id, folder, run folder or ``embedded:NAME``.
        task: what the model is to be trained on.
        seed: decides the weights of a new head.

    Raises:
        CheckpointError: if there is no such model, or it lacks more than a head.
        UnsupportedModelError: if its architecture has no head for the task.
        DataError: if it does not fit the task otherwise.
    """
    config = load_config(name)
    heads = choices(task.auto_class, type(config))
    if not heads:
        raise UnsupportedModelError(
            f"{name}: the architecture {config.model_type} has no {task.auto_class}, which task {task.name} "
            "needs. Use a model of another architecture, or another task."
        )
    own, wanted = model_class(config), task.head_config()
    if own in heads and _labels_fit(config, wanted):
        model = load_model(name)
    else:
        model = _with_new_head(name, heads[0] if own not in heads else own, config, wanted, seed)
    if wanted and not model_names(model.config):
        model.config.update(wanted)
    task.check_model(model)
    return model


def _labels_fit(config: Any, wanted: dict[str, Any]) -> bool:
    if not wanted:
        return True
    own, names = model_names(config), tuple(wanted.get("id2label", {}).values())
    if own and names:
        return in_order(names, own) is not None
    return bool(config.num_labels == wanted["num_labels"])


@contextmanager
def _no_report() -> Iterator[None]:
    """Silence transformers' table of new weights: the log has them in one line."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _with_new_head(name: str, head: Any, config: Any, wanted: dict[str, Any], seed: int) -> PreTrainedModel:
    import torch

    source = Path(resolve(name))
    if source.is_dir():
        check_fit(model_class(config), config, source, strict=False)
    config.update(wanted)
    torch.manual_seed(seed)
    try:
        with quiet_loading(), _no_report():
            model, found = head.from_pretrained(
                resolve(name),
                config=config,
                dtype=torch.float32,
                use_safetensors=True,  # other weight files are pickles, which run code when read
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise not_loaded(name, error) from error
    new = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    # A pooler stands below some heads, and checkpoints of other heads do not have it.
    body = [key for key in new if key.startswith(f"{head.base_model_prefix}.") and ".pooler." not in key]
    if body:
        raise CheckpointError(
            f"{name}: the checkpoint lacks weights of the model itself, not only of its head: "
            f"{', '.join(body[:3])}{', ...' if len(body) > 3 else ''} ({len(body)} in all). Use a checkpoint "
            f"that {head.__name__} can start from."
        )
    check_finite(model, name)
    if new:
        _log.info("%s gets a new head for the task (%s), random until it is trained.", name, ", ".join(new))
    return model.eval()
