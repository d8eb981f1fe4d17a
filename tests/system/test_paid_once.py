"""Each call of a model and of a tool is paid once, whatever fails or crashes after it."""

import asyncio
from pathlib import Path

import pytest

from everturn.dapr.wire import Request
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, Whole, completion, status, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system import paid_assistant
from tests.system.conftest import PATIENCE_S, System
from tests.system.test_journal import wired

pytestmark = pytest.mark.usefixtures("fresh")

LONG: tuple[Whole, ...] = (
    tool_calls(("send_mail", '{"to": "ann"}'), ("send_mail", '{"to": "bob"}')),
    tool_calls(("transfer_to_booker", "{}")),
    tool_calls(("send_mail", '{"to": "cy"}')),
    completion("all sent"),
)


def call_of(request: Request) -> str:
    """Which call a request to the store writes, as `call:1`; empty if none."""
    body = request.body.decode(errors="replace") if request.method == "POST" else ""
    return body.split(":call:")[1].split('"')[0] if ":call:" in body and '"value"' in body else ""


async def test_a_mail_is_sent_once_though_the_model_fails_three_times_after_it(ours: System) -> None:
    ours.endpoint.script_for("mail ann", *4 * [tool_calls(("send_mail", '{"to": "ann"}'))])
    ours.endpoint.script_for("sent to ann", status(503), status(503), status(503), completion("sent"))

    turn = await ours.ended(await ours.accept("mail ann"))

    assert turn["reply"]["reply"] == "sent"
    assert paid_assistant.made == {"mail ann": 1}
    assert len(ours.questions()) == 5


async def test_parallel_tools_and_a_handoff_are_paid_once_though_every_later_call_fails(ours: System) -> None:
    # As a real model, it answers by what it is asked: an attempt that began from the start would get the same again.
    for about, step in zip(("mail all", "sent to bob", "booker", "sent to cy"), LONG, strict=True):
        ours.endpoint.script_for(about, status(503), *4 * [step])

    turn = await ours.ended(await ours.accept("mail all"))

    assert turn["reply"]["reply"] == "all sent"
    assert paid_assistant.made == {"mail ann": 1, "mail bob": 1, "mail cy": 1}
    assert len(ours.questions()) == 2 * len(LONG)
    assert len(set(paid_assistant.keys)) == 3


async def test_a_plain_turn_writes_no_call(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> None:
    async with wired(tmp_path, endpoint, clock) as (system, wire):
        await system.say("hello")

        assert [call for request in wire.sent if (call := call_of(request))] == []


async def test_a_turn_shows_each_of_its_calls_once_though_one_had_to_be_tried_again(ours: System) -> None:
    for about, step in zip(("mail all", "sent to bob", "booker", "sent to cy"), LONG, strict=True):
        ours.endpoint.script_for(about, status(503), *4 * [step])

    turn = await ours.ended(await ours.accept("mail all"))

    assert [(call["kind"], call["name"], call["agent"]) for call in turn["calls"]] == [
        ("model", ours.settings.model_name, "front"),
        ("tool", "send_mail", "front"),
        ("tool", "send_mail", "front"),
        ("model", ours.settings.model_name, "front"),
        ("model", ours.settings.model_name, "booker"),
        ("tool", "send_mail", "booker"),
        ("model", ours.settings.model_name, "booker"),
    ]
    assert len({call["call_id"] for call in turn["calls"]}) == 7
    assert "ann" not in str(turn["calls"])
    used = turn["reply"]["usage"]
    assert (used["model_calls"], used["tool_calls"]) == (4, 3)
    assert used["input_tokens"] == sum(call["tokens"]["input"] for call in turn["calls"] if "tokens" in call)
    assert await tokens_counted(ours) == {"input": used["input_tokens"], "output": used["output_tokens"]}


async def test_a_turn_shows_arguments_and_answers_to_who_asks(ours: System) -> None:
    ours.endpoint.script_for("mail ann", tool_calls(("send_mail", '{"to": "ann"}')))
    ours.endpoint.script_for("sent to ann", completion("done"))
    turn_id = await ours.accept("mail ann")
    await ours.ended(turn_id)

    calls = (await ours.chat.get(f"/turns/{turn_id}", params={"include": "content"})).json()["calls"]
    refused = await ours.chat.get(f"/turns/{turn_id}", params={"include": "keys"})

    assert [(call.get("arguments"), call.get("answer")) for call in calls[1:]] == [
        ({"to": "ann"}, "sent to ann"),
        (None, "done"),
    ]
    assert refused.status_code == 422


async def test_a_tool_can_be_a_method_of_another_dapr_app(ours: System) -> None:
    ours.endpoint.script_for("call me Annie", tool_calls(("call_me", '{"name": "Annie"}'), ("call_nobody", "{}")))
    ours.endpoint.script_for("success", completion("Hello, Annie"))

    await ours.ended(await ours.accept("call me Annie"))

    assert (await ours.memory.get("/memories/ann")).json()["name"] == "Annie"
    answers = [message["content"] for message in ours.questions()[-1] if message["role"] == "tool"]
    assert '"status":"success"' in answers[0]
    assert answers[1].startswith("error: call_nobody failed (")
    assert "nobody" in answers[1]


async def test_a_cancellation_breaks_off_a_model_call_and_no_further_call_is_made(ours: System) -> None:
    never = Held(asyncio.Event(), completion("too late"))
    ours.endpoint.script_for("mail ann", tool_calls(("send_mail", '{"to": "ann"}')))
    ours.endpoint.script_for("sent to ann", never)
    turn_id = await ours.accept("mail ann")
    await ours.endpoint.asked(1, "sent to ann")

    await ours.steer(turn_id, "cancel")
    async with asyncio.timeout(PATIENCE_S):
        await ours.endpoint.hung_up()
    turn = await ours.turn(turn_id)

    assert turn["status"] == "cancelled"
    assert [call["name"] for call in turn["calls"]] == ["scripted", "send_mail"]
    assert len(ours.questions()) == 2


async def tokens_counted(system: System) -> dict[str, int]:
    """What the metrics have of tokens, by direction."""
    lines = (await system.chat.get("/metrics")).text.splitlines()
    ours = [line for line in lines if line.startswith("everturn_tokens_total{")]
    return {line.split('direction="')[1].split('"')[0]: int(float(line.split()[-1])) for line in ours}
