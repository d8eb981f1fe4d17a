"""The image's health check, run as the image runs it, against real sockets."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

HEALTHCHECK = Path(__file__).parent.parent.parent / "deploy" / "healthcheck.py"
CLOSED = None


class _Service(BaseHTTPRequestHandler):
    answers: dict[str, int]

    def do_GET(self) -> None:
        self.send_response(self.answers[self.path])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


@contextmanager
def listening(healthz: int, readyz: int) -> Iterator[int]:
    """The port of a service that gives these answers."""
    handler = type("Service", (_Service,), {"answers": {"/healthz": healthz, "/readyz": readyz}})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def closed() -> Iterator[int]:
    """A port that is taken, so that nobody else listens there, and refuses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def exit_code(chat: tuple[int, int] | None, memory: tuple[int, int] | None, *arguments: str) -> int:
    with ExitStack() as stack:
        ports = [stack.enter_context(listening(*each) if each else closed()) for each in (chat, memory)]
        return subprocess.run(
            [sys.executable, "-I", str(HEALTHCHECK), *arguments],
            env={"EVERTURN_CHAT_PORT": str(ports[0]), "EVERTURN_MEMORY_PORT": str(ports[1])},
            check=False,
        ).returncode


@pytest.mark.parametrize("services", [((200, 503), CLOSED), (CLOSED, (200, 503)), ((200, 503), (200, 503))])
def test_a_container_is_healthy_when_each_service_in_it_is(
    services: tuple[tuple[int, int] | None, tuple[int, int] | None],
) -> None:
    assert exit_code(*services) == 0


@pytest.mark.parametrize("services", [((500, 200), CLOSED), ((200, 200), (500, 200)), (CLOSED, CLOSED)])
def test_a_service_that_is_not_well_or_none_at_all_is_unhealthy(
    services: tuple[tuple[int, int] | None, tuple[int, int] | None],
) -> None:
    assert exit_code(*services) == 1


@pytest.mark.parametrize(("readyz", "code"), [(200, 0), (503, 1)])
def test_readiness_is_asked_for_by_its_path(readyz: int, code: int) -> None:
    assert exit_code((200, readyz), CLOSED, "/readyz") == code
