"""What every test leaves as it found it."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What a test does to the loggers of the process (`logs.configure`, say) is undone after it."""
    ours = [logging.getLogger(name) for name in (None, "everturn", "uvicorn.access", "dotenv")]  # there from now on
    known = {*ours, *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger))}
    before = [(each, each.handlers[:], each.level, each.propagate, each.disabled) for each in known]
    yield
    for logger, handlers, level, propagate, disabled in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled
