"""Builds the HTTP application of a service around its routes.

    def add_routes(router: APIRouter) -> None:
        @router.get("/turns/{turn_id}", responses=problem_responses(404))
        async def get_turn(turn_id: PathId) -> Turn:
            return await turns.view(turn_id)  # TerminalError of kind not_found: 404

    service = Service("DACA Chat Service", "chat-service", "…", readiness=readiness, registry=CollectorRegistry())
    app = build_app(service, add_routes, lifespan=lifespan)

A route raises `Problem` for an answer that it decides on; `problems.problem_of` maps every other error to a status.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, SecretStr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Lifespan

from everturn import __version__, logs, tracing
from everturn.dapr.origins import AllowedPages
from everturn.errors import EverturnError, SettingError, TransientError
from everturn.settings import Settings, load_settings, warn_of_settings
from everturn.web.callers import AccessRules, Identify, SignIn, anybody
from everturn.web.files import DOCS_PATHS, add_docs_routes
from everturn.web.problems import Shapes, handle_problems, problem_responses
from everturn.web.requests import (
    BodyLimit,
    Cors,
    EncodedPath,
    JsonRoute,
    OwnPages,
    Settled,
    SingleHeaders,
    Traced,
    UnexpectedErrors,
)

HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
# Asked by probes and by Prometheus, under whatever name they know a pod by.
PROBED_PATHS = HEALTH_PATHS | {"/metrics"}
_OPENAPI_PATH = "/openapi.json"
# Open to those who have not signed in as well: nothing of a user is in them.
_PUBLIC_PATHS = PROBED_PATHS | DOCS_PATHS | {"/", _OPENAPI_PATH}
# FastAPI would export spans of its own, and what exceptions say, if the environment asks for it.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}

Readiness = Callable[[], Awaitable[str | None]]
"""Says why the service cannot do its work, in one safe sentence; None if it can."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a service says of itself.

    `app_id` is its name in traces. `registry` is this application's own: many applications live in one process. Of web
    pages only `pages` may call. `identify` finds out who calls. `token` is what the sidecar shows: the `sidecar_paths`
    are closed to all others; `is_closed`: all but health is closed to callers that are not signed in. `body_limits` are
    bytes by path, for routes that take more than 1 MiB. `page` is what `/` gives to browsers, and `page_paths` are its
    files, open to all. No answer begins before `settled` has returned. Errors have `shapes` of other APIs by the
    beginning of a path.
    """

    name: str
    app_id: str
    summary: str
    readiness: Readiness
    registry: CollectorRegistry
    pages: AllowedPages = field(default_factory=AllowedPages)
    identify: Identify = anybody
    token: SecretStr | None = None
    is_closed: bool = False
    sidecar_paths: frozenset[str] = frozenset()
    body_limits: Mapping[str, int] = field(default_factory=dict)
    page: Callable[[Request], Response] | None = None
    page_paths: frozenset[str] = frozenset()
    settled: Callable[[], Awaitable[None]] | None = None
    shapes: Shapes = field(default_factory=dict)


class Welcome(BaseModel):
    message: str


class Health(BaseModel):
    status: Literal["ok"] = "ok"


def build_app(
    service: Service, add_routes: Callable[[APIRouter], None], *, lifespan: Lifespan[FastAPI] | None = None
) -> FastAPI:
    """The application of `service`: what `add_routes` declares, a welcome, health, metrics, and the rules for all.

    Routes are declared on the application's own router: one that is included is matched twice for each request.
    """
    unknown = (401,) if service.is_closed or service.identify is not anybody else ()
    app = FastAPI(
        title=service.name,
        summary=service.summary,
        version=__version__,
        lifespan=lifespan,
        middleware=_middleware(service),
        responses=problem_responses(*unknown, 403, 422, 500),
        redirect_slashes=False,
        openapi_url=_OPENAPI_PATH,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
    )
    app.state.registry = service.registry
    handle_problems(app, service.shapes)
    app.router.route_class = JsonRoute
    # Routes are tried one after the other: those with work first.
    add_routes(app.router)

    @app.get("/", summary="A welcome", tags=["health"], response_model=Welcome)
    async def welcome(request: Request) -> Welcome | Response:
        message = f"Welcome to the {service.name}! Access /docs for the API documentation."
        if service.page is None:
            return Welcome(message=message)
        if "text/html" in request.headers.get("accept", ""):
            return service.page(request)
        return JSONResponse({"message": message}, headers={"vary": "accept"})

    add_docs_routes(app.router, service.name, _OPENAPI_PATH)
    _add_health_routes(app.router, service.readiness, service.registry)
    return app


def standalone_apps(module: str, **creates: Callable[[Settings], FastAPI]) -> Callable[[str], FastAPI]:
    """The `__getattr__` of `module`, with an app by each name of `creates`, for `uvicorn everturn.chat.app:app`.

    One is made when it is asked for, so an import needs no settings, no key and no sidecar; it has this process's
    settings and logs in our form. If it cannot be made, that ends the process with one line on stderr: exit code 2 for
    a wrong setting, 1 for the rest.
    """

    @cache
    def app(name: str) -> FastAPI:
        if name not in creates:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        logs.configure()
        try:
            settings = load_settings()
            logs.set_level(settings.log_level)
            warn_of_settings()
            return creates[name](settings)
        except EverturnError as error:
            sys.stderr.write(f"everturn: {error.message}\n")
            raise SystemExit(2 if isinstance(error, SettingError) else 1) from None

    return app


def _add_health_routes(router: APIRouter, readiness: Readiness, registry: CollectorRegistry) -> None:
    """`GET /healthz`, `GET /readyz` and `GET /metrics` (Prometheus text) over `registry`."""

    @router.get("/healthz", tags=["health"], summary="The process is alive")
    async def healthz() -> Health:
        return Health()

    @router.get("/readyz", tags=["health"], summary="The service can do its work", responses=problem_responses(503))
    async def readyz() -> Health:
        if reason := await readiness():
            raise TransientError(reason)
        return Health()

    @router.get("/metrics", tags=["health"], summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _middleware(service: Service) -> list[Middleware]:
    """From the outside in: CORS headers are on every answer; paths are normal before anything looks at them."""
    stack: list[Any] = [
        Middleware(
            Cors,
            allow_origins=service.pages.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After"],
        ),
        Middleware(UnexpectedErrors),
        Middleware(SingleHeaders),
        Middleware(EncodedPath),
        Middleware(OwnPages, PROBED_PATHS, service.pages),
    ]
    if service.settled is not None:
        stack.append(Middleware(Settled, HEALTH_PATHS, service.settled))
    open_paths = service.page_paths | (HEALTH_PATHS if service.is_closed else _PUBLIC_PATHS)
    rules = AccessRules(open_paths, service.sidecar_paths, service.token, service.is_closed)
    stack.append(Middleware(SignIn, service.identify, rules))
    if tracing.is_on():
        stack.append(Middleware(Traced, PROBED_PATHS | service.sidecar_paths, service.app_id))
    stack.append(Middleware(BodyLimit, service.body_limits))
    return stack
