"""An app that is not there, and a worker that never connects, are said once, by the app's name."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from everturn.cli.app_watch import PATIENCE_S, watch_port, watch_worker
from everturn.dapr.sdk.protocol import ActivityRequest
from everturn.dapr.wire import AsgiTransport, Request
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions, ServedApp
from everturn.testing.clock import ManualClock
from tests.unit.runtime.conftest import ScriptedApp, subscription

PORT = 5_000


async def rounds_of_the_loop() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@dataclass
class Rig:
    runtime: EmbeddedRuntime
    served: ServedApp
    clock: ManualClock
    is_there: bool = False

    async def looks(self, port: int) -> bool:
        assert port == PORT
        return self.is_there

    async def health(self) -> int:
        return (await AsgiTransport(self.served.http).send(Request("GET", "/v1.0/healthz"))).status

    def topics(self) -> list[str]:
        return [item.topic for item in self.runtime.broker.subscriptions_of("mine")]

    async def after(self, seconds: float, watch: "asyncio.Task[None]") -> None:
        for _ in range(int(seconds / 0.5)):
            await rounds_of_the_loop()
            self.clock.advance(0.5)
        await rounds_of_the_loop()
        assert not watch.done() or watch.exception() is None


@pytest.fixture
async def rig(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Rig]:
    caplog.set_level(logging.INFO, "everturn.cli.app_watch")
    clock, app = ManualClock(), ScriptedApp([subscription()])
    runtime = await EmbeddedRuntime.open(tmp_path, options=RuntimeOptions(clock=clock))
    served = runtime.serve_app("mine", app)
    await runtime.start()
    yield Rig(runtime, served, clock)
    await runtime.stop(0)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    return [(record.levelname, record.msg, vars(record)["app_id"]) for record in caplog.records]


async def test_the_sidecar_is_healthy_and_asks_for_subscriptions_once_the_app_listens(rig: Rig) -> None:
    watch = asyncio.create_task(watch_port(rig.served, PORT, clock=rig.clock, looks=rig.looks))
    await rig.after(1, watch)
    before = (await rig.health(), rig.topics())
    rig.is_there = True

    await rig.after(1, watch)
    await rig.runtime.broker.subscribed("mine")

    assert before == (500, [])
    assert (await rig.health(), rig.topics()) == (204, ["orders"])
    assert watch.done()


async def test_an_app_that_does_not_listen_is_warned_of_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    watch = asyncio.create_task(watch_port(rig.served, PORT, clock=rig.clock, looks=rig.looks))
    await rig.after(PATIENCE_S - 1, watch)
    early = told(caplog)

    await rig.after(10 * PATIENCE_S, watch)
    watch.cancel()

    assert early == []
    assert told(caplog) == [("WARNING", "app_does_not_listen", "mine")]
    assert str(PORT) in vars(caplog.records[0])["advice"]


@pytest.mark.parametrize(("work", "level"), [(False, "INFO"), (True, "WARNING")])
async def test_a_worker_that_does_not_connect_is_said_once(
    rig: Rig, caplog: pytest.LogCaptureFixture, work: bool, level: str
) -> None:
    watch = asyncio.create_task(watch_worker(rig.served, 50_001, clock=rig.clock))
    waits = asyncio.create_task(rig.served.worker.run_activity(ActivityRequest(name="a"))) if work else None

    await rig.after(10 * PATIENCE_S, watch)

    assert told(caplog) == [(level, "workflow_worker_missing", "mine")]
    for task in (watch, waits):
        if task is not None:
            task.cancel()


async def test_the_first_worker_that_connects_is_said_on_the_output(
    rig: Rig, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = asyncio.create_task(watch_worker(rig.served, 50_001, clock=rig.clock))
    await rounds_of_the_loop()

    rig.served.worker.connect([])
    await watch

    assert capsys.readouterr().out == "Workflow engine started for mine\n"
    assert told(caplog) == []
