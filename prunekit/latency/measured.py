"""A stopwatch that measures: whole models, cut and dense, side by side at the recipe's speed settings.

What a sublayer takes is the difference between whole models in which all sublayers of its kind were cut
alike, over their number. A module timed by itself would be quicker and less noisy, but it would have its
weights and its input in the caches, no other kernels in the queue before it, and, in a decoder, none of the
work that a growing cache and the beams bring: the differences have all of that in them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from prunekit import ranks
from prunekit.errors import RunFolderError
from prunekit.files import write_text
from prunekit.json_files import read_json
from prunekit.latency.grid import cuts, tabulated
from prunekit.measure.environment import environment_record
from prunekit.measure.speed import measure_speed, random_inputs
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.stopwatch import LatencyTable, Measured

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.progress import Progress
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import SpeedSpec

FILE = "latency.json"
FORMAT = 1
TABLE_ROUNDS = 10
"""Rounds of the table's measurements at most: what they are off by, measuring the whole model corrects."""

_DENSE = "dense"
_NO_PART_OF_THE_TIMES = {"rounds", "warmup", "seed"}
# Where a model came from, and what transformers infers from the first labels.
_NO_PART_OF_THE_SHAPE = ("_name_or_path", "problem_type")
_ENVIRONMENT = ("prunekit", "torch", "transformers", "cpu", "gpu", "cuda", "driver")
_log = logging.getLogger(__name__)


class MeasuredStopwatch:
    """Measures a model and cuts of it on one device.

    The table is kept as ``latency.json`` in the run folder. A run whose folder, or one beside it, has the
    table of a model of the same shapes at the same settings on the same device takes that. Of several
    processes the first one measures.

    Args:
        dense: the dense model; it is left as it was, on the device where it was.
        spec: how to measure.
        folder: the run folder.
        device: where to measure.
        progress: draws one bar for each measurement.
        clock: seconds, in place of the host's clock or CUDA events; for tests.
    """

    def __init__(
        self,
        dense: PrunableModel,
        spec: SpeedSpec,
        folder: Path,
        *,
        device: torch.device,
        progress: Progress | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.dense = dense
        self.spec = spec
        self.folder = folder
        self.device = device
        self._progress = progress
        self._clock = clock
        self._table: LatencyTable | None = None

    def table(self) -> LatencyTable:
        """What each part takes, measured once for all runs side by side that measure alike."""
        if self._table is None:
            stored = ranks.from_first(self._kept_table)
            self._table = LatencyTable(
                {
                    name: {int(count): ms for count, ms in points.items()}
                    for name, points in stored["sublayers"].items()
                },
                stored["block_ms"],
                stored["total_ms"],
            )
        return self._table

    def _kept_table(self) -> dict[str, Any]:
        marks = self.fingerprint()
        stored = self._stored(marks)
        if stored is None:
            stored = {"format": FORMAT, "fingerprint": marks, **self._measured_table()}
        write_text(self.folder / FILE, json.dumps(stored, indent=1) + "\n")
        return stored

    def ratio(self, plan: PruningPlan) -> Measured:
        """The model cut by ``plan`` against the dense one, interleaved, with a 95 % interval."""
        found = ranks.from_first(lambda: self._speed({"pruned": plan}, self.spec))["models"]["pruned"]
        return Measured(1 / found["speedup"], 1 / found["speedup_high"], 1 / found["speedup_low"])

    def fingerprint(self) -> dict[str, Any]:
        """What the table depends on, as plain data."""
        structure = self.dense.structure
        environment = environment_record()
        config = self.dense.model.config.to_dict()
        text = json.dumps(
            {key: value for key, value in config.items() if key not in _NO_PART_OF_THE_SHAPE},
            sort_keys=True,
            default=str,
        )
        found = {
            "model": type(self.dense.model).__name__,
            "config": hashlib.sha256(text.encode()).hexdigest(),
            "units": {sub.name: sub.units.size for sub in structure.sublayers.values()},
            "grid": {".".join(kind): [cut.kept for cut in own] for kind, own in cuts(structure).items()},
            "speed": self.spec.model_dump(mode="json", exclude=_NO_PART_OF_THE_TIMES),
            "device": self.device.type,
            "threads": self.spec.threads or environment["threads"],
            **{name: environment[name] for name in _ENVIRONMENT},
        }
        # As JSON gives it back: tuples become lists.
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain

    def _measured_table(self) -> dict[str, Any]:
        spec = self.spec.model_copy(update={"rounds": min(self.spec.rounds, TABLE_ROUNDS)})
        structure = self.dense.structure
        found, measurements = [], []
        # A kind at a time, each beside the dense model: no more models in memory than one kind has cuts.
        for (stack, role), own in cuts(structure).items():
            result = self._speed({str(number): cut.plan for number, cut in enumerate(own)}, spec)
            times = {name: entry["median_ms"] for name, entry in result["models"].items()}
            dense_ms = times.pop(_DENSE)
            found += [(cut, ms / dense_ms) for cut, ms in zip(own, times.values(), strict=True)]
            measurements.append(
                {
                    "stack": stack,
                    "role": role,
                    "dense_ms": dense_ms,
                    "cuts": [
                        {"kept": cut.kept, "ms": ms} for cut, ms in zip(own, times.values(), strict=True)
                    ],
                }
            )
        table = tabulated(structure, found, median(row["dense_ms"] for row in measurements))
        return {
            "total_ms": table.total_ms,
            "block_ms": table.block_ms,
            "sublayers": table.sublayers,
            "rounds": spec.rounds,
            "measurements": measurements,
            "environment": environment_record(),
        }

    def _speed(self, plans: Mapping[str, PruningPlan], spec: SpeedSpec) -> dict[str, Any]:
        models: dict[str, PreTrainedModel] = {_DENSE: self.dense.copy().model}
        models |= {name: self.dense.pruned(plan).model for name, plan in plans.items()}
        for model in models.values():
            model.to(self.device)
        inputs = random_inputs(models[_DENSE], spec, spec.seed)
        return measure_speed(models, inputs, spec, parts=False, progress=self._progress, clock=self._clock)

    def _stored(self, marks: Mapping[str, Any]) -> dict[str, Any] | None:
        own = self.folder / FILE
        for path in (own, *sorted(path for path in self.folder.parent.glob(f"*/{FILE}") if path != own)):
            stored = _loaded(path)
            if stored.get("format") == FORMAT and stored.get("fingerprint") == marks:
                _log.info("table of times reused from %s", path)
                return stored
        return None


def _loaded(path: Path) -> dict[str, Any]:
    """What is in a file; nothing where it is not there, or, which is told, cannot be read."""
    if not path.is_file():
        return {}
    try:
        return read_json(path, "Times are measured again.")
    except RunFolderError as error:
        _log.warning("%s", error)
        return {}
