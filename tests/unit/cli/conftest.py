"""What `main` does to its process is undone after each test."""

import logging
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, on_sigterm = list(root.handlers), root.level, signal.getsignal(signal.SIGTERM)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("everturn").setLevel(logging.NOTSET)
    logging.getLogger("uvicorn.access").disabled = False
    signal.signal(signal.SIGTERM, on_sigterm)
