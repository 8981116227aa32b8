"""The judge's server: what it is sent, what is tried again, what each refusal says; the key stays secret."""

import socket

import pytest
from judge_server import completion, fake_server
from prunekit_judge import endpoint
from prunekit_judge.endpoint import Endpoint

from prunekit.errors import DataError

SECRET = "sk-secret/7"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def asked(reply, key=SECRET, model="judge"):
    """The reply to one question, or the error, with the requests made and the seconds slept."""
    slept = []
    with fake_server(reply) as server:
        try:
            found = Endpoint(server.url, model, key, slept.append).ask("Who won?")
        except DataError as error:
            found = error
    return found, server, slept


def test_the_request_is_a_chat_completion_at_temperature_0():
    found, server, slept = asked(lambda _: "8 6")
    ((path, headers, body),) = server.requests
    assert (found, slept) == ("8 6", [])
    assert path == "/v1/chat/completions"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert body == {"model": "judge", "messages": [{"role": "user", "content": "Who won?"}], "temperature": 0}


def test_without_a_key_none_is_sent():
    _, server, _ = asked(lambda _: "8 6", key="")
    assert "Authorization" not in server.requests[0][1]


def test_a_reply_without_content_is_empty():
    assert asked(lambda _: (200, {}, completion(None)))[0] == ""


def in_turn(*replies):
    left = list(replies)
    return lambda _: left.pop(0)


@pytest.mark.parametrize("fault", [(429, {}, b""), (500, {}, b""), (503, {}, b"busy"), None])
def test_a_busy_or_failing_server_is_asked_again(fault):
    found, server, slept = asked(in_turn(fault, fault, "8 6"))
    assert (found, len(server.requests), slept) == ("8 6", 3, [1, 2])


def test_a_server_is_left_alone_for_as_long_as_it_says_two_minutes_at_most():
    busy = [(429, {"Retry-After": wait}, b"") for wait in ("20", "3600", "Wed, 21 Oct 2026 07:28:00 GMT")]
    assert asked(in_turn(*busy, "8 6"))[2] == [20, 120, 4]


def test_a_server_that_stays_busy_is_an_error_after_six_requests():
    busy = (429, {}, {"error": {"message": "The quota of this month\nis used up."}})
    error, server, slept = asked(lambda _: busy)
    assert (len(server.requests), slept) == (6, [1, 2, 4, 8, 16])
    assert str(error) == (
        f"llm-judge: {server.url} was asked 6 times in vain: status 429, saying 'The quota of this month is "
        "used up.'. See whether the server runs, and whether PRUNEKIT_JUDGE_URL is right. The replies so far "
        "are kept, and not asked for again."
    )


def test_a_server_that_is_not_there_is_an_error_with_its_address():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DataError) as caught:
        Endpoint(f"http://127.0.0.1:{port}/v1", "judge", SECRET, lambda _: None).ask("Who won?")
    start = f"llm-judge: http://127.0.0.1:{port}/v1 was asked 6 times in vain: no connection ("
    assert str(caught.value).startswith(start)
    assert "refused" in str(caught.value)


def test_a_server_that_does_not_answer_in_time_is_an_error(monkeypatch):
    monkeypatch.setattr(endpoint, "TIMEOUT_SECONDS", 0.01)
    # It takes connections, as its queue does, and never reads from them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(DataError, match=r"in vain: no answer within 0\.01 seconds"):
            Endpoint(url, "judge", SECRET, lambda _: None).ask("Who won?")


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_accepted_is_an_error_at_once_and_not_shown(status):
    said = {"error": {"message": f"Incorrect API key provided: {SECRET[:5]}***"}}
    error, server, slept = asked(lambda _: (status, {}, said))
    assert (len(server.requests), slept) == (1, [])
    assert str(error) == (
        f"llm-judge: {server.url}/chat/completions answers with status {status}: the key in "
        "PRUNEKIT_JUDGE_KEY is not accepted. Set PRUNEKIT_JUDGE_KEY to a key that may use the model 'judge'."
    )


def test_a_key_that_is_wanted_and_not_set_is_an_error():
    error, _, _ = asked(lambda _: (401, {}, b""), key="")
    assert "status 401: it wants a key, and PRUNEKIT_JUDGE_KEY is not set. Set PRUNEKIT_JUDGE_KEY" in str(
        error
    )


