"""Named tasks on tiny files with the columns and features that the hub has."""

from __future__ import annotations

import io
from types import SimpleNamespace

import datasets
import pytest
from named_calls import TASKS, TEXT, made, tokenizer
from own_calls import tiny_bert
from PIL import Image

from prunekit.errors import DataError
from prunekit.testing.tiny import tiny_model


@pytest.fixture
def parquet(tmp_path):
    """Writes columns to a parquet file with these features, as the hub has them; the value is its path."""

    def write(columns, features, name="test"):
        path = tmp_path / f"{name}.parquet"
        datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)
        return str(path)

    datasets.disable_progress_bars()
    yield write
    datasets.enable_progress_bars()


def shown(task, split="test"):
    """The sources and references of a split, sorted."""
    return sorted((pair.source, pair.references) for pair in task.pairs(split))


def test_samsum_runs(parquet):
    path = parquet(
        {"id": ["1", "2"], "dialogue": ["a b", "c"], "summary": ["d", "e"]},
        {"id": TEXT, "dialogue": TEXT, "summary": TEXT},
    )
    task = made("samsum", {"test": path})
    assert shown(task) == [("summarize: a b", ("d",)), ("summarize: c", ("e",))]
    results = task.evaluate(tiny_model("t5"), "test", batch_size=2).metrics
    assert {"rougeL", "rouge1", "rouge2", "n"} <= results.keys()


def test_tweetqa_trains_on_the_first_answer_and_counts_all(parquet):
    path = parquet(
        {"Question": ["a"], "Answer": [["b", "c"]], "Tweet": ["d"], "qid": ["1"]},
        {"Question": TEXT, "Answer": datasets.List(TEXT), "Tweet": TEXT, "qid": TEXT},
    )
    task = made("tweetqa", {"test": path}, metrics=["rougeL"])
    assert shown(task) == [("question: a context: d", ("b", "c"))]


def test_narrativeqa_reads_the_summary_and_both_answers(parquet):
    part = {"text": TEXT, "tokens": datasets.List(TEXT)}
    features = {
        "document": {"id": TEXT, "summary": {**part, "title": TEXT}, "text": TEXT},
        "question": part,
        "answers": datasets.List(part),
    }
    path = parquet(
        {
            "document": [
                {"id": "1", "summary": {"text": "a b", "tokens": ["a"], "title": "c"}, "text": "the story"}
            ],
            "question": [{"text": "d", "tokens": ["d"]}],
            "answers": [[{"text": "e", "tokens": ["e"]}, {"text": "f g", "tokens": ["f", "g"]}]],
        },
        features,
    )
    task = made("narrativeqa", {"test": path}, metrics=["rougeL"])
    assert shown(task) == [("question: d context: a b", ("e", "f g"))]


def test_dolly_puts_the_context_behind_the_instruction(parquet):
    path = parquet(
        {"instruction": ["a", "c"], "context": ["b", ""], "response": ["d", "e"], "category": ["f", "g"]},
        {"instruction": TEXT, "context": TEXT, "response": TEXT, "category": TEXT},
    )
    task = made("dolly", {"test": path})
    assert [source for source, _ in shown(task)] == [
        "Answer this instruction. a b",
        "Answer this instruction. c ",
    ]


@pytest.mark.parametrize(
    ("prompt", "tag", "written"), [("t5", "stsb", ["1.8", "5.0"]), ("released", "STS-B", ["1.7", "4.9"])]
)
def test_stsb_rounds_what_is_written_as_each_prompt_does(parquet, prompt, tag, written):
    path = parquet(
        {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1.72, 4.94], "idx": [0, 1]},
        {
            "sentence1": TEXT,
            "sentence2": TEXT,
            "label": datasets.Value("float32"),
            "idx": datasets.Value("int32"),
        },
    )
    task = made("stsb-text", {"test": path}, prompt=prompt)
    found = shown(task)
    assert [source for source, _ in found] == [
        f"{tag} sentence1: a sentence2: c",
        f"{tag} sentence1: b sentence2: d",
    ]
    assert [references[0] for _, references in found] == written
    assert task.primary_metric == "pearson-spearman"


