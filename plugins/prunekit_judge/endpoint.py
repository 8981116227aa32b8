"""Asking a model by the chat-completions protocol, which many servers speak."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from prunekit.errors import DataError

URL, MODEL, KEY = "PRUNEKIT_JUDGE_URL", "PRUNEKIT_JUDGE_MODEL", "PRUNEKIT_JUDGE_KEY"
TRIES = 6
TIMEOUT_SECONDS = 180
LONGEST_WAIT_SECONDS = 120


class _Busy(Exception):
    """Asking again may help; says what was wrong, and how many seconds the server wants to be left alone."""

    def __init__(self, problem: str, wait: float = 0) -> None:
        super().__init__(problem)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # The key is for the server that the user named, and for no other.
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True)
class Endpoint:
    """A model on a server.

    Attributes:
        url: base address, such as ``http://127.0.0.1:8000/v1``.
        model: the name that the server knows it by.
        key: what the server wants to be shown, or nothing. It gets into no message and no file.
        sleep: waits for so many seconds.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    @classmethod
    def from_environment(cls) -> Self:
        """Return what the environment variables ``PRUNEKIT_JUDGE_URL``, ``_MODEL`` and ``_KEY`` say.

        Raises:
            DataError: if one that is needed is not set, or cannot be right.
        """
        url, model, key = (os.environ.get(name, "").strip() for name in (URL, MODEL, KEY))
        missing = [name for name, value in ((URL, url), (MODEL, model)) if not value]
        if missing:
            raise DataError(
                f"llm-judge: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set. {URL} "
                "is the base address of a server for chat completions, such as http://127.0.0.1:8000/v1; "
                f"{MODEL} the model's name there; {KEY} the key, if it wants one. Set them, or leave "
                "llm-judge out of the task's metrics."
            )
        _check_url(url)
        if not key.isascii() or not key.isprintable() or " " in key:
            raise DataError(
                f"llm-judge: the key in {KEY} has characters that no key has, such as a space or a line "
                "break inside it. Set it again."
            )
        return cls(url.rstrip("/"), model, key)

    def ask(self, text: str) -> str:
        """Return the model's reply to a text, at temperature 0; "" if it has nothing to say.

        A server that is busy (status 429) or fails (5xx), cannot be reached, does not answer in time or
        breaks off is asked six times, after 1, 2, 4, 8 and 16 seconds, or as many as it says, at most 120.

        Raises:
            DataError: if there is no reply; the text names the server and what it said.
        """
        tried = 1
        while True:
            try:
                return self._request(text)
            except _Busy as busy:
                if tried == TRIES:
                    raise DataError(
                        f"llm-judge: {self.url} was asked {TRIES} times in vain: {busy}. See whether the "
                        f"server runs, and whether {URL} is right. The replies so far are kept, and not "
                        "asked for again."
                    ) from None
                self.sleep(min(max(2.0 ** (tried - 1), busy.wait), LONGEST_WAIT_SECONDS))
                tried += 1

    def _request(self, text: str) -> str:
        body = {"model": self.model, "messages": [{"role": "user", "content": text}], "temperature": 0}
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url}/chat/completions"
        request = urllib.request.Request(address, data=json.dumps(body).encode(), headers=headers)
        try:
            with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as response:
                return self._content(response.read())
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except TimeoutError:
            raise _Busy(f"no answer within {TIMEOUT_SECONDS} seconds") from None
        except urllib.error.URLError as error:
            raise _Busy(f"no connection ({error.reason})") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Busy(f"the connection broke off ({type(error).__name__})") from None

    def _content(self, body: bytes) -> str:
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            content = body
        # A model that declines may say nothing at all.
        if content is not None and not isinstance(content, str):
            raise DataError(
                f"llm-judge: {self.url}/chat/completions answers with what is no chat completion: "
                f"{self._shown(body)}. {URL} must be the base address of a server for these."
            )
        return content or ""

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What to raise about an answer with a status of 300 or more."""
        try:
            with error:
                said = self._shown(error.read())
        except (OSError, http.client.HTTPException):
            said = "nothing"
        address = f"llm-judge: {self.url}/chat/completions answers with status {error.code}"
        if error.code == 429 or error.code >= 500:
            wait = error.headers.get("Retry-After", "")
            return _Busy(f"status {error.code}, saying {said}", float(wait) if wait.isdecimal() else 0)
        if error.code in (401, 403):
            # What it says may show a part of the key.
            what = (
                f"the key in {KEY} is not accepted" if self.key else f"it wants a key, and {KEY} is not set"
            )
            return DataError(f"{address}: {what}. Set {KEY} to a key that may use the model {self.model!r}.")
        if error.code < 400:
            return DataError(
                f"{address}, a redirect, which is not followed because the key is for this server alone. Set "
                f"{URL} to where it leads."
            )
        if error.code == 404:
            return DataError(
                f"{address}, saying {said}. Either {URL} is not the base address, which often ends in /v1, "
                f"or {MODEL}, {self.model!r}, is no model there."
            )
        return DataError(
            f"{address}, saying {said}. The request has the fields model ({self.model!r}), messages and "
            "temperature (0); use a server and model that take them."
        )

    def _shown(self, body: bytes) -> str:
        """The beginning of what a server said, on one line, without the key."""
        text = body.decode(errors="replace")
        with contextlib.suppress(ValueError, LookupError, TypeError):
            text = str(json.loads(body)["error"]["message"])
        if self.key:
            text = text.replace(self.key, "[key]")
        text = " ".join(text.split())
        return repr(text if len(text) <= 300 else f"{text[:300]}…")


def _check_url(url: str) -> None:
    """Refuse an address that is none, or that holds secrets, which would be shown.

    Raises:
        DataError: if so.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or len(url.split()) > 1:
        raise DataError(
            f"llm-judge: {URL} is {url!r}, which is no address; write one such as http://127.0.0.1:8000/v1."
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        # Not shown: it may hold a password.
        raise DataError(
            f"llm-judge: {URL} has more than a base address such as http://127.0.0.1:8000/v1: a user, or "
            f"something behind ? or #. Leave that out; the key goes into {KEY}."
        )
