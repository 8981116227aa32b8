"""Extractive question answering: windows, labels, the best span of a question, and SQuAD's scores."""

import datasets
import pytest
import torch
from own_calls import tiny_bert, warnings_in, word_tokenizer, write_lines
from pydantic import ValidationError
from qa_calls import COLUMNS, ID, Reader, row, task_of, tiny_reader

from prunekit.errors import DataError
from prunekit.tasks.own.question_answering import QuestionAnsweringConfig

LONG = "a b c d e f g h"


def words_of(window):
    names = {number: word for word, number in ID.items()}
    return " ".join(names[number] for number in window.features["input_ids"])


def evaluated(task, model, **keys):
    found = task.evaluate(model, "test", batch_size=3, **keys).metrics
    return found["exact-match"], found["token-f1"], found["n"]


# Windows


def test_a_long_context_is_cut_into_windows_that_overlap_and_each_has_the_question(tmp_path):
    windows = task_of(tmp_path, [row(LONG, "d e")]).examples("test")
    assert [words_of(window) for window in windows] == [
        "[CLS] of [SEP] a b c d [SEP]",
        "[CLS] of [SEP] c d e f [SEP]",
        "[CLS] of [SEP] e f g h [SEP]",
    ]


def test_an_answer_that_a_window_cuts_is_not_in_it(tmp_path):
    task = task_of(tmp_path, [row(LONG, "d e")])
    assert [(window.start, window.end) for window in task.examples("test")] == [(0, 0), (4, 5), (0, 0)]


