"""Scores in a run folder, so that another budget on the same model and data need not score again."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import prunekit
from prunekit import ranks
from prunekit.files import replacing
from prunekit.scoring.scores import Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "scores.safetensors"
_PARTS = {"errors": ".stderr", "gradients": ".gradients", "exact": ".exact"}
"""Field of ``Scores`` and how its tensors' names end; those of ``values`` are the groups' names."""
_NO_PART = ("_name_or_path", "problem_type")
"""What changes no score: where a model came from, and what transformers infers from the first labels."""
_log = logging.getLogger(__name__)

Fingerprint = Mapping[str, Any]


def fingerprint(
    method: str,
    model: PreTrainedModel,
    batches: Sequence[Mapping[str, Tensor]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """What scores depend on: two runs with equal fingerprints have equal scores.

    Args:
        method: the method's name.
        model: weights and config go in as hashes.
        batches: the calibration batches, as a hash.
        settings: what else decides the scores, as plain JSON values; never the budget.
    """
    data = {
        f"{number}.{name}": tensor for number, batch in enumerate(batches) for name, tensor in batch.items()
    }
    config = {key: value for key, value in model.config.to_dict().items() if key not in _NO_PART}
    found = {
        "method": method,
        "version": prunekit.__version__,
        "weights": _digest(model.state_dict()),
        "config": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
        "data": _digest(data),
        **{f"settings.{name}": value for name, value in settings.items()},
    }
    # As JSON gives it back: tuples become lists.
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


class ScoreCache:
    """The scores of one run: looked for in its own folder, then in those beside it.

    Args:
        folder: the run folder.
        fingerprint: of this run's scores.

    Attributes:
        reused_s: wall seconds that the scores loaded had taken to compute; 0 where none were found.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.reused_s = 0.0
        self._began = time.perf_counter()

    def load(self) -> Scores | None:
        """Scores of a run that asked for the same, or none; a log line says which, or what differs.

        A damaged file is named and passed over, so that its scores are computed anew. Of several processes
        the first one looks.
        """
        found, self.reused_s = ranks.from_first(self._found)
        return found

    def _found(self) -> tuple[Scores | None, float]:
        differing: tuple[Path, list[str]] | None = None
        for path in self._candidates():
            stored, seconds = _marks_of(path)
            if stored is None or stored.get("method") != self.fingerprint["method"]:
                continue
            different = sorted(
                key
                for key in stored.keys() | self.fingerprint.keys()
                if stored.get(key) != self.fingerprint.get(key)
            )
            if not different:
                scores = _read(path)
                if scores is None:
                    continue
                _log.info("scores of %s reused from %s", self.fingerprint["method"], path)
                return scores, seconds
            if differing is None or len(different) < len(differing[1]):
                differing = path, different
        if differing is not None:
            _log.warning(
                "scores of %s computed anew: %s differ from those in %s",
                self.fingerprint["method"],
                ", ".join(differing[1]),
                differing[0],
            )
        return None, 0.0

    def save(self, scores: Scores) -> None:
        """Write ``scores.safetensors``; it appears whole or not at all, and holds a digest of its content.

        Raises:
            RunFolderError: if it cannot be written; an older one stays.
        """
        scores.check()  # what is kept is reused, by other runs too
        tensors = dict(scores.values)
        for field, end in _PARTS.items():
            tensors |= {name + end: value for name, value in getattr(scores, field).items()}
        # The format wants each tensor in memory of its own.
        tensors = {
            name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
        }
        seconds = self.reused_s + time.perf_counter() - self._began
        marks = {
            "fingerprint": json.dumps(dict(self.fingerprint)),
            "seconds": f"{seconds:.1f}",
            "sha256": _digest(tensors),
        }
        ranks.from_first(lambda: self._write(tensors, marks))

    def _write(self, tensors: dict[str, Tensor], marks: dict[str, str]) -> None:
        with replacing(self.folder / FILE) as partial:
            save_file(tensors, partial, metadata=marks)

    def _candidates(self) -> list[Path]:
        own = self.folder / FILE
        beside = sorted(path for path in self.folder.parent.glob(f"*/{FILE}") if path != own)
        return [path for path in (own, *beside) if path.is_file()]


def _marks_of(path: Path) -> tuple[dict[str, Any] | None, float]:
    """The fingerprint in a file, and the seconds; none where it is damaged, which is told."""
    try:
        with safe_open(path, framework="pt") as file:
            marks = file.metadata() or {}
            found: dict[str, Any] = dict(json.loads(marks["fingerprint"]))
            return found, float(marks["seconds"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        _tell_damaged(path, f"{type(error).__name__}: {error}")
        return None, 0.0


def _read(path: Path) -> Scores | None:
    """The scores in a file; none where they are not those that were written, which is told."""
    parts: dict[str, dict[str, Tensor]] = {"values": {}, **{field: {} for field in _PARTS}}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            written = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        _tell_damaged(path, f"{type(error).__name__}: {error}")
        return None
    if written != _digest(tensors):
        _tell_damaged(path, "its sha256 is not the one that it was written with")
        return None
    for name, tensor in tensors.items():
        field = next((field for field, end in _PARTS.items() if name.endswith(end)), "values")
        parts[field][name.removesuffix(_PARTS.get(field, ""))] = tensor
    return Scores(**parts)


def _tell_damaged(path: Path, problem: str) -> None:
    _log.warning(
        "scores in %s are damaged (%s) and not used: they are computed anew. Delete that file.", path, problem
    )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes, types and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # As bytes, because numpy knows no bfloat16.
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
