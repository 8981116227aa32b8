"""A hand-made run report, as ``report.json`` holds it."""

import copy


def timing(median, **more):
    return {
        "median_ms": median,
        "p10_ms": median - 1.0,
        "p90_ms": median + 2.0,
        "samples_ms": [median],
        **more,
    }


def compared(median, speedup, low, high, verdict, **more):
    gain = {"speedup": speedup, "speedup_low": low, "speedup_high": high, "verdict": verdict}
    return timing(median, **gain, **more)


REPORT = {
    "prunekit_version": "0.1.0",
    "method": "nash",
    "label": "nash-2",
    "model": "embedded:t5-g2p",
    "task": "g2p",
    "seed": 7,
    "run": "runs/demo",
    "requested": {"metric": "params", "sparsity": 0.3, "scope": ["encoder.*"]},
    "achieved": {
        "params": {"dense": 3000000, "pruned": 2100000},
        "prunable_params": {"dense": 2000000, "pruned": 1100000},
        "macs": {"dense": 80000000, "pruned": 60000000, "ratio": 0.75},
        "sparsity": 0.3004,
        "encoder_sparsity": 0.3004,
        "decoder_sparsity": 0.5,
    },
    "quality": {
        "primary": "phoneme_error_rate",
        "higher_is_better": False,
        "n": 1200,
        "dense": {
            "phoneme_error_rate": 0.08125,
            "phoneme_error_rate_stderr": 0.00213,
            "accuracy": 0.7,
            "n": 1200,
        },
        "pruned": {
            "phoneme_error_rate": 0.085,
            "phoneme_error_rate_stderr": 0.0022,
            "accuracy": 0.68,
            "n": 1200,
        },
    },
    "speed": {
        "device": "cpu",
        "dtype": "fp32",
        "attention": "sdpa",
        "threads": 2,
        "batch_size": 32,
        "input_tokens": 9,
        "num_beams": 4,
        "new_tokens": 16,
        "rounds": 20,
        "warmup": 3,
        "dense": timing(100.0, weights_mib=11.44, peak_mib=None, parts={"natural": timing(90.0, tokens=14)}),
        "pruned": timing(
            75.0,
            weights_mib=8.01,
            peak_mib=None,
            parts={"natural": compared(80.0, 1.125, 1.1, 1.15, "faster", tokens=13)},
        ),
        "control": compared(100.2, 0.998, 0.99, 1.006, "no difference"),
        "speedup": 1.3333,
        "speedup_low": 1.3,
        "speedup_high": 1.36,
        "verdict": "faster",
    },
    "structure": [
        {"group": "encoder.0.self_attn.heads", "kept": 6, "size": 8},
        {"group": "encoder.0.ffn.neurons", "kept": 700, "size": 1024},
        {"group": "encoder.1.self_attn.heads", "kept": 3, "size": 8},
        {"group": "encoder.1.ffn.neurons", "kept": 800, "size": 1024},
        {"group": "decoder.blocks", "kept": 2, "size": 4},
    ],
    "verify": {
        "masked_vs_pruned_max_abs": 1.19e-7,
        "tolerance": 1e-5,
        "reload_max_abs": 0.0,
        "cached_equals_uncached": True,
    },
    "stages": {"plan_s": 312.0, "recover_s": 61.25},
    "environment": {"python": "3.11.7", "cpu": "Chip 9000", "gpu": None, "threads": 2},
    "recipe": {"version": 1, "model": "embedded:t5-g2p"},
    "warnings": ["recovery stopped early"],
}


def changed(**sections):
    return {**copy.deepcopy(REPORT), **sections}


def without(*sections):
    return {key: value for key, value in REPORT.items() if key not in sections}
