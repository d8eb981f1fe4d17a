"""A turn with four model calls, two parallel tools, a handoff and an approval, cut off at each write of its service."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from everturn.dapr.wire import Request, Response
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Answer, Cut, Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests import paid_turn
from tests.paid_turn import MESSAGE, OURS, SCRIPT, TOOLS, Made, asked_in, script
from tests.system.conftest import Gate, System, running
from tests.system.paid_assistant import keys, made

pytestmark = pytest.mark.usefixtures("fresh")

STATE = "/v1.0/state/statestore"


class Crash(Gate):
    """The chat service's sidecar, which hangs at write number `at`, before it is done or after."""

    def __init__(self, at: int = 0, *, is_written: bool = False) -> None:
        super().__init__()
        self.writes = 0
        self._at = at
        self._is_written = is_written

    async def send(self, request: Request) -> Response:
        is_write = request.method == "POST" and request.target.split("?")[0] in (STATE, f"{STATE}/transaction")
        self.writes += is_write
        is_here = is_write and self.writes == self._at
        response = await self._inner.send(request) if self._is_written or not is_here else None
        if is_here or response is None:
            self.reached.set()
            await asyncio.Event().wait()
        assert response is not None
        return response


async def finished(system: System) -> dict[str, Any]:
    """The turn once it has ended; what is asked is approved. The client's key finds a turn that was accepted before."""
    sent = await system.say(MESSAGE, Prefer="respond-async", Idempotency_Key="k")
    turn_id = sent.json()["turn_id"]

    async def is_asked_or_over() -> bool:
        return (await system.turn(turn_id))["status"] in ("waiting", "completed", "failed")

    await system.until(is_asked_or_over)
    for asked in (await system.turn(turn_id))["approvals"]:
        path = f"/turns/{turn_id}/approvals/{asked['call_id']}"
        answer = await system.chat.post(path, json={"decision": "approve"})
        assert answer.status_code == 200, answer.text
    return await system.ended(turn_id)


async def cut_off(folder: Path, endpoint: ModelEndpoint, crash: Crash) -> dict[str, Any]:
    """The turn of a system that crashed as `crash` says, and was started again on the same folder."""
    made.clear()
    keys.clear()
    endpoint.requests.clear()
    async with running(folder, endpoint, ManualClock(), gate=crash, assistant=OURS) as system:
        work = asyncio.create_task(finished(system))
        reached = asyncio.create_task(crash.reached.wait())
        await asyncio.wait([work, reached], return_when=asyncio.FIRST_COMPLETED)
        is_over = work.done()
        for task in (work, reached):
            task.cancel()
        await asyncio.gather(work, reached, return_exceptions=True)
    if is_over:
        return work.result()
    async with running(folder, endpoint, ManualClock(), assistant=OURS) as system:
        return await finished(system)


def check(turn: dict[str, Any], endpoint: ModelEndpoint, where: str, most_again: int) -> None:
    paid_turn.check(turn, Made(made, keys, asked_in(endpoint.requests)), where, most_again)


@pytest.mark.slow
async def test_a_turn_that_is_cut_off_at_any_write_makes_each_call_once(tmp_path: Path) -> None:
    async with ModelEndpoint(otherwise=completion("hello")) as endpoint:
        script(endpoint, 200)
        whole = Crash()
        check(await cut_off(tmp_path / "whole", endpoint, whole), endpoint, "no crash", 0)

        for at in range(1, whole.writes + 1):
            for is_written in (False, True):
                folder = tmp_path / f"{at}-{is_written}"
                turn = await cut_off(folder, endpoint, Crash(at, is_written=is_written))
                # Two tools run at once: the one whose answer is not written yet, and the one that waits to write.
                check(turn, endpoint, f"write {at}, written: {is_written}", 1 if is_written else 2)

    assert whole.writes > 12


# Only a model that is silent needs a limit. A slow machine can exceed it: then an answer is asked for once more.
FAULTS = [(status(503), 60.0, 1), (Cut(), 60.0, 1), (Held(asyncio.Event(), Cut()), 2.0, 3)]


@pytest.mark.parametrize(("fault", "limit_s", "most_times"), FAULTS, ids=["503", "cut", "silent"])
async def test_a_model_that_fails_at_every_call_makes_no_other_call_again(
    fault: Answer, limit_s: float, most_times: int, tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    for text, answer in SCRIPT.items():
        endpoint.script_for(text, fault, *most_times * [answer])

    async with running(tmp_path, endpoint, clock, assistant=OURS, generate_timeout_s=limit_s) as system:
        turn = await finished(system)

    check(turn, endpoint, "each call failed once", most_times * len(SCRIPT))
    assert made == dict.fromkeys(TOOLS, 1)
