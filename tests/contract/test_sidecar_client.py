"""Every `SidecarClient` over the embedded runtime: the same tests for HTTP, by a socket and without, and for bytes."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from everturn.dapr.client import DaprClient, Save, SidecarClient, Versioned
from everturn.dapr.http_transport import HttpTransport
from everturn.dapr.wire import Request, Response, Transport
from everturn.errors import ConflictError, TerminalError, TransientError
from everturn.runtime.building_blocks import AppView, BuildingBlocks
from everturn.runtime.database.database import Database
from everturn.runtime.embedded_client import EmbeddedClient
from everturn.runtime.http.api import DaprHttpApi
from everturn.runtime.invocation.invoke import AppChannel
from everturn.runtime.resources.components import DEFAULT_COMPONENTS
from everturn.testing.clock import ManualClock
from tests.unit.runtime.conftest import ScriptedApp, served, subscription, unreachable

KEYS = ["k", "session:a/b c", "üñí", "100%", "a?b#c", "bulk"]


@pytest.fixture
async def blocks(tmp_path: Path) -> AsyncIterator[BuildingBlocks]:
    database = await Database.open(tmp_path / "everturn.db")
    blocks = BuildingBlocks(database, ManualClock(), DEFAULT_COMPONENTS)
    yield blocks
    await blocks.broker.stop(1)
    await database.close()


@pytest.fixture(params=["in the process", "over a socket", "without HTTP"])
async def client(request: pytest.FixtureRequest, blocks: BuildingBlocks) -> AsyncIterator[SidecarClient]:
    app = AppView("chat", blocks)
    api = DaprHttpApi(app)
    if request.param == "without HTTP":
        yield EmbeddedClient(app)
        return
    if request.param == "in the process":
        yield DaprClient(api)
        return
    async with served(api) as transport:
        yield DaprClient(transport)


def add_app(blocks: BuildingBlocks, app: Transport, app_id: str = "memory") -> None:
    channel = AppChannel(app_id, app)
    blocks.channels.add(channel)
    blocks.broker.add_app(channel)


@pytest.mark.parametrize("key", KEYS)
async def test_a_saved_value_is_read_back_under_an_etag(client: SidecarClient, key: str) -> None:
    await client.save_state(Save(key, {"text": "grüß", "n": [1, 2.5, None]}))

    found = await client.get_state(key)

    assert found is not None
    assert found.value == {"text": "grüß", "n": [1, 2.5, None]}
    assert found.etag


async def test_what_need_not_be_durable_is_on_disk_when_it_is_settled(
    client: SidecarClient, blocks: BuildingBlocks
) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {}}
    await client.save_state(Save("k", 1, durable=False))
    await client.transact([Save("l", 2, durable=False)], ["m"])
    await client.publish("pubsub", "news", event, durable=False)

    await client.settled()

    assert blocks.database.read("SELECT key FROM state ORDER BY key") == [("chat||k",), ("chat||l",)]
    assert len(blocks.broker.store.messages(("pubsub", "news"), 10)) == 1


async def test_a_key_that_is_not_there_is_none(client: SidecarClient) -> None:
    assert await client.get_state("nothing") is None


async def test_several_keys_are_read_at_once(client: SidecarClient) -> None:
    await client.save_state(Save("a", 1), Save("b", "x"))

    found = await client.get_states(["a", "nothing", "b"])

    assert {key: item.value for key, item in found.items()} == {"a": 1, "b": "x"}
    assert found["a"] == await client.get_state("a")


async def test_a_save_under_the_read_etag_succeeds_once(client: SidecarClient) -> None:
    await client.save_state(Save("k", 1))
    read = await client.get_state("k")
    assert isinstance(read, Versioned)
    await client.save_state(Save("k", 2, etag=read.etag))

    with pytest.raises(ConflictError):
        await client.save_state(Save("k", 3, etag=read.etag))

    now = await client.get_state("k")
    assert now is not None
    assert now.value == 2


@pytest.mark.parametrize("value", [None, 0, "", {}, "\x00 grüß", 1.5, 2**70])
async def test_a_value_is_what_it_was(client: SidecarClient, value: object) -> None:
    await client.save_state(Save("k", value))

    found, in_bulk = await client.get_state("k"), await client.get_states(["k"])

    assert found is not None
    assert found.value == value
    assert in_bulk == ({"k": found} if value is not None else {})


async def test_only_one_first_write_wins(client: SidecarClient) -> None:
    await client.save_state(Save("k", 1, first_write=True))

    with pytest.raises(ConflictError):
        await client.save_state(Save("k", 2, first_write=True))


async def test_a_deleted_key_is_gone(client: SidecarClient) -> None:
    await client.save_state(Save("a/b", 1))

    await client.transact([], ["a/b"])

    assert await client.get_state("a/b") is None


async def test_a_transaction_writes_and_deletes(client: SidecarClient) -> None:
    await client.save_state(Save("old", 1))

    await client.transact([Save("new", 2)], ["old"])

    assert set(await client.get_states(["old", "new"])) == {"new"}


async def test_a_transaction_under_a_stale_etag_is_a_conflict_and_writes_nothing(client: SidecarClient) -> None:
    with pytest.raises(ConflictError):
        await client.transact([Save("a", 1), Save("b", 2, etag="stale")])

    assert await client.get_states(["a", "b"]) == {}


async def test_a_value_with_a_ttl_goes(client: SidecarClient, blocks: BuildingBlocks) -> None:
    assert isinstance(blocks.clock, ManualClock)
    await client.save_state(Save("k", 1, ttl_s=60))

    blocks.clock.advance(60)

    assert await client.get_state("k") is None


async def test_a_key_with_two_bars_is_a_terminal_error(client: SidecarClient) -> None:
    with pytest.raises(TerminalError):
        await client.save_state(Save("a||b", 1))


async def test_state_that_cannot_be_read_is_a_transient_error(client: SidecarClient, blocks: BuildingBlocks) -> None:
    await blocks.database.close()

    with pytest.raises(TransientError):
        await client.get_state("k")


async def test_a_published_event_reaches_the_subscriber_with_its_id(
    client: SidecarClient, blocks: BuildingBlocks
) -> None:
    app = ScriptedApp([subscription("conversations")])
    add_app(blocks, app)
    blocks.broker.start()
    await blocks.broker.subscribed("memory")

    await client.publish("pubsub", "conversations", {"id": "turn-1", "source": "chat", "data": {"n": 1}})

    (request,) = await app.got(1)
    assert b'"id":"turn-1"' in request.body


async def test_publishing_what_cannot_be_kept_is_a_transient_error(
    client: SidecarClient, blocks: BuildingBlocks
) -> None:
    await blocks.database.close()

    with pytest.raises(TransientError):
        await client.publish("pubsub", "conversations", {"id": "turn-1", "data": {}})


async def test_an_invocation_returns_the_other_apps_answer(client: SidecarClient, blocks: BuildingBlocks) -> None:
    app = ScriptedApp(default=Response(200, {"content-type": "application/json"}, b'{"a":1}'))
    add_app(blocks, app)

    response = await client.invoke("memory", "GET", "memories/a%2Fb?window_chars=10")

    assert response.body == b'{"a":1}'
    assert app.received[0].target == "/memories/a%2Fb?window_chars=10"


async def test_an_invocation_takes_a_body_and_headers_along(client: SidecarClient, blocks: BuildingBlocks) -> None:
    app = ScriptedApp()
    add_app(blocks, app)

    await client.invoke("memory", "POST", "mails", b'{"to":"ann"}', {"idempotency-key": "k"})

    assert app.received[0].method == "POST"
    assert app.received[0].body == b'{"to":"ann"}'
    assert app.received[0].headers["idempotency-key"] == "k"


@pytest.mark.parametrize(
    "segment", ["a%2Fb", "a%252Fb", "%2E%2E", "..", ".", "%3F%23", "a%20b", "%C3%A9", "%2F", "a%2F"]
)
async def test_an_encoded_path_arrives_with_the_same_meaning(
    client: SidecarClient, blocks: BuildingBlocks, segment: str
) -> None:
    app = ScriptedApp()
    add_app(blocks, app)

    await client.invoke("memory", "GET", f"memories/{segment}")

    first, arrived = app.received[0].target.removeprefix("/").split("/")
    assert first == "memories"
    assert unquote(arrived) == unquote(segment)


async def test_an_answer_404_of_the_other_app_is_a_terminal_error(
    client: SidecarClient, blocks: BuildingBlocks
) -> None:
    add_app(blocks, ScriptedApp(default=Response(404)))

    with pytest.raises(TerminalError):
        await client.invoke("memory", "GET", "x")


async def test_retry_after_of_the_other_app_is_kept(client: SidecarClient, blocks: BuildingBlocks) -> None:
    add_app(blocks, ScriptedApp(default=Response(503, {"retry-after": "7"})))

    with pytest.raises(TransientError) as raised:
        await client.invoke("memory", "GET", "x")

    assert raised.value.retry_after_s == 7


@pytest.mark.parametrize("app", [None, ScriptedApp(default=unreachable())])
async def test_an_app_that_cannot_be_reached_is_a_transient_error(
    client: SidecarClient, blocks: BuildingBlocks, app: ScriptedApp | None
) -> None:
    if app is not None:
        add_app(blocks, app)

    with pytest.raises(TransientError):
        await client.invoke("memory", "GET", "x")


async def test_a_secret_is_read_by_its_name(client: SidecarClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", "s3cret")

    assert await client.secret("secretstore", "MODEL_KEY") == "s3cret"


async def test_an_unknown_secret_store_is_a_terminal_error(client: SidecarClient) -> None:
    with pytest.raises(TerminalError):
        await client.secret("other", "MODEL_KEY")


async def test_a_sidecar_that_is_not_there_is_a_transient_error(unused_tcp_port: int) -> None:
    transport = HttpTransport(f"http://127.0.0.1:{unused_tcp_port}")

    with pytest.raises(TransientError) as raised:
        await transport.send(Request("GET", "/v1.0/healthz"))

    await transport.close()
    assert raised.value.kind == "unreachable"
