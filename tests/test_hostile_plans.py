"""Plans and records that want to hurt: refused with what was found and where, before they touch a tensor."""

import json

import pytest
from core_calls import irregular_plan

from prunekit.errors import CheckpointError, PlanError
from prunekit.json_files import read_strictly
from prunekit.models import load_model
from prunekit.pruning.plan import PruningPlan
from prunekit.testing.tiny import tiny_model

HEADS = "encoder.0.self_attn.heads"


@pytest.fixture(scope="module")
def groups(prunable):
    return prunable(tiny_model("t5")).groups


@pytest.fixture
def refusal(tmp_path):
    def found(text):
        path = tmp_path / "plan.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(PlanError) as caught:
            PruningPlan.load(path)
        return str(caught.value).removeprefix(f"{path} is not a pruning plan: ")

    return found


def keeping(kept):
    return f'{{"keep": {{"{HEADS}": {kept}}}}}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (keeping("[0, 1.5]"), f"\n  keep.{HEADS}.1 = 1.5: must be a valid integer"),
        (keeping("[1.0]"), f"\n  keep.{HEADS}.0 = 1.0: must be a valid integer"),
        (keeping('["1"]'), f"\n  keep.{HEADS}.0 = '1': must be a valid integer"),
        (keeping("[true]"), f"\n  keep.{HEADS}.0 = True: must be a valid integer"),
        (keeping("[null]"), f"\n  keep.{HEADS}.0 = None: must be a valid integer"),
        (keeping('{"0": 1}'), f"\n  keep.{HEADS} = {{'0': 1}}: must be a valid array"),
        (keeping("[1" + "0" * 5000 + "]"), "a number has 5,001 digits. Give the plan.json of a run;"),
        (keeping("[0], " * 2 + f'"{HEADS}": [1]'), "not JSON: line 1"),
        ('{"keep": {}, "keep": {}}', "the key 'keep' stands twice. Give the plan.json"),
        ('{"keep": {"\x1b[2J": 3}}', "not JSON: line 1, column 12: Invalid control character"),
        ('{"keep": {"\\u001b[2J": 3}}', r"keep.\x1b[2J = 3: must be a valid array"),
        ("[" * 100_000, "its objects and lists lie too deep inside each other. Give"),
        ("[]", "must be an object"),
        ("", "not JSON: line 1, column 1: Expecting value. Give"),
        (b"\xff\xfe", "'utf-8' codec can't decode byte 0xff in position 0"),
        ('{"method": "\\ud800"}', "method"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(text, said, refusal):
    assert said in refusal(text)


def test_of_many_faults_the_first_are_shown(refusal):
    text = refusal(keeping(json.dumps(["x"] * 1000)))
    assert text.count("must be a valid integer") == 5
    assert text.endswith("\n  and 995 more")


def test_a_plan_cut_short_is_refused_and_says_what_to_do(refusal):
    whole = PruningPlan(keep={HEADS: (0, 1)}).model_dump_json()
    assert refusal(whole[: len(whole) // 2]).endswith(
        "Give the plan.json of a run; to make this one again, delete it and run the recipe."
    )


def test_a_file_without_an_end_is_read_no_further_than_the_limit(tmp_path):
    path = tmp_path / "plan.json"
    with path.open("wb") as file:
        file.truncate(3 * 2**20 + 1)
    with pytest.raises(ValueError, match="it holds more than 3 MiB"):
        read_strictly(path, most=3 * 2**20)


@pytest.mark.parametrize(
    ("keep", "scale", "said"),
    [
        ({HEADS: (10**5000,)}, {}, "must lie between 0 and 3, found [a number of thousands of digits]."),
        ({HEADS: (-(2**63), 0)}, {}, "must lie between 0 and 3, found [-9223372036854775808, 0]."),
        ({HEADS: tuple(range(10**5))}, {}, "must lie between 0 and 3, found [0, 1, 2, 3, 4, 5, 6, 7, …]."),
        ({HEADS: (0,)}, {HEADS: (float("nan"),)}, "scales must be finite and not 0, found [nan]."),
        ({HEADS: (0,)}, {HEADS: (-1e300,)}, "scales must lie between -3.4e+38 and 3.4e+38, found -1e+300"),
        ({}, {"nowhere": ()}, "the plan scales the group 'nowhere', which this model does not have"),
        ({"x" * 10**6: (0,)}, {}, "which this model does not have"),
    ],
)
def test_a_plan_that_fits_no_model_is_refused(keep, scale, said, groups):
    with pytest.raises(PlanError) as caught:
        PruningPlan(keep=keep, scale=scale).check(groups)
    assert said in str(caught.value)


@pytest.fixture(scope="module")
def pruned_folder(prunable, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    target = prunable(tiny_model("t5"))
    target.pruned(irregular_plan(target)).model.save_pretrained(folder)
    return folder


def first(record):
    return record["stacks"]["encoder"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda r: first(r).update(self_attn=[0, True]),
            "says [0, True] of encoder.0.self_attn; allowed are",
        ),
        (lambda r: first(r).update(self_attn=[-1, 0]), "says [-1, 0] of encoder.0.self_attn; allowed are"),
        (
            lambda r: first(r).update(self_attn=[0, 10**9]),
            "of encoder.0.self_attn; allowed are sorted heads",
        ),
        (lambda r: first(r).update(self_attn=[0, 1.5]), "says [0, 1.5] of encoder.0.self_attn; allowed are"),
        (lambda r: first(r).update(self_attn=list(range(10**5))), "5, 6, 7, 8, 9, 10, 11, 12, 13"),
        (lambda r: first(r).update(self_attn="\x1b[2J"), r"says \x1b[2J of encoder.0.self_attn; allowed are"),
        (lambda r: first(r).update(ffn=True), "says True of encoder.0.ffn; allowed are a width of 1 to 20"),
        (lambda r: first(r).update(ffn=10**9), "of encoder.0.ffn; allowed are a width of 1 to 20"),
        (lambda r: first(r).update(ffn=-3), "says -3 of encoder.0.ffn; allowed are a width of 1 to 20"),
        (lambda r: first(r).update(block=7), "kept the blocks [7, 1, 2]; allowed are sorted indices from 0."),
        (lambda r: first(r).pop("block"), "kept the blocks [None, 1, 2]; allowed are sorted indices from 0."),
        (lambda r: r["stacks"].update(encoder=[1, 2, 3.5]), "kept the blocks [1, 2, 3.5]; allowed are"),
        (lambda r: r["stacks"].update(encoder={}), "describes 0 blocks of the encoder, but its depth is 3."),
        (lambda r: r.update(stacks=[]), "describes the stacks as [], which is no mapping."),
        (lambda r: r.update(hidden=[True]), "says [True] of the hidden units; allowed are sorted indices"),
        (lambda r: r.update(hidden=[0, 0]), "says [0, 0] of the hidden units; allowed are sorted indices"),
        (lambda r: r.update(hidden={}), "says {} of the hidden units; allowed are sorted indices"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(change, said, pruned_folder, tmp_path):
    for path in pruned_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    change(config["prunekit"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        load_model(str(tmp_path))
    assert said in str(caught.value)
