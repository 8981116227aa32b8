"""A hand-made report, and the lines a reader finds in it."""

import copy
import io
import subprocess
import sys

import pytest
import torch
from report_calls import REPORT, changed, without
from rich.console import Console
from transformers import T5Config, T5ForConditionalGeneration

from prunekit.measure.speed import as_pair, measure_speed, random_inputs
from prunekit.recipe import SpeedSpec
from prunekit.reports.run import print_summary, render_markdown


def summary(report, width=140):
    console = Console(file=io.StringIO(), width=width)
    print_summary(report, console)
    return console.file.getvalue()


DIGESTS = {"model": "ab" * 32, "recipe": "cd" * 32, "data": "ef" * 32}


@pytest.mark.parametrize(
    ("data", "said"), [(DIGESTS["data"], "data efefefefefef"), (None, "data shipped with prunekit")]
)
def test_the_fingerprint_is_one_line(data, said):
    report = {**REPORT, "fingerprint": {**DIGESTS, "data": data}}
    line = f"\nFingerprint: model abababababab, recipe cdcdcdcdcdcd, {said}, python 3.11.7.\n"
    assert line in render_markdown(report)


def test_a_report_of_an_earlier_prunekit_has_no_fingerprint():
    assert "Fingerprint" not in render_markdown(REPORT)


def test_title_names_label_method_model_and_task():
    assert render_markdown(REPORT).startswith("# nash-2 (nash) on embedded:t5-g2p, task g2p\n")


@pytest.mark.parametrize(
    "line",
    [
        "Requested 30 % of `encoder.*` removed; achieved 30.0 %.",
        r"| removed from encoder.\* | 30 % | 30.0 % |  |",
        "| removed from the decoder |  | 50.0 % |  |",
        "| parameters |  | 3,000,000 -> 2,100,000 (-30.0 %) |  |",
        "| MACs |  | 80,000,000 -> 60,000,000 (-25.0 %) |  |",
        "| phoneme_error_rate (lower is better) |  |  | 0.08125 ± 0.0021 -> 0.085 ± 0.0022 |",
        "| generate, 16 tokens forced (CPU) |  |  | 100.0 -> 75.0 ms, 1.33x [1.30, 1.36], faster |",
    ],
)
def test_requested_achieved_and_measured_stand_side_by_side(line):
    assert line in render_markdown(REPORT).splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "| phoneme_error_rate (lower is better) | 0.08125 ± 0.0021 | 0.085 ± 0.0022 | +0.00375 |",
        "| accuracy | 0.7 | 0.68 | -0.02 |",
        "± is one standard error, 1,200 examples.",
    ],
)
def test_quality_is_shown_with_standard_errors(line):
    assert line in render_markdown(REPORT).splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "CPU: Chip 9000, fp32, sdpa, batch 32, 9 input tokens, beams 4, threads 2, 20 interleaved rounds, "
        "3 warm-up rounds before them.",
        "| generate, 16 tokens forced | 100.0 (99.0 to 102.0) | 75.0 (74.0 to 77.0) "
        "| 1.33x [1.30, 1.36], faster |",
        "| generate, natural length (14 and 13 tokens) | 90.0 (89.0 to 92.0) | 80.0 (79.0 to 82.0) "
        "| 1.12x [1.10, 1.15], faster |",
        "| control: dense a second time | 100.0 (99.0 to 102.0) | 100.2 (99.2 to 102.2) "
        "| 1.00x [0.99, 1.01], no difference |",
        "| weights, MiB | 11.4 | 8.0 |  |",
        "Times are of a CPU; a GPU may rank the models differently.",
    ],
)
def test_speed_is_shown_with_spread_interval_verdict_and_device(line):
    assert line in render_markdown(REPORT).splitlines()


def test_gpu_times_are_labelled_with_the_gpu_and_carry_no_cpu_note():
    speed = REPORT["speed"] | {"device": "cuda", "environment": {"cpu": "Chip 9000", "gpu": "Card 100"}}
    text = render_markdown(changed(speed=speed))
    assert "GPU: Card 100, fp32" in text
    assert "Times are of a CPU" not in text


