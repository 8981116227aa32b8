"""Remake the Fashion-MNIST files that ship: ``python -m prunekit.embedded.fashion.build FOLDER``.

``FOLDER`` holds the four original files, which Debian's package ``dataset-fashion-mnist`` carries.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from prunekit.embedded.fashion import (
    FOLDER,
    LABELS,
    PROCESSOR_FOLDER,
    SHIPPED,
    SIZE,
    TEST,
    TRAIN,
    Images,
    image_digests,
    load_split,
    read_images,
    write_images,
)
from prunekit.errors import DataError

PER_CLASS = {"calibration": 200, "validation": 100, "test": 200}


def choose(found: Images, counts: dict[str, int]) -> dict[str, Images]:
    """Return disjoint parts with so many images of each class, the first by digest to the first part.

    Raises:
        DataError: if two images are equal, so that no part could have the one without the other.
    """
    digests = image_digests(found.images)
    if len(set(digests)) < len(digests):
        raise DataError(
            f"{len(digests) - len(set(digests))} images are equal to others; expected is the original data."
        )
    order = sorted(range(len(digests)), key=lambda row: digests[row])
    of_class = [[row for row in order if found.labels[row] == label] for label in range(len(LABELS))]
    parts: dict[str, Images] = {}
    start = 0
    for part, count in counts.items():
        rows = [row for members in of_class for row in members[start : start + count]]
        parts[part] = found.take(sorted(rows, key=lambda row: digests[row]))
        start += count
    return parts


def processor_settings(found: Images) -> dict[str, object]:
    """Return the image processor's settings: grey values to [0, 1], then to mean 0 and deviation 1."""
    values = found.images.astype(np.float64) / 255
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [round(float(values.mean()), 4)],
        "image_processor_type": "ViTImageProcessor",
        "image_std": [round(float(values.std()), 4)],
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": SIZE, "width": SIZE},
    }


def main(folder: Path) -> None:
    """Write the shipped files and the image processor, and print the counts.

    Raises:
        DataError: if the original files are missing or damaged.
    """
    train, test = (read_images(folder, part, ".gz") for part in (TRAIN, TEST))
    counts = dict(PER_CLASS)
    parts = choose(test, {"test": counts.pop("test")}) | choose(train, counts)
    for split, found in parts.items():
        write_images(found, FOLDER, split)
    PROCESSOR_FOLDER.mkdir(exist_ok=True)
    text = json.dumps(processor_settings(train), indent=2, sort_keys=True) + "\n"
    (PROCESSOR_FOLDER / "preprocessor_config.json").write_text(text)
    sizes = ", ".join(f"{split} {len(load_split(split).labels)}" for split in SHIPPED)
    print(f"{sizes}; {sum(path.stat().st_size for path in FOLDER.glob('*.xz'))} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m prunekit.embedded.fashion.build FOLDER")
    try:
        main(Path(sys.argv[1]))
    except DataError as error:
        sys.exit(f"DataError: {error}")
