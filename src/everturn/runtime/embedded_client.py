"""The sidecar client of an app in the runtime's process: it calls the building blocks with bytes, not with HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from everturn.dapr.client import (
    STATE_STORE,
    Save,
    Versioned,
    check_guard,
    check_status,
    encoded_twice,
    event_headers,
    is_guarded,
    names_of,
)
from everturn.dapr.wire import Request, Response
from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.runtime.blocks import AppView
from everturn.runtime.errors import DaprError
from everturn.runtime.pubsub.broker import Publication
from everturn.runtime.state.store import AppState, Write, ttl_s


class EmbeddedClient:
    """The `SidecarClient` of `app`. What goes wrong is the error that Dapr's HTTP API would make of it."""

    def __init__(self, app: AppView) -> None:
        self._app = app
        self._opened: AppState | None = None

    async def get_state(self, key: str) -> Versioned[Any] | None:
        try:
            entry = await self._state().get(key)
        except DaprError as error:
            raise _fault(error, f"state {key!r}") from error
        return None if entry is None else Versioned(from_json(entry.value), entry.etag)

    async def get_states(self, keys: Sequence[str]) -> dict[str, Versioned[Any]]:
        try:
            entries = await self._state().get_bulk(keys)
        except DaprError as error:
            raise _fault(error, "state in bulk") from error
        found: dict[str, Versioned[Any]] = {}
        for key, entry in zip(keys, entries, strict=True):
            if entry is None:
                continue
            try:
                value = from_json(entry.value)
            except ValueError as error:
                raise TransientError(f"state {key!r} could not be read") from error
            if value is not None:
                found[key] = Versioned(value, entry.etag)
        return found

    async def save_state(self, *saves: Save) -> None:
        try:
            await self._state().save([_write(save) for save in saves])
        except DaprError as error:
            raise _fault(error, names_of(saves), guarded=is_guarded(saves)) from error

    async def transact(self, saves: Sequence[Save], deletes: Sequence[str] = ()) -> None:
        durable = not saves or any(save.durable for save in saves)
        try:
            await self._state().transact([*map(_write, saves), *(Write(key, None, durable=durable) for key in deletes)])
        except DaprError as error:
            raise _fault(error, names_of(saves), guarded=is_guarded(saves)) from error

    async def publish(self, pubsub: str, topic: str, event: Mapping[str, Any], *, durable: bool = True) -> None:
        publication = Publication(self._app.app_id, pubsub, topic, to_json(event), event_headers(event), {})
        try:
            await self._app.blocks.broker.publish(publication, durable=durable)
        except DaprError as error:
            raise _fault(error, f"topic {topic!r}") from error

    async def settled(self) -> None:
        await self._app.blocks.database.settled()

    async def invoke(
        self, app_id: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        request = Request(method, f"/{encoded_twice(path)}", headers or {}, body)
        try:
            response = await self._app.blocks.invoker.invoke(self._app.app_id, app_id, request)
        except DaprError as error:
            raise _fault(error, f"app {app_id!r}") from error
        check_status(response.status, response.headers, f"app {app_id!r}")
        return response

    async def secret(self, store: str, name: str) -> str:
        try:
            values = self._app.secrets.get(store, name)
        except DaprError as error:
            raise _fault(error, f"secret {name!r}") from error
        if name not in values:
            raise TerminalError(f"no secret {name!r} in store {store!r}", kind="not_found")
        return values[name]

    def _state(self) -> AppState:
        if self._opened is None:
            self._opened = self._app.state(STATE_STORE)
        return self._opened


def _fault(error: DaprError, what: str, *, guarded: bool = False) -> Exception:
    """What `error`, met with `what`, is to a client of Dapr's HTTP API."""
    try:
        if guarded:
            check_guard(error.status, error.code, what)
        check_status(error.status, {}, what)
    except EverturnError as fault:
        return fault
    return error


def _write(save: Save) -> Write:
    """As the HTTP API reads `Save.as_json`: an ETag means a first write too."""
    is_first = save.first_write or save.etag is not None
    return Write(save.key, to_json(save.value), save.etag or None, is_first, ttl_s(save.ttl_s), save.durable)