def test_few_rounds_are_pointed_out():
    text = render_markdown(changed(speed=REPORT["speed"] | {"rounds": 2}))
    assert "Only 2 timed rounds: too few for the interval to mean much." in text


def test_structure_is_a_table_per_stack_with_totals():
    lines = render_markdown(REPORT).splitlines()
    start = lines.index("| encoder layer | self_attn.heads | ffn.neurons |")
    assert lines[start + 2 : start + 5] == [
        "| 0 | 6 of 8 | 700 of 1,024 |",
        "| 1 | 3 of 8 | 800 of 1,024 |",
        "| all | 9 of 16 | 1,500 of 2,048 |",
    ]
    assert "- `decoder.blocks`: 2 of 4" in lines


@pytest.mark.parametrize(
    "line",
    [
        "- masked against pruned model, largest difference: 1.19e-07",
        "- saved and loaded again, largest difference: 0",
        "- cached and uncached generation agree: yes",
        "- plan: 5 min 12 s",
        "- recover: 61.2 s",
        "- recovery stopped early",
        "| cpu | Chip 9000 |",
        "model = load_model('runs/demo')",
        "model: embedded:t5-g2p",
    ],
)
def test_verification_times_warnings_machine_loading_and_recipe_are_shown(line):
    assert line in render_markdown(REPORT).splitlines()


def test_loading_shows_the_transformers_class_where_it_is_known():
    text = render_markdown(changed(auto_class="AutoModelForSeq2SeqLM"))
    assert "model = AutoModelForSeq2SeqLM.from_pretrained('runs/demo/model')" in text


def test_a_run_without_speed_or_quality_says_so():
    text = render_markdown(without("speed", "quality"))
    assert text.count("Not measured in this run.") == 2
    assert "faster" not in text


def test_a_run_that_has_little_to_say_renders_without_empty_sections():
    text = render_markdown({"method": "nash", "model": "m", "task": "t"})
    assert "No budget was requested." in text.splitlines()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Requested, achieved, measured",
        "## Quality",
        "## Speed",
    ]


@pytest.mark.parametrize(
    ("requested", "sentence"),
    [
        (
            {"metric": "params", "sparsity": 0.55, "scope": []},
            "Requested 55 % of all prunable parameters removed",
        ),
        ({"metric": "macs", "sparsity": 0.5, "scope": []}, "Requested 50 % of all prunable MACs removed"),
        (
            {"metric": "macs", "sparsity": 0.5, "scope": ["a.*"]},
            "Requested 50 % of the MACs of `a.*` removed",
        ),
        ({"metric": "params", "sparsity": 0.5, "scope": ["a", "b"]}, "Requested 50 % of `a` and `b` removed"),
        (None, "No budget was requested"),
    ],
)
def test_the_budget_is_one_sentence_in_words(requested, sentence):
    assert f"{sentence}; achieved 30.0 %" in render_markdown(changed(requested=requested))


@pytest.mark.parametrize(
    "line",
    [
        "| removed from all prunable MACs | 30 % | 30.0 % |  |",
        "| removed from the encoder (parameters) |  | 30.0 % |  |",
        "| prunable MACs in scope at 39 and 12 tokens | at most 35,000,000 | 50,000,000 -> 34,900,000 "
        "(-30.2 %) |  |",
    ],
)
def test_a_mac_budget_stands_beside_what_was_achieved_in_macs(line):
    counted = {"length": 39, "target_length": 12, "prunable": {"dense": 50000000, "pruned": 34900000}}
    achieved = REPORT["achieved"] | {"macs": REPORT["achieved"]["macs"] | counted}
    requested = {"metric": "macs", "sparsity": 0.3, "scope": []}
    assert line in render_markdown(changed(achieved=achieved, requested=requested)).splitlines()


