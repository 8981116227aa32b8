"""What a reader of a diagnosis finds in it, and the command that prints it."""

from __future__ import annotations

import io
import json

import pytest
from cli_calls import call_main
from doctor_calls import fake_measure, small_spec, split_by_depth
from rich.console import Console

from prunekit.doctor import diagnose as module
from prunekit.doctor.diagnose import examine
from prunekit.doctor.subject import Subject, make_side
from prunekit.reports.doctor import print_diagnosis, render_markdown
from prunekit.testing.tiny import tiny_model


@pytest.fixture
def found(adapters, monkeypatch, one_thread):
    measure = fake_measure(lambda *at: sum(split_by_depth(*at).values()), split=split_by_depth)
    monkeypatch.setattr(module, "measure_speed", measure)
    return examine(Subject(make_side("t5", tiny_model("t5"), adapters), small_spec()))


def test_markdown_has_the_verdicts_the_table_and_how_to_do_it(found):
    text = render_markdown(found)
    assert text.startswith("# t5\n\ngenerate, CPU, batch 2, 2 interleaved rounds: 47.0 ms a call.\n")
    assert "- Dominant factor: decoder depth." in text
    assert "| half the decoder's blocks: 2 of 3 blocks left | 1.27x [1.27, 1.27] | faster |" in text
    assert "- In a recipe, half the decoder's blocks (1.27x [1.27, 1.27]): nash: {decoder_layers: 2}" in text
    assert "| decoder | 30.00 | 64% |" in text
    assert "In a recipe, bf16" not in text


def test_the_terminal_shows_names_as_they_are(found):
    console = Console(file=io.StringIO(), width=200, markup=True)
    print_diagnosis({**found, "model": "[bold]t5"}, console)
    text = console.file.getvalue()
    assert "[bold]t5" in text
    assert "What to try next, by measured gain" in text
    assert "half the decoder's blocks: 2 of 3 blocks left" in text


def test_the_command_passes_settings_on_and_prints_what_was_found(found, capsys, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "diagnose", lambda *given, **more: calls.append(given) or found)
    options = ("--batch", "8", "--length", "16", "--new-tokens", "4", "--num-beams", "1", "--rounds", "3")
    shown = call_main(capsys, "doctor", "embedded:t5-g2p", *options)
    spec = {"batch_size": 8, "input_tokens": 16, "new_tokens": 4, "num_beams": 1, "rounds": 3}
    assert (shown.code, calls) == (0, [("embedded:t5-g2p", spec)])
    assert "Dominant factor: decoder depth" in shown.out
    assert json.loads(call_main(capsys, "doctor", "x", "--json").out)["model"] == "t5"
    assert call_main(capsys, "doctor", "x", "--markdown").out == render_markdown(found)
    both = call_main(capsys, "doctor", "x", "--markdown", "--json")
    assert (both.code, both.err) == (2, "RecipeError: give --json or --markdown, not both.\n")


def test_a_model_that_does_not_exist_is_an_error_message(capsys):
    shown = call_main(capsys, "doctor", "embedded:nothing")
    assert shown.code == 1
    assert "no embedded model 'embedded:nothing'" in shown.err
