"""Dapr's HTTP API for workflows. The component in the path may be any, as on Dapr, which has one."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from dapr.proto.runtime.v1 import workflow_pb2 as pb
from google.protobuf.json_format import MessageToJson, Parse, ParseError

from everturn.dapr.wire import Response
from everturn.runtime.building_blocks import AppView
from everturn.runtime.errors import malformed
from everturn.runtime.http.handlers import JSON, Call
from everturn.runtime.workflow.management_api import WorkflowApi, not_found


async def start_workflow(app: AppView, call: Call) -> Response:
    """202 with the instance's id: that of the query, or a new one. The body is the input, whatever it is."""
    _, _, query = call.request.target.partition("?")
    instance_id = dict(reversed(parse_qsl(query, keep_blank_values=True))).get("instanceID", "")
    name = call.part("workflow")
    request = pb.StartWorkflowRequest(instance_id=instance_id, workflow_name=name, input=call.request.body)
    return _accepted(await app.workflow_api().start(request))


async def get_workflow(app: AppView, call: Call) -> Response:
    """200 with its state, 404 if there is none."""
    found = await app.workflow_api().get(_read(pb.GetWorkflowRequest, call))
    if not found.runtime_status:
        raise not_found(found.instance_id)
    return Response(200, JSON, _written(found))


async def raise_event(app: AppView, call: Call) -> Response:
    """202 once the event is the instance's. The body is the event's data, whatever it is."""
    request = pb.RaiseEventWorkflowRequest(
        instance_id=call.part("instance"), event_name=call.part("event"), event_data=call.request.body
    )
    return _accepted(await app.workflow_api().raise_event(request))


def _on_instance(
    request_type: Any, method: Callable[[WorkflowApi, Any], Awaitable[Any]]
) -> Callable[[AppView, Call], Awaitable[Response]]:
    async def handler(app: AppView, call: Call) -> Response:
        return _accepted(await method(app.workflow_api(), _read(request_type, call)))

    return handler


pause_workflow = _on_instance(pb.PauseWorkflowRequest, WorkflowApi.pause)
resume_workflow = _on_instance(pb.ResumeWorkflowRequest, WorkflowApi.resume)
terminate_workflow = _on_instance(pb.TerminateWorkflowRequest, WorkflowApi.terminate)
purge_workflow = _on_instance(pb.PurgeWorkflowRequest, WorkflowApi.purge)


def _read(request_type: Any, call: Call) -> Any:
    """The request in the body, if there is one; the path names the instance."""
    request = request_type()
    if call.request.body:
        try:
            Parse(call.request.body, request, ignore_unknown_fields=True)
        except (ParseError, UnicodeDecodeError) as error:
            raise malformed("failed deserializing HTTP body: no such request in JSON") from error
    request.instance_id = call.part("instance")
    return request


def _accepted(answer: Any) -> Response:
    return Response(202, JSON, _written(answer))


def _written(answer: Any) -> bytes:
    return str(MessageToJson(answer, indent=None, ensure_ascii=False)).encode()
