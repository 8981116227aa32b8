"""The metric ``llm-judge``: what it asks, how it reads and adds up the verdicts, and what it keeps."""

import json
import math
import re

import prunekit_judge
import pytest
from fake_plugins import registry_of
from judge_server import ANSWERS, by_table, fake_server
from prunekit_judge.endpoint import Endpoint
from prunekit_judge.metric import LLM_JUDGE, Judge
from prunekit_judge.prompt import REMINDER, question, read_scores

from prunekit.errors import DataError
from prunekit.tasks.answering import Answered, evaluation

TABLE = {"poor": 2, "fair": 5, "good": 8, "best": 9}


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("URL", "MODEL", "KEY"):
        monkeypatch.delenv(f"PRUNEKIT_JUDGE_{name}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def judge_at(server, folder, model="judge"):
    folder.mkdir(exist_ok=True)
    return Judge(Endpoint(server.url, model, sleep=lambda _: pytest.fail("slept")), folder)


def scored(reply, tmp_path, predictions, references):
    with fake_server(reply) as server:
        sources = [f"Instruction {index}" for index in range(len(predictions))]
        found = judge_at(server, tmp_path / "kept").score(predictions, [[r] for r in references], sources)
    return found, server.questions


def test_the_metric_is_the_plugins_and_wants_sources():
    assert registry_of(judge=prunekit_judge).metrics == {"llm-judge": LLM_JUDGE}
    assert LLM_JUDGE.higher_is_better
    assert LLM_JUDGE.wants_sources


# The question and the reply


def test_the_question_has_the_instruction_and_both_answers_in_their_order():
    text = question("Name a {colour}.", "Red.", "A colour is {0}:\nblue.")
    assert "<instruction>\nName a {colour}.\n</instruction>" in text
    assert ANSWERS.findall(text) == [("1", "Red."), ("2", "A colour is {0}:\nblue.")]
    assert re.search(r"from 1 \(worst\) to 10 \(best\)", text)


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("8 6\nThe first is better: 10 of 10.", (8, 6)),
        ("\n 7.5  9 \n", (7.5, 9)),
        ("**10, 1**\n\nThe second is empty.", (10, 1)),
        ("1\t10", (1, 10)),
    ],
)
def test_the_scores_are_the_two_numbers_on_the_first_line(reply, wanted):
    assert read_scores(reply) == wanted


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot judge these.",
        "Assistant 1 gets 8 and assistant 2 gets 6.",
        "Scores:\n8 6",
        "8",
        "8 6 7",
        "0 6",
        "8 11",
        "-8 6",
        "86",
        "nan 6",
    ],
)
def test_what_is_not_two_scores_from_1_to_10_is_not_read(reply):
    assert read_scores(reply) is None


# The value


def test_the_value_is_the_ratio_of_the_sums_and_its_error_that_of_a_ratio(tmp_path):
    # Scores 2, 5, 8 over 8, 8, 9: 15 / 25; residuals a - 0.6 b are -2.8, 0.2 and 2.6.
    found, _ = scored(by_table(TABLE), tmp_path, ["poor", "fair", "good"], ["good", "good", "best"])
    value, stderr, influences = found
    assert value == pytest.approx(60)
    assert stderr == pytest.approx(100 * math.sqrt(2.8**2 + 0.2**2 + 2.6**2) / 25)
    assert influences == pytest.approx([100 * each * 3 / 25 for each in (-2.8, 0.2, 2.6)])


def test_each_pair_is_asked_in_both_orders_so_that_the_first_place_is_worth_nothing(tmp_path):
    # Each answer stands first once, so each gets half of the 2 more: (2 + 1) / (8 + 1).
    found, questions = scored(by_table(TABLE, first_place=2), tmp_path, ["poor"], ["good"])
    assert found.value == pytest.approx(100 * 3 / 9)
    assert sorted(ANSWERS.findall(text) for text in questions) == [
        [("1", "good"), ("2", "poor")],
        [("1", "poor"), ("2", "good")],
    ]


def test_a_model_that_is_better_than_the_references_scores_above_100(tmp_path):
    assert scored(by_table(TABLE), tmp_path, ["best"], ["poor"])[0].value == pytest.approx(450)


def test_the_first_reference_counts(tmp_path):
    with fake_server(by_table(TABLE)) as server:
        found = judge_at(server, tmp_path).score(["fair"], [["good", "poor"]], ["Do."])
    assert found.value == pytest.approx(100 * 5 / 8)


def test_the_same_question_is_asked_once(tmp_path):
    with fake_server(by_table(TABLE)) as server:
        found = judge_at(server, tmp_path).score(["good", "good"], [["good"], ["good"]], ["Do.", "Do."])
    assert found[:2] == (100, 0)
    assert len(server.requests) == 1