def test_batches_have_everything_that_bert_takes_to_learn_from(tmp_path):
    task = task_of(tmp_path, [row(LONG, "d e"), row("a b", "b")])
    batch = task.collate(task.examples("test"))
    assert {name: list(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": [4, 8],
        "token_type_ids": [4, 8],
        "attention_mask": [4, 8],
        "start_positions": [4],
        "end_positions": [4],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    short = batch["attention_mask"].sum(1).argmin()
    assert batch["token_type_ids"][short].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert torch.isfinite(tiny_reader()(**batch).loss)


def test_lengths_are_those_of_the_windows(tmp_path):
    task = task_of(tmp_path, [row(LONG, "d e"), row("a b", "b")])
    assert sorted(task.lengths("test")) == [6, 8, 8, 8]


def test_the_recorded_start_decides_between_two_occurrences(tmp_path):
    task = task_of(tmp_path, [row("a b a b", "a b", starts=[4])])
    assert [(window.start, window.end) for window in task.examples("test")] == [(5, 6)]


def test_without_recorded_starts_the_first_occurrence_is_trained_on(tmp_path):
    rows = [{"question": "of", "context": "a b a b", "answers": "a b"}]
    task = task_of(tmp_path, rows, answers="answers", answer_start=None)
    assert [(window.start, window.end) for window in task.examples("test")] == [(3, 4)]


def test_blanks_around_an_answer_belong_to_no_token(tmp_path):
    task = task_of(tmp_path, [row("a  b  c", " b ")])
    assert [(window.start, window.end) for window in task.examples("test")] == [(4, 4)]


def test_blanks_around_a_context_cut_no_answer(tmp_path):
    task = task_of(tmp_path, [row("  a b  ", "  a b  ")])
    assert [(window.start, window.end) for window in task.examples("test")] == [(3, 4)]


def test_answers_that_fit_into_no_window_are_counted_and_told(tmp_path, caplog):
    task_of(tmp_path, [row(LONG, "c d e f g"), row(LONG, "a")]).examples("test")
    (told,) = warnings_in(caplog)
    assert "of 1 of 2 questions no window holds the whole answer" in told


def test_the_tokenizer_that_is_saved_with_the_model_is_left_alone(tmp_path):
    tokenizer = word_tokenizer()
    before = tokenizer.backend_tokenizer.to_str()
    task_of(tmp_path, [row(LONG, "d e")], tokenizer=tokenizer).examples("test")
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize("index", [0, -1, slice(1, 4), slice(None)])
def test_streamed_windows_are_the_same(tmp_path, monkeypatch, index):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [row(LONG, "d e"), row("a b", "b"), row("a b c d e", "e"), row("a")] * 3
    plain = task_of(tmp_path, rows, unanswerable=True)
    data = {"test": str(tmp_path / "test.jsonl"), "streaming": True}
    streamed = task_of(tmp_path, rows, unanswerable=True, data=data)
    assert streamed.examples("test")[index] == plain.examples("test")[index]
    assert list(streamed.examples("test")) == plain.examples("test")
    assert list(streamed.lengths("test")) == plain.lengths("test")
    reader = Reader({"b": 1}, {"b": 1})
    assert evaluated(streamed, reader, limit=3) == evaluated(plain, reader, limit=3)


# Answers


def test_the_best_span_of_all_windows_is_the_answer_and_questions_are_counted(tmp_path):
    task = task_of(tmp_path, [row(LONG, "g h"), row(LONG, "c", question="fair")])
    assert evaluated(task, Reader({"b": 1, "g": 2}, {"b": 1, "h": 2})) == (50, 50, 2)


def test_a_limit_counts_questions(tmp_path):
    task = task_of(tmp_path, [row(LONG, "g h"), row(LONG, "g h")])
    assert evaluated(task, Reader({"g": 2}, {"h": 2}), limit=1) == (100, 100, 1)


def test_each_window_answers_for_itself_when_asked_alone(tmp_path):
    task = task_of(tmp_path, [row(LONG, "g h")])
    model = Reader({"b": 1, "e": 2, "g": 3}, {"b": 1, "e": 2, "h": 3})
    assert task.predict(model, task.examples("test"), batch_size=2) == ["b", "e", "g h"]


def test_an_answer_is_written_as_the_context_has_it(tmp_path):
    task = task_of(tmp_path, [row("a  good \t B c", "good \t B")])
    # An unknown word has a place in the text like any other.
    assert task.predict(Reader({"good": 1}, {"[UNK]": 1}), task.examples("test"), batch_size=1) == [
        "good \t B"
    ]


def test_an_answer_never_ends_before_it_begins_nor_stands_in_the_question(tmp_path):
    task = task_of(tmp_path, [row("a b c", "a", question="good")])
    model = Reader({"good": 9, "[CLS]": 9, "c": 3, "a": 2}, {"good": 9, "[SEP]": 9, "a": 3, "b": 1})
    # c to a would score 6.
    assert task.predict(model, task.examples("test"), batch_size=1) == ["a"]


@pytest.mark.parametrize(("longest", "answer"), [(4, "a b c d"), (3, "b c d")])
def test_no_answer_is_longer_than_asked_for(tmp_path, longest, answer):
    task = task_of(tmp_path, [row("a b c d", "a")], max_answer_length=longest)
    model = Reader({"a": 5, "b": 4}, {"d": 9})
    assert task.predict(model, task.examples("test"), batch_size=1) == [answer]


def test_only_the_best_starts_and_ends_are_put_together(tmp_path):
    rows = [row("a b c d", "a")]
    # The best start, d, lies behind the best end, a; of the two best, b to c is the better.
    model = Reader({"d": 5, "b": 4}, {"a": 5, "c": 4})
    one, two = (task_of(tmp_path, rows, best=best) for best in (1, 2))
    assert one.predict(model, one.examples("test"), batch_size=1) == [""]
    assert two.predict(model, two.examples("test"), batch_size=1) == ["b c"]


@pytest.mark.parametrize(("null", "answer"), [(1.5, "b"), (2, "b"), (2.5, "")])
def test_no_answer_must_score_higher_than_the_best_one(tmp_path, null, answer):
    task = task_of(tmp_path, [row("a b", "b")], unanswerable=True)
    model = Reader({"b": 1, "[CLS]": null}, {"b": 1})
    assert task.predict(model, task.examples("test"), batch_size=1) == [answer]


def test_without_unanswerable_questions_there_is_always_an_answer(tmp_path):
    task = task_of(tmp_path, [row("a b", "b")])
    model = Reader({"b": 1, "[CLS]": 9}, {"b": 1})
    assert task.predict(model, task.examples("test"), batch_size=1) == ["b"]


def test_the_window_that_is_least_sure_of_no_answer_speaks_for_the_question(tmp_path):
    class Uneven(Reader):
        """CLS scores 9 but where the window ends with h: 1 there."""

        def forward(self, input_ids, attention_mask, token_type_ids, start_positions=None):
            output = super().forward(input_ids, attention_mask, token_type_ids)
            output.start_logits[:, 0] = torch.where(input_ids[:, -2] == ID["h"], 1.0, 9.0)
            return output

    task = task_of(tmp_path, [row(LONG, "b")], unanswerable=True)
    assert evaluated(task, Uneven({"b": 1}, {"b": 1})) == (100, 100, 1)


def test_a_real_model_answers_with_pieces_of_the_context_whatever_the_batch(tmp_path):
    task = task_of(tmp_path, [row(LONG, "d e"), row("a b c", "b"), row("fair good", "good")])
    windows, model = task.examples("test"), tiny_reader()
    together = task.predict(model, windows, batch_size=5)
    assert together == [task.predict(model, [window], batch_size=1)[0] for window in windows]
    assert all(answer in window.source.context for answer, window in zip(together, windows, strict=True))


# SQuAD's scores, worked by hand after the official scripts


def test_scores_of_squad_1(tmp_path):
    rows = [
        row("a good bad", "good bad", "good", question="fair"),  # "good bad" is right: 1 and 1
        row(
            "a good of", "of", "a good of", question="sum:"
        ),  # "good of": 2/3 with the first, 1 with the second
        row("c d", "c", question="bad"),  # "d": 0 and 0
    ]
    model = Reader({"good": 3, "d": 1}, {"bad": 3, "of": 2, "d": 1})
    # "a" is an article, so that "a good of" and "good of" are equal.
    assert evaluated(task_of(tmp_path, rows), model) == (pytest.approx(200 / 3), pytest.approx(200 / 3), 3)
    rows[1] = row("a good of", "of", question="sum:")
    found = evaluated(task_of(tmp_path, rows), model)
    assert found == (pytest.approx(100 / 3), pytest.approx(100 * (1 + 2 / 3) / 3), 3)


def test_scores_of_squad_2(tmp_path):
    rows = [
        row("b c"),  # answered "b": 0
        row("d e"),  # answered nothing: 1
        row("d f", "f"),  # answered nothing: 0
        row("b b", "b b"),  # answered "b": 0 and 2/3
    ]
    task = task_of(tmp_path, rows, unanswerable=True)
    model = Reader({"b": 2, "[CLS]": 1}, {"b": 2})
    assert evaluated(task, model) == (25, pytest.approx(100 * (1 + 2 / 3) / 4), 4)


@pytest.mark.parametrize(("unanswerable", "score"), [(True, 0), (False, 100)])
def test_references_of_articles_alone_count_in_squad_1_only(tmp_path, unanswerable, score):
    task = task_of(tmp_path, [row("a b", "b", "a")], unanswerable=unanswerable)
    assert evaluated(task, Reader({"a": 9}, {"a": 9}))[0] == score


# What is refused


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            row("a b c", "b", starts=[1]),
            "the answer 'b' should begin at character 1 of 'context', but ' ' stands there, and it first "
            "occurs at 2. Correct the row",
        ),
        (row("a b c", "x", starts=[9]), "but '' stands there, and it occurs nowhere"),
        (row("a b c", "b", starts=[-2]), "'answers.answer_start' holds -2, which is no place in a text"),
        (row("a b c", "b", starts=[None]), "'answers.answer_start' holds None, which is no place"),
        (row("a b c", "b", starts=[2, 2]), "'answers.answer_start' holds 2 places for 1 answers"),
        (row("a b c", "b", "c", starts=[2, 0]), "the answer 'c' should begin at character 0"),
        (row("a b c", "b", "", starts=[2, 0]), "an answer in 'answers.text' is empty and others are not"),
        (row("a b c", 7, starts=[2]), "'answers.text' holds 7 (int), but a text is needed"),
        (row(" ", "b", starts=[2]), "'context' is empty, so it holds no answer"),
        (
            row("a b c"),
            "'answers.text' holds no answer. Correct the row, or write task.unanswerable: true if questions "
            "may have none",
        ),
        (
            row("a b c", "b", question="a b c"),
            "the question has 3 tokens, but beside task.stride 2 in windows of 8 there is room for 2. Raise "
            "task.max_length, lower task.stride, or shorten the question",
        ),
    ],
)
def test_faulty_rows_are_told_with_their_file_and_line(tmp_path, keys, problem):
    with pytest.raises(DataError) as told:
        task_of(tmp_path, [row("a b", "b"), keys])
    assert f"{tmp_path}/test.jsonl, line 2: " in str(told.value)
    assert problem in str(told.value)


