"""``prunekit show``: the map on the terminal."""

import io
import json
import subprocess
import sys

import pytest
from cli_calls import call_main
from kept_calls import KEEP, structure, write_run
from rich.console import Console

from prunekit.reports.kept import kept_map
from prunekit.reports.show import print_map, print_maps

TWELVE = {
    **{
        f"decoder.{layer}.{role}.heads": (12, 12)
        for layer in range(12)
        for role in ("self_attn", "cross_attn")
    },
    **{f"decoder.{layer}.ffn.neurons": (3072, 3072) for layer in range(12)},
}


@pytest.fixture
def show(capsys):
    return lambda *arguments: call_main(capsys, "show", *map(str, arguments))


def lines(done):
    assert done.code == 0, done.err
    return [line.rstrip() for line in done.out.splitlines()]


def printed(draw, *arguments, width=80, encoding="utf-8"):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    draw(*arguments, Console(file=stream, width=width, color_system=None))
    stream.flush()
    return raw.getvalue().decode(encoding).splitlines()


def test_a_run_is_shown_layer_by_layer(show, tmp_path):
    assert lines(show(write_run(tmp_path / "run")))[:6] == [
        f"{tmp_path / 'run'}: nash-2 (nash) on embedded:tiny, 62.5 % removed",
        "■ kept  □ removed; one a head, and 8 for the width of an ffn; counts are units",
        "",
        "encoder  self_attn     ffn",
        "  0      ■□□■ 2/4      ■■□□□□□□ 3/10",
        "  1      □□□□ removed  □□□□□□□□ removed",
    ]


def test_removed_blocks_totals_and_hidden_units_are_told(show, tmp_path):
    shown = lines(show(write_run(tmp_path / "run")))
    assert shown[8:] == [
        "decoder  self_attn      cross_attn     ffn",
        "  0      block removed  block removed  block removed",
        "  1      ■■■■ 4/4       ■■■■ 4/4       ■■■■■■■■ 10/10",
        "all      4/8            4/8            10/20",
        "",
        "hidden ■■■■□□□□ 3/6",
    ]


@pytest.mark.parametrize(
    ("kept", "bar"), [(0, "□□□□□□□□ removed"), (1, "■□□□□□□□ 1/1,000"), (999, "■■■■■■■□ 999/1,000")]
)
def test_a_bar_is_empty_or_full_only_where_the_width_is(kept, bar):
    rows = [{"group": "encoder.0.ffn.neurons", "kept": kept, "size": 1000}]
    shown = printed(print_map, "run", kept_map({"encoder.0.ffn.neurons": range(kept)}, rows))
    assert bar in "\n".join(shown)


def test_two_runs_stand_side_by_side_with_what_they_share(show, tmp_path):
    one = write_run(tmp_path / "one")
    other = write_run(
        tmp_path / "other",
        keep={**KEEP, "encoder.0.self_attn.heads": [1, 2, 3]},
        rows=structure(encoder__0__self_attn__heads=(3, 4)),
        label="wider",
    )
    shown = lines(show(one, "--against", other))
    assert shown[0].startswith(f"A: {one}: nash-2 (nash)")
    assert shown[1].startswith(f"B: {other}: wider (nash)")
    assert shown[4].split() == ["encoder", "A", "B", "both", "only", "A", "only", "B"]
    assert shown[5].split() == ["0", "self_attn", "■□□■", "2/4", "□■■■", "3/4", "1", "1", "2"]
    assert shown[9].split() == ["all", "self_attn", "2/8", "3/8", "1", "1", "2"]
    assert shown[-2:] == ["hidden, A ■■■■□□□□ 3/6", "hidden, B ■■■■□□□□ 3/6"]


def test_twelve_heads_and_a_wide_ffn_fit_eighty_columns_alone_and_side_by_side():
    found = kept_map(
        {}, [{"group": group, "kept": kept, "size": size} for group, (kept, size) in TWELVE.items()]
    )
    alone = printed(print_map, "run", found)
    beside = printed(print_maps, ("one", "other"), (found, found))
    # A line a row: no cell was folded.
    assert len(alone) == 3 + 1 + 12 + 1
    assert len(beside) == 4 + 1 + 3 * 12 + 3
    assert max(map(len, alone + beside)) <= 80


def test_a_terminal_without_unicode_gets_other_marks():
    shown = printed(print_map, "run", kept_map(KEEP, structure()), encoding="ascii")
    assert "  0      #..# 2/4      ##...... 3/10" in [line.rstrip() for line in shown]


def test_names_are_shown_as_they_are_and_never_obeyed(show, tmp_path):
    run = write_run(tmp_path / "run", model="[red]x[/red]\x1b[31m")
    assert r"[red]x[/red]\x1b[31m" in lines(show(run))[0]


def test_json_has_the_whole_map(show, tmp_path):
    run = write_run(tmp_path / "run")
    found = json.loads(show(run, "--json").out)
    assert found["run"] == str(run)
    assert found["label"] == "nash-2"
    assert found["stacks"][0]["layers"][0]["sublayers"][0] == {
        "role": "self_attn",
        "kind": "head",
        "size": 4,
        "kept": 2,
        "indices": [0, 3],
        "removed": False,
    }
    assert found["hidden"] == {"size": 6, "kept": 3, "indices": [0, 2, 4]}
    assert "against" not in found


def test_json_of_two_runs_has_both_maps_and_the_overlap(show, tmp_path):
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other")
    found = json.loads(show(one, "--against", other, "--json").out)
    assert found["against"]["stacks"] == found["stacks"]
    assert found["overlap"][0] == {
        "stack": "encoder",
        "layer": 0,
        "role": "self_attn",
        "both": 2,
        "only_first": 0,
        "only_second": 0,
    }


def test_showing_a_run_loads_no_torch(tmp_path):
    run = write_run(tmp_path / "run")
    program = (
        "import sys, prunekit.cli\n"
        "try: prunekit.cli.main(sys.argv[1:])\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "show", str(run), "--against", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "False\n"


def test_a_folder_that_is_not_there_is_named(show, tmp_path):
    done = show(tmp_path / "nowhere")
    assert done.code == 1
    assert done.err == (
        f"RunFolderError: {tmp_path / 'nowhere'}: no such folder. Give the folder of a finished run.\n"
    )


def test_a_folder_that_is_no_run_is_told_from_a_run_that_has_not_finished(show, tmp_path):
    assert "holds no report.json. Give the folder of a finished run" in show(tmp_path).err
    (tmp_path / "recipe.yaml").write_text("version: 1\n")
    assert "holds no report.json. The run has not finished: give its `prunekit prune`" in show(tmp_path).err


def test_a_missing_plan_is_named(show, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "plan.json").unlink()
    assert f"{run} holds no plan.json." in show(run).err


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_a_damaged_file_is_named(show, tmp_path, content):
    run = write_run(tmp_path / "run")
    (run / "plan.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    done = show(run)
    assert done.code == 1
    assert f"{run / 'plan.json'} is damaged" in done.err


def test_files_of_another_form_are_told(show, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "plan.json").write_text("{}")
    assert "plan.json has no `keep`, or report.json no `structure`" in show(run).err


def test_a_plan_that_is_not_the_reports_is_told_with_its_folder(show, tmp_path):
    run = write_run(tmp_path / "run", keep={})
    assert f"PlanError: {run}: encoder.0.self_attn.heads: the plan keeps 4 units" in show(run).err
