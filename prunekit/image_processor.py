"""The image processor beside a model, as its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunekit.files import write_text

SETTINGS_FILE = "preprocessor_config.json"


class ImageProcessor:
    """The settings of an image processor, without code that applies them.

    The classes of transformers refuse to be made where neither Pillow nor torchvision is installed; the tasks
    need neither, since they apply the settings to whole batches themselves.

    Args:
        settings: the content of ``preprocessor_config.json``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    @classmethod
    def from_pretrained(cls, folder: str) -> ImageProcessor:
        """Read the settings from a folder.

        Raises:
            OSError: if the file is not there.
            ValueError: if it is not JSON.
        """
        return cls(json.loads((Path(folder) / SETTINGS_FILE).read_text()))

    def save_pretrained(self, folder: Path) -> None:
        """Write the settings into a folder, for ``AutoImageProcessor`` of transformers as well."""
        write_text(folder / SETTINGS_FILE, json.dumps(self._settings, indent=2, sort_keys=True) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the settings."""
        return dict(self._settings)