def test_an_answer_without_a_recorded_start_has_to_occur(tmp_path):
    rows = [{"question": "of", "context": "a b", "answers": ["c"]}]
    with pytest.raises(DataError, match=r"line 1: the answer 'c' does not occur in 'context'"):
        task_of(tmp_path, rows, answers="answers", answer_start=None)


def test_a_column_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"task\.answers asks for a column 'answers\.texts'.*answers\.text"):
        task_of(tmp_path, [row("a b", "b")], answers="answers.texts")


def test_windows_need_room_for_new_text():
    with pytest.raises(ValidationError, match=r"stride 4 leaves no room .* max_length 8; write at most 3"):
        QuestionAnsweringConfig(data={"train": "a.csv"}, **COLUMNS, max_length=8, stride=4)


def test_a_tokenizer_without_a_token_for_no_answer_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"takes the CLS token for 'no answer here', but .* adds none"):
        task_of(tmp_path, [row("a b", "b")], tokenizer=word_tokenizer(bert=False))


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (tiny_bert(), "BertForSequenceClassification does not mark answers in a text"),
        (tiny_reader(), "windows may have 33 tokens, but the model only 32 positions"),
    ],
)
def test_models_that_do_not_fit_are_refused(tmp_path, model, problem):
    task = task_of(tmp_path, [row("a b", "b")], max_length=33)
    with pytest.raises(DataError, match=problem):
        task.evaluate(model, "test", batch_size=1)


def test_a_model_with_fewer_words_than_the_tokenizer_is_refused(tmp_path):
    task, model = task_of(tmp_path, [row("a b", "b")]), tiny_reader()
    model.config.vocab_size = 9
    with pytest.raises(DataError, match="vocabulary only 9"):
        task.check_model(model)


def test_questions_that_are_also_trained_on_are_told(tmp_path, caplog):
    path = write_lines(tmp_path / "train.jsonl", [row("a b", "b"), row("c d", "d")])
    other = write_lines(tmp_path / "validation.jsonl", [row("e f", "f")])
    data = {"train": path, "validation": other, "test": str(tmp_path / "test.jsonl")}
    task_of(tmp_path, [row("a b", "a"), row("a b", "b", question="fair")], data=data)
    (told,) = warnings_in(caplog)
    assert "test: 1 of 2 inputs also stand in train" in told


def test_a_metric_of_several_answers_is_refused(tmp_path):
    with pytest.raises(DataError, match="top-5 looks at the model's 5 best answers"):
        task_of(tmp_path, [row("a b", "b")], metrics=["top-5"])


def test_answers_of_text_files_are_read_too(tmp_path):
    (tmp_path / "rows.csv").write_text("q,c,a,s\nof,a b c,b,2\nof,a b,,\n")
    data = {"test": str(tmp_path / "rows.csv")}
    columns = {"question": "q", "context": "c", "answers": "a", "answer_start": "s"}
    task = task_of(tmp_path, [row("a", "a")], data=data, unanswerable=True, **columns)
    labels = sorted((window.start, window.end) for window in task.examples("test"))
    assert labels == [(0, 0), (4, 4)]


def test_the_data_is_told_apart_by_its_content(tmp_path):
    first = task_of(tmp_path, [row("a b", "b")]).fingerprint()
    assert list(first) == [str(tmp_path / "test.jsonl")]
    assert task_of(tmp_path, [row("a b", "a")]).fingerprint() != first
