"""What is made of the workflow engine's errors."""

import asyncio
from typing import Any, cast

import grpc
import pytest

from everturn.dapr.workflows import Workflows
from everturn.errors import TransientError

TORN = "workflow 'x': inbox key 'inbox-000000' declared in metadata (inboxLength=1) but missing from state store"


class EngineError(grpc.RpcError):
    def __init__(self, details: str) -> None:
        super().__init__(details)
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        return self._details


class Client:
    """A workflow client every call of which fails with each of `errors` in turn, then gives "whole"."""

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)

    def __getattr__(self, name: str) -> Any:
        async def call(*_: Any, **__: Any) -> str:
            if self.errors:
                raise EngineError(self.errors.pop(0))
            return "whole"

        return call


def workflows(client: Any) -> Workflows:
    return Workflows(client)


async def test_a_read_that_fell_into_a_write_is_done_again() -> None:
    state: Any = await workflows(Client(TORN, TORN)).state("x")

    assert state == "whole"


async def test_an_instance_that_stays_torn_is_an_error() -> None:
    with pytest.raises(TransientError) as raised:
        await workflows(Client(*[TORN] * 1_000)).history("x")

    assert raised.value.kind == "workflow_engine"


async def test_a_start_that_is_never_answered_is_given_up() -> None:
    class Silent:
        async def schedule_new_workflow(self, *_: Any, **__: Any) -> str:
            return str(await asyncio.get_running_loop().create_future())

    starting = Workflows(cast("Any", Silent()), start_within_s=0.01).start("turn", "x", None)

    with pytest.raises(TransientError, match=r"did not start a workflow within 0\.01 s"):
        await asyncio.wait_for(starting, 30)


async def test_any_other_error_of_a_read_is_raised_at_once() -> None:
    client = Client("something else", TORN)

    with pytest.raises(TransientError):
        await workflows(client).state("x")
    assert client.errors == [TORN]


async def test_an_instance_that_runs_already_is_no_error_of_a_start() -> None:
    active = "an active workflow with ID 'x' already exists"

    assert not await workflows(Client(active)).start("chat_workflow", "x", {})
    assert await workflows(Client()).start("chat_workflow", "x", {})


async def test_steering_or_reading_an_instance_that_there_is_not_does_nothing() -> None:
    missing = "no such instance exists"

    await workflows(Client(missing)).raise_event("x", "cancel")
    await workflows(Client(missing)).pause("x")
    await workflows(Client(missing)).purge("x")
    assert await workflows(Client(missing)).history("x") == []
