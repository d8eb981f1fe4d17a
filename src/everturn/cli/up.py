"""`everturn up`: the runtime and both services in one process and one loop, until a signal ends them."""

import asyncio
import contextlib
import logging

from fastapi import APIRouter
from pydantic import BaseModel, StrictBool

from everturn.chat.workflow.chat_turn import CHAT_WORKFLOW
from everturn.cli.banner import print_banner, print_model_warning, print_slow_start
from everturn.cli.process import (
    GracefulStop,
    WebServer,
    bounded,
    check_who_may_call,
    freeze_gc,
    listen,
    refusals,
    run,
    stop_servers,
)
from everturn.compose import Faults, Target, Wiring, open_runtime, start_services
from everturn.settings import Settings
from everturn.web.callers import CallerOf
from everturn.web.problems import problem_responses

log = logging.getLogger(__name__)

# A start that takes longer says what it is doing.
_SLOW_START_S = 2.0


def run_up(settings: Settings, wiring: Wiring) -> None:
    """Run until SIGTERM or Ctrl-C, then stop gracefully; a second Ctrl-C ends the process at once.

    With `faults` in `wiring` their switches are routes of the memory service. Raises SettingError or StartError if it
    cannot start.
    """
    run(_up(settings, wiring))


async def _up(settings: Settings, wiring: Wiring) -> None:
    stop = GracefulStop(settings.shutdown_s)
    slow = asyncio.get_running_loop().call_later(_SLOW_START_S, print_slow_start, settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(slow.cancel)
        check_who_may_call(settings)
        # First: a second start on the same folder is to name the folder, not the ports, which are taken as well.
        runtime = await open_runtime(stack, settings, wiring)
        for_memory = stack.enter_context(listen(settings.host, settings.memory_port, "EVERTURN_MEMORY_PORT"))
        for_chat = stack.enter_context(listen(settings.host, settings.chat_port, "EVERTURN_CHAT_PORT"))
        system = await start_services(stack, settings, runtime, wiring)
        if wiring.faults is not None:
            add_fault_routes(system.memory.app.router, wiring.faults)
        servers = (
            WebServer(system.memory.app, for_memory, bounded(refusals(system.memory.parts.registry))),
            WebServer(system.chat.app, for_chat, bounded(refusals(system.chat.parts.registry))),
        )
        slow.cancel()
        resumed = runtime.engine.resumed_by_name.get(CHAT_WORKFLOW, 0)
        system.chat.parts.metrics.turns_resumed(resumed)
        freeze_gc(resumed=runtime.engine.resumed)
        print_banner(settings, components=wiring.components_dir, resumed=resumed)
        warning = asyncio.create_task(print_model_warning(settings))
        await stop.asked.wait()
        warning.cancel()
        await stop_servers(servers, stop, system.chat.parts.waiter.release)
        await runtime.stop(stop.left_s())  # before the services: what they are doing may still finish
    log.info("stopped")


class Switch(BaseModel):
    """`away`: whether the thing is out of reach."""

    away: StrictBool


def add_fault_routes(router: APIRouter, faults: Faults) -> None:
    """`POST /faults/memory` and `POST /faults/broker` with `{"away": true|false}`; each answers what now holds."""

    def add(target: Target, summary: str) -> None:
        @router.post(
            f"/faults/{target}", name=target, tags=["faults"], summary=summary, responses=problem_responses(403, 422)
        )
        async def set_away(switch: Switch, caller: CallerOf) -> Switch:
            caller.check_operator()
            faults.set_away(target, switch.away)
            return switch

    add("memory", "Take the memory service away")
    add("broker", "Take the message broker away")
