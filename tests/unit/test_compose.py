"""The switches of the composition: what does not come through while the memory service or the broker is away."""

import pytest

from everturn.compose import Faults, SwitchableClient, SwitchableTransport
from everturn.dapr.client import DaprClient, Save
from everturn.dapr.wire import Request, Response
from everturn.errors import TransientError

DELIVERY = Request("POST", "/conversations", {"everturn-topic": "conversations"})
INVOCATION = Request("GET", "/memories/ann")


class Everything:
    """A transport on which everything arrives."""

    async def send(self, request: Request) -> Response:
        return Response(204, body=request.body)

    async def close(self) -> None: ...


async def test_while_the_memory_service_is_away_it_gets_nothing() -> None:
    faults = Faults()
    to_memory = SwitchableTransport(Everything(), faults.check_reach)
    faults.set_away("memory", away=True)

    for request in (DELIVERY, INVOCATION):
        with pytest.raises(TransientError) as caught:
            await to_memory.send(request)
        assert caught.value.kind == "unreachable"
    faults.set_away("memory", away=False)
    assert (await to_memory.send(INVOCATION)).status == 204


async def test_while_the_broker_is_away_nothing_is_published_or_delivered_and_all_else_works() -> None:
    faults = Faults()
    to_memory = SwitchableTransport(Everything(), faults.check_reach)
    beside_chat = SwitchableClient(DaprClient(Everything()), faults.check_publish)
    faults.set_away("broker", away=True)

    with pytest.raises(TransientError):
        await to_memory.send(DELIVERY)
    with pytest.raises(TransientError):
        await beside_chat.publish("pubsub", "topic", {})
    assert (await to_memory.send(INVOCATION)).status == 204
    await beside_chat.save_state(Save("k", 1))
    faults.set_away("broker", away=False)
    await beside_chat.publish("pubsub", "topic", {})
