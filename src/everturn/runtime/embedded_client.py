"""The sidecar client of an app in the runtime's process: it calls the building blocks with bytes, not with HTTP."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
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
from everturn.errors import TerminalError, TransientError
from everturn.runtime.building_blocks import AppView
from everturn.runtime.errors import DaprError
from everturn.runtime.pubsub.broker import Publication
from everturn.runtime.state.store import AppState, Write, ttl_s


class EmbeddedClient:
    """The `SidecarClient` of `app`. What goes wrong is the error that Dapr's HTTP API would make of it."""

    def __init__(self, app: AppView) -> None:
        self._app = app

    @cached_property
    def _state(self) -> AppState:
        return self._app.state(STATE_STORE)

    async def get_state(self, key: str) -> Versioned[Any] | None:
        with _faults(f"state {key!r}"):
            entry = await self._state.get(key)
        return None if entry is None else Versioned(from_json(entry.value), entry.etag)

    async def get_states(self, keys: Sequence[str]) -> dict[str, Versioned[Any]]:
        with _faults("state in bulk"):
            entries = await self._state.get_bulk(keys)
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
        with _faults(names_of(saves), guarded=is_guarded(saves)):
            await self._state.save([_write(save) for save in saves])

    async def transact(self, saves: Sequence[Save], deletes: Sequence[str] = ()) -> None:
        durable = not saves or any(save.durable for save in saves)
        with _faults(names_of(saves), guarded=is_guarded(saves)):
            writes = [*map(_write, saves), *(Write(key, None, durable=durable) for key in deletes)]
            await self._state.transact(writes)

    async def publish(self, pubsub: str, topic: str, event: Mapping[str, Any], *, durable: bool = True) -> None:
        publication = Publication(self._app.app_id, pubsub, topic, to_json(event), event_headers(event), {})
        with _faults(f"topic {topic!r}"):
            await self._app.blocks.broker.publish(publication, durable=durable)

    async def settled(self) -> None:
        await self._app.blocks.database.settled()

    async def invoke(
        self, app_id: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        request = Request(method, f"/{encoded_twice(path)}", headers or {}, body)
        with _faults(f"app {app_id!r}"):
            response = await self._app.blocks.invoker.invoke(self._app.app_id, app_id, request)
        check_status(response.status, response.headers, f"app {app_id!r}")
        return response

    async def secret(self, store: str, name: str) -> str:
        with _faults(f"secret {name!r}"):
            values = self._app.secrets.get(store, name)
        if name not in values:
            raise TerminalError(f"no secret {name!r} in store {store!r}", kind="not_found")
        return values[name]


@contextmanager
def _faults(what: str, *, guarded: bool = False) -> Iterator[None]:
    """What goes wrong with `what` is what it would be to a client of Dapr's HTTP API."""
    try:
        yield
    except DaprError as error:
        if guarded:
            check_guard(error.status, error.code, what)
        check_status(error.status, {}, what)
        raise


def _write(save: Save) -> Write:
    """As the HTTP API reads `Save.as_json`: an ETag means a first write too."""
    is_first = save.first_write or save.etag is not None
    return Write(save.key, to_json(save.value), save.etag or None, is_first, ttl_s(save.ttl_s), save.durable)
