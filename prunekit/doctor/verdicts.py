"""What measured times say: every verdict is a function of plain numbers, with its thresholds named here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunekit.measure.statistics import ratio_interval

OVERHEAD_BELOW = 1.3
"""Doubling the batch for less is overhead-bound: over 70 % of a call does not depend on the batch."""
COMPUTE_FROM = 1.7
"""Doubling the batch for this or more is compute-bound: 70 % of a call or more grows with the batch."""

Row = Mapping[str, Any]
PARTS = ("encoder", "decoder", "lm_head", "decoder_and_lm_head", "rest")
_OUTSIDE = ("lm_head", "rest")
_BIG_PART = 0.4


def time_shares(entry: Row, cuts: Sequence[Row] = ()) -> list[dict[str, Any]]:
    """Where the time of one call goes.

    Args:
        entry: a model's entry of a speed result.
        cuts: measured rows of half the blocks, for calls whose parts were not timed: what a share of a
            stack's blocks saves is taken for the same share of their time, if it stands out of the noise.

    Returns:
        Rows of ``part, ms, share`` that sum to the call, and ``estimated``; empty where nothing is known.
    """
    call, parts = entry["median_ms"], entry.get("parts", {})
    known = {part: parts[part]["median_ms"] for part in PARTS if part in parts}
    if known:
        # Parts are timed in a call of their own, which the stamps inside make a little longer.
        known = {part: ms * call / sum(known.values()) for part, ms in known.items()}
    else:
        depths = [row for row in cuts if row["factor"].endswith(" depth") and row.get("verdict") == "faster"]
        blocks = {f"{row['factor'].split()[0]} blocks": row["saved_ms"] / (1 - row["left"]) for row in depths}
        known = {part: min(ms, call) for part, ms in blocks.items()}
        if known:
            known["embeddings, head and rest"] = max(call - sum(known.values()), 0.0)
    return [
        {"part": part, "ms": ms, "share": ms / call, "estimated": not parts} for part, ms in known.items()
    ]


def doublings(ladder: Sequence[Row], seed: int) -> list[dict[str, Any]]:
    """What each doubling of the batch costs, as a ratio of times with its 95 % interval.

    Args:
        ladder: rows of ``batch`` and ``samples_ms``; rows without samples (not measured) are passed over.
        seed: of the bootstrap.

    Returns:
        Rows of ``batch, ratio, low, high, fixed_share``; the last is the share of a call of ``batch`` that
        does not depend on the batch if time is ``a + b * batch``: ``a / (a + b * batch) = 2 - ratio``.
    """
    samples = {row["batch"]: row["samples_ms"] for row in ladder if row.get("samples_ms")}
    found = []
    for batch in sorted(samples):
        if 2 * batch in samples:
            ratio, low, high = ratio_interval(samples[2 * batch], samples[batch], seed)
            fixed = min(max(2 - ratio, 0.0), 1.0)
            found.append({"batch": batch, "ratio": ratio, "low": low, "high": high, "fixed_share": fixed})
    return found


def bound(pairs: Sequence[Row], batch: int) -> dict[str, Any]:
    """Overhead-bound, compute-bound or mixed, at ``batch``.

    Args:
        pairs: what `doublings` gave.
        batch: where the verdict is wanted; half of it stands in where its double was not measured.

    Returns:
        The pair it rests on, with ``verdict`` ("overhead-bound", "compute-bound", "mixed", "not known") and
        ``sure``: whether the whole interval lies on that side of the thresholds.
    """
    by_batch = {pair["batch"]: pair for pair in pairs}
    pair = by_batch.get(batch) or (by_batch.get(batch // 2) if batch % 2 == 0 else None)
    if pair is None:
        return {"verdict": "not known", "sure": False}
    sides = {_side(pair[key]) for key in ("low", "ratio", "high")}
    return {**pair, "verdict": _side(pair["ratio"]), "sure": len(sides) == 1}


def _side(ratio: float) -> str:
    if ratio < OVERHEAD_BELOW:
        return "overhead-bound"
    return "compute-bound" if ratio >= COMPUTE_FROM else "mixed"


def width_from(ladder: Sequence[Row]) -> int | None:
    """The smallest measured batch at which half the neurons is faster beyond the noise; none if at none."""
    faster = [row["batch"] for row in ladder if (row.get("narrow") or {}).get("verdict") == "faster"]
    return min(faster, default=None)


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Experiments by measured gain, the largest first; those that could not be measured last."""
    return sorted(rows, key=lambda row: -row.get("speedup", 0.0))