MNLI = {
    "premise": TEXT,
    "hypothesis": TEXT,
    "label": datasets.ClassLabel(names=["entailment", "neutral", "contradiction"]),
    "idx": datasets.Value("int32"),
}
MNLI_ROWS = {"premise": ["a", "b", "c"], "hypothesis": ["d", "e", "f"], "label": [0, 1, 2], "idx": [0, 1, 2]}


@pytest.mark.parametrize("prompt", ["t5", "released"])
def test_mnli_writes_the_words_of_its_own_classes(parquet, prompt):
    task = made("mnli-text", {"test": parquet(MNLI_ROWS, MNLI)}, prompt=prompt)
    assert [references[0] for _, references in shown(task)] == ["entailment", "neutral", "contradiction"]
    order = "hypothesis: d premise: a" if prompt == "t5" else "premise: a hypothesis: d"
    assert shown(task)[0][0].endswith(order)


@pytest.mark.parametrize(("prompt", "word"), [("t5", "unacceptable"), ("released", "not_acceptable")])
def test_cola_writes_the_word_of_the_prompt_and_scores_the_label(parquet, prompt, word):
    path = parquet(
        {"sentence": ["a", "b"], "label": [0, 1], "idx": [0, 1]},
        {
            "sentence": TEXT,
            "label": datasets.ClassLabel(names=["unacceptable", "acceptable"]),
            "idx": datasets.Value("int32"),
        },
    )
    task = made("cola-text", {"test": path}, prompt=prompt)
    assert shown(task)[0][1] == (word, "unacceptable")
    assert task.primary_metric == "mcc"


def test_mnli_runs_as_classification_with_the_datas_class_names(parquet):
    task = made("mnli", {"test": parquet(MNLI_ROWS, MNLI)}, tokenizer(bert=True), max_length=32)
    assert task.labels == ("entailment", "neutral", "contradiction")
    results = task.evaluate(tiny_bert(task.labels), "test", batch_size=2).metrics
    assert results["n"] == 3


def test_class_names_in_another_order_than_the_files_are_refused(parquet):
    features = {**MNLI, "label": datasets.ClassLabel(names=["contradiction", "entailment", "neutral"])}
    with pytest.raises(
        DataError, match=r"Task mnli: task\.labels is entailment, neutral, contradiction, but the"
    ):
        made("mnli", {"test": parquet(MNLI_ROWS, features)}, tokenizer(bert=True))


def squad_file(parquet, answers):
    return parquet(
        {
            "id": ["1"],
            "title": ["t"],
            "context": ["a b c d"],
            "question": ["e"],
            "answers": [answers],
        },
        {
            "id": TEXT,
            "title": TEXT,
            "context": TEXT,
            "question": TEXT,
            "answers": {"text": datasets.List(TEXT), "answer_start": datasets.List(datasets.Value("int32"))},
        },
    )


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("squad", {"text": ["b c", "c"], "answer_start": [2, 4]}),
        ("squad-v2", {"text": [], "answer_start": []}),
    ],
)
def test_squad_runs(parquet, name, answers):
    task = made(name, {"test": squad_file(parquet, answers)}, tokenizer(bert=True))
    assert task.primary_metric == "token-f1"
    assert len(task.examples("test")) == 1
    assert {"start_positions", "end_positions"} <= task.collate(task.examples("test")).keys()


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def test_cifar_10_runs(parquet):
    names = TASKS["cifar-10"].about.keys["labels"]
    path = parquet(
        {"img": [png("red"), png("blue")], "label": [3, 9]},
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=names)},
    )
    settings = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 2,
    }
    task = made("cifar-10", {"test": path}, SimpleNamespace(to_dict=lambda: settings))
    batch = task.collate(task.examples("test"))
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert sorted(batch["labels"].tolist()) == [3, 9]
    assert task.primary_metric == "top-1"
