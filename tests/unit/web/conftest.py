"""One small service on a real socket, with a route for each rule of the web room."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Annotated

import httpx2
import pytest
import pytest_asyncio
import uvicorn
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, Field, SecretStr
from starlette.types import ASGIApp

from everturn.contracts.fields import Text
from everturn.dapr.origins import AllowedPages
from everturn.errors import ConflictError, TerminalError, TransientError
from everturn.web.app import Service, build_app
from everturn.web.callers import CallerOf, Identify, anybody
from everturn.web.problems import Problem
from everturn.web.requests import BodyLimit, PathId

JSON = {"content-type": "application/json"}
LARGE_LIMIT = 3_000_000


class Note(BaseModel):
    text: Text
    stars: Annotated[int, Field(ge=0)] = 0


class Probe:
    """The service under test and the switch that makes it unready."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.registry = CollectorRegistry()
        Counter("probes", "Probes seen", registry=self.registry).inc()

    async def readiness(self) -> str | None:
        return self.reason

    def build(self, token: SecretStr | None = None, *, identify: Identify = anybody) -> FastAPI:
        service = Service(
            app_id="test-service",
            name="Probe Service",
            summary="For tests",
            readiness=self.readiness,
            registry=self.registry,
            pages=AllowedPages(("everturn.example", "*.lan"), ("http://localhost:3000",)),
            identify=identify,
            token=token,
            is_closed=token is not None,
            sidecar_paths=frozenset({"/event"}),
            body_limits={"/large": LARGE_LIMIT},
        )
        return build_app(service, add_routes)


def add_routes(router: APIRouter) -> None:
    @router.get("/things/{thing_id}")
    async def get_thing(thing_id: PathId) -> dict[str, str]:
        return {"id": thing_id}

    @router.post("/things/{thing_id}/cancel")
    async def cancel_thing(thing_id: PathId) -> dict[str, str]:
        return {"cancelled": thing_id}

    @router.get("/caller")
    async def get_caller(caller: CallerOf) -> dict[str, str | bool | None]:
        return {"user_id": caller.user_id, "operator": caller.operator}

    @router.post("/event")
    async def post_event() -> dict[str, bool]:
        return {"taken": True}

    @router.post("/notes")
    async def post_note(note: Note) -> Note:
        return note

    @router.post("/large")
    async def post_large(note: Note) -> dict[str, int]:
        return {"length": len(note.text)}

    @router.get("/fail/{how}")
    async def fail(how: str) -> None:
        raise {
            "not-found": TerminalError("no turn 'x'", kind="not_found"),
            "forbidden": TerminalError("session 's' belongs to another user", kind="forbidden"),
            "unmapped": TerminalError("a secret text", kind="http_418"),
            "problem": Problem(409, "it has ended", extras={"turn_id": "t1"}),
            "transient": TransientError("the store is away", retry_after_s=2.2),
            "conflict": ConflictError("lost"),
            "bug": RuntimeError("a secret text"),
        }[how]


async def served(app: ASGIApp) -> AsyncIterator[httpx2.AsyncClient]:
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # asyncio sets TCP_NODELAY on no other
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # so that a client can connect before the server accepts
        server = uvicorn.Server(uvicorn.Config(app, http="httptools", log_config=None, lifespan="on"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        port = listener.getsockname()[1]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
        server.should_exit = True
        await serving


# One server for all tests of a kind: starting one takes longer than asking it.
@pytest.fixture(scope="session")
def probe() -> Probe:
    return Probe()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(probe: Probe) -> AsyncIterator[httpx2.AsyncClient]:
    async for client in served(probe.build()):
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guarded_client() -> AsyncIterator[httpx2.AsyncClient]:
    async for client in served(Probe().build(SecretStr("right"))):
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hasty_client() -> AsyncIterator[httpx2.AsyncClient]:
    """Of a service that gives a body no time at all beyond what is here already."""
    async for client in served(BodyLimit(Probe().build(), {}, timeout_s=0.001)):
        yield client
