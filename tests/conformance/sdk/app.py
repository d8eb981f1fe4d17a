"""An HTTP app beside a sidecar: it keeps what it is asked, and answers as a test says."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.conftest import free_ports

# Far longer than anything here takes: a limit for what hangs, not a measure.
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request; the names of its headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The CloudEvent that was delivered."""
        return dict(json.loads(self.body))

    def is_about(self, text: str) -> bool:
        return text in self.target or text.encode() in self.body


class App:
    """Listens on loopback from `start` to `stop`. It answers 200 without a body if no test says otherwise."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked: list[Asked] = []
        self._scripts: dict[str, list[Answer]] = {}
        self.subscriptions: list[dict[str, Any]] = []
        (self.port,) = free_ports(1)

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def script(self, about: str, *answers: Answer) -> None:
        """Answer the requests that have `about` in their path or body with `answers`, in order; the last one stays."""
        with self._changed:
            self._scripts[about] = list(answers)

    def asked(self, path: str, about: str) -> list[Asked]:
        """What came to `path`, or below it, that has `about` in its path or body."""
        with self._changed:
            return [each for each in self._asked if each.target.startswith(path) and each.is_about(about)]

    def wait_for(self, path: str, about: str, count: int = 1) -> list[Asked]:
        """The same, once there are `count`."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.asked(path, about)) >= count, PATIENCE_S)
            assert there, f"{path} was not asked {count} times about {about!r}"
            return self.asked(path, about)

    def answer(self, asked: Asked) -> Answer:
        """Keep a request, and say how it is answered."""
        if asked.target == "/dapr/subscribe":
            return Answer(body=json.dumps(self.subscriptions).encode(), headers={"content-type": "application/json"})
        if asked.target == "/dapr/config":
            return Answer(404)
        with self._changed:
            self._asked.append(asked)
            self._changed.notify_all()
            for about, answers in self._scripts.items():
                if asked.is_about(about):
                    return answers.pop(0) if len(answers) > 1 else answers[0]
        return Answer()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = app.answer(Asked(self.command, self.path, headers, self.body()))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            def body(self) -> bytes:
                if self.headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length") or 0))
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def __getattr__(self, name: str) -> Any:
                """The one answer, for the standard library's `do_GET`, `do_POST` and so on."""
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
                """Not onto the terminal."""

        return Handler
