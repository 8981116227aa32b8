"""A server on this machine that speaks the chat-completions protocol, and judges as it is told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS = re.compile(r"<assistant-(\d)>\n(.*?)\n</assistant-\1>", re.DOTALL)


def completion(text):
    """What a server answers with when the model says ``text``."""
    return {"id": "1", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def by_table(table, first_place=0):
    """A judge that gives each answer its number in ``table``, and what stands first so much more."""

    def reply(question):
        one, two = (table[answer] for _, answer in ANSWERS.findall(question))
        return f"{one + first_place} {two}\nThe first is shorter."

    return reply


class FakeServer(ThreadingHTTPServer):
    """Keeps ``requests``, each (path, headers, body); replies with what ``reply(question)`` returns.

    That is the model's text, or a tuple of status, headers and body (bytes, or an object for JSON), or None
    to close the connection.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def questions(self):
        return [body["messages"][0]["content"] for _, _, body in self.requests]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        reply = self.server.reply(body["messages"][0]["content"])
        if reply is None:
            self.close_connection = True
            return
        status, headers, content = (200, {}, completion(reply)) if isinstance(reply, str) else reply
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, *_):
        pass


@contextmanager
def fake_server(reply) -> Iterator[FakeServer]:
    """A server that runs until the end of the block."""
    with FakeServer(reply) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
