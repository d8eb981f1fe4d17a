"""Switches for `everturn up --faults`: the memory service, or the message broker, as if it could not be reached."""

from enum import Enum

from fastapi import APIRouter
from pydantic import BaseModel, StrictBool

from everturn.contracts.events import MEMORY_APP_ID
from everturn.runtime.embedded import EmbeddedRuntime
from everturn.web.problems import problem_responses

_TAGS: list[str | Enum] = ["faults"]
_REFUSED = problem_responses(422)


class Switch(BaseModel):
    """`away`: whether the thing is out of reach."""

    away: StrictBool


def add_fault_routes(router: APIRouter, runtime: EmbeddedRuntime) -> None:
    """`POST /faults/memory` and `POST /faults/broker` with `{"away": true|false}`; each answers what now holds."""

    @router.post(
        "/faults/memory", tags=["faults"], summary="Take the memory service away", responses=problem_responses(422)
    )
    async def memory(switch: Switch) -> Switch:
        runtime.set_app_away(MEMORY_APP_ID, switch.away)
        return switch

    @router.post(
        "/faults/broker", tags=["faults"], summary="Take the message broker away", responses=problem_responses(422)
    )
    async def broker(switch: Switch) -> Switch:
        runtime.set_away("broker", switch.away)
        return switch
