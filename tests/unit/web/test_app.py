import httpx2
import pytest
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider

from tests.unit.web.conftest import Probe, served

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_welcome_names_the_service(client: httpx2.AsyncClient) -> None:
    welcome = (await client.get("/")).json()

    assert welcome == {"message": "Welcome to the Probe Service! Access /docs for the API documentation."}


async def test_a_living_service_is_healthy_and_ready(client: httpx2.AsyncClient) -> None:
    answers = [(await client.get(path)).json() for path in ("/healthz", "/readyz")]

    assert answers == [{"status": "ok"}, {"status": "ok"}]


async def test_a_service_that_cannot_work_is_healthy_but_not_ready(client: httpx2.AsyncClient, probe: Probe) -> None:
    probe.reason = "the sidecar is away"

    health, readiness = await client.get("/healthz"), await client.get("/readyz")
    probe.reason = None

    assert (health.status_code, readiness.status_code) == (200, 503)
    assert readiness.json()["detail"] == "the sidecar is away"


async def test_metrics_are_those_of_this_application_alone(client: httpx2.AsyncClient) -> None:
    Probe().build()

    metrics = (await client.get("/metrics")).text

    assert "probes_total 1.0" in metrics


async def test_an_allowed_origin_may_read_location_and_retry_after(client: httpx2.AsyncClient) -> None:
    response = await client.get("/", headers={"origin": "http://localhost:3000"})

    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert response.headers["access-control-expose-headers"] == "Location, Retry-After"


async def test_another_origin_gets_no_permission(client: httpx2.AsyncClient) -> None:
    response = await client.get("/", headers={"origin": "http://elsewhere.example"})

    assert "access-control-allow-origin" not in response.headers


async def test_an_allowed_origin_may_ask_before_it_calls(client: httpx2.AsyncClient) -> None:
    asked = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}

    response = await client.options("/notes", headers=asked)

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_another_origin_that_asks_is_refused_with_a_problem(client: httpx2.AsyncClient) -> None:
    asked = {"origin": "http://elsewhere.example", "access-control-request-method": "POST"}

    response = await client.options("/notes", headers=asked)

    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"]
    assert "access-control-allow-origin" not in response.headers


async def test_the_api_document_tells_of_the_token_where_there_is_one(
    client: httpx2.AsyncClient, guarded_client: httpx2.AsyncClient
) -> None:
    token = {"dapr-api-token": "right"}
    documents = [
        (await client.get("/openapi.json")).json(),
        (await guarded_client.get("/openapi.json", headers=token)).json(),
    ]

    told = ["401" in document["paths"]["/notes"]["post"]["responses"] for document in documents]

    assert told == [False, True]


async def test_without_the_token_every_route_is_401_health_aside(guarded_client: httpx2.AsyncClient) -> None:
    statuses = {
        path: (await guarded_client.get(path)).status_code
        for path in (
            "/",
            "/things/a",
            "/metrics",
            "/nowhere",
            "/docs",
            "/healthz",
            "/%68ealthz",
            "/readyz",
            "/healthz%2F",
        )
    }

    assert statuses == {
        "/": 401, "/things/a": 401, "/metrics": 401, "/nowhere": 401, "/docs": 401,
        "/healthz": 200, "/%68ealthz": 200, "/readyz": 200, "/healthz%2F": 401,
    }  # fmt: skip


async def test_the_right_token_opens_and_a_wrong_one_does_not(guarded_client: httpx2.AsyncClient) -> None:
    right = await guarded_client.get("/things/a", headers={"dapr-api-token": "right"})
    wrong = await guarded_client.get("/things/a", headers={"dapr-api-token": "right "[:-2]})

    assert (right.status_code, wrong.status_code) == (200, 401)
    assert wrong.headers["content-type"] == "application/problem+json"


async def test_the_frameworks_own_telemetry_stays_off_whatever_the_environment_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")

    async for client in served(Probe().build()):
        assert (await client.get("/healthz")).status_code == 200

    assert isinstance(get_tracer_provider(), ProxyTracerProvider)
