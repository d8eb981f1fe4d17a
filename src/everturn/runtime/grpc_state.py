"""State over gRPC: messages to and from `state`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dapr.proto.common.v1.common_pb2 import StateItem, StateOptions
from dapr.proto.runtime.v1 import state_pb2 as pb
from google.protobuf.empty_pb2 import Empty

from everturn.runtime.dapr_errors import DaprError, not_saved
from everturn.runtime.http_call import AppView
from everturn.runtime.state import Write

_FIRST_WRITE, _LAST_WRITE = (
    StateOptions.StateConcurrency.CONCURRENCY_FIRST_WRITE,
    StateOptions.StateConcurrency.CONCURRENCY_LAST_WRITE,
)


class StateCalls:
    """The state calls of one app. A value is bytes, as they were given. Faults are DaprError."""

    def __init__(self, app: AppView) -> None:
        self._app = app

    async def get(self, request: pb.GetStateRequest) -> pb.GetStateResponse:
        """Empty where there is no such key."""
        found = self._app.state_store(request.store_name).get(request.key)
        if found is None:
            return pb.GetStateResponse()
        metadata = {}
        if found.expires_at is not None:
            metadata["ttlExpireTime"] = datetime.fromtimestamp(found.expires_at, UTC).isoformat(timespec="seconds")
        return pb.GetStateResponse(data=found.value, etag=found.etag, metadata=metadata)

    async def get_bulk(self, request: pb.GetBulkStateRequest) -> pb.GetBulkStateResponse:
        """An item for each key, in order; without data where there is none."""
        store = self._app.state_store(request.store_name)
        items = []
        for key in request.keys:
            found = store.get(key)
            items.append(
                pb.BulkStateItem(key=key)
                if found is None
                else pb.BulkStateItem(key=key, data=found.value, etag=found.etag)
            )
        return pb.GetBulkStateResponse(items=items)

    async def save(self, request: pb.SaveStateRequest) -> Empty:
        store = self._app.state_store(request.store_name)
        writes = [_upsert(item, {}) for item in request.states]
        if writes:
            await store.save(writes)
        return Empty()

    async def delete(self, request: pb.DeleteStateRequest) -> Empty:
        """Done also where there was no such key."""
        await self._app.state_store(request.store_name).delete(request.key, _etag(request))
        return Empty()

    async def delete_bulk(self, request: pb.DeleteBulkStateRequest) -> Empty:
        store = self._app.state_store(request.store_name)
        for item in request.states:
            await store.delete(item.key, _etag(item))
        return Empty()

    async def transact(self, request: pb.ExecuteStateTransactionRequest) -> Empty:
        """All operations in order, or none."""
        store = self._app.state_store(request.storeName)
        writes = [_operation(operation, request.metadata) for operation in request.operations]
        if writes:
            await store.transact(writes)
        return Empty()


def _operation(operation: pb.TransactionalStateOperation, metadata: Mapping[str, str]) -> Write:
    match operation.operationType:
        case "upsert":
            return _upsert(operation.request, metadata)
        case "delete":
            return Write(operation.request.key, None, _etag(operation.request))
        case other:
            raise DaprError(400, "ERR_NOT_SUPPORTED_STATE_OPERATION", f"operation type {other} not supported")


def _upsert(item: StateItem, metadata: Mapping[str, str]) -> Write:
    concurrency = item.options.concurrency
    return Write(
        item.key,
        item.value,
        # As over HTTP: an explicit last-write does not look at the ETag.
        etag=None if concurrency == _LAST_WRITE else _etag(item),
        first_write=concurrency == _FIRST_WRITE,
        ttl_s=_ttl_s({**item.metadata, **metadata}),
    )


def _etag(message: Any) -> str | None:
    return message.etag.value or None if message.HasField("etag") else None


def _ttl_s(metadata: Mapping[str, str]) -> int | None:
    """`ttlInSeconds`; -1 and 0 stand for none."""
    given = metadata.get("ttlInSeconds")
    if given is None:
        return None
    try:
        seconds = int(given)
    except ValueError as error:
        raise not_saved("ttlInSeconds must be a whole number") from error
    if seconds < -1:
        raise not_saved("ttlInSeconds must not be negative")
    return seconds if seconds > 0 else None