def test_nothing_to_score_is_an_error(tmp_path):
    judge = Judge(Endpoint("http://127.0.0.1:9/v1", "judge"), tmp_path)
    with pytest.raises(DataError, match=r"^There are no predictions to score; give at least one example\.$"):
        judge.score([], [], [])
    with pytest.raises(DataError, match=r"^Example 0 has no reference; give at least one"):
        judge.score(["a"], [[]], ["Do."])


# Replies that cannot be read


def test_a_reply_without_scores_is_asked_for_once_more_with_a_reminder(tmp_path):
    def reply(text):
        return by_table(TABLE)(text) if text.endswith(REMINDER) else "Both are fine."

    found, questions = scored(reply, tmp_path, ["poor"], ["good"])
    assert found.value == pytest.approx(25)
    assert sum(text.endswith(REMINDER) for text in questions) == 2
    assert len(questions) == 4


def refusing(word):
    """A judge that says nothing of answers with this word in them."""
    return lambda text: "I would\nrather not." if word in text else by_table(TABLE)(text)


def test_an_example_without_a_verdict_is_left_out_of_both_sums_with_a_warning(tmp_path, caplog):
    with fake_server(refusing("Instruction 7\n")) as server:
        sources = [f"Instruction {index}" for index in range(50)]
        predictions = ["best" if index == 7 else "fair" for index in range(50)]
        found = judge_at(server, tmp_path).score(predictions, [["good"]] * 50, sources)
    assert found.value == pytest.approx(100 * 5 / 8)
    assert found.influences == pytest.approx([0] * 50)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == (
        "llm-judge: for 1 of 50 examples judge put no two scores from 1 to 10 on the first line of its "
        "reply, asked twice; the first such reply is 'I would rather not.'. They count neither way: the "
        "value is of the rest."
    )


def test_an_example_without_a_verdict_has_no_influence_and_the_others_have_a_little_more(tmp_path):
    predictions = ["best" if index == 7 else "fair" if index % 2 else "poor" for index in range(50)]
    with fake_server(refusing("Instruction 7\n")) as server:
        sources = [f"Instruction {index}" for index in range(50)]
        found = judge_at(server, tmp_path).score(predictions, [["good"]] * 50, sources)
    rest = [index for index in range(50) if index != 7]
    with fake_server(by_table(TABLE)) as server:
        alone = judge_at(server, tmp_path / "alone").score(
            [predictions[index] for index in rest], [["good"]] * 49, [sources[index] for index in rest]
        )
    assert found[:2] == pytest.approx(alone[:2])
    assert found.influences[7] == 0
    assert [found.influences[index] for index in rest] == pytest.approx(
        [x * 50 / 49 for x in alone.influences]
    )
    assert found.stderr == pytest.approx(math.hypot(*found.influences) / 50)


def test_more_than_one_in_50_examples_without_a_verdict_are_an_error(tmp_path):
    with pytest.raises(DataError) as caught:
        scored(refusing("Instruction 0\n"), tmp_path, ["poor"] * 49, ["good"] * 49)
    assert str(caught.value) == (
        "llm-judge: for 1 of 49 examples judge put no two scores from 1 to 10 on the first line of its "
        "reply, asked twice; the first such reply is 'I would rather not.'. That is more than one in 50, and "
        "they may well be unlike the rest. Name a model that keeps to the form in PRUNEKIT_JUDGE_MODEL; the "
        "replies that could be read are kept."
    )


def test_one_order_that_cannot_be_read_leaves_the_example_out(tmp_path):
    def reply(text):
        return "No." if ("1", "poor") in ANSWERS.findall(text) else by_table(TABLE)(text)

    with pytest.raises(DataError, match=r"^llm-judge: for 1 of 1 examples judge put no two scores"):
        scored(reply, tmp_path, ["poor"], ["good"])


# What is kept


def test_a_second_evaluation_asks_only_what_is_new(tmp_path):
    with fake_server(by_table(TABLE)) as server:
        judge_at(server, tmp_path).score(["poor"], [["good"]], ["Do."])
        asked = len(server.requests)
        found = judge_at(server, tmp_path).score(["poor", "fair"], [["good"], ["good"]], ["Do.", "Do."])
        assert len(server.requests) - asked == 2
    assert found.value == pytest.approx(100 * 7 / 16)