def dominant(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The cut of equal share that gains most, among those whose gain stands out of the noise.

    Returns:
        Its row with ``clear``: whether its interval lies above the next cut's; none where no cut gains.
    """
    cuts = ranked([row for row in rows if row["kind"] == "cut" and "speedup" in row])
    first = next((row for row in cuts if row["verdict"] == "faster"), None)
    if first is None:
        return None
    others = [row["speedup_high"] for row in cuts if row is not first]
    return {**first, "clear": all(first["speedup_low"] > high for high in others)}


def larger_batch(pair: Row, control: Row) -> dict[str, Any]:
    """Twice the batch as a thing to try: its gain in examples a second.

    Args:
        pair: a doubling, with ``batch``.
        control: the speed result's ``control``; gains inside its interval are no difference.
    """
    gain, low, high = (2 / pair[key] for key in ("ratio", "high", "low"))
    verdict = "no difference"
    if low > max(1.0, control["speedup_high"]):
        verdict = "faster"
    elif high < min(1.0, control["speedup_low"]):
        verdict = "slower"
    return {
        "name": f"batch {2 * pair['batch']}",
        "kind": "throughput",
        "factor": "batch size",
        "change": f"examples a second; one call takes {pair['ratio']:.2f}x as long",
        "how": [f"speed: {{batch_size: {2 * pair['batch']}}}"],
        "speedup": gain,
        "speedup_low": low,
        "speedup_high": high,
        "verdict": verdict,
    }


def removed_time(dense: Sequence[Row], pruned: Sequence[Row]) -> list[dict[str, Any]]:
    """Where a pruned model's time went, part by part.

    Args:
        dense: rows of `time_shares`.
        pruned: rows of `time_shares` of the other model.

    Returns:
        Rows of ``part, dense_ms, pruned_ms, removed_ms, removed_share`` (of all that went; none where the
        call got no shorter).
    """
    after = {row["part"]: row["ms"] for row in pruned}
    rows = [(row["part"], row["ms"], after[row["part"]]) for row in dense if row["part"] in after]
    gone = sum(before - now for _, before, now in rows)
    return [
        {
            "part": part,
            "dense_ms": before,
            "pruned_ms": now,
            "removed_ms": before - now,
            "removed_share": (before - now) / gone if gone > 0 else None,
        }
        for part, before, now in rows
    ]


def outside(rows: Sequence[Row]) -> dict[str, float] | None:
    """What pruning heads, neurons and blocks cannot reach: the LM head and the rest of the call.

    Args:
        rows: what `removed_time` gave.

    Returns:
        ``dense_share`` and ``pruned_share`` of the call, and ``limit``: the speedup with all else gone.
        None where these parts were not timed.
    """
    parts = [row for row in rows if row["part"] in _OUTSIDE]
    if not parts:
        return None
    dense, pruned = (sum(row[key] for row in rows) for key in ("dense_ms", "pruned_ms"))
    return {
        "dense_share": sum(row["dense_ms"] for row in parts) / dense,
        "pruned_share": sum(row["pruned_ms"] for row in parts) / pruned,
        "limit": dense / max(sum(row["pruned_ms"] for row in parts), 1e-9),
    }


def whole_stacks(parts: Sequence[Row], kept: Sequence[Row]) -> list[str]:
    """Stacks that take 0.4 or more of the dense call and have kept all their blocks.

    Args:
        parts: what `removed_time` gave.
        kept: rows of ``stack`` and ``block`` (of the dense and of the pruned model).
    """
    total = sum(row["dense_ms"] for row in parts)
    big = {row["part"] for row in parts if row["dense_ms"] >= _BIG_PART * total}
    return [row["stack"] for row in kept if row["stack"] in big and row["block"][0] == row["block"][1]]
