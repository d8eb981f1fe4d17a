"""What the services use of their sidecar besides workflows, as a protocol, and its body over Dapr's HTTP API.

https://docs.dapr.io/reference/api/ . The embedded runtime has another body, `runtime.embedded_client`, for the services
in its process; tests/contract/test_sidecar_client.py holds for both.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from pydantic_core import from_json, to_json

from everturn.contracts.fields import retry_after_s
from everturn.dapr.wire import Request, Response, Transport
from everturn.errors import ConflictError, EverturnError, TerminalError, TransientError, is_transient_status

T = TypeVar("T")

# Each lost race means that somebody else got on. So many in a row are rather a store that refuses the write for a
# moment (on Redis the two look alike): from the fourth on there are pauses, about eight seconds in all.
MAX_CONFLICTS = 20
_LOST_WITHOUT_PAUSE = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 1.0


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A value with the opaque ETag under which it was read."""

    value: T
    etag: str


async def retry_conflicts(change: Callable[[], Awaitable[T]], what: str) -> T:
    """Run `change`, which reads, decides and writes under an ETag, until no one else has written in between.

    `what` names the thing in the error. Raises TransientError (kind `conflict`) after MAX_CONFLICTS lost races, and
    what `change` raises besides ConflictError.
    """
    for lost in range(MAX_CONFLICTS):
        try:
            return await change()
        except ConflictError:
            if lost >= _LOST_WITHOUT_PAUSE:
                await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (lost - _LOST_WITHOUT_PAUSE)))
    raise TransientError(f"{what} is changed too often at once", kind="conflict")


# A colon may stand in a path (RFC 3986 section 3.3); keys are full of them, and what needs no encoding costs nothing.
_SAFE = ":"
_JSON = {"content-type": "application/json"}
# The component that both services keep their state in.
STATE_STORE = "statestore"
_STATE = f"/v1.0/state/{STATE_STORE}"


@dataclass(frozen=True, slots=True)
class Save:
    """One write: only if `etag` still matches, only if the key is new (`first_write`), or whatever is there.

    `ttl_s`: seconds after which the store drops the key. Not `durable`: the call may return before this is on disk; it
    is there before all that the process writes later, and when `SidecarClient.settled` returns.
    """

    key: str
    value: Any
    etag: str | None = None
    first_write: bool = False
    ttl_s: int | None = None
    durable: bool = True

    def as_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"key": self.key, "value": self.value}
        if self.etag is not None:
            body["etag"] = self.etag
        if self.etag is not None or self.first_write:
            body["options"] = {"concurrency": "first-write"}
        if self.ttl_s is not None:
            body["metadata"] = {"ttlInSeconds": str(self.ttl_s)}
        return body