def test_replies_are_kept_by_server_model_and_question(tmp_path):
    with fake_server(by_table(TABLE)) as server:
        judge_at(server, tmp_path, "one").score(["poor"], [["good"]], ["Do."])
        judge_at(server, tmp_path, "two").score(["poor"], [["good"]], ["Do."])
        assert len(server.requests) == 4
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert sorted(entry["model"] for entry in kept) == ["one", "one", "two", "two"]
    assert {entry["reply"] for entry in kept} == {"2 8\nThe first is shorter.", "8 2\nThe first is shorter."}
    assert {entry["question"] for entry in kept} == set(server.questions)


def test_what_was_judged_before_a_fault_is_not_asked_again(tmp_path):
    broken = True

    def reply(text):
        return (400, {}, {}) if broken and "Instruction 19\n" in text else by_table(TABLE)(text)

    sources = [f"Instruction {index}" for index in range(20)]
    with fake_server(reply) as server:
        with pytest.raises(DataError):
            judge_at(server, tmp_path).score(["poor"] * 20, [["good"]] * 20, sources)
        kept = len(list(tmp_path.glob("*.json")))
        before = len(server.requests)
        broken = False
        judge_at(server, tmp_path).score(["poor"] * 20, [["good"]] * 20, sources)
        assert kept > 0
        assert len(server.requests) - before == 40 - kept


def test_a_damaged_reply_on_disk_is_asked_for_again(tmp_path):
    with fake_server(by_table(TABLE)) as server:
        judge_at(server, tmp_path).score(["poor"], [["good"]], ["Do."])
        for path in tmp_path.glob("*.json"):
            path.write_text("{")
        assert judge_at(server, tmp_path).score(["poor"], [["good"]], ["Do."]).value == pytest.approx(25)
        assert len(server.requests) == 4


# As a recipe uses it


def test_the_judge_of_the_environment_scores_with_the_other_metrics(monkeypatch, tmp_path):
    with fake_server(by_table(TABLE)) as server:
        monkeypatch.setenv("PRUNEKIT_JUDGE_URL", f"{server.url}/")
        monkeypatch.setenv("PRUNEKIT_JUDGE_MODEL", "judge")
        LLM_JUDGE.check()
        assert server.requests == []
        asked = Answered(["Do.", "Say."], [["good"], ["good"]], [1, 1], ["poor", "good"])
        found = evaluation([LLM_JUDGE], asked, has_sources=True)
    assert found.metrics["llm-judge"] == pytest.approx(100 * 10 / 16)
    assert {body["model"] for _, _, body in server.requests} == {"judge"}
    assert len(list((tmp_path / "cache" / "prunekit" / "judge").glob("*.json"))) == 3


def test_what_is_asked_is_told_without_the_key(monkeypatch, caplog):
    caplog.set_level("INFO", "prunekit")
    with fake_server(by_table(TABLE)) as server:
        monkeypatch.setenv("PRUNEKIT_JUDGE_URL", server.url)
        monkeypatch.setenv("PRUNEKIT_JUDGE_MODEL", "judge")
        monkeypatch.setenv("PRUNEKIT_JUDGE_KEY", "secret-7")
        LLM_JUDGE.function(["poor"], [["good"]], ["Do."])
    assert f"llm-judge: asking judge at {server.url} 2 questions; 0 more are answered in " in caplog.text
    assert "secret-7" not in caplog.text


def test_the_check_names_what_is_not_set(monkeypatch):
    with pytest.raises(DataError) as caught:
        LLM_JUDGE.check()
    assert str(caught.value) == (
        "llm-judge: PRUNEKIT_JUDGE_URL and PRUNEKIT_JUDGE_MODEL are not set. PRUNEKIT_JUDGE_URL is the base "
        "address of a server for chat completions, such as http://127.0.0.1:8000/v1; PRUNEKIT_JUDGE_MODEL "
        "the model's name there; PRUNEKIT_JUDGE_KEY the key, if it wants one. Set them, or leave llm-judge "
        "out of the task's metrics."
    )
    monkeypatch.setenv("PRUNEKIT_JUDGE_URL", "http://127.0.0.1:8000/v1")
    with pytest.raises(DataError, match=r"^llm-judge: PRUNEKIT_JUDGE_MODEL is not set\. "):
        LLM_JUDGE.check()


def test_a_cache_that_cannot_be_made_is_an_error_at_the_start(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("PRUNEKIT_JUDGE_URL", "http://127.0.0.1:8000/v1")
    monkeypatch.setenv("PRUNEKIT_JUDGE_MODEL", "judge")
    with pytest.raises(DataError) as caught:
        LLM_JUDGE.check()
    assert str(caught.value) == (
        f"llm-judge: the folder {tmp_path}/cache/prunekit/judge for the judge's replies cannot be made (Not "
        "a directory). Set XDG_CACHE_HOME to a folder that can be written to."
    )
