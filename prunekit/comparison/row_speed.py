"""The speed of a comparison's rows: all models were timed in the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from prunekit.measure import statistics

Speed = Mapping[str, Any]
Timed = Sequence[tuple[str, Mapping[str, Any]]]
"""Name and result, as `prunekit.measure.speed.measure_speed` returned it, of a row's model of each seed."""


def row_speed(timed: Timed, speed: Speed, *, dense: bool, seed: int) -> dict[str, Any] | None:
    """Time of a row's models, and their speedup over the dense one.

    The time of a round is the mean over the row's models in that round.

    Args:
        timed: the row's models; those that failed count for nothing.
        speed: the measurement they are of.
        dense: whether this is the dense model's own row, with a speedup of 1.
        seed: of the bootstrap.

    Returns:
        ``median_ms, speedup, speedup_low, speedup_high, verdict, by_seed, peak_mib, weights_mib,
        vs_reference`` (none so far); only ``error`` where every model failed; none where there is no model.
    """
    measured = _measured(timed)
    if not measured:
        return {"error": timed[0][1]["error"]} if timed else None
    own = _mean_ms(measured)
    compared: dict[str, Any] = dict.fromkeys(("speedup", "speedup_low", "speedup_high"), 1.0)
    compared["verdict"] = "no difference"
    if not dense:
        reference, twin = speed["models"][speed["reference"]], speed["control"]
        compared = statistics.compare(reference["samples_ms"], twin["samples_ms"], own, seed)
    peaks = [model["peak_mib"] for model in measured if model.get("peak_mib") is not None]
    return {
        "median_ms": float(np.median(own)),
        **compared,
        "by_seed": [1.0] if dense else [model["speedup"] for model in measured],
        "peak_mib": fmean(peaks) if peaks else None,
        "weights_mib": fmean(model["weights_mib"] for model in measured),
        "vs_reference": None,
    }


def speed_against(own: Timed, reference: Timed, control: Speed, seed: int) -> dict[str, Any] | None:
    """How many times faster a row is than the reference row.

    Args:
        own: the row's models.
        reference: the reference row's.
        control: the dense model against itself.
        seed: of the bootstrap.

    Returns:
        ``ratio, low, high`` and ``verdict``, which is "no difference" unless the whole interval lies beyond 1
        and beyond what the dense model differs from itself; none where one of the two was not timed.
    """
    ours, theirs = _measured(own), _measured(reference)
    if not ours or not theirs:
        return None
    ratio, low, high = statistics.ratio_interval(_mean_ms(theirs), _mean_ms(ours), seed)
    verdict = statistics.verdict(low, high, control["speedup_low"], control["speedup_high"])
    return {"ratio": ratio, "low": low, "high": high, "verdict": verdict}


def timing_errors(timed: Timed) -> list[str]:
    """What is to be said where some of a row's models could be timed and others not."""
    if not _measured(timed):
        return []
    failed = {name: model["error"] for name, model in timed if "error" in model}
    return [f"{name} was not timed, the times are of the others: {error}" for name, error in failed.items()]


def _measured(timed: Timed) -> list[Mapping[str, Any]]:
    return [model for _, model in timed if "error" not in model]


def _mean_ms(models: Sequence[Mapping[str, Any]]) -> list[float]:
    """One time a round."""
    means: list[float] = np.mean([model["samples_ms"] for model in models], axis=0).tolist()
    return means