def test_under_another_budget_prunable_macs_have_no_limit():
    counted = {"length": 39, "target_length": None, "prunable": {"dense": 50000000, "pruned": 34900000}}
    achieved = REPORT["achieved"] | {"macs": REPORT["achieved"]["macs"] | counted}
    line = "| prunable MACs in scope at 39 tokens |  | 50,000,000 -> 34,900,000 (-30.2 %) |  |"
    assert line in render_markdown(changed(achieved=achieved)).splitlines()


def test_a_run_without_recovery_says_so():
    assert "- steps of recovery: 0" in render_markdown(changed(recovery_steps=0)).splitlines()


def test_text_from_users_cannot_break_a_table_or_start_html():
    quality = copy.deepcopy(REPORT["quality"])
    for side in ("dense", "pruned"):
        quality[side]["a|b <img>"] = 1.0
    text = render_markdown(changed(quality=quality, warnings=["two\nlines <script>"]))
    assert r"| a\|b \<img> | 1 | 1 | +0 |" in text.splitlines()
    assert r"- two lines \<script>" in text.splitlines()


@pytest.mark.parametrize(
    "piece",
    [
        "nash-2 (nash) on embedded:t5-g2p, task g2p",
        "Requested 30 % of encoder.* removed; achieved 30.0 %.",
        "0.08125 ± 0.0021 -> 0.085 ± 0.0022",
        "100.0 -> 75.0 ms, 1.33x [1.30, 1.36], faster",
        "Kept: encoder self_attn.heads 9 of 16, encoder ffn.neurons 1,500 of 2,048, decoder.blocks 2 of 4.",
        "masked against pruned model, largest difference: 1.19e-07",
        "Times are of a CPU",
        "Warning: recovery stopped early",
        "Report: runs/demo/report.md   Model: runs/demo/model",
    ],
)
def test_the_summary_holds_what_decides(piece):
    assert piece in summary(REPORT)


def test_the_summary_reads_no_markup_in_names_or_warnings():
    text = summary(changed(label="[red]x[/red]", warnings=["[bold]loud[/bold] [/oops] :smile:"]))
    assert "[red]x[/red] (nash)" in text
    assert "Warning: [bold]loud[/bold] [/oops] :smile:" in text


def test_the_summary_of_a_run_without_speed_has_no_times():
    text = summary(without("speed"))
    assert "generate" not in text
    assert "Times are of a CPU" not in text


def test_a_pair_as_measured_renders():
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1))
    model.generation_config.decoder_start_token_id = 0
    spec = SpeedSpec(batch_size=2, num_beams=1, new_tokens=4, rounds=2, warmup=0, threads=1)
    result = measure_speed({"dense": model, "pruned": model}, random_inputs(model, spec, 0), spec)
    text = render_markdown(changed(speed=as_pair(result, "dense", "pruned")))
    for row in ("generate, 4 tokens forced", "generate, natural length (", "encoder", "each further token"):
        assert f"\n| {row}" in text


def test_reports_import_no_torch():
    code = "import sys, prunekit.reports.run; print('torch' in sys.modules, 'transformers' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]


# A latency budget


LATENCY = {"target": 0.6, "predicted": 0.591, "measured": 0.609, "low": 0.598, "high": 0.62, "within": True}


def timed_report(**achieved):
    requested = {"metric": "latency", "ratio": 0.6, "scope": []}
    return {
        "method": "optin",
        "label": "optin",
        "model": "m",
        "task": "t",
        "requested": requested,
        "achieved": {"sparsity": 0.42, "latency": LATENCY, **achieved},
    }


def test_a_latency_budget_is_told_in_time_and_what_it_took_in_parameters():
    text = render_markdown(timed_report())
    assert (
        "Requested 60 % of the dense model's time; measured when it was planned 60.9 % [59.8, 62.0]; "
        "achieved 42.0 % of the parameters in scope removed." in text
    )
    assert "| share of the dense model's time | 60 % | 59.1 % predicted | 60.9 % [59.8, 62.0] |" in text
    assert "| removed from all prunable parameters |  | 42.0 % |  |" in text
