"""Liveness, readiness and metrics, the same on both services."""

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel
from starlette.responses import Response

from everturn.web.problems import problem_responses, unavailable

HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
_READINESS_RETRY_S = 1.0
_TAGS: list[str | Enum] = ["health"]

Readiness = Callable[[], Awaitable[str | None]]
"""Says why the service cannot do its work, in one safe sentence; None where it can."""


class Health(BaseModel):
    status: Literal["ok"] = "ok"


def add_health_routes(router: APIRouter, readiness: Readiness, registry: CollectorRegistry) -> None:
    """`GET /healthz`, `GET /readyz` and `GET /metrics` (Prometheus text) over `registry`."""

    @router.get("/healthz", tags=_TAGS, summary="The process is alive")
    async def healthz() -> Health:
        return Health()

    @router.get("/readyz", tags=_TAGS, summary="The service can do its work", responses=problem_responses(503))
    async def readyz() -> Health:
        if reason := await readiness():
            raise unavailable(reason, retry_after_s=_READINESS_RETRY_S)
        return Health()

    @router.get("/metrics", tags=_TAGS, summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
