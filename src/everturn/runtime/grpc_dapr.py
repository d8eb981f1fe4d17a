"""`dapr.proto.runtime.v1.Dapr` over gRPC, as the SDK's `DaprClient` uses it: the table of its calls.

https://docs.dapr.io/reference/api/ says what each means; what is not in the table is UNIMPLEMENTED.
"""

from collections.abc import Mapping
from typing import Any

import grpc
from dapr.proto.runtime.v1 import metadata_pb2, pubsub_pb2, secret_pb2, state_pb2, workflow_pb2
from dapr.proto.runtime.v1.invoke_pb2 import InvokeServiceRequest
from google.protobuf.empty_pb2 import Empty

from everturn.runtime.cloudevents import Publication
from everturn.runtime.dapr_errors import DaprError
from everturn.runtime.grpc_call import streaming_both, unary, unary_with_metadata
from everturn.runtime.grpc_invoke import InvokeCalls
from everturn.runtime.grpc_state import StateCalls
from everturn.runtime.http_call import AppView
from everturn.runtime.http_handlers import DAPR_VERSION, find_secret, find_secrets
from everturn.runtime.topic_streams import TopicStreams
from everturn.runtime.workflow_api import WorkflowApi

_SERVICE = "dapr.proto.runtime.v1.Dapr"


def dapr_handlers(app: AppView) -> "grpc.GenericRpcHandler[Any, Any]":
    """The calls of `app` to its sidecar."""
    state, calls = StateCalls(app), _Calls(app)
    handlers = {
        "GetState": unary(state.get, state_pb2.GetStateRequest),
        "GetBulkState": unary(state.get_bulk, state_pb2.GetBulkStateRequest),
        "SaveState": unary(state.save, state_pb2.SaveStateRequest),
        "DeleteState": unary(state.delete, state_pb2.DeleteStateRequest),
        "DeleteBulkState": unary(state.delete_bulk, state_pb2.DeleteBulkStateRequest),
        "ExecuteStateTransaction": unary(state.transact, state_pb2.ExecuteStateTransactionRequest),
        "PublishEvent": unary_with_metadata(calls.publish, pubsub_pb2.PublishEventRequest),
        "BulkPublishEvent": unary_with_metadata(calls.publish_bulk, pubsub_pb2.BulkPublishRequest),
        "BulkPublishEventAlpha1": unary_with_metadata(calls.publish_bulk, pubsub_pb2.BulkPublishRequest),
        "SubscribeTopicEventsAlpha1": streaming_both(
            TopicStreams(app).subscribe, pubsub_pb2.SubscribeTopicEventsRequestAlpha1
        ),
        "InvokeService": unary_with_metadata(InvokeCalls(app).invoke, InvokeServiceRequest),
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
        "StartWorkflow": unary(api.start, pb.StartWorkflowRequest, whole=True),
        "GetWorkflow": unary(api.get, pb.GetWorkflowRequest),
        "RaiseEventWorkflow": unary(api.raise_event, pb.RaiseEventWorkflowRequest),
        "PauseWorkflow": unary(api.pause, pb.PauseWorkflowRequest),
        "ResumeWorkflow": unary(api.resume, pb.ResumeWorkflowRequest),
        "TerminateWorkflow": unary(api.terminate, pb.TerminateWorkflowRequest),
        "PurgeWorkflow": unary(api.purge, pb.PurgeWorkflowRequest, whole=True),
    }
    return {f"{name}{version}": call for name, call in calls.items() for version in ("Alpha1", "Beta1")}


class _Calls:
    """Publish, secrets, metadata."""

    def __init__(self, app: AppView) -> None:
        self._app = app

    async def publish(self, request: pubsub_pb2.PublishEventRequest, metadata: Mapping[str, str]) -> Empty:
        """Done once the message is on disk."""
        headers = {**metadata, "content-type": request.data_content_type}
        publication = Publication(
            self._app.app_id, request.pubsub_name, request.topic, request.data, headers, dict(request.metadata)
        )
        await self._app.blocks.broker.publish(publication)
        return Empty()

    async def publish_bulk(
        self, request: pubsub_pb2.BulkPublishRequest, metadata: Mapping[str, str]
    ) -> pubsub_pb2.BulkPublishResponse:
        """Each entry stands for itself; those that were not kept are in the answer."""
        failed = []
        for entry in request.entries:
            headers = {**metadata, "content-type": entry.content_type}
            of_entry = {**request.metadata, **entry.metadata}
            publication = Publication(
                self._app.app_id, request.pubsub_name, request.topic, entry.event, headers, of_entry
            )
            try:
                await self._app.blocks.broker.publish(publication)
            except DaprError as error:
                if error.code == "ERR_PUBSUB_NOT_FOUND":
                    raise
                failed.append(pubsub_pb2.BulkPublishResponseFailedEntry(entry_id=entry.entry_id, error=error.message))
        return pubsub_pb2.BulkPublishResponse(failedEntries=failed)

    async def get_secret(self, request: secret_pb2.GetSecretRequest) -> secret_pb2.GetSecretResponse:
        return secret_pb2.GetSecretResponse(data=find_secret(self._app, request.store_name, request.key))

    async def get_bulk_secret(self, request: secret_pb2.GetBulkSecretRequest) -> secret_pb2.GetBulkSecretResponse:
        secrets = find_secrets(self._app, request.store_name)
        data = {name: secret_pb2.SecretResponse(secrets=values) for name, values in secrets.items()}
        return secret_pb2.GetBulkSecretResponse(data=data)

    async def get_metadata(self, _request: metadata_pb2.GetMetadataRequest) -> metadata_pb2.GetMetadataResponse:
        blocks, app_id = self._app.blocks, self._app.app_id
        workers = self._app.own.connected_workers
        return metadata_pb2.GetMetadataResponse(
            id=app_id,
            runtime_version=DAPR_VERSION,
            registered_components=[
                metadata_pb2.RegisteredComponents(name=item.name, type=item.type, version=item.version)
                for item in blocks.components.components.values()
                if item.is_for(app_id)
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
            extended_metadata={**self._app.own.extended, "daprRuntimeVersion": DAPR_VERSION},
            workflows=metadata_pb2.MetadataWorkflows(connected_workers=workers() if workers is not None else 0),
        )

    async def set_metadata(self, request: metadata_pb2.SetMetadataRequest) -> Empty:
        if request.key:
            self._app.own.extended[request.key] = request.value
        return Empty()
