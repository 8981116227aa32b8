"""A hand-made ``comparison.json``: dense and six methods, one of them failed, one partly."""

import copy

UGLY = "a_b|<i>&\\%"
ERROR = "BudgetError: [red]96.4 %[/red] is the most that can be removed <b>here</b> & 50_% is less"
SECOND_SEED_ERROR = "TrainingError: the loss is not a number"
SEEDS = [0, 1, 2]
METRICS = {"per": "1", "wer": "1"}
ROUNDS = 4
DENSE_PARAMETERS, DENSE_MACS = 2_765_952, 20_965_248


def metric(by_seed, stderr, difference=None, low=None, high=None, verdict=None):
    mean = sum(by_seed) / len(by_seed)
    spread = sum((value - mean) ** 2 for value in by_seed)
    against = None
    if verdict:
        against = {"difference": difference, "low": low, "high": high, "verdict": verdict}
    return {
        "mean": mean,
        "sd": (spread / (len(by_seed) - 1)) ** 0.5 if len(by_seed) > 1 else None,
        "stderr": stderr,
        "by_seed": by_seed,
        "vs_reference": against,
    }


def speed(median_ms, speedup, low, high, verdict, by_seed, weights_mib):
    return {
        "median_ms": median_ms,
        "speedup": speedup,
        "speedup_low": low,
        "speedup_high": high,
        "verdict": verdict,
        "by_seed": by_seed,
        "peak_mib": None,
        "weights_mib": weights_mib,
        "vs_reference": {"ratio": speedup, "low": low, "high": high, "verdict": verdict},
    }


def counted(dense, by_seed):
    return {"dense": dense, "pruned": sum(by_seed) / len(by_seed), "by_seed": by_seed}


def row(name, method, **changes):
    """A row of a method whose every run failed; ``changes`` give it figures."""
    return {
        "name": name,
        "label": name,
        "point": {},
        "method": method,
        "model": "embedded:t5-g2p",
        "dense": False,
        "requested": {"metric": "params", "sparsity": 0.3, "scope": ["encoder.*"]},
        "error": None,
        "seeds": [{"seed": seed, "run": f"{method}-s{seed}", "error": None} for seed in SEEDS],
        "quality": None,
        "speed": None,
        "params": None,
        "macs": None,
        "sparsity": None,
        "encoder_sparsity": None,
        "decoder_sparsity": None,
        "prune_s": None,
        "train_steps": None,
        "frontier": None,
        "published": None,
        "warnings": [],
        **changes,
    }


