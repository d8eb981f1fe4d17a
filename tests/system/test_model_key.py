"""The key of the model's endpoint: from the environment, else from the sidecar's secret store."""

from pathlib import Path
from typing import Any

import pytest

from everturn.testing.clock import ManualClock
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import running


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"model_api_key_secret": "LLAMA_KEY"}, "Bearer from-the-store"),
        ({"model_api_key_secret": "LLAMA_KEY", "model_api_key": "from-the-settings"}, "Bearer from-the-settings"),
        ({}, None),
    ],
)
async def test_a_turn_and_its_summary_show_the_endpoint_the_key(
    tmp_path: Path,
    endpoint: ModelEndpoint,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    sent: str | None,
) -> None:
    monkeypatch.delenv("EVERTURN_MODEL_API_KEY", raising=False)
    monkeypatch.setenv("LLAMA_KEY", "from-the-store")
    async with running(tmp_path, endpoint, clock, **given) as system:
        await system.say("Hi")

        async def is_summarised() -> bool:
            return len(endpoint.requests) == 2

        await system.until(is_summarised)

    assert [request.headers.get("authorization") for request in endpoint.requests] == [sent, sent]


async def test_a_named_secret_that_is_not_there_fails_no_turn_for_good(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, endpoint, clock, model_api_key_secret="LLAMA_KEY") as system:
        turn_id = await system.accept("Hi")

        async def is_retried() -> bool:
            steps = {step["name"]: step for step in (await system.turn(turn_id))["steps"]}
            return bool(steps.get("generate_response", {}).get("error"))

        await system.until(is_retried, moving=False)
        monkeypatch.setenv("LLAMA_KEY", "at last")
        turn = await system.ended(turn_id)

    assert turn["status"] == "completed"
    assert endpoint.requests[0].headers["authorization"] == "Bearer at last"
