"""The verdicts in sentences; each names the measurement that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunekit.doctor import verdicts
from prunekit.reports.doctor import PART_WORDS, gain, part_name

Found = Mapping[str, Any]


def sentences(found: Found) -> dict[str, str | None]:
    """``time, bound, width, dominant, cuts, widths, run``, one text each; none where it does not apply."""
    return {
        "time": _time(found),
        "bound": bound_sentence(found),
        "width": _width(found),
        "dominant": _dominant(found),
        "cuts": f"No cuts were tried: {_ended(found['no_cuts'])}" if found["no_cuts"] else None,
        "widths": _widths(found["widths"]),
        "run": why(found["run"], found["bound"], found["settings"]) if found["run"] else None,
    }


def _time(found: Found) -> str | None:
    if not found["time"]:
        return None
    shares = ", ".join(
        f"{part_name(row['part'])} {row['share']:.0%}"
        for row in sorted(found["time"], key=lambda row: -row["ms"])
    )
    how = " (estimated: a stack takes what half its blocks save, for half its blocks)"
    return f"The time goes to: {shares}{how if found['time'][0]['estimated'] else ''}."


def bound_sentence(found: Found) -> str:
    """What bounds a call, from ``bound`` and the device in ``settings``."""
    bound, settings = found["bound"], found["settings"]
    if bound["verdict"] == "not known":
        return "Whether calls are overhead-bound or compute-bound is not known: no two batches were measured."
    batch = bound["batch"]
    cost = f"{bound['ratio']:.2f}x [{bound['low']:.2f}, {bound['high']:.2f}]"
    where = f"from batch {batch} to {2 * batch} a call takes {cost} as long"
    means = {
        "overhead-bound": f"about {bound['fixed_share']:.0%} of a call does not depend on the batch, so what "
        "counts is how many operations are called, not how large they are",
        "compute-bound": "the time is spent in arithmetic and memory, so fewer units anywhere mean less time",
        "mixed": f"about {bound['fixed_share']:.0%} of a call does not depend on the batch",
    }[bound["verdict"]]
    word = bound_word(bound["verdict"], settings["device"])
    if not bound["sure"]:
        doubt = " The interval reaches over a threshold: ask for more --rounds."
        return f"Probably {word} at batch {batch}: {where}; {means}.{doubt}"
    return f"{word.capitalize()} at batch {batch}: {where}; {means}."


def bound_word(verdict: str, device: str) -> str:
    """The verdict as it is called on this device: on a GPU the overhead is that of launching kernels."""
    if verdict == "overhead-bound" and device == "cuda":
        return "launch-bound"
    return {"mixed": "between overhead-bound and compute-bound"}.get(verdict, verdict)


def _width(found: Found) -> str | None:
    tried = [row for row in found["batches"] if row.get("narrow")]
    if not tried:
        return None
    measured = ", ".join(str(row["batch"]) for row in tried)
    start = found["width_from"]
    if start is None:
        return (
            f"Width does not matter up to batch {tried[-1]['batch']}: half the neurons is nowhere faster "
            "beyond the noise."
        )
    at = next(row for row in tried if row["batch"] == start)
    text = (
        f"Width matters from batch {start} (measured: {measured}): half the neurons is {gain(at['narrow'])}."
    )
    later = [
        str(row["batch"]) for row in tried if row["batch"] > start and row["narrow"]["verdict"] != "faster"
    ]
    return f"{text} Not beyond the noise at {', '.join(later)}." if later else text


def _dominant(found: Found) -> str | None:
    cuts = [row for row in found["experiments"] if row["kind"] == "cut" and "speedup" in row]
    if not cuts:
        return None
    first = found["dominant"]
    if first is None:
        return "No factor dominates: no cut of half is faster beyond the noise."
    text = f"Dominant factor: {first['factor']}. {first['name'].capitalize()} is {gain(first)} as fast"
    others = [row for row in verdicts.ranked(cuts) if row["name"] != first["name"]]
    if not others:
        return f"{text}."
    doubt = "" if first["clear"] else "; their intervals overlap, so which comes first is not certain"
    return f"{text}, the next cut of half ({others[0]['factor']}) {gain(others[0])}{doubt}."


def _widths(widths: Found) -> str:
    missing = {multiple: count for multiple, count in widths["missing"].items() if count}
    if not missing:
        return f"All {widths['sublayers']} widths are multiples of 64."
    text = "; ".join(
        f"{count} of {widths['sublayers']} widths miss a multiple of {m}" for m, count in missing.items()
    )
    needed = [
        f"`round_to: {row['round_to']}` would keep {row['up']:,} units more or {row['down']:,} fewer"
        for row in widths["rounding"]
        if widths["missing"][str(row["round_to"])]
    ]
    return f"{text}. {'; '.join(needed)}." if needed else f"{text}."


def why(run: Found, bound: Found, settings: Found) -> str:
    """One paragraph: why a pruned model is faster than its dense one, or is not.

    Args:
        run: dense and pruned model side by side.
        bound: of the pruned model.
        settings: what was measured.
    """
    if "error" in run:
        return f"Dense and pruned model were not compared: {_ended(run['error'])}"
    said = [_outcome(run), *_went(run), *_kept_whole(run), *_arithmetic(run, bound, settings)]
    return " ".join([*said, *_limit(run)])


def _outcome(run: Found) -> str:
    times = f"{run['dense_ms']:.1f} -> {run['pruned_ms']:.1f} ms"
    if run["verdict"] == "faster":
        return f"The pruned model is {gain(run)} as fast as the dense one ({times})."
    if run["verdict"] == "slower":
        return f"The pruned model is slower: {gain(run)} as fast as the dense one ({times})."
    return f"The pruned model is no faster: {gain(run)} is no difference beyond the noise ({times})."


def _went(run: Found) -> list[str]:
    if run["verdict"] != "faster" or not run["parts"]:
        return []
    rows = sorted(run["parts"], key=lambda row: -row["removed_ms"])
    shares = ", ".join(
        f"{part_name(row['part'])} {row['removed_share']:.0%} "
        f"({row['dense_ms']:.1f} -> {row['pruned_ms']:.1f} ms)"
        for row in rows
        if row["removed_share"] is not None
    )
    return [f"Of the time that went: {shares}."] if shares else []


def _kept_whole(run: Found) -> list[str]:
    return [
        f"The {stack} takes {_share(run, stack):.0%} of the dense call and kept all its blocks"
        + (
            ", each of which runs once a token however narrow it is."
            if stack == "decoder"
            else "; narrower blocks are as many calls as before."
        )
        for stack in verdicts.whole_stacks(run["parts"], run["kept"])
    ]


def _share(run: Found, part: str) -> float:
    ms: float = next(row["dense_ms"] for row in run["parts"] if row["part"] == part)
    return ms / float(run["dense_ms"])


def _arithmetic(run: Found, bound: Found, settings: Found) -> list[str]:
    """Arithmetic and time that went; where time lags far behind, what bounds the call."""
    what, (before, after) = ("MACs", run["macs"]) if run["macs"] else ("parameters", run["parameters"])
    fewer, shorter = 1 - after / before, 1 - run["pruned_ms"] / run["dense_ms"]
    text = f"It has {fewer:.0%} fewer {what} and takes {max(shorter, 0.0):.0%} less time."
    if fewer <= 0 or shorter >= fewer / 2 or bound["verdict"] in ("not known", "compute-bound"):
        return [text]
    word = bound_word(bound["verdict"], settings["device"])
    return [
        f"{text} It is {word} at batch {bound['batch']}: the number of its operations counts for more than "
        "their width."
    ]


def _limit(run: Found) -> list[str]:
    outside = run["outside"]
    if outside is None:
        return []
    shares = f"{outside['dense_share']:.0%} of the dense and {outside['pruned_share']:.0%} of the pruned call"
    return [
        f"LM head and {PART_WORDS['rest']} are {shares}; no cut of heads, neurons or blocks reaches them: "
        f"with all else gone the speedup would be {outside['limit']:.1f}x."
    ]


def _ended(text: Any) -> str:
    return str(text).rstrip(".") + "."