DENSE = row(
    "dense",
    "dense",
    dense=True,
    requested=None,
    seeds=[],
    quality={"per": metric([8.562], 0.305), "wer": metric([33.95], 1.059)},
    speed={**speed(348.9, 1.0, 1.0, 1.0, "no difference", [1.0], 10.55), "vs_reference": None},
    params=counted(DENSE_PARAMETERS, [DENSE_PARAMETERS]),
    macs=counted(DENSE_MACS, [DENSE_MACS]),
    sparsity=0.0,
    encoder_sparsity=0.0,
    decoder_sparsity=0.0,
    prune_s=0.0,
    train_steps=0,
    frontier=True,
    published={"per": 8.1, "speedup": 1.0},
)
NASH_2 = row(
    "nash-2",
    "nash",
    quality={
        "per": metric([16.37, 15.9, 16.8], 0.71, 7.795, 6.9, 8.7, "worse"),
        "wer": metric([46.75, 46.1, 47.2], 1.07, 12.73, 11.2, 14.3, "higher"),
    },
    speed=speed(171.2, 2.038, 1.95, 2.11, "faster", [2.04, 2.03, 2.05], 5.19),
    params=counted(DENSE_PARAMETERS, [1_361_792, 1_361_000, 1_362_400]),
    macs=counted(DENSE_MACS, [10_546_048, 10_540_000, 10_550_000]),
    sparsity=0.3001,
    encoder_sparsity=0.3001,
    decoder_sparsity=0.6667,
    prune_s=312.4,
    train_steps=1200,
    frontier=True,
    published={"per": 12.0, "speedup": 2.2, "parameters": 1_300_000},
)
NASH_4 = row(
    "nash-4",
    "nash",
    quality={
        "per": metric([8.6, 8.7, 8.5], 0.31, 0.038, -0.3, 0.4, "no difference"),
        "wer": metric([34.0, 34.3, 33.7], 1.05, 0.05, -1.0, 1.2, "no difference"),
    },
    speed=speed(256.6, 1.36, 1.31, 1.4, "faster", [1.36, 1.35, 1.37], 7.5),
    params=counted(DENSE_PARAMETERS, [1_966_000, 1_966_000, 1_966_000]),
    macs=counted(DENSE_MACS, [14_700_000, 14_700_000, 14_700_000]),
    sparsity=0.3003,
    encoder_sparsity=0.3003,
    decoder_sparsity=0.3333,
    prune_s=95.0,
    train_steps=1200,
    frontier=True,
)
COFI = row(
    "cofi",
    "cofi",
    requested={"metric": "params", "sparsity": 0.6, "scope": []},
    quality={
        "per": metric([9.1, 9.4, 9.25], 0.33, 0.688, 0.2, 1.2, "worse"),
        "wer": metric([35.0, 35.9, 35.4], 1.06, 1.48, -0.1, 3.1, "no difference"),
    },
    speed=speed(310.0, 1.125, 1.08, 1.17, "faster", [1.12, 1.13, 1.125], 4.3),
    params=counted(DENSE_PARAMETERS, [1_110_000, 1_112_000, 1_108_000]),
    macs=counted(DENSE_MACS, [9_000_000, 9_010_000, 8_990_000]),
    sparsity=0.5998,
    encoder_sparsity=0.62,
    decoder_sparsity=0.58,
    prune_s=845.0,
    train_steps=2400,
    frontier=False,
)
PARTLY_FAILED = row(
    "uniform",
    "uniform",
    seeds=[
        {"seed": 0, "run": "uniform-s0", "error": None},
        {"seed": 1, "run": "uniform-s1", "error": SECOND_SEED_ERROR},
        {"seed": 2, "run": "uniform-s2", "error": None},
    ],
    quality={
        "per": metric([8.2, 8.3], 0.3, -0.312, -0.6, -0.05, "better"),
        "wer": metric([33.0, 33.2], 1.05, -0.85, -1.9, 0.2, "no difference"),
    },
    speed=speed(345.0, 1.011, 0.98, 1.04, "no difference", [1.01, 1.012], 9.3),
    params=counted(DENSE_PARAMETERS, [2_440_000, 2_440_000]),
    macs=counted(DENSE_MACS, [18_100_000, 18_100_000]),
    sparsity=0.2999,
    encoder_sparsity=0.2999,
    decoder_sparsity=0.0,
    prune_s=41.5,
    train_steps=600,
    frontier=True,
    warnings=[f"seed 1 failed, the figures are of seeds 0 and 2: {SECOND_SEED_ERROR}"],
)
WITH_UGLY_NAME = row(
    UGLY,
    "magnitude",
    quality={
        "per": metric([20.1, 20.3, 19.9], 0.9, 11.54, 10.1, 12.9, "worse"),
        "wer": metric([52.0, 52.5, 51.5], 1.11, 18.05, 16.0, 20.1, "higher"),
    },
    speed=speed(360.0, 0.969, 0.94, 0.99, "slower", [0.97, 0.965, 0.972], 9.3),
    params=counted(DENSE_PARAMETERS, [2_440_000, 2_440_000, 2_440_000]),
    macs=counted(DENSE_MACS, [18_100_000, 18_100_000, 18_100_000]),
    sparsity=0.3,
    encoder_sparsity=0.3,
    decoder_sparsity=0.0,
    prune_s=7.2,
    train_steps=0,
    frontier=False,
    warnings=["[bold]loud[/bold] <script>alert(1)</script>"],
)
FAILED = row(
    "optin",
    "optin",
    requested={"metric": "macs", "sparsity": 0.97, "scope": []},
    error=ERROR,
    seeds=[{"seed": seed, "run": f"optin-s{seed}", "error": ERROR} for seed in SEEDS],
)
ROWS = [DENSE, NASH_2, NASH_4, COFI, PARTLY_FAILED, WITH_UGLY_NAME, FAILED]


