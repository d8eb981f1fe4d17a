"""Who may call the gRPC server (those who show DAPR_API_TOKEN, if it is set), and how often at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from everturn.dapr.sdk.protocol import GetWorkItemsRequest, WorkItem
from everturn.runtime.grpc.server import TOKEN_HEADER
from tests.unit.runtime.grpc.task_hub_rig import HOST, MAX_CALLS, MAX_CONNECTIONS, PATIENCE_S, TaskHubRig, until


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[TaskHubRig]:
    rig = TaskHubRig(tmp_path, api_token="open-sesame")
    await rig.open()
    try:
        yield rig
    finally:
        await rig.close()


def hello(rig: TaskHubRig, *metadata: tuple[str, str]) -> Any:
    call = rig.channel().unary_unary(
        "/TaskHubSidecarService/Hello",
        request_serializer=Empty.SerializeToString,
        response_deserializer=Empty.FromString,
    )
    return call(Empty(), metadata=metadata, timeout=PATIENCE_S, wait_for_ready=True)


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        ((TOKEN_HEADER, "guessed"),),
        ((TOKEN_HEADER, "guessed"), (TOKEN_HEADER, "open-sesame")),
        ((TOKEN_HEADER, "open-sesame"), (TOKEN_HEADER, "guessed")),
    ],
)
async def test_a_call_without_the_token_is_refused(guarded: TaskHubRig, metadata: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await hello(guarded, *metadata)

    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_call_with_the_token_is_answered(guarded: TaskHubRig) -> None:
    answer = await hello(guarded, (TOKEN_HEADER, "open-sesame"))

    assert isinstance(answer, Empty)


@pytest.mark.parametrize(("token", "is_let_in"), [("open-sesame", True), ("guessed", False)])
async def test_work_goes_only_to_those_with_the_token(guarded: TaskHubRig, token: str, is_let_in: bool) -> None:
    call = guarded.channel().unary_stream(
        "/TaskHubSidecarService/GetWorkItems",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=WorkItem.FromString,
    )
    stream = call(GetWorkItemsRequest(), metadata=((TOKEN_HEADER, token),))

    if is_let_in:
        await until(lambda: guarded.remote.connected == 1)
    else:
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()

    assert guarded.remote.connected == int(is_let_in)
    stream.cancel()


async def test_a_call_without_the_token_ends_before_its_message_comes(guarded: TaskHubRig) -> None:
    call = guarded.channel().stream_unary("/TaskHubSidecarService/Hello", bytes, bytes)(None, timeout=PATIENCE_S)

    assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


def asked_for_work(hub: TaskHubRig, count: int) -> list[Any]:
    """Calls that stay open, of a connection of their own."""
    ask = hub.channel().unary_stream(
        "/TaskHubSidecarService/GetWorkItems",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=WorkItem.FromString,
    )
    return [ask(GetWorkItemsRequest()) for _ in range(count)]


async def test_one_connection_has_so_many_calls_and_no_more_while_others_are_answered(hub: TaskHubRig) -> None:
    calls = asked_for_work(hub, MAX_CALLS + 100)
    await until(lambda: hub.remote.connected >= MAX_CALLS)
    await hello(hub)

    assert hub.remote.connected == MAX_CALLS
    for call in calls:
        call.cancel()


async def test_all_connections_have_the_calls_of_two_and_no_more(hub: TaskHubRig) -> None:
    calls = [call for _ in range(2) for call in asked_for_work(hub, MAX_CALLS)]
    await until(lambda: hub.remote.connected == 2 * MAX_CALLS)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await hello(hub)

    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()


async def test_a_connection_over_the_limit_is_closed_and_the_place_of_one_that_left_is_free(hub: TaskHubRig) -> None:
    opened = [await asyncio.open_connection(HOST, hub.port) for _ in range(MAX_CONNECTIONS + 1)]
    _, pending = await asyncio.wait(
        [asyncio.create_task(reader.read()) for reader, _ in opened],
        timeout=PATIENCE_S,
        return_when=asyncio.FIRST_COMPLETED,
    )
    assert len(pending) == MAX_CONNECTIONS
    assert hub.server.open_connections() == MAX_CONNECTIONS

    for _, writer in opened:
        writer.close()
    await asyncio.wait(pending)
    await hello(hub)
