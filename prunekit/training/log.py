"""The log of a run's training: one JSON object a line, a line a step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunekit import ranks
from prunekit.files import write_text, writing

FILE = "train.jsonl"


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's log, in order; a line that a crash cut short is left out."""
    path = folder / FILE
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "stage" in row and "step" in row:
            found.append(row)
    return found


class TrainingLog:
    """The log, cut back to the steps that a stage's checkpoint holds, opened for appending.

    All of it raises ``RunFolderError`` if the system refuses to write.

    Args:
        folder: the run folder; made if need be.
        stage: whose later steps are dropped, as they will be done again.
        done: steps of the stage that are kept.
    """

    def __init__(self, folder: Path, stage: str, done: int) -> None:
        self.path = path = folder / FILE
        if path.exists():
            kept = [row for row in read_rows(folder) if row["stage"] != stage or row["step"] <= done]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.stage = stage
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            # The figures of a step are the same in every process; the first one writes them.
            own = path if ranks.is_first() else Path(os.devnull)
            self._file = own.open("a", buffering=1, encoding="utf-8")

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Append one step's figures."""
        with writing(self.path):
            self._file.write(json.dumps({"stage": self.stage, "step": step, **figures}) + "\n")

    def settle(self) -> None:
        """Return when what was added is on the disk: a checkpoint must not know steps that the log lost."""
        with writing(self.path):
            if not ranks.is_first():
                return
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
