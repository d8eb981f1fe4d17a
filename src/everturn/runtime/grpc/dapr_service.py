"""`dapr.proto.runtime.v1.Dapr` over gRPC, as the SDK's `DaprClient` uses it.

https://docs.dapr.io/reference/api/ says what each call means; what is not in the table is UNIMPLEMENTED.
"""

from collections.abc import Mapping
from typing import Any

import grpc
from dapr.proto.common.v1.common_pb2 import HTTPExtension, InvokeRequest, InvokeResponse, StateItem, StateOptions
from dapr.proto.runtime.v1 import metadata_pb2, pubsub_pb2, secret_pb2, state_pb2, workflow_pb2
from dapr.proto.runtime.v1.invoke_pb2 import InvokeServiceRequest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from everturn.dapr.wire import Request
from everturn.runtime.building_blocks import DAPR_VERSION, AppView
from everturn.runtime.clock import rfc3339
from everturn.runtime.errors import DaprError
from everturn.runtime.grpc.server import streaming, unary, unary_with_metadata
from everturn.runtime.grpc.topics import TopicStreams
from everturn.runtime.pubsub.broker import Publication
from everturn.runtime.state.store import Write, ttl_s
from everturn.runtime.workflow.management_api import WorkflowApi
from everturn.runtime.workflow.rpc import RpcFault

_SERVICE = "dapr.proto.runtime.v1.Dapr"
# github.com/dapr/dapr pkg/messaging/v1/util.go, CodeFromHTTPStatus; what is not here is UNKNOWN.
CODE_OF_STATUS = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.CANCELLED,
    409: grpc.StatusCode.ALREADY_EXISTS,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_FIRST_WRITE, _LAST_WRITE = (
    StateOptions.StateConcurrency.CONCURRENCY_FIRST_WRITE,
    StateOptions.StateConcurrency.CONCURRENCY_LAST_WRITE,
)


def dapr_handlers(app: AppView) -> "grpc.GenericRpcHandler[Any, Any]":
    """The calls of `app` to its sidecar."""
    calls = _Calls(app)
    handlers = {
        "GetState": unary(calls.get_state, state_pb2.GetStateRequest),
        "GetBulkState": unary(calls.get_bulk_state, state_pb2.GetBulkStateRequest),
        "SaveState": unary(calls.save_state, state_pb2.SaveStateRequest),
        "DeleteState": unary(calls.delete_state, state_pb2.DeleteStateRequest),
        "DeleteBulkState": unary(calls.delete_bulk_state, state_pb2.DeleteBulkStateRequest),
        "ExecuteStateTransaction": unary(calls.transact, state_pb2.ExecuteStateTransactionRequest),
        "PublishEvent": unary_with_metadata(calls.publish, pubsub_pb2.PublishEventRequest),
        "BulkPublishEvent": unary_with_metadata(calls.publish_bulk, pubsub_pb2.BulkPublishRequest),
        "BulkPublishEventAlpha1": unary_with_metadata(calls.publish_bulk, pubsub_pb2.BulkPublishRequest),
        "SubscribeTopicEventsAlpha1": streaming(
            TopicStreams(app).subscribe, pubsub_pb2.SubscribeTopicEventsRequestAlpha1, both=True
        ),
        "InvokeService": unary_with_metadata(calls.invoke, InvokeServiceRequest),
        "GetSecret": unary(calls.get_secret, secret_pb2.GetSecretRequest),
        "GetBulkSecret": unary(calls.get_bulk_secret, secret_pb2.GetBulkSecretRequest),
        "GetMetadata": unary(calls.get_metadata, metadata_pb2.GetMetadataRequest),
        "SetMetadata": unary(calls.set_metadata, metadata_pb2.SetMetadataRequest),
    }
    if app.task_hub is not None:
        handlers |= _workflow_handlers(app.workflow_api())
    return grpc.method_handlers_generic_handler(_SERVICE, handlers)


