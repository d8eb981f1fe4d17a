"""The SDK's `DaprClient` against the runtime's gRPC API."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from dapr.aio.clients import DaprClient as AsyncDaprClient
from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._response import TopicEventResponse
from dapr.clients.grpc._state import Concurrency, StateItem, StateOptions
from dapr.proto.runtime.v1.dapr_pb2_grpc import DaprStub
from dapr.proto.runtime.v1.state_pb2 import GetStateRequest

from everturn.dapr.wire import Response
from everturn.runtime.clock import rfc3339
from everturn.runtime.grpc.server import MAX_METADATA_BYTES
from tests.unit.runtime.grpc.dapr_rig import HOST, PATIENCE_S, DaprRig, dapr_rig
from tests.unit.runtime.grpc.task_hub_rig import until


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DaprRig]:
    async with dapr_rig(tmp_path) as made:
        yield made


FIRST_WRITE = StateOptions(concurrency=Concurrency.first_write)


async def test_what_was_saved_is_read_with_an_etag(rig: DaprRig) -> None:
    await rig.sync(lambda client: client.save_state("statestore", "k", b"\x00raw\xff"))

    found = await rig.sync(lambda client: client.get_state("statestore", "k"))
    missing = await rig.sync(lambda client: client.get_state("statestore", "nothing"))

    assert found.data == b"\x00raw\xff"
    assert found.etag
    assert missing.data == b""


async def test_many_keys_are_saved_and_read_at_once(rig: DaprRig) -> None:
    items = [StateItem(key="a", value="1"), StateItem(key="b", value="2")]
    await rig.sync(lambda client: client.save_bulk_state("statestore", items))

    found = await rig.sync(lambda client: client.get_bulk_state("statestore", ["a", "x", "b"]))

    assert [(item.key, item.data) for item in found.items] == [("a", b"1"), ("x", b""), ("b", b"2")]


async def test_a_stale_etag_is_aborted(rig: DaprRig) -> None:
    await rig.sync(lambda client: client.save_state("statestore", "k", "1"))

    with pytest.raises(grpc.RpcError) as saving:
        await rig.sync(lambda client: client.save_state("statestore", "k", "2", etag="stale", options=FIRST_WRITE))
    with pytest.raises(grpc.RpcError) as deleting:
        await rig.sync(lambda client: client.delete_state("statestore", "k", etag="stale"))

    assert saving.value.code() is grpc.StatusCode.ABORTED
    assert deleting.value.code() is grpc.StatusCode.ABORTED


async def test_a_first_write_of_a_key_that_exists_is_aborted(rig: DaprRig) -> None:
    await rig.sync(lambda client: client.save_state("statestore", "k", "1", options=FIRST_WRITE))

    with pytest.raises(grpc.RpcError) as raised:
        await rig.sync(lambda client: client.save_state("statestore", "k", "2", options=FIRST_WRITE))

    assert raised.value.code() is grpc.StatusCode.ABORTED


async def test_a_deleted_key_is_gone(rig: DaprRig) -> None:
    await rig.sync(lambda client: client.save_state("statestore", "k", "1"))

    await rig.sync(lambda client: client.delete_state("statestore", "k"))

    assert (await rig.sync(lambda client: client.get_state("statestore", "k"))).data == b""


async def test_a_key_ends_with_its_time_to_live(rig: DaprRig) -> None:
    ttl = {"ttlInSeconds": "10"}
    await rig.sync(lambda client: client.save_state("statestore", "k", "1", state_metadata=ttl))
    before = await rig.sync(lambda client: client.get_state("statestore", "k"))

    rig.clock.advance(11)

    assert before.data == b"1"
    assert (await rig.sync(lambda client: client.get_state("statestore", "k"))).data == b""


async def test_the_end_of_a_key_is_given_as_over_http(rig: DaprRig) -> None:
    ttl = {"ttlInSeconds": "10"}
    await rig.sync(lambda client: client.save_state("statestore", "k", "1", state_metadata=ttl))

    async with grpc.aio.insecure_channel(f"{HOST}:{rig.grpc_port}") as channel:
        found = await DaprStub(channel).GetState(GetStateRequest(store_name="statestore", key="k"))

    assert found.metadata["ttlExpireTime"] == rfc3339(rig.clock.now() + 10)
    assert found.metadata["ttlExpireTime"].endswith("Z")


async def test_a_transaction_is_all_or_nothing(rig: DaprRig) -> None:
    await rig.sync(lambda client: client.save_state("statestore", "old", "1"))
    upsert = TransactionOperationType.upsert
    good = [
        TransactionalStateOperation(key="new", data="2", operation_type=upsert),
        TransactionalStateOperation(key="old", operation_type=TransactionOperationType.delete),
    ]
    bad = [
        TransactionalStateOperation(key="other", data="3", operation_type=upsert),
        TransactionalStateOperation(key="new", data="4", etag="stale", operation_type=upsert),
    ]

    await rig.sync(lambda client: client.execute_state_transaction("statestore", good))
    with pytest.raises(grpc.RpcError) as raised:
        await rig.sync(lambda client: client.execute_state_transaction("statestore", bad))

    found = await rig.sync(lambda client: client.get_bulk_state("statestore", ["new", "old", "other"]))
    assert [item.data for item in found.items] == [b"2", b"", b""]
    assert raised.value.code() is grpc.StatusCode.INTERNAL


async def test_what_is_not_there_is_said_with_the_codes_of_dapr(rig: DaprRig) -> None:
    codes: list[Any] = []
    for use in (
        lambda client: client.get_state("nowhere", "k"),
        lambda client: client.publish_event("nowhere", "topic", "x"),
        lambda client: client.get_secret("nowhere", "x"),
        lambda client: client.save_state("statestore", "a||b", "x"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            await rig.sync(use)
        codes.append(raised.value.code())

    assert codes == [grpc.StatusCode.INVALID_ARGUMENT] * 4


async def test_a_runtime_without_secret_stores_says_so(tmp_path: Path) -> None:
    pubsub = "kind: Component\nmetadata: {name: pubsub}\nspec: {type: pubsub.redis, version: v1}\n"
    async with dapr_rig(tmp_path, components=pubsub) as rig:
        with pytest.raises(grpc.RpcError) as raised:
            await rig.sync(lambda client: client.get_secret("secretstore", "x"))

    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_secrets_are_read(rig: DaprRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIG_COLOUR", "green")

    one = await rig.sync(lambda client: client.get_secret("secretstore", "COLOUR"))
    every = await rig.sync(lambda client: client.get_bulk_secret("secretstore"))

    assert one.secret == {"COLOUR": "green"}
    assert every.secrets["COLOUR"] == {"COLOUR": "green"}


async def test_metadata_names_the_app_and_its_components(rig: DaprRig) -> None:
    metadata = await rig.sync(lambda client: client.get_metadata())

    assert metadata.application_id == "caller"
    assert {component.name for component in metadata.registered_components} == {"statestore", "pubsub", "secretstore"}


async def test_another_app_is_called_over_grpc(rig: DaprRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapr.conf.settings.DAPR_API_METHOD_INVOCATION_PROTOCOL", "grpc")

    answer = await rig.sync(
        lambda client: client.invoke_method(
            "callee", "some/path", b"ask", content_type="text/x", http_verb="PUT", http_querystring=(("a", "1"),)
        )
    )

    (request,) = rig.callee.requests
    assert answer.text() == "from the callee"
    assert (request.method, request.target, request.body) == ("PUT", "/some/path?a=1", b"ask")
    assert request.headers["content-type"] == "text/x"
    assert request.headers["dapr-caller-app-id"] == "caller"


async def test_another_app_is_called_over_http(rig: DaprRig) -> None:
    answer = await rig.sync(lambda client: client.invoke_method("callee", "path", b"ask", http_verb="POST"))

    assert answer.text() == "from the callee"
    assert rig.callee.requests[0].target == "/path"


async def test_an_app_that_refuses_or_is_not_there_is_an_error(rig: DaprRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapr.conf.settings.DAPR_API_METHOD_INVOCATION_PROTOCOL", "grpc")
    rig.callee.answer = Response(404)

    async def code_of(app_id: str) -> Any:
        with pytest.raises(grpc.RpcError) as raised:
            await rig.sync(lambda client: client.invoke_method(app_id, "path", b"", http_verb="POST"))
        return raised.value.code()

    codes = [await code_of("callee"), await code_of("nobody")]

    assert codes == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL]


async def test_a_subscription_streams_what_is_published(rig: DaprRig) -> None:
    async def talk(client: AsyncDaprClient) -> tuple[Any, Any]:
        subscription = await client.subscribe("pubsub", "news")
        await client.publish_event("pubsub", "news", json.dumps({"n": 1}), data_content_type="application/json")
        await client.publish_event("pubsub", "news", "plain words", data_content_type="text/plain")
        messages = [await subscription.next_message() for _ in range(2)]
        for message in messages:
            await subscription.respond_success(message)
        await subscription.close()
        return tuple(messages)

    first, second = await rig.use(talk)

    assert first.data() == {"n": 1}
    assert second.data() == "plain words"
    assert (first.topic(), first.pubsub_name(), first.source()) == ("news", "pubsub", "caller")


async def test_a_message_is_kept_until_a_stream_has_taken_it(rig: DaprRig) -> None:
    async def look_and_leave(client: AsyncDaprClient) -> Any:
        subscription = await client.subscribe("pubsub", "news")
        await client.publish_event("pubsub", "news", "once", data_content_type="text/plain")
        message = await subscription.next_message()
        await subscription.close()
        return message.data()

    async def take(client: AsyncDaprClient) -> Any:
        subscription = await client.subscribe("pubsub", "news")
        message = await subscription.next_message()
        await subscription.respond_success(message)
        await asyncio.to_thread(taken.wait)
        await subscription.close()
        return message.data()

    taken = threading.Event()
    seen = await rig.use(look_and_leave)
    taking = asyncio.ensure_future(rig.use(take))
    await until(lambda: rig.runtime.broker.counts.delivered == 1)
    taken.set()

    assert (seen, await taking) == ("once", "once")
    assert rig.runtime.broker.store.pending() == 0


async def test_a_dropped_message_goes_to_the_dead_letters(rig: DaprRig) -> None:
    async def talk(client: AsyncDaprClient) -> Any:
        subscription = await client.subscribe("pubsub", "news", dead_letter_topic="dead")
        dead = await client.subscribe("pubsub", "dead")
        await client.publish_event("pubsub", "news", "bad", data_content_type="text/plain")
        await subscription.respond_drop(await subscription.next_message())
        letter = await dead.next_message()
        await dead.respond_success(letter)
        for each in (subscription, dead):
            await each.close()
        return letter.data()

    assert await rig.use(talk) == "bad"


async def test_a_handler_takes_messages_in_its_thread(rig: DaprRig) -> None:
    seen: list[Any] = []

    def take(client: Any) -> None:
        arrived = threading.Event()

        def handle(message: Any) -> TopicEventResponse:
            seen.append(message.data())
            arrived.set()
            return TopicEventResponse("success")

        close = client.subscribe_with_handler("pubsub", "news", handle)
        client.publish_event("pubsub", "news", "hello", data_content_type="text/plain")
        arrived.wait()
        close()

    await rig.sync(take)

    assert seen == ["hello"]


async def test_bulk_publishing_keeps_every_entry(rig: DaprRig) -> None:
    await rig.use(lambda client: client.publish_events("pubsub", "news", ["a", "b"], data_content_type="text/plain"))

    kept = rig.runtime.broker.store.messages(("pubsub", "news"), 10)

    assert sorted(json.loads(body)["data"] for body in kept) == ["a", "b"]


async def test_both_apis_ask_for_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with dapr_rig(tmp_path, api_token="sesame") as rig:
        allowed = await rig.sync(lambda client: client.get_metadata())
        monkeypatch.setattr("dapr.conf.settings.DAPR_API_TOKEN", "guessed")
        with pytest.raises(grpc.RpcError) as refused:
            await rig.sync(lambda client: client.get_metadata())

    assert allowed.application_id == "caller"
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_metadata_up_to_its_limit_is_taken_and_more_is_refused_each_time(rig: DaprRig) -> None:
    async with grpc.aio.insecure_channel(f"{HOST}:{rig.grpc_port}") as channel:
        ask = channel.unary_unary("/dapr.proto.runtime.v1.Dapr/GetMetadata", bytes, bytes)

        async def code(size: int) -> grpc.StatusCode:
            try:
                await ask(b"", metadata=[("x-more", "a" * size)], timeout=PATIENCE_S)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        taken = {await code(MAX_METADATA_BYTES - 1_000) for _ in range(20)}
        refused = {await code(MAX_METADATA_BYTES + 1_000) for _ in range(20)}

    assert (taken, refused) == ({grpc.StatusCode.OK}, {grpc.StatusCode.RESOURCE_EXHAUSTED})