def test_an_unknown_address_or_model_is_an_error():
    error, server, _ = asked(lambda _: (404, {}, {"error": {"message": "no model judge"}}))
    assert str(error) == (
        f"llm-judge: {server.url}/chat/completions answers with status 404, saying 'no model judge'. Either "
        "PRUNEKIT_JUDGE_URL is not the base address, which often ends in /v1, or PRUNEKIT_JUDGE_MODEL, "
        "'judge', is no model there."
    )


def test_a_request_that_is_refused_says_what_was_in_it():
    error, server, _ = asked(lambda _: (400, {}, {"error": {"message": "temperature must be 1"}}))
    assert str(error) == (
        f"llm-judge: {server.url}/chat/completions answers with status 400, saying 'temperature must be 1'. "
        "The request has the fields model ('judge'), messages and temperature (0); use a server and model "
        "that take them."
    )


def test_a_redirect_is_not_followed_with_the_key():
    with fake_server(lambda _: "8 6") as other:
        error, server, _ = asked(lambda _: (302, {"Location": f"{other.url}/chat/completions"}, b""))
        assert other.requests == []
    assert str(error) == (
        f"llm-judge: {server.url}/chat/completions answers with status 302, a redirect, which is not "
        "followed because the key is for this server alone. Set PRUNEKIT_JUDGE_URL to where it leads."
    )


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"[]", b'{"choices": []}', b'{"choices": [{}]}'])
def test_an_answer_that_is_no_chat_completion_is_an_error(body):
    error, server, _ = asked(lambda _: (200, {}, body))
    assert str(error) == (
        f"llm-judge: {server.url}/chat/completions answers with what is no chat completion: "
        f"{body.decode()!r}. PRUNEKIT_JUDGE_URL must be the base address of a server for these."
    )


@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_server_that_echoes_the_key_does_not_get_it_into_an_error(status):
    said = {"error": {"message": f"you sent {SECRET} " + "and more " * 100}}
    error, _, _ = asked(lambda _: (status, {}, said))
    assert "'you sent [key] and more" in str(error)
    assert SECRET not in repr(error)
    assert len(str(error)) < 700


def test_the_key_is_not_in_the_representation():
    assert SECRET not in repr(Endpoint("http://127.0.0.1:8000/v1", "judge", SECRET))


# The environment


@pytest.fixture
def settings(monkeypatch):
    def set_to(url="http://127.0.0.1:8000/v1", key=None):
        monkeypatch.setenv("PRUNEKIT_JUDGE_URL", url)
        monkeypatch.setenv("PRUNEKIT_JUDGE_MODEL", " judge ")
        monkeypatch.delenv("PRUNEKIT_JUDGE_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv("PRUNEKIT_JUDGE_KEY", key)

    return set_to


def test_the_environment_says_where_the_judge_is(settings):
    settings("https://judge.example/v1/", f"{SECRET}\n")
    assert Endpoint.from_environment() == Endpoint("https://judge.example/v1", "judge", SECRET)
    settings()
    assert Endpoint.from_environment().key == ""


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "ftp://a/v1", "http://", "http://a b/v1", "file:///v1", "http://a:99999/v1"]
)
def test_what_is_no_address_is_an_error(settings, url):
    settings(url)
    with pytest.raises(DataError) as caught:
        Endpoint.from_environment()
    assert str(caught.value) == (
        f"llm-judge: PRUNEKIT_JUDGE_URL is {url!r}, which is no address; write one such as "
        "http://127.0.0.1:8000/v1."
    )


@pytest.mark.parametrize("url", ["http://me:hidden@a/v1", "http://a/v1?key=hidden", "http://a/v1#hidden"])
def test_an_address_that_may_hold_a_secret_is_refused_and_not_shown(settings, url):
    settings(url)
    with pytest.raises(
        DataError, match=r"or something behind \? or #\. Leave that out; the key goes"
    ) as caught:
        Endpoint.from_environment()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_an_error_that_does_not_show_it(settings, key):
    settings(key=key)
    with pytest.raises(
        DataError, match=r"^llm-judge: the key in PRUNEKIT_JUDGE_KEY has characters"
    ) as caught:
        Endpoint.from_environment()
    assert key not in str(caught.value)
