import json
from collections import deque

import pytest

from everturn.dapr.client import DaprClient
from everturn.dapr.wire import Request, Response
from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.models.openai_model import SecretKey, secret_key_of
from everturn.settings import Settings

OWN = {"model_base_url": "http://127.0.0.1:9/v1", "model_name": "llama"}
NOT_UP = TransientError("cannot reach the sidecar", kind="unreachable")


class Store:
    """A sidecar's secrets API that answers by script."""

    def __init__(self, *answers: Response | EverturnError) -> None:
        self.targets: list[str] = []
        self._answers = deque(answers)

    async def send(self, request: Request) -> Response:
        self.targets.append(request.target)
        answer = self._answers.popleft()
        if isinstance(answer, EverturnError):
            raise answer
        return answer

    async def close(self) -> None: ...


def secret(name: str, value: str) -> Response:
    return Response(200, {}, json.dumps({name: value}).encode())


def key_in(store: Store, name: str | None = None) -> SecretKey:
    return SecretKey(DaprClient(store), name)


async def test_a_named_secret_is_read_once() -> None:
    store = Store(secret("llama-key", "s3cret"))
    key = key_in(store, "llama-key")

    assert [await key.read(), await key.read()] == ["s3cret", "s3cret"]
    assert store.targets == ["/v1.0/secrets/secretstore/llama-key"]


async def test_without_a_name_the_usual_one_is_looked_for() -> None:
    store = Store(secret("EVERTURN_MODEL_API_KEY", "s3cret"))

    assert await key_in(store).read() == "s3cret"


@pytest.mark.parametrize("name", [None, "llama-key"])
async def test_a_sidecar_that_is_not_up_yet_is_asked_again(name: str | None) -> None:
    key = key_in(Store(NOT_UP, secret(name or "EVERTURN_MODEL_API_KEY", "s3cret")), name)

    with pytest.raises(TransientError):
        await key.read()
    assert await key.read() == "s3cret"


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_a_store_without_the_usual_secret_means_no_key(status: int) -> None:
    assert await key_in(Store(Response(status))).read() is None


async def test_an_empty_usual_secret_means_no_key() -> None:
    assert await key_in(Store(secret("EVERTURN_MODEL_API_KEY", ""))).read() is None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Response(401), TerminalError),
        (Response(403), TerminalError),
        (Response(500), TransientError),
        (secret("llama-key", ""), TransientError),
    ],
)
async def test_a_named_secret_that_is_not_given_is_an_error(answer: Response, error: type[EverturnError]) -> None:
    with pytest.raises(error):
        await key_in(Store(answer), "llama-key").read()


@pytest.mark.parametrize(
    ("given", "asks"),
    [
        ({}, False),
        ({"gemini_api_key": "k"}, False),
        ({**OWN, "model_api_key": "k", "model_api_key_secret": "llama-key"}, False),
        (OWN, True),
        ({**OWN, "model_api_key_secret": "llama-key"}, True),
    ],
)
def test_the_store_is_asked_for_the_key_of_an_endpoint_that_the_environment_has_none_for(
    given: dict[str, str], asks: bool
) -> None:
    settings = Settings(_env_file=None, **given)  # type: ignore[arg-type]

    assert (secret_key_of(settings, DaprClient(Store())) is not None) is asks
