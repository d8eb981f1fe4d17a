"""Switches for `everturn up --faults`: the memory service, or the message broker, as if it could not be reached."""

from fastapi import APIRouter
from pydantic import BaseModel, StrictBool

from everturn.contracts.events import MEMORY_APP_ID
from everturn.runtime.embedded import EmbeddedRuntime
from everturn.web.bodies import new_router
from everturn.web.problems import problem_responses


class Switch(BaseModel):
    """`away`: whether the thing is out of reach."""

    away: StrictBool


def faults_router(runtime: EmbeddedRuntime) -> APIRouter:
    """`POST /faults/memory` and `POST /faults/broker` with `{"away": true|false}`; each answers what now holds."""
    router = new_router()
    router.tags = ["faults"]

    @router.post("/faults/memory", summary="Take the memory service away", responses=problem_responses(422))
    async def memory(switch: Switch) -> Switch:
        runtime.set_app_away(MEMORY_APP_ID, switch.away)
        return switch

    @router.post("/faults/broker", summary="Take the message broker away", responses=problem_responses(422))
    async def broker(switch: Switch) -> Switch:
        runtime.set_away("broker", switch.away)
        return switch

    return router
