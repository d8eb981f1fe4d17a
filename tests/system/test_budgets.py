"""What a user may use a day, counted from the journal."""

from datetime import datetime
from pathlib import Path

from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import status, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.paid_turn import OURS
from tests.system.conftest import running


async def test_a_user_who_has_used_the_tokens_of_a_day_is_refused_until_the_next(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    # Each model call of the endpoint is one token in and one out: two calls, one of them tried twice.
    endpoint.script_for("mail ann", tool_calls(("send_mail", '{"to": "ann"}')))
    endpoint.script_for("sent to ann", status(503))
    async with running(tmp_path, endpoint, clock, assistant=OURS, user_daily_tokens=5) as system:
        await system.ended(await system.accept("mail ann"))
        fits = await system.say("hello")
    async with running(tmp_path, endpoint, clock, assistant=OURS, user_daily_tokens=5) as system:
        refused = await system.say("hello again", Idempotency_Key="k")
        other = await system.say("hello", user="bob", session="t")
    async with running(tmp_path, endpoint, clock, assistant=OURS, user_daily_tokens=7) as system:
        with_the_same_key = await system.say("hello again", Idempotency_Key="k")

    assert (fits.status_code, refused.status_code, other.status_code) == (200, 429, 200)
    renewal = datetime.fromisoformat(refused.json()["detail"].rpartition(" ")[2])
    assert "used 6 of 5 tokens today" in refused.json()["detail"]
    assert renewal.time().isoformat() == "00:00:00"
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400
    assert with_the_same_key.status_code == 200


async def test_the_calls_of_a_turn_that_failed_count_too(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    endpoint.script_for("mail ann", tool_calls(("send_mail", '{"to": "ann"}')))
    endpoint.script_for("sent to ann", status(401))
    async with running(tmp_path, endpoint, clock, assistant=OURS, user_daily_tokens=2) as system:
        failed = await system.ended(await system.accept("mail ann"))
        refused = await system.say("hello")

    assert failed["status"] == "failed"
    assert refused.status_code == 429