class SidecarClient(Protocol):
    """State, publish, invoke and secrets of one app's sidecar.

    Every method raises TransientError if trying again may help and TerminalError if it will not.
    """

    async def get_state(self, key: str) -> Versioned[Any] | None:
        """The value of `key`, or None if there is none; never None because the store could not be read."""
        ...

    async def get_states(self, keys: Sequence[str]) -> dict[str, Versioned[Any]]:
        """The values of those of `keys` that exist, in one request."""
        ...

    async def save_state(self, *saves: Save) -> None:
        """Write each of `saves`; with more than one, some may be written and others not.

        Raises ConflictError if an ETag or first write lost, or *perhaps* lost: on Redis a lost first write is a 500
        like other trouble, so read the key to see who won.
        """
        ...

    async def transact(self, saves: Sequence[Save], deletes: Sequence[str] = ()) -> None:
        """Write `saves` in order, then delete `deletes`, in one request.

        Atomic on most stores. On Redis it is not under ETags: each write is made alone, so what must change together is
        one key, and the order must be right after every prefix. Raises as `save_state`.
        """
        ...

    async def publish(self, pubsub: str, topic: str, event: Mapping[str, Any], *, durable: bool = True) -> None:
        """Publish `event`, a CloudEvent in JSON format; returns once the broker has accepted it.

        Its `traceparent`, if it has one, is that of the request as well: a sidecar takes it from there. Not `durable`:
        as a `Save` that is not.
        """
        ...

    async def settled(self) -> None:
        """Return when all writes that have returned are on disk: to be awaited before anything leaves the process that
        rests on one which is not `durable`. Raises TransientError if the disk refuses them.
        """
        ...

    async def invoke(
        self, app_id: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        """Call `path` of another app (percent-encoded, without its first slash). A status of 400 or more is raised."""
        ...

    async def secret(self, store: str, name: str) -> str:
        """The secret `name` of `store`. Raises TerminalError if there is none."""
        ...


async def store_fault(client: SidecarClient) -> str | None:
    """Why the state store takes no writes, in one sentence; None if it does. Tried by a write that it soon forgets.

    Reading says nothing of it: a store whose disk is full can be read.
    """
    try:
        await client.save_state(Save("readyz", True, ttl_s=60))
    except EverturnError as error:
        return f"the state store cannot be written: {error.message}"
    return None


class DaprClient:
    """The `SidecarClient` over Dapr's HTTP API."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get_state(self, key: str) -> Versioned[Any] | None:
        response = await self._call("GET", f"{_STATE}/{quote(key, safe=_SAFE)}", f"state {key!r}")
        if response.status == 204:
            return None
        return Versioned(from_json(response.body), response.headers.get("etag", ""))

    async def get_states(self, keys: Sequence[str]) -> dict[str, Versioned[Any]]:
        body = to_json({"keys": list(keys)})
        response = await self._call("POST", f"{_STATE}/bulk", "state in bulk", body, _JSON)
        found: dict[str, Versioned[Any]] = {}
        for item in from_json(response.body):
            if item.get("error"):
                raise TransientError(f"state {item['key']!r} could not be read")
            if item.get("data") is not None:
                found[item["key"]] = Versioned(item["data"], item.get("etag", ""))
        return found

    async def save_state(self, *saves: Save) -> None:
        await self._write(_STATE, saves, [save.as_json() for save in saves])

    async def transact(self, saves: Sequence[Save], deletes: Sequence[str] = ()) -> None:
        operations = [{"operation": "upsert", "request": save.as_json()} for save in saves]
        operations += [{"operation": "delete", "request": {"key": key}} for key in deletes]
        await self._write(f"{_STATE}/transaction", saves, {"operations": operations})

    async def publish(
        self,
        pubsub: str,
        topic: str,
        event: Mapping[str, Any],
        *,
        durable: bool = True,  # noqa: ARG002 - always
    ) -> None:
        target = f"/v1.0/publish/{quote(pubsub, safe='')}/{quote(topic, safe='')}"
        await self._call("POST", target, f"topic {topic!r}", to_json(event), event_headers(event))

    async def settled(self) -> None:
        """At once: a sidecar answers when what it was given is durable."""

    async def invoke(
        self, app_id: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        target = f"/v1.0/invoke/{quote(app_id, safe='')}/method/{encoded_twice(path)}"
        return await self._call(method, target, f"app {app_id!r}", body, headers)

    async def secret(self, store: str, name: str) -> str:
        target = f"/v1.0/secrets/{quote(store, safe='')}/{quote(name, safe='')}"
        response = await self._call("GET", target, f"secret {name!r}")
        values = from_json(response.body) if response.body else {}
        if name not in values:
            raise TerminalError(f"no secret {name!r} in store {store!r}", kind="not_found")
        return str(values[name])

    async def _write(self, target: str, saves: Sequence[Save], body: object) -> None:
        what = names_of(saves)
        response = await self._transport.send(Request("POST", target, _JSON, to_json(body)))
        if is_guarded(saves) and response.status in (409, 500):
            check_guard(response.status, _error_code(response), what)
        check_status(response.status, response.headers, what)

    async def _call(
        self, method: str, target: str, what: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        response = await self._transport.send(Request(method, target, headers or {}, body))
        check_status(response.status, response.headers, what)
        return response


def event_headers(event: Mapping[str, Any]) -> dict[str, str]:
    """The headers of the request that publishes `event`."""
    headers = {"content-type": "application/cloudevents+json"}
    return headers | {"traceparent": event["traceparent"]} if "traceparent" in event else headers


def encoded_twice(path: str) -> str:
    """`path` encoded once more: a sidecar decodes it and takes dot segments out (Dapr 1.18, directmessaging.go)."""
    encoded, mark, query = path.partition("?")
    segments = ("%2E" * len(segment) if segment in (".", "..") else segment for segment in encoded.split("/"))
    return "/".join(segments).replace("%", "%25") + mark + query


def names_of(saves: Sequence[Save]) -> str:
    """What an error says was written."""
    return f"state {', '.join(repr(save.key) for save in saves)}"


def is_guarded(saves: Sequence[Save]) -> bool:
    return any(save.etag is not None or save.first_write for save in saves)


def check_guard(status: int, code: str, what: str) -> None:
    """Raises ConflictError if this is what a guarded write gets that lost, or perhaps lost.

    409, and the 500 that Redis and transactions give (seen on 1.18).
    """
    if status == 409 or code in ("ERR_STATE_SAVE", "ERR_STATE_TRANSACTION"):
        raise ConflictError(f"{what} was changed by someone else", kind="conflict")


def check_status(status: int, headers: Mapping[str, str], what: str) -> None:
    """Raises the error for a status of 400 or more."""
    if status >= 400:
        raise status_error(status, f"{what}: the sidecar answered {status}", headers)


def _error_code(response: Response) -> str:
    try:
        return str(json.loads(response.body).get("errorCode"))
    except (ValueError, AttributeError):
        return ""


def status_error(status: int, sentence: str, headers: Mapping[str, str]) -> EverturnError:
    """The error for an HTTP status of 400 or more: transient for 408, 409, 425, 429 and 5xx, terminal for the rest."""
    kind = f"http_{status}"
    if is_transient_status(status):
        return TransientError(sentence, kind=kind, retry_after_s=retry_after_s(headers.get("retry-after")))
    return TerminalError(sentence, kind=kind)
