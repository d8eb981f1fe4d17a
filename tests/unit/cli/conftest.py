"""A turn to be shown; and what `main` does to its process is undone after each test."""

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from everturn.contracts.chat import Step, Turn, TurnStatus


def a_turn(status: TurnStatus, *steps: Step, **more: Any) -> Turn:
    return Turn(
        turn_id="t1",
        user_id="junaid",
        session_id="s1",
        sequence=1,
        status=status,
        created_at="2026-01-31T12:00:00.000Z",
        steps=list(steps),
        **more,
    )


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    on_sigterm = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, on_sigterm)


@pytest.fixture(autouse=True)
def imports_as_they_were() -> Iterator[None]:
    """What a start leaves out (`lean_start`) is there for other tests of this process."""
    left_out = [name for name in ("openai._vendor.httpx_aiohttp", "mcp.shared.exceptions") if name not in sys.modules]
    yield
    for name in left_out:
        sys.modules.pop(name, None)
    BaseModel.model_config.pop("defer_build", None)
