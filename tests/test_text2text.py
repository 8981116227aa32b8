"""The g2p task on tiny random encoder-decoders: batches, generation, scores."""

import pytest
import torch
from pydantic import ValidationError
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from prunekit.embedded.g2p import LETTERS, TOKENIZER_FOLDER, load_split
from prunekit.errors import DataError
from prunekit.progress import Progress
from prunekit.tasks import prunekit_register_metrics, prunekit_register_tasks
from prunekit.tasks.g2p import G2P, G2PConfig

pytestmark = pytest.mark.slow


def tiny_t5(vocab_size=72):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=vocab_size, decoder_start_token_id=0, **sizes))


def tiny_bart():
    torch.manual_seed(0)
    sizes = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3, "decoder_start_token_id": 1}
    return BartForConditionalGeneration(
        BartConfig(vocab_size=72, forced_eos_token_id=1, **sizes, **heads, **tokens)
    )


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)


@pytest.fixture(scope="module")
def task(tokenizer):
    return G2P(G2PConfig(train_examples=20), tokenizer)


@pytest.fixture(params=[tiny_t5, tiny_bart], ids=["t5", "bart"])
def model(request):
    return request.param()


def test_batches_pad_inputs_with_padding_and_labels_with_minus_100(task):
    short, long = sorted(task.examples("validation")[:40], key=lambda example: len(example.input_ids))[::39]
    batch = task.collate([short, long])
    width, labels = len(long.input_ids), max(len(short.labels), len(long.labels))
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, width)
    assert batch["labels"].shape == (2, labels)
    padding = width - len(short.input_ids)
    assert padding > 0
    assert batch["input_ids"][0].tolist() == short.input_ids + [0] * padding
    assert batch["attention_mask"][0].tolist() == [1] * len(short.input_ids) + [0] * padding
    assert batch["labels"][0].tolist() == short.labels + [-100] * (labels - len(short.labels))


def test_a_batch_gives_a_loss_and_logits(task, model):
    output = model(**task.collate(task.examples("train")[:3]))
    assert torch.isfinite(output.loss)
    assert output.logits.shape[-1] == 72


def test_examples_hold_the_word_its_first_pronunciation_and_all_references(task, tokenizer):
    entry, example = load_split("test")[3], task.examples("test")[3]
    assert tokenizer.convert_ids_to_tokens(example.input_ids) == [*entry.word, "</s>"]
    assert tokenizer.convert_ids_to_tokens(example.labels) == [*entry.pronunciations[0].split(), "</s>"]
    assert example.references == entry.pronunciations
    assert len(entry.pronunciations) > 1


def test_examples_are_tokenised_once(task):
    assert task.examples("validation") is task.examples("validation")


def test_lengths_count_source_tokens_in_the_order_of_the_examples(task):
    entries = load_split("validation")
    assert task.lengths("validation") == [len(entry.word) + 1 for entry in entries]


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_scores_and_leaves_every_module_in_its_mode(task, model, training):
    model.train(training)
    model.get_encoder().eval()
    scores = task.evaluate(model, "test", batch_size=4, limit=10).metrics
    assert list(scores) == ["per", "per_stderr", "wer", "wer_stderr", "n"]
    assert scores["n"] == 10
    assert scores["per"] > 50
    assert model.training is training
    assert model.get_decoder().training is training
    assert not model.get_encoder().training


def test_predictions_come_in_the_order_given_whatever_the_batch_size(task, model):
    examples = task.examples("test")[:9]
    together = task.predict(model, examples, batch_size=9, num_beams=2)
    assert together == [task.predict(model, [each], batch_size=1, num_beams=2)[0] for each in examples]
    assert len(set(together)) > 1


def test_limit_scores_the_first_examples_of_the_split(task, model):
    scores = task.evaluate(model, "test", batch_size=8, limit=5).metrics
    answers = task.predict(model, task.examples("test")[:5], batch_size=8)
    references = [entry.pronunciations for entry in load_split("test")[:5]]
    assert scores["per"] == task.metrics[0].function(answers, references).value


def test_a_trained_model_scores_zero_on_what_it_learnt(task):
    model = tiny_t5()
    examples = task.examples("train")[:2]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        model(**task.collate(examples)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert task.predict(model, examples, batch_size=2) == [example.references[0] for example in examples]


def test_progress_counts_every_example(task, model, monkeypatch):
    seen = []
    progress = Progress(quiet=True)
    silent = progress.task

    def watched(label, total):
        seen.append((label, total))
        return silent(label, total)

    monkeypatch.setattr(progress, "task", watched)
    task.evaluate(model, "test", batch_size=4, limit=6, progress=progress)
    assert seen == [("Evaluating g2p", 6)]


def test_unknown_split_is_an_error_that_names_those_there_are(task):
    with pytest.raises(
        DataError, match=r"^Task g2p has no split 'dev'; use one of: train, validation, test\.$"
    ):
        task.examples("dev")


def test_a_model_with_too_small_a_vocabulary_is_an_error(task):
    with pytest.raises(
        DataError,
        match=r"tokenizer has 69 tokens, but the model's vocabulary only 32\. Use the model's tokenizer",
    ):
        task.evaluate(tiny_t5(vocab_size=32), "test", batch_size=2, limit=2)


def test_train_examples_takes_the_first_words_in_hash_order(task):
    assert [example.references for example in task.examples("train")] == [
        entry.pronunciations for entry in load_split("train")[:20]
    ]


def test_more_train_examples_than_there_are_is_an_error(tokenizer):
    task = G2P(G2PConfig(train_examples=200_000), tokenizer)
    with pytest.raises(
        DataError, match=r"^task\.train_examples = 200000, but g2p has 109413 training words; ask for"
    ):
        task.examples("train")


@pytest.mark.parametrize("keys", [{"train_examples": 0}, {"examples": 5}])
def test_config_refuses_wrong_keys(keys):
    with pytest.raises(ValidationError):
        G2PConfig(**keys)


def test_a_tokenizer_that_lacks_phones_is_an_error(tokenizer):
    backend = tokenizer.backend_tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.model = type(backend.model)(
        {"<unk>": 2} | {c: i for i, c in enumerate(LETTERS, 4)}, unk_token="<unk>"
    )
    broken = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")
    with pytest.raises(
        DataError, match=r"gives only 26 of the 65 letters and phones a token of their own\. Use"
    ):
        G2P(G2PConfig(), broken)


def test_the_task_and_its_metrics_are_registered():
    assert G2P in prunekit_register_tasks()
    assert {"per", "wer"} <= {metric.name for metric in prunekit_register_metrics()}
