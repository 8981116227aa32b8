"""Pages made of plain data: a run's and a comparison's, with text in them that wants to be markup."""

from comparison_calls import UGLY, comparison

from prunekit.reports.comparison import comparison_table
from prunekit.reports.comparison_page import render_comparison_page
from prunekit.reports.kept import kept_map
from prunekit.reports.run_page import render_run_page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31m $\\frac{1}{2}$"

STRUCTURE = [
    {"group": "encoder.0.self_attn.heads", "kept": 3, "size": 4},
    {"group": "encoder.0.ffn.neurons", "kept": 8, "size": 32},
    {"group": "encoder.1.self_attn.heads", "kept": 4, "size": 4},
    {"group": "encoder.1.ffn.neurons", "kept": 0, "size": 32},
    {"group": "decoder.0.self_attn.heads", "kept": 4, "size": 4},
    {"group": "decoder.0.cross_attn.heads", "kept": 4, "size": 4},
    {"group": "decoder.0.ffn.neurons", "kept": 32, "size": 32},
    {"group": "decoder.1.self_attn.heads", "kept": 0, "size": 4},
    {"group": "decoder.1.cross_attn.heads", "kept": 0, "size": 4},
    {"group": "decoder.1.ffn.neurons", "kept": 0, "size": 32},
    {"group": "decoder.blocks", "kept": 1, "size": 2},
    {"group": "hidden", "kept": 15, "size": 16},
]
KEEP = {
    "encoder.0.self_attn.heads": [0, 2, 3],
    "encoder.0.ffn.neurons": list(range(8)),
    "encoder.1.ffn.neurons": [],
    "decoder.blocks": [0],
    "hidden": list(range(15)),
}


def training_log(steps=400):
    """A stage that drives masks to 60 % and measures on the way, then one that only trains."""
    rows = []
    for step in range(1, steps + 1):
        share = min(0.6, 0.6 * step / (0.6 * steps))
        row = {"stage": "plan", "step": step, "loss": 3 / step + 0.5, "prediction": 40 / step + 1}
        row |= {"sparsity": share + 0.05 / step, "target": share, "lambda_1": 2 / step, "lambda_2": 1e4}
        row |= {"grad_norm": 1.0, "learning_rate": 3e-4}
        if step % 100 == 0:
            row |= {"per": 30 - step / 50, "per_stderr": 0.5, "n": 500, "realised_sparsity": share}
        rows.append(row)
    rows += [{"stage": "recover", "step": step, "loss": 0.6 - step / 4000} for step in range(1, steps + 1)]
    return rows


def timed(median_ms, **figures):
    return {"median_ms": median_ms, "p10_ms": median_ms - 2, "p90_ms": median_ms + 2, **figures}


def run_report(**changes):
    """A run's report.json with every section."""
    against = {"speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1, "verdict": "faster"}
    return {
        "prunekit_version": "0.1.0",
        "run": "runs/example",
        "method": "nash",
        "label": "nash-2",
        "model": "embedded:t5-g2p",
        "task": "g2p",
        "seed": 0,
        "requested": {"metric": "params", "sparsity": 0.5, "scope": ["encoder.*"]},
        "achieved": {
            "sparsity": 0.5001,
            "params": {"dense": 2000, "pruned": 1100},
            "macs": {"dense": 5000, "pruned": 3000},
            "encoder_sparsity": 0.5,
            "decoder_sparsity": None,
        },
        "structure": STRUCTURE,
        "quality": {
            "primary": "per",
            "higher_is_better": False,
            "dense": {"per": 8.5, "per_stderr": 0.3, "n": 2000},
            "pruned": {"per": 9.25, "per_stderr": 0.4, "n": 2000},
            "n": 2000,
            "split": "test",
        },
        "speed": {
            "device": "cpu",
            "new_tokens": 16,
            "rounds": 20,
            **against,
            "dense": timed(200.0),
            "pruned": timed(100.0),
            "control": timed(201.0, **{**against, "speedup": 1.0, "verdict": "no difference"}),
        },
        "verify": {"reload_max_abs": 0.0, "cached_equals_uncached": True},
        "stages": {"plan_s": 100.0, "recover_s": 260.0, "evaluate_s": 3.0},
        "auto_class": "AutoModelForSeq2SeqLM",
        "warnings": [f"careful: {HOSTILE}"],
        "recipe": {"version": 1, "description": HOSTILE, "model": "embedded:t5-g2p"},
        "environment": {"python": "3.11.7", "cpu": "Chip 9000", "gpu": None},
        **changes,
    }


def run_page(log=None, **changes):
    """A run's page."""
    return render_run_page(run_report(**changes), KEEP, training_log() if log is None else log)


def comparison_page(compared=None):
    """The page of the comparison that the tests of its table use, or of another one."""
    compared = compared or comparison()
    kept = kept_map(KEEP, STRUCTURE)
    logs = {"nash-2": training_log(), "cofi": training_log(), UGLY: training_log(20)[20:]}
    names = {row["name"] for row in compared["rows"]}
    return render_comparison_page(
        compared,
        comparison_table(compared),
        {name: kept for name in ("nash-2", "cofi", UGLY) if name in names},
        {name: log for name, log in logs.items() if name in names},
    )