def timed(entry):
    """The rounds of one model; every seed of a row took the same."""
    samples = [entry["speed"]["median_ms"] + step for step in (-1.5, -0.5, 0.5, 1.5)]
    figures = {
        "median_ms": samples[0] + 1.5,
        "p10_ms": samples[0],
        "p90_ms": samples[-1],
        "p99_ms": samples[-1],
    }
    kept = ("weights_mib", "peak_mib", "speedup", "speedup_low", "speedup_high", "verdict")
    facts = {key: entry["speed"][key] for key in kept[: 2 if entry["dense"] else 6]}
    return {**figures, "samples_ms": samples, "parameters": int(entry["params"]["pruned"]), **facts}


def timed_models():
    models = {"dense": timed(DENSE)}
    for entry in ROWS[1:]:
        models |= {run["run"]: timed(entry) for run in entry["seeds"] if run["error"] is None}
    return models


COMPARISON = {
    "format": 1,
    "prunekit_version": "0.1.0",
    "name": "g2p",
    "description": "Six methods on pronunciation",
    "command": "prunekit compare recipes/compare/g2p.yaml --seeds 3",
    "model": "embedded:t5-g2p",
    "task": "g2p",
    "seeds": SEEDS,
    "sweep": None,
    "reference": "dense",
    "quality": {
        "primary": "per",
        "higher_is_better": False,
        "split": "test",
        "n": 2000,
        "limit": None,
        "num_beams": 1,
        "examples": "0" * 64,
        "metrics": METRICS,
    },
    "speed": {
        "format": 1,
        "reference": "dense",
        "mode": "generate",
        "device": "cpu",
        "attention": "sdpa",
        "threads": 1,
        "batch_size": 32,
        "input_tokens": 8,
        "dtype": "fp32",
        "num_beams": 4,
        "new_tokens": 16,
        "static_cache": False,
        "compile": False,
        "rounds": ROUNDS,
        "warmup": 1,
        "seed": 0,
        "clock": "host",
        "control": {
            **timed(DENSE),
            "speedup": 1.0,
            "speedup_low": 0.99,
            "speedup_high": 1.012,
            "verdict": "no difference",
        },
        "noise": {
            "control_low": 0.99,
            "control_high": 1.012,
            "spread": 0.012,
            "too_noisy": False,
            "says": "the reference against itself differs by up to 1.2%; differences inside that are called "
            "no difference.",
        },
        "models": timed_models(),
        "environment": {"cpu": "Chip 9000", "gpu": None, "torch": "2.13.0", "threads": 1},
    },
    "rows": ROWS,
    "recipe": {"version": 1, "model": "embedded:t5-g2p", "task": {"name": "g2p"}},
    "environment": {"python": "3.11.7", "cpu": "Chip 9000", "gpu": None, "torch": "2.13.0", "threads": 1},
    "warnings": ["one run was measured <late> & [slowly]"],
}


def comparison(**changes):
    """A copy of the comparison, to be changed at will."""
    return copy.deepcopy({**COMPARISON, **changes})


def changed(name, **changes):
    """The comparison with other entries in the row called ``name``."""
    rows = [{**entry, **changes} if entry["name"] == name else entry for entry in ROWS]
    return comparison(rows=rows)


def called(name):
    """The comparison with ``name`` for a row, an error, a warning and the comparison itself."""
    rows = [{**row, "name": name, "label": name} if row["name"] == UGLY else row for row in ROWS]
    rows[-1] = {**rows[-1], "error": name}
    return comparison(rows=rows, name=name, warnings=[name])
