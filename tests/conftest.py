"""What every test leaves as it found it."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What `logs.configure` does to the log of the process is undone after each test.

    Not what makes libraries quiet: the SDK's loggers are set once in a process, perhaps by the first test that asks.
    """
    root, access = logging.getLogger(), logging.getLogger("uvicorn.access")
    ours = [root, logging.getLogger("everturn"), logging.getLogger("dotenv")]
    handlers, levels, is_off = root.handlers[:], [logger.level for logger in ours], access.disabled
    yield
    root.handlers[:] = handlers
    access.disabled = is_off
    for logger, level in zip(ours, levels, strict=True):
        logger.setLevel(level)
