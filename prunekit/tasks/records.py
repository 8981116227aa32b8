"""A model's answers as a file: JSON Lines, an example a line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.errors import DataError
from prunekit.files import write_text

if TYPE_CHECKING:
    from prunekit.tasks.base import Evaluation

_AGAIN = "Delete it and evaluate the model again: the command of its run does that."


def answer_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return an evaluation's examples with their answers, as ``read_answers`` gives them from a file.

    An entry holds ``input``, ``references``, ``answer``, ``length`` in tokens, and ``influences``: by metric,
    the example's, see ``MetricValue``.
    """
    return [
        {
            "input": evaluation.inputs[index],
            "references": evaluation.references[index],
            "answer": answer,
            "length": evaluation.lengths[index],
            "influences": {name: values[index] for name, values in evaluation.influences.items()},
        }
        for index, answer in enumerate(evaluation.answers)
    ]


def write_answers(path: Path, evaluation: Evaluation) -> None:
    """Write ``answer_rows``, one a line, whole or not at all; the metrics are left out.

    The file is ASCII: what is not, and control characters, are escaped.

    Raises:
        RunFolderError: if it cannot be written; an older one stays.
    """
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in answer_rows(evaluation)))


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Return what ``write_answers`` wrote: ``answer_rows``, all with influences on the same metrics.

    Raises:
        DataError: if the file cannot be read, or a line is not as it should be; the text names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Evaluate the model again.") from error
    if lines[-1]:
        raise DataError(f"{path}, line {len(lines)}: the file ends within it. {_AGAIN}")
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}). {_AGAIN}") from error
        if problem := _problem(row, found[0] if found else row):
            raise DataError(f"{path}, line {number}: {problem}. {_AGAIN}")
        found.append(row)
    return found


def _problem(row: Any, first: dict[str, Any]) -> str | None:
    """What is wrong with a line, given the first one; None if nothing is."""
    if not isinstance(row, dict):
        return "not an object with the keys of an example"
    for key, (is_valid, wanted) in _KEYS.items():
        if key not in row:
            return f"no {key!r}"
        if not is_valid(row[key]):
            return f"{key!r} is not {wanted}"
    if row["influences"].keys() != first["influences"].keys():
        return "'influences' are on other metrics than in line 1"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
        for each in value.values()
    )


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "input": (_is_text, "a text"),
    "references": (_is_texts, "a list of texts"),
    "answer": (_is_text, "a text"),
    "length": (_is_length, "a number of tokens"),
    "influences": (_is_numbers, "an object of finite numbers"),
}
