"""The parts of Dapr's HTTP API that the services use (https://docs.dapr.io/reference/api/)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from pydantic_core import from_json, to_json

from everturn.contracts.times import utc_now
from everturn.errors import ConflictError, EverturnError, TerminalError, TransientError
from everturn.sidecar.wire import Request, Response, Transport

# 408 timeout, 409 conflict, 425 too early, 429 too many requests; and every 5xx.
_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
# A colon may stand in a path (RFC 3986 section 3.3); keys are full of them, and what needs no encoding costs nothing.
_SAFE = ":"
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class StateItem:
    """A value with the opaque ETag under which it was read."""

    value: Any
    etag: str


@dataclass(frozen=True, slots=True)
class Save:
    """One write: only if `etag` still matches, only if the key is new (`first_write`), or whatever is there.

    `ttl_s`: seconds after which the store drops the key.
    """

    key: str
    value: Any
    etag: str | None = None
    first_write: bool = False
    ttl_s: int | None = None

    def as_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"key": self.key, "value": self.value}
        if self.etag is not None:
            body["etag"] = self.etag
        if self.etag is not None or self.first_write:
            body["options"] = {"concurrency": "first-write"}
        if self.ttl_s is not None:
            body["metadata"] = {"ttlInSeconds": str(self.ttl_s)}
        return body


class DaprClient:
    """State, publish, invoke and secrets of one app's sidecar. Every method raises TransientError where trying again
    may help and TerminalError where it will not."""

    def __init__(self, transport: Transport, *, state_store: str = "statestore") -> None:
        self._transport = transport
        self._state = f"/v1.0/state/{quote(state_store, safe='')}"

    async def get_state(self, key: str) -> StateItem | None:
        """The value of `key`, or None where there is none; never None because the store could not be read."""
        response = await self._call("GET", f"{self._state}/{quote(key, safe=_SAFE)}", f"state {key!r}")
        if response.status == 204:
            return None
        return StateItem(from_json(response.body), response.headers.get("etag", ""))

    async def get_states(self, keys: Sequence[str]) -> dict[str, StateItem]:
        """The values of those of `keys` that exist, in one request."""
        body = to_json({"keys": list(keys)})
        response = await self._call("POST", f"{self._state}/bulk", "state in bulk", body, _JSON)
        found: dict[str, StateItem] = {}
        for item in from_json(response.body):
            if item.get("error"):
                raise TransientError(f"state {item['key']!r} could not be read")
            if item.get("data") is not None:
                found[item["key"]] = StateItem(item["data"], item.get("etag", ""))
        return found

    async def save_state(self, *saves: Save) -> None:
        """Write each of `saves`; with more than one, some may be written and others not.

        Raises ConflictError where an ETag or first write lost, or *perhaps* lost: on Redis a lost first write is a 500
        like other trouble, so read the key to see who won.
        """
        body = to_json([save.as_json() for save in saves])
        names = ", ".join(repr(save.key) for save in saves)
        guarded = any(save.etag is not None or save.first_write for save in saves)
        await self._write("POST", self._state, f"state {names}", body, guarded=guarded)

    async def delete_state(self, key: str, *, etag: str | None = None) -> None:
        """Delete `key`. Raises ConflictError where `etag` does not match."""
        headers = {"if-match": etag} if etag is not None else {}
        target = f"{self._state}/{quote(key, safe=_SAFE)}"
        await self._write("DELETE", target, f"state {key!r}", b"", headers, guarded=etag is not None)

    async def transact(self, saves: Sequence[Save], deletes: Sequence[str] = ()) -> None:
        """Write `saves` in order, then delete `deletes`, in one request.

        Atomic on most stores. On Redis it is not under ETags: each write stands on its own, so what must change
        together is one key, and the order must be right after every prefix. Raises as `save_state`.
        """
        operations = [{"operation": "upsert", "request": save.as_json()} for save in saves]
        operations += [{"operation": "delete", "request": {"key": key}} for key in deletes]
        names = ", ".join(repr(save.key) for save in saves)
        body = to_json({"operations": operations})
        guarded = any(save.etag is not None or save.first_write for save in saves)
        await self._write("POST", f"{self._state}/transaction", f"state {names}", body, guarded=guarded)

    async def publish(self, pubsub: str, topic: str, event: Mapping[str, Any]) -> None:
        """Publish `event`, a CloudEvent in JSON format; returns once the broker has accepted it."""
        target = f"/v1.0/publish/{quote(pubsub, safe='')}/{quote(topic, safe='')}"
        headers = {"content-type": "application/cloudevents+json"}
        await self._call("POST", target, f"topic {topic!r}", to_json(event), headers)

    async def invoke(self, app_id: str, method: str, path: str) -> Response:
        """Call `path` of another app (percent-encoded, without its first slash). A status of 400 or more is raised."""
        target = f"/v1.0/invoke/{quote(app_id, safe='')}/method/{_to_be_decoded_once(path)}"
        return await self._call(method, target, f"app {app_id!r}")

    async def secret(self, store: str, name: str) -> str:
        """The secret `name` of `store`. Raises TerminalError where there is none."""
        target = f"/v1.0/secrets/{quote(store, safe='')}/{quote(name, safe='')}"
        response = await self._call("GET", target, f"secret {name!r}")
        values = from_json(response.body) if response.body else {}
        if name not in values:
            raise TerminalError(f"no secret {name!r} in store {store!r}", kind="not_found")
        return str(values[name])

    async def _write(
        self,
        method: str,
        target: str,
        what: str,
        body: bytes,
        headers: Mapping[str, str] = _JSON,
        *,
        guarded: bool,
    ) -> None:
        response = await self._transport.send(Request(method, target, headers, body))
        if guarded and (response.status == 409 or _is_lost_write(response)):
            raise ConflictError(f"{what} was changed by someone else", kind="conflict")
        _raise_for_status(response, what)

    async def _call(
        self, method: str, target: str, what: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        response = await self._transport.send(Request(method, target, headers or {}, body))
        _raise_for_status(response, what)
        return response


def _to_be_decoded_once(path: str) -> str:
    """`path` encoded once more: a sidecar decodes it and takes dot segments out (Dapr 1.18, directmessaging.go)."""
    encoded, mark, query = path.partition("?")
    segments = ("%2E" * len(segment) if segment in (".", "..") else segment for segment in encoded.split("/"))
    return "/".join(segments).replace("%", "%25") + mark + query


def _is_lost_write(response: Response) -> bool:
    """Whether a 500 is what Redis and transactions give for a guarded write that lost (dapr-wire: ERR_STATE_SAVE)."""
    if response.status != 500:
        return False
    try:
        code = json.loads(response.body).get("errorCode")
    except (ValueError, AttributeError):
        return False
    return code in ("ERR_STATE_SAVE", "ERR_STATE_DELETE", "ERR_STATE_TRANSACTION")


def _raise_for_status(response: Response, what: str) -> None:
    if response.status < 400:
        return
    raise status_error(response.status, f"{what}: the sidecar answered {response.status}", response.headers)


def status_error(status: int, sentence: str, headers: Mapping[str, str]) -> EverturnError:
    """The error for an HTTP status of 400 or more: transient for 408, 409, 425, 429 and 5xx, terminal for the rest."""
    kind = f"http_{status}"
    if status in _TRANSIENT_STATUSES or status >= 500:
        return TransientError(sentence, kind=kind, retry_after_s=retry_after_s(headers.get("retry-after")))
    return TerminalError(sentence, kind=kind)


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number of seconds or an HTTP date (RFC 9110 section 10.2.3).

    None where it is absent or cannot be read; a date in the past is 0.
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - utc_now()).total_seconds())
    except (ValueError, TypeError):
        return None