def _workflow_handlers(api: WorkflowApi) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    pb = workflow_pb2
    calls = {
        "StartWorkflow": unary(api.start, pb.StartWorkflowRequest, shielded=True),
        "GetWorkflow": unary(api.get, pb.GetWorkflowRequest),
        "RaiseEventWorkflow": unary(api.raise_event, pb.RaiseEventWorkflowRequest),
        "PauseWorkflow": unary(api.pause, pb.PauseWorkflowRequest),
        "ResumeWorkflow": unary(api.resume, pb.ResumeWorkflowRequest),
        "TerminateWorkflow": unary(api.terminate, pb.TerminateWorkflowRequest),
        "PurgeWorkflow": unary(api.purge, pb.PurgeWorkflowRequest, shielded=True),
    }
    return {f"{name}{version}": call for name, call in calls.items() for version in ("Alpha1", "Beta1")}


class _Calls:
    """The calls of one app. A value of the state is bytes, as they were given. Faults are DaprError."""

    def __init__(self, app: AppView) -> None:
        self._app = app

    async def get_state(self, request: state_pb2.GetStateRequest) -> state_pb2.GetStateResponse:
        """Empty if there is no such key."""
        entry = await self._app.state(request.store_name).get(request.key)
        if entry is None:
            return state_pb2.GetStateResponse()
        metadata = {} if entry.expires_at is None else {"ttlExpireTime": rfc3339(entry.expires_at)}
        return state_pb2.GetStateResponse(data=entry.value, etag=entry.etag, metadata=metadata)

    async def get_bulk_state(self, request: state_pb2.GetBulkStateRequest) -> state_pb2.GetBulkStateResponse:
        """An item for each key, in order; without data if there is none."""
        entries = await self._app.state(request.store_name).get_bulk(request.keys)
        items = [
            state_pb2.BulkStateItem(key=key)
            if entry is None
            else state_pb2.BulkStateItem(key=key, data=entry.value, etag=entry.etag)
            for key, entry in zip(request.keys, entries, strict=True)
        ]
        return state_pb2.GetBulkStateResponse(items=items)

    async def save_state(self, request: state_pb2.SaveStateRequest) -> Empty:
        store = self._app.state(request.store_name)
        writes = [_upsert(item, {}) for item in request.states]
        if writes:
            await store.save(writes)
        return Empty()

    async def delete_state(self, request: state_pb2.DeleteStateRequest) -> Empty:
        """Done also if there was no such key."""
        await self._app.state(request.store_name).delete(request.key, _etag(request))
        return Empty()

    async def delete_bulk_state(self, request: state_pb2.DeleteBulkStateRequest) -> Empty:
        store = self._app.state(request.store_name)
        for item in request.states:
            await store.delete(item.key, _etag(item))
        return Empty()

    async def transact(self, request: state_pb2.ExecuteStateTransactionRequest) -> Empty:
        """All operations in order, or none."""
        store = self._app.state(request.storeName)
        writes = [_operation(operation, request.metadata) for operation in request.operations]
        if writes:
            await store.transact(writes)
        return Empty()

    async def publish(self, request: pubsub_pb2.PublishEventRequest, metadata: Mapping[str, str]) -> Empty:
        """Done once the message is on disk."""
        headers = {**metadata, "content-type": request.data_content_type}
        await self._publish(request, request.data, headers, request.metadata)
        return Empty()

    async def _publish(self, to: Any, body: bytes, headers: Mapping[str, str], metadata: Mapping[str, str]) -> None:
        publication = Publication(self._app.app_id, to.pubsub_name, to.topic, body, headers, metadata)
        await self._app.blocks.broker.publish(publication)

    async def publish_bulk(
        self, request: pubsub_pb2.BulkPublishRequest, metadata: Mapping[str, str]
    ) -> pubsub_pb2.BulkPublishResponse:
        """Each entry is a message of its own; those that were not kept are in the answer."""
        failed = []
        for entry in request.entries:
            headers = {**metadata, "content-type": entry.content_type}
            try:
                await self._publish(request, entry.event, headers, {**request.metadata, **entry.metadata})
            except DaprError as error:
                if error.code == "ERR_PUBSUB_NOT_FOUND":
                    raise
                failed.append(pubsub_pb2.BulkPublishResponseFailedEntry(entry_id=entry.entry_id, error=error.message))
        return pubsub_pb2.BulkPublishResponse(failedEntries=failed)

    async def get_secret(self, request: secret_pb2.GetSecretRequest) -> secret_pb2.GetSecretResponse:
        return secret_pb2.GetSecretResponse(data=self._app.secrets.get(request.store_name, request.key))

    async def get_bulk_secret(self, request: secret_pb2.GetBulkSecretRequest) -> secret_pb2.GetBulkSecretResponse:
        secrets = self._app.secrets.get_all(request.store_name)
        data = {name: secret_pb2.SecretResponse(secrets=values) for name, values in secrets.items()}
        return secret_pb2.GetBulkSecretResponse(data=data)

    async def get_metadata(self, _request: metadata_pb2.GetMetadataRequest) -> metadata_pb2.GetMetadataResponse:
        blocks, app_id = self._app.blocks, self._app.app_id
        workers = self._app.connected_workers
        return metadata_pb2.GetMetadataResponse(
            id=app_id,
            runtime_version=DAPR_VERSION,
            registered_components=[
                metadata_pb2.RegisteredComponents(name=item.name, type=item.type, version=item.version)
                for item in blocks.components.of_app(app_id)
            ],
            subscriptions=[
                metadata_pb2.PubsubSubscription(
                    pubsub_name=item.pubsub,
                    topic=item.topic,
                    dead_letter_topic=item.dead_letter_topic or "",
                    type=metadata_pb2.DECLARATIVE if item.is_declared else metadata_pb2.PROGRAMMATIC,
                    rules=metadata_pb2.PubsubSubscriptionRules(
                        rules=[metadata_pb2.PubsubSubscriptionRule(path=item.route)]
                    ),
                )
                for item in blocks.broker.subscriptions_of(app_id)
            ],
            extended_metadata={**self._app.extended, "daprRuntimeVersion": DAPR_VERSION},
            workflows=metadata_pb2.MetadataWorkflows(connected_workers=workers() if workers is not None else 0),
        )

    async def set_metadata(self, request: metadata_pb2.SetMetadataRequest) -> Empty:
        if request.key:
            self._app.extended[request.key] = request.value
        return Empty()

    async def invoke(self, request: InvokeServiceRequest, metadata: Mapping[str, str]) -> InvokeResponse:
        """Raises DaprError if the app gave no answer, RpcFault if its answer was no success."""
        onward = _http_request(request.message, metadata)
        response = await self._app.blocks.invoker.invoke(self._app.app_id, request.id, onward)
        if not 200 <= response.status < 300:
            code = CODE_OF_STATUS.get(response.status, grpc.StatusCode.UNKNOWN)
            raise RpcFault(code, f"app {request.id!r} answered {response.status}")
        content_type = response.headers.get("content-type", "")
        return InvokeResponse(data=AnyMessage(value=response.body), content_type=content_type)


def _operation(operation: state_pb2.TransactionalStateOperation, metadata: Mapping[str, str]) -> Write:
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
        ttl_s=ttl_s({**item.metadata, **metadata}.get("ttlInSeconds")),
    )


def _etag(message: Any) -> str | None:
    return message.etag.value or None if message.HasField("etag") else None


def _http_request(message: InvokeRequest, metadata: Mapping[str, str]) -> Request:
    """The HTTP request that `message` describes; without a verb it is a POST."""
    verb = HTTPExtension.Verb.Name(message.http_extension.verb)
    query = message.http_extension.querystring
    headers = {name: value for name, value in metadata.items() if not name.startswith((":", "grpc-"))}
    headers.pop("user-agent", None)
    if message.content_type:
        headers["content-type"] = message.content_type
    target = "/" + message.method.lstrip("/") + (f"?{query}" if query else "")
    return Request("POST" if verb == "NONE" else verb, target, headers, message.data.value)
