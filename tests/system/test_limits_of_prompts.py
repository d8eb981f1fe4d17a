"""What a call of the model gets: the window of history, and several turns in one summary."""

from pathlib import Path
from typing import Any

import pytest

from everturn.testing.clock import ManualClock
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import System, running


@pytest.mark.parametrize("broker_is_away", [False, True])
async def test_a_prompt_has_no_more_history_than_the_setting_allows(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, broker_is_away: bool
) -> None:
    # Ten tokens are forty characters: two turns of 15 and a reply "hello" of 5 each.
    async with running(tmp_path, endpoint, clock, history_tokens=10, save_attempts=1) as system:
        # Without it the turns are in the session alone, and the memory service, which keeps to the window, has none.
        system.faults.set_away("broker", away=broker_is_away)
        for number in range(4):
            await system.say(f"message no. {number:03}")

        assert [said(question) for question in system.questions()] == [
            ["message no. 000"],
            ["message no. 000", "hello", "message no. 001"],
            ["message no. 000", "hello", "message no. 001", "hello", "message no. 002"],
            ["message no. 001", "hello", "message no. 002", "hello", "message no. 003"],
        ]


async def test_turns_that_come_fast_are_summarised_together(system: System) -> None:
    for number in range(5):
        await system.say(f"fast {number}")
    await system.history_of(10)

    async def is_summarised() -> bool:
        return bool((await system.memory.get("/memories/ann")).json()["user_summary"] == "hello")

    await system.until(is_summarised)
    for _ in range(3):
        system.clock.advance(60)
        await system.history()

    summaries = [request.body["messages"] for request in system.endpoint.requests if not request.body.get("tools")]
    assert len(summaries) == 1
    assert all(f"fast {number}" in str(summaries[0]) for number in range(5))


def said(question: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in question if message["role"] != "system"]
