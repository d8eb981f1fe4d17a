"""A history that is behind the facts of its turn: Dapr gives a step out before what came before is written."""

from pathlib import Path
from typing import Any

from everturn.dapr.workflows import Sidecar
from everturn.testing.clock import ManualClock
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import Gate, running


class LateHistories:
    """The client of workflows, which gives a history without its last events until it is asked again."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def get_workflow_history(self, instance_id: str) -> Any:
        self.asked += 1
        history = await self._inner.get_workflow_history(instance_id)
        if self.asked > 2:
            return history
        generated = next(n for n, event in enumerate(history) if event.name == "generate_response")
        return history[: generated + 1]


class Behind(Gate):
    """Gives the chat service a sidecar whose histories are late."""

    def before(self, sidecar: Sidecar) -> Any:
        return _Late(sidecar)


class _Late:
    def __init__(self, inner: Sidecar) -> None:
        self._inner = inner
        self.workflows = LateHistories(inner.workflows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_a_completed_turn_shows_all_its_steps(
    tmp_path: Path, clock: ManualClock, endpoint: ModelEndpoint
) -> None:
    async with running(tmp_path, endpoint, clock, gate=Behind()) as system:
        turn = await system.turn((await system.say("hello")).json()["turn_id"])

    assert [(step["name"], step["status"]) for step in turn["steps"]] == [
        ("fetch_context", "completed"),
        ("generate_response", "completed"),
        ("save_conversation", "completed"),
    ]
