"""Answers of two hand-made models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunekit.comparison.difference import Side


def answer(
    text: str, reference: str, *, source: str = "what?", length: int = 5, **influences: float
) -> dict[str, Any]:
    """A line of an answers file."""
    return {
        "input": source,
        "references": [reference],
        "answer": text,
        "length": length,
        "influences": influences,
    }


def classifier(
    name: str, answers: Sequence[str], references: Sequence[str], lengths: Sequence[int] | None = None
) -> Side:
    """A model scored by accuracy in percent, with example numbers for inputs."""
    right = [100.0 * (given == wanted) for given, wanted in zip(answers, references, strict=True)]
    value = sum(right) / len(right)
    rows = [
        answer(
            given,
            references[number],
            source=f"text {number}",
            length=lengths[number] if lengths else 5,
            accuracy=right[number] - value,
        )
        for number, given in enumerate(answers)
    ]
    return Side(name, {"accuracy": value}, rows)


def write_answered(folder: Path, dense: Side, pruned: Side, **evaluated: Any) -> Path:
    """A run folder with what a run keeps of its evaluation."""
    folder.mkdir()
    for which, side in (("dense", dense), ("pruned", pruned)):
        lines = "".join(json.dumps(row) + "\n" for row in side.answers)
        (folder / f"answers-{which}.jsonl").write_text(lines)
    quality = {
        "primary": "accuracy",
        "higher_is_better": True,
        "dense": dense.metrics,
        "pruned": pruned.metrics,
        "evaluated": {
            "examples": "0123",
            "split": "test",
            "limit": None,
            "num_beams": 1,
            "metrics": {"accuracy": "1"},
            **evaluated,
        },
    }
    (folder / "quality.json").write_text(json.dumps(quality))
    return folder
