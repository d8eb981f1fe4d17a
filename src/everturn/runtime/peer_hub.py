"""The task hub of an app among several runtimes: calls for another app, and for an instance that another one keeps.

A child of another app is kept by the runtime of its parent; its own app's clients find it all the same.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote

import grpc

from everturn.errors import TransientError
from everturn.runtime import rpc_fault, sdk
from everturn.runtime.host import Host
from everturn.runtime.rpc_fault import RpcFault
from everturn.runtime.task_hub import TaskHub
from everturn.sidecar.wire import Request, Response, Transport

T = TypeVar("T")

HUB = "/task-hub/"
_FAULT = 409
# What a hub of another runtime is asked: its method, and the messages.
_MESSAGES: Mapping[str, tuple[Any, Any]] = {
    "start_instance": (sdk.CreateInstanceRequest, sdk.CreateInstanceResponse),
    "get_instance": (sdk.GetInstanceRequest, sdk.GetInstanceResponse),
    "wait_for_instance_start": (sdk.GetInstanceRequest, sdk.GetInstanceResponse),
    "wait_for_instance_completion": (sdk.GetInstanceRequest, sdk.GetInstanceResponse),
    "raise_event": (sdk.RaiseEventRequest, sdk.RaiseEventResponse),
    "terminate_instance": (sdk.TerminateRequest, sdk.TerminateResponse),
    "suspend_instance": (sdk.SuspendRequest, sdk.SuspendResponse),
    "resume_instance": (sdk.ResumeRequest, sdk.ResumeResponse),
    "purge_instances": (sdk.PurgeInstancesRequest, sdk.PurgeInstancesResponse),
    "get_instance_history": (sdk.GetInstanceHistoryRequest, sdk.GetInstanceHistoryResponse),
    "rerun_workflow_from_event": (sdk.RerunWorkflowFromEventRequest, sdk.RerunWorkflowFromEventResponse),
}


@dataclass(slots=True)
class OtherHubs:
    """The hubs of the other runtimes, once there are any. `reach` makes the way to an app's runtime.

    `known`: the apps whose runtimes run now. `has_been`: whether a runtime of the app ever was in the data folder.
    """

    reach: Callable[[str], Transport] | None = None
    known: Callable[[], list[str]] = field(default=list)
    has_been: Callable[[str], bool] = field(default=lambda _: False)


class RoutedHub(TaskHub):
    """A task hub that hands on what is not for its own runtime."""

    def __init__(self, app_id: str, host: Host, others: OtherHubs) -> None:
        super().__init__(app_id, host)
        self._others = others

    async def start_instance(self, request: sdk.CreateInstanceRequest) -> sdk.CreateInstanceResponse:
        return await self._route("start_instance", request, super().start_instance)

    async def get_instance(self, request: sdk.GetInstanceRequest) -> sdk.GetInstanceResponse:
        return await self._route("get_instance", request, super().get_instance)

    async def wait_for_instance_start(self, request: sdk.GetInstanceRequest) -> sdk.GetInstanceResponse:
        return await self._route("wait_for_instance_start", request, super().wait_for_instance_start)

    async def wait_for_instance_completion(self, request: sdk.GetInstanceRequest) -> sdk.GetInstanceResponse:
        return await self._route("wait_for_instance_completion", request, super().wait_for_instance_completion)

    async def raise_event(self, request: sdk.RaiseEventRequest) -> sdk.RaiseEventResponse:
        return await self._route("raise_event", request, super().raise_event)

    async def terminate_instance(self, request: sdk.TerminateRequest) -> sdk.TerminateResponse:
        return await self._route("terminate_instance", request, super().terminate_instance)

    async def suspend_instance(self, request: sdk.SuspendRequest) -> sdk.SuspendResponse:
        return await self._route("suspend_instance", request, super().suspend_instance)

    async def resume_instance(self, request: sdk.ResumeRequest) -> sdk.ResumeResponse:
        return await self._route("resume_instance", request, super().resume_instance)

    async def purge_instances(self, request: sdk.PurgeInstancesRequest) -> sdk.PurgeInstancesResponse:
        return await self._route("purge_instances", request, super().purge_instances)

    async def get_instance_history(self, request: sdk.GetInstanceHistoryRequest) -> sdk.GetInstanceHistoryResponse:
        return await self._route("get_instance_history", request, super().get_instance_history)

    async def rerun_workflow_from_event(
        self, request: sdk.RerunWorkflowFromEventRequest
    ) -> sdk.RerunWorkflowFromEventResponse:
        return await self._route("rerun_workflow_from_event", request, super().rerun_workflow_from_event)

    async def _route(self, method: str, request: Any, here: Callable[[Any], Awaitable[T]]) -> T:
        if self._others.reach is None:
            return await here(request)
        router = getattr(request, "router", None)
        app_id = self._app_id if router is None else self._app_of(router)
        if app_id != self._app_id:
            if not self._others.has_been(app_id):
                how = f"start one: everturn runtime --app-id {app_id}"
                raise rpc_fault.unavailable(f"no runtime of app {app_id!r} shares the data folder; {how}")
            return cast(T, await self._ask(app_id, app_id, method, request))
        keeper = await self._keeper(getattr(request, "instanceId", ""))
        if keeper is None:
            return await here(request)
        return cast(T, await self._ask(keeper, self._app_id, method, request))

    async def _keeper(self, instance_id: str) -> str | None:
        """The app whose runtime keeps an instance of this app; None where it is here, or nowhere."""
        if not instance_id or self._find(self._app_id, instance_id) is not None:
            return None
        asked = sdk.GetInstanceRequest(instanceId=instance_id)
        app_ids = self._others.known()
        calls = [self._ask(app_id, self._app_id, "get_instance", asked) for app_id in app_ids]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for app_id, answer in zip(app_ids, answers, strict=True):
            if isinstance(answer, sdk.GetInstanceResponse) and answer.exists:
                return app_id
        return None

    async def _ask(self, runtime: str, app_id: str, method: str, request: Any) -> Any:
        """What the runtime of the app `runtime` answers as a hub of `app_id`."""
        assert self._others.reach is not None
        transport = self._others.reach(runtime)
        target = f"{HUB}{quote(app_id, safe='')}/{method}"
        try:
            response = await transport.send(Request("POST", target, {}, request.SerializeToString()))
        except TransientError as error:
            raise rpc_fault.unavailable(f"the runtime of app {runtime!r}: {error.message}") from error
        if response.status == _FAULT:
            fault = json.loads(response.body)
            raise RpcFault(grpc.StatusCode[fault["code"]], fault["details"])
        if response.status != 200:
            raise rpc_fault.unavailable(f"the runtime of app {runtime!r} did not answer: {response.status}")
        return _MESSAGES[method][1].FromString(response.body)


async def answer_for(hub_of: Callable[[str], TaskHub], request: Request) -> Response:
    """What this runtime's own hub of the app in the path answers; 404 for no call of a hub."""
    app_id, _, method = request.target.removeprefix(HUB).partition("/")
    messages = _MESSAGES.get(method)
    if messages is None:
        return Response(404)
    try:
        answer = await getattr(hub_of(unquote(app_id)), method)(_without_router(messages[0].FromString(request.body)))
    except RpcFault as fault:
        return Response(_FAULT, {}, json.dumps({"code": fault.code.name, "details": fault.details}).encode())
    return Response(200, {}, answer.SerializeToString())


def _without_router(request: Any) -> Any:
    """It has arrived: the path says of which app it is."""
    if "router" in request.DESCRIPTOR.fields_by_name:
        request.ClearField("router")
    return request
