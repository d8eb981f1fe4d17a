"""Builds the HTTP application of a service around its routes.

    def add_routes(router: APIRouter) -> None:
        @router.get("/turns/{turn_id}", responses=problem_responses(404))
        async def get_turn(turn_id: PathId) -> Turn:
            raise Problem(404, f"no turn {turn_id!r}")

    service = Service(name="DACA Chat Service", summary="…", readiness=readiness, registry=CollectorRegistry())
    app = build_app(service, add_routes, lifespan=lifespan)

A route raises `Problem` for an answer that it decides on; any other error is mapped by `problems.problem_of`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, SecretStr
from starlette.middleware import Middleware
from starlette.types import Lifespan

from everturn import __version__
from everturn.web.bodies import BODY_TIMEOUT_S, BodyLimit, JsonRoute
from everturn.web.cors import Cors
from everturn.web.health import HEALTH_PATHS, Readiness, add_health_routes
from everturn.web.paths import EncodedPath
from everturn.web.problems import UnexpectedErrors, handle_problems, problem_responses
from everturn.web.tokens import ApiToken


@dataclass(frozen=True, slots=True)
class Service:
    """What a service tells the web room about itself.

    `registry` is this application's own: many applications live in one process. `token` is asked of every caller,
    health aside; `body_limits` are bytes by path, where a route takes more than 1 MiB; `body_timeout_s` are seconds.
    """

    name: str
    summary: str
    readiness: Readiness
    registry: CollectorRegistry
    cors_origins: tuple[str, ...] = ()
    token: SecretStr | None = None
    body_limits: Mapping[str, int] = field(default_factory=dict)
    body_timeout_s: float = BODY_TIMEOUT_S


class Welcome(BaseModel):
    message: str


def build_app(
    service: Service, add_routes: Callable[[APIRouter], None], *, lifespan: Lifespan[FastAPI] | None = None
) -> FastAPI:
    """The application of `service`: what `add_routes` declares, a welcome, health, metrics, and the rules for all.

    Routes are declared on the application's own router: one that is included is matched twice for each request.
    """
    app = FastAPI(
        title=service.name,
        summary=service.summary,
        version=__version__,
        lifespan=lifespan,
        middleware=_middleware(service),
        responses=problem_responses(*(401,) if service.token else (), 422, 500),
        redirect_slashes=False,
    )
    handle_problems(app)

    @app.get("/", summary="A welcome", tags=["health"])
    async def welcome() -> Welcome:
        return Welcome(message=f"Welcome to the {service.name}! Access /docs for the API documentation.")

    app.router.route_class = JsonRoute
    add_routes(app.router)
    add_health_routes(app.router, service.readiness, service.registry)
    return app


def _middleware(service: Service) -> list[Middleware]:
    """From the outside in: CORS headers are on every answer; paths are normal before anything looks at them."""
    stack: list[Any] = [
        Middleware(
            Cors,
            allow_origins=service.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After"],
        ),
        Middleware(UnexpectedErrors),
        Middleware(EncodedPath),
    ]
    if service.token is not None:
        stack.append(Middleware(ApiToken, token=service.token, open_paths=HEALTH_PATHS))
    stack.append(Middleware(BodyLimit, limits=service.body_limits, timeout_s=service.body_timeout_s))
    return stack
