"""Runs at work hear of their cancellation, whoever writes it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from everturn.chat.facts import Cancelled, TurnRun
from everturn.chat.journal import Journal
from everturn.chat.old_records import facts_of
from everturn.chat.queue import SessionQueue
from everturn.chat.streamed_words import close_words
from everturn.chat.waiting import Cancellations, EndSignals
from everturn.dapr.client import DaprClient
from everturn.dapr.wire import Request, Response, Transport
from tests.unit.chat.test_queue import Replica, run

# For what hangs, not a measure.
PATIENCE_S = 20.0
CANCELLED = Cancelled(at="2026-01-01T12:00:01.000Z")


class Counted:
    """A transport that counts what goes through it."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.requests = 0

    async def send(self, request: Request) -> Response:
        self.requests += 1
        return await self._inner.send(request)

    async def close(self) -> None:
        await self._inner.close()


class Here:
    """What one process has."""

    def __init__(self, transport: Transport, look_every_s: float) -> None:
        self.counted = Counted(transport)
        dapr: Any = DaprClient(self.counted)
        self.journal, self.signals = Journal(dapr, 30, facts_of, close_words), EndSignals()
        replica = Replica(dapr)
        self.queue: SessionQueue = replica.queue
        self.cancellations = Cancellations(self.journal, self.queue, self.signals, look_every_s)


@asynccontextmanager
async def at_work(here: Here, watched: TurnRun) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """`watched` works while the block runs, which gets what waits for its cancellation."""
    cancelled = asyncio.Event()
    async with here.cancellations.looking(), asyncio.timeout(PATIENCE_S):
        with here.cancellations.watching(watched, cancelled.set):
            yield cancelled.wait


async def test_a_cancellation_by_another_replica_is_seen(transport: Transport, dapr: DaprClient) -> None:
    other = Replica(dapr)

    async with at_work(Here(transport, 0.01), run("t")) as cancelled:
        await other.journal.write_verdict(run("t"), CANCELLED)
        await cancelled()


async def test_a_message_that_interrupts_at_another_replica_is_seen(transport: Transport, dapr: DaprClient) -> None:
    other = Replica(dapr)
    await other.queue.enter(run("t"), is_new=True)

    async with at_work(Here(transport, 0.01), run("t")) as cancelled:
        await other.queue.enter(run("later", "interrupt"), is_new=True)
        await cancelled()


async def test_a_cancellation_in_the_process_is_known_without_a_look_at_the_others(transport: Transport) -> None:
    here = Here(transport, look_every_s=10 * PATIENCE_S)

    async with at_work(here, run("t")) as cancelled:
        with here.cancellations.watching(run("other"), lambda: pytest.fail("the other is not cancelled")):
            await here.journal.write_verdict(run("t"), CANCELLED)
            here.signals.send(run("t").instance_id)
            await cancelled()


async def test_a_cancellation_by_another_replica_is_seen_while_runs_end_here_all_the_time(
    transport: Transport, dapr: DaprClient
) -> None:
    here = Here(transport, 0.01)

    async def end_runs() -> None:
        while True:
            with here.cancellations.watching(run("other"), lambda: None):
                here.signals.send(run("other").instance_id)
                await asyncio.sleep(0)

    async with at_work(here, run("t")) as cancelled:
        ending = asyncio.create_task(end_runs())
        try:
            await Replica(dapr).journal.write_verdict(run("t"), CANCELLED)
            await cancelled()
        finally:
            ending.cancel()


async def test_many_runs_are_looked_at_together(transport: Transport, dapr: DaprClient) -> None:
    here, runs = Here(transport, 0.01), [run(f"t{number}") for number in range(100)]
    await Replica(dapr).journal.write_verdict(runs[0], CANCELLED)
    with ExitStack() as stack:
        for one in runs[1:]:
            stack.enter_context(here.cancellations.watching(one, lambda: pytest.fail("it is not cancelled")))
        async with at_work(here, runs[0]) as cancelled:
            await cancelled()

    assert here.counted.requests == 2  # the verdicts, and the session of those without one
