"""The card beside a pruned model's weights: finds the base model's card, and writes the new one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from prunekit.errors import CheckpointError
from prunekit.files import write_text
from prunekit.manifest import check_read
from prunekit.models import EMBEDDED, quiet_loading, resolve
from prunekit.reports.card import model_card
from prunekit.reports.card_data import BaseCard, repositories
from prunekit.runfolder import sha256

CARD = "README.md"
_MARK = "<!-- prunekit wrote this card from report {} and writes it anew if that changes -->"
_NETWORK_WAIT_S = 5


def write_card(run: Path) -> None:
    """Write the card of a finished run's model, ``model/README.md``.

    A card that was made from the same report stays as it is, and so does one from which somebody took the
    mark in its last line: what people add to a card is theirs.

    Args:
        run: the run's folder, with ``report.json`` and ``model/``.
    """
    check_read(run, "report.json", "model/config.json")
    text = (run / "report.json").read_text(encoding="utf-8")
    mark, path = _MARK.format(sha256(text)[:12]), run / "model" / CARD
    if path.is_file():
        written = path.read_text(encoding="utf-8", errors="replace")
        if mark in written or not re.search(_MARK.format("[0-9a-f]{12}"), written):
            return
    report = json.loads(text)
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    pruned_type = str(config.get("model_type")).startswith("prunekit-")
    card = model_card(report, base_card(report["model"]), pruned_type=pruned_type)
    write_text(path, f"{card}\n{mark}\n")


def base_card(name: str) -> BaseCard:
    """The nearest card on a model's way back to the model that it was made from.

    Looked for in the model's folder, among the embedded models, and in the hub's cache; of a model that came
    from the hub the card is fetched if it is not there, unless the hub is switched off (``HF_HUB_OFFLINE``).
    A model that prunekit trained or pruned leads on to the one that its run's recipe names.

    Args:
        name: hub id, folder, run folder or ``embedded:NAME``.
    """
    origin, from_scratch = name, False
    for made_from in _ancestry(name):
        if made_from is None:
            from_scratch = True
            break
        origin = made_from
        facts = _front_matter(origin)
        if facts is not None:
            hub = (origin,) if _on_hub(origin) else repositories(facts.get("base_model"))
            return BaseCard(_shown(name), _shown(origin), hub, facts)
    hub = (origin,) if _on_hub(origin) else ()
    return BaseCard(_shown(name), _shown(origin), hub, from_scratch=from_scratch)


def _ancestry(name: str) -> Iterator[str | None]:
    """The model, what it was made from, and so on; ``None`` ends it where that were random weights."""
    seen: list[str] = []
    current: str | None = name
    while current is not None and current not in seen:
        yield current
        seen.append(current)
        recipe = _recipe(current)
        if recipe is None:
            return
        teacher = recipe.get("teacher")
        made_from = teacher if isinstance(teacher, str) else recipe.get("model")
        if isinstance(made_from, Mapping):
            yield None
        current = made_from if isinstance(made_from, str) else None


def _recipe(name: str) -> dict[str, Any] | None:
    """The recipe of the run that made a model, if it is in a run's folder."""
    for folder in (Path(name), Path(name).parent):
        path = folder / "recipe.yaml"
        if path.is_file() and (folder / "model" / "config.json").is_file():
            try:
                recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (ValueError, yaml.YAMLError):
                return None
            return recipe if isinstance(recipe, dict) else None
    return None


def _front_matter(name: str) -> dict[Any, Any] | None:
    """What the front matter of a model's card says; ``None`` without a card, nothing if it cannot be read."""
    from huggingface_hub import metadata_load

    try:
        path = Path(resolve(name)) / CARD
    except CheckpointError:
        return None  # a folder that is gone since
    if not path.is_file():
        fetched = _fetched(name) if _on_hub(name) else None
        if fetched is None:
            return None
        path = fetched
    try:
        return metadata_load(path) or {}
    except (ValueError, yaml.YAMLError, RecursionError, OSError):
        return {}


def _on_hub(name: str) -> bool:
    """Whether a name stands for a hub's model that was loaded here: then the cache has its config."""
    from huggingface_hub import try_to_load_from_cache

    if name.startswith(EMBEDDED) or Path(name).exists() or repositories(name) != (name,):
        return False
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:
        return False


def _fetched(name: str) -> Path | None:
    """A hub model's card, from the cache or, where the network may be used, from the hub."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, CARD)
    if cached is not None or constants.HF_HUB_OFFLINE:
        return Path(cached) if isinstance(cached, str) else None
    try:
        with quiet_loading():
            return Path(str(hf_hub_download(name, CARD, etag_timeout=_NETWORK_WAIT_S)))
    except Exception:  # whatever the network did: a finished run must not fail for its card
        return None


def _shown(name: str) -> str:
    """A model's name for others to read: of a folder its last part, of a run's ``model`` the run's."""
    if name.startswith(EMBEDDED) or (repositories(name) == (name,) and not Path(name).exists()):
        return name
    folder = Path(name).resolve()
    return folder.parent.name if folder.name == "model" else folder.name
