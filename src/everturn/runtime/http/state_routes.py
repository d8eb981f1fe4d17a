"""Dapr's HTTP API for state: bodies and headers to and from `state`."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from everturn.dapr.wire import JsonError, Response, decode
from everturn.runtime.building_blocks import AppView
from everturn.runtime.clock import rfc3339
from everturn.runtime.errors import DaprError, malformed
from everturn.runtime.http.handlers import JSON, NO_CONTENT, Call, read_body
from everturn.runtime.state.store import StateEntry, Write, ttl_s

_NULL = Raw(b"null")


class _Keys(Struct):
    keys: list[str] = []


class _Options(Struct):
    concurrency: Any = None


class _Upsert(Struct):
    key: str
    value: Raw = _NULL
    etag: str | None = None
    options: _Options | None = None
    metadata: dict[str, Any] | None = None


class _Operation(Struct):
    operation: Any = None
    request: _Upsert | None = None


class _Transaction(Struct):
    operations: list[_Operation] = []


async def get_state(app: AppView, call: Call) -> Response:
    """200 with the value and its `etag` (without quotes, as Dapr sends it), or 204."""
    entry = await app.state(call.part("store")).get(call.part("key"))
    if entry is None:
        return NO_CONTENT
    headers = {**JSON, "etag": entry.etag}
    if entry.expires_at is not None:
        headers["metadata.ttlexpiretime"] = rfc3339(entry.expires_at)
    return Response(200, headers, entry.value)


async def get_bulk_state(app: AppView, call: Call) -> Response:
    """An element for each key, in order; `data` is left out if there is none, or if it is no JSON."""
    state = app.state(call.part("store"))
    keys = read_body(call, _Keys).keys
    entries = await state.get_bulk(keys)
    items = [_bulk_item(key, entry) for key, entry in zip(keys, entries, strict=True)]
    return Response(200, JSON, msgspec.json.encode(items))


async def save_state(app: AppView, call: Call) -> Response:
    """204 once every item is on disk; an item whose guard does not hold is left out, and makes it 409."""
    state = app.state(call.part("store"))
    writes = [_write(item, call.metadata) for item in read_body(call, list[_Upsert])]
    if writes:
        await state.save(writes)
    return NO_CONTENT


async def delete_state(app: AppView, call: Call) -> Response:
    """204, also if there was no such key; 409 if `if-match` does not hold."""
    state = app.state(call.part("store"))
    await state.delete(call.part("key"), call.request.headers.get("if-match") or None)
    return NO_CONTENT


async def transact_state(app: AppView, call: Call) -> Response:
    """204 once all operations are on disk; 500 and none of them if a guard does not hold."""
    state = app.state(call.part("store"))
    writes = [_operation(item, call.metadata) for item in read_body(call, _Transaction).operations]
    if writes:
        await state.transact(writes)
    return NO_CONTENT


def _operation(item: _Operation, metadata: Mapping[str, str]) -> Write:
    if item.operation not in ("upsert", "delete"):
        what = f"operation type {item.operation} not supported"
        raise DaprError(400, "ERR_NOT_SUPPORTED_STATE_OPERATION", what)
    if item.request is None:
        raise malformed("failed deserializing HTTP body: request is missing")
    write = _write(item.request, metadata)
    return write if item.operation == "upsert" else Write(write.key, None, write.etag)


def _write(item: _Upsert, metadata: Mapping[str, str]) -> Write:
    concurrency = item.options.concurrency if item.options is not None else None
    return Write(
        item.key,
        bytes(item.value),
        # Redis, the store of a deployment, does not look at the ETag of an explicit last-write.
        etag=None if concurrency == "last-write" else item.etag or None,
        first_write=concurrency == "first-write",
        ttl_s=ttl_s({**(item.metadata or {}), **metadata}.get("ttlInSeconds")),
    )


def _bulk_item(key: str, entry: StateEntry | None) -> dict[str, Any]:
    if entry is None:
        return {"key": key}
    try:  # what was saved over gRPC may be any bytes; Dapr answers with nothing at all for such a value
        return {"key": key, "data": decode(entry.value, Raw), "etag": entry.etag}
    except JsonError:
        return {"key": key, "error": "the value is no JSON"}
