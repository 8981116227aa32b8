"""The image processor beside a model, as its settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prunekit.files import write_text

SETTINGS_FILE = "preprocessor_config.json"


class ImageProcessor:
    """The settings of an image processor, without code that applies them.

    The classes of transformers choose their way of resizing by what else is installed; the tasks apply the
    settings themselves, in one way.

    Args:
        settings: the content of ``preprocessor_config.json``.
        name_or_path: the model that they were read beside; empty if there is none.
    """

    def __init__(self, settings: dict[str, Any], name_or_path: str = "") -> None:
        self._settings = settings
        self.name_or_path = name_or_path

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> ImageProcessor:
        """Read the settings from a folder, or of a model of the hub; what is not in its cache is fetched.

        Raises:
            OSError: if they cannot be had.
            ValueError: if they are not JSON.
        """
        from transformers.utils.hub import cached_file

        path = cached_file(str(name), SETTINGS_FILE)
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError(f"{SETTINGS_FILE} holds no JSON object")
        return cls(settings, str(name))

    def save_pretrained(self, folder: Path) -> None:
        """Write the settings into a folder, for ``AutoImageProcessor`` of transformers as well."""
        write_text(folder / SETTINGS_FILE, json.dumps(self._settings, indent=2, sort_keys=True) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the settings."""
        return dict(self._settings)


def takes_images(name: str) -> bool:
    """Return whether a model is for images, by the settings in its folder, or else by its type.

    Args:
        name: folder or hub id. Of a model of the hub, the config is read, which is fetched if it is not in
            the cache.

    Raises:
        OSError: if that cannot be had.
        ValueError: if its type is not known.
    """
    if Path(name).is_dir():
        return (Path(name) / SETTINGS_FILE).is_file()
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    return config.model_type in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
