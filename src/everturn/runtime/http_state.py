"""Dapr's HTTP API for state: bodies and headers to and from `state`."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from everturn.runtime.dapr_errors import DaprError, malformed, not_saved
from everturn.runtime.http_call import JSON, NO_CONTENT, AppView, Call
from everturn.runtime.raw_json import JsonError, JsonReader
from everturn.runtime.state import Write
from everturn.runtime.state_cache import Found
from everturn.sidecar.wire import Response

T = TypeVar("T")


async def get_state(app: AppView, call: Call) -> Response:
    """200 with the value and its `etag` (without quotes, as Dapr sends it), or 204."""
    found = app.state_store(call.part("store")).get(call.part("key"))
    if found is None:
        return NO_CONTENT
    headers = {**JSON, "etag": found.etag}
    if found.expires_at is not None:
        headers["metadata.ttlexpiretime"] = _rfc3339(found.expires_at)
    return Response(200, headers, found.value)


async def get_bulk_state(app: AppView, call: Call) -> Response:
    """An element for each key, in order; `data` is left out where there is none, or it is no JSON."""
    store = app.state_store(call.part("store"))
    keys = _parse(call.request.body, _read_keys)
    return Response(200, JSON, b"[" + b",".join(_bulk_item(key, store.get(key)) for key in keys) + b"]")


async def save_state(app: AppView, call: Call) -> Response:
    """204 once every item is on disk; an item whose guard does not hold is left out, and makes it 409."""
    store = app.state_store(call.part("store"))
    writes = _parse(call.request.body, lambda reader: _read_items(reader, call.metadata))
    if writes:
        await store.save(writes)
    return NO_CONTENT


async def delete_state(app: AppView, call: Call) -> Response:
    """204, also where there was no such key; 409 where `if-match` does not hold."""
    store = app.state_store(call.part("store"))
    await store.delete(call.part("key"), call.request.headers.get("if-match") or None)
    return NO_CONTENT


async def transact_state(app: AppView, call: Call) -> Response:
    """204 once all operations are on disk; 500 and none of them where a guard does not hold."""
    store = app.state_store(call.part("store"))
    writes = _parse(call.request.body, lambda reader: _read_operations(reader, call.metadata))
    if writes:
        await store.transact(writes)
    return NO_CONTENT


def _parse(body: bytes, read: Callable[[JsonReader], T]) -> T:
    try:
        reader = JsonReader(body)
        parsed = read(reader)
        reader.finish()
    except JsonError as error:
        raise malformed(f"failed deserializing HTTP body: {error}") from error
    return parsed


def _read_keys(reader: JsonReader) -> list[str]:
    keys: Any = []
    for name in reader.fields():
        value = reader.decoded()
        if name == "keys":
            keys = value
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise JsonError("keys must be a list of strings")
    return keys


def _read_items(reader: JsonReader, metadata: Mapping[str, str]) -> list[Write]:
    return [_read_upsert(reader, metadata) for _ in reader.elements()]


def _read_operations(reader: JsonReader, metadata: Mapping[str, str]) -> list[Write]:
    writes: list[Write] = []
    for name in reader.fields():
        if name == "operations":
            writes = [_read_operation(reader, metadata) for _ in reader.elements()]
        else:
            reader.raw()
    return writes


def _read_operation(reader: JsonReader, metadata: Mapping[str, str]) -> Write:
    operation: Any = None
    write: Write | None = None
    for name in reader.fields():
        if name == "operation":
            operation = reader.decoded()
        elif name == "request":
            write = _read_upsert(reader, metadata)
        else:
            reader.raw()
    if operation not in ("upsert", "delete"):
        raise DaprError(400, "ERR_NOT_SUPPORTED_STATE_OPERATION", f"operation type {operation} not supported")
    if write is None:
        raise JsonError("request is missing")
    return write if operation == "upsert" else Write(write.key, None, write.etag)


def _read_upsert(reader: JsonReader, metadata: Mapping[str, str]) -> Write:
    value = "null"
    envelope: dict[str, Any] = {}
    for name in reader.fields():
        if name == "value":
            value = reader.raw()
        else:
            envelope[name] = reader.decoded()
    key, etag = envelope.get("key"), envelope.get("etag")
    if not isinstance(key, str) or not (etag is None or isinstance(etag, str)):
        raise JsonError("key and etag must be strings")
    concurrency = _mapping(envelope, "options").get("concurrency")
    return Write(
        key,
        value.encode(),
        # Redis, the store of a deployment, does not look at the ETag of an explicit last-write.
        etag=None if concurrency == "last-write" else etag or None,
        first_write=concurrency == "first-write",
        ttl_s=_ttl_s({**_mapping(envelope, "metadata"), **metadata}),
    )


def _mapping(envelope: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = envelope.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise JsonError(f"{name} must be an object")
    return value


def _ttl_s(metadata: Mapping[str, Any]) -> int | None:
    """`ttlInSeconds`; -1 and 0 stand for none."""
    given = metadata.get("ttlInSeconds")
    if given is None:
        return None
    try:
        seconds = int(given)
    except (TypeError, ValueError) as error:
        raise not_saved("ttlInSeconds must be a whole number") from error
    if seconds < -1:
        raise not_saved("ttlInSeconds must not be negative")
    return seconds if seconds > 0 else None


def _bulk_item(key: str, found: Found | None) -> bytes:
    name = json.dumps(key).encode()
    if found is None:
        return b'{"key":' + name + b"}"
    if not _is_json(found.value):
        return b'{"key":' + name + b',"error":"the value is no JSON"}'
    return b'{"key":' + name + b',"data":' + found.value + b',"etag":"' + found.etag.encode() + b'"}'


def _is_json(value: bytes) -> bool:
    """What was saved over gRPC may be any bytes; Dapr answers with nothing at all where such a value is asked for."""
    try:
        reader = JsonReader(value)
        reader.raw()
        reader.finish()
    except JsonError:
        return False
    return True


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
